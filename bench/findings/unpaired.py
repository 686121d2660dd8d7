"""The difference of two rows whose seeds are no pairs; of factors also where they are; of what is learned at once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from bench.findings import jumps
from bench.findings.contrasts import Contrast, Rule, contrast
from bench.findings.difference import Difference
from bench.findings.peers import sample, samples
from bench.findings.statistics import LEVEL
from bench.findings.summary import VariantSummary
from bench.store.metrics import MASTERED, UNTIL, Measurement


def unpaired(
    one: Difference, a: VariantSummary, b: VariantSummary, peers: Sequence[VariantSummary], rule: Rule
) -> Difference:
    """The difference of two rows that both have the metric, before any verdict.

    Args:
        one: names and seeds, and why it cannot be decided, if so.
        a: a row.
        b: the row it is compared with.
        peers: all rows of the comparison.
        rule: how they are compared; paired takes the seeds of `one`, which both have.
    """
    ours, theirs = a.values[one.metric], b.values[one.metric]
    if rule == "paired":
        ours, theirs = ([row.by_seed[one.metric][seed] for seed in one.seeds] for row in (a, b))
    one = replace(one, counts=(len(ours), len(theirs)))
    metric = Measurement.parse(one.metric)
    if metric.metric.kind == MASTERED:
        return _mastered(one, ours, theirs)
    try:
        every = samples(metric, peers) | {a.name: sample(metric, ours), b.name: sample(metric, theirs)}
    except ValueError as error:
        return replace(one, why=str(error))
    if metric.metric.kind == UNTIL:
        return _until(one, ours, theirs)
    found = contrast(every[a.name], every[b.name], list(every.values()), rule)
    return _of(one, found, every[a.name].mean, every[b.name].mean, rule)


def _of(one: Difference, found: Contrast | None, ours: float, theirs: float, rule: Rule) -> Difference:
    """The numbers of an estimate, of a metric compared on its logarithm as factors.

    The effect is the gap over the standard deviation of the differences where they are paired, else of a row, whose
    variance is half of the estimate's.
    """
    back = math.exp if one.factor else float
    one = replace(one, mean_a=back(ours), mean_b=back(theirs), gap=back(ours - theirs))
    if found is None:
        return replace(one, why=one.why or "one seed shows no spread")
    low, high = found.interval()
    spread = math.sqrt(found.spread if rule == "paired" else found.spread / 2)
    return replace(
        one,
        low=back(low),
        high=back(high),
        p=None if one.why else found.p(),
        effect=found.gap / spread if spread else None,
        method=found.method,
        contrast=found,
    )


def _mastered(one: Difference, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    shares = statistics.fmean(ours), statistics.fmean(theirs)
    return replace(
        one, mean_a=shares[0], mean_b=shares[1], gap=shares[0] - shares[1],
        p=None if one.why else jumps.fisher_p(ours, theirs),
        method="Fisher's exact test", exact=True,
    )  # fmt: skip


def _until(one: Difference, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    gap, low, high = jumps.ratio(ours, theirs, LEVEL)
    means = statistics.geometric_mean(ours), statistics.geometric_mean(theirs)
    return replace(
        one, mean_a=means[0], mean_b=means[1], gap=gap, low=low, high=high,
        p=None if one.why else jumps.rank_p(ours, theirs),
        method="ranks, censored at the budget", exact=True, ahead=jumps.ahead(ours, theirs),
    )  # fmt: skip


def undecided(one: Difference, level: float) -> Difference:
    """The same with the reason why it is undecided, and the level that Holm's correction left for it."""
    why = f"p {one.corrected:.2g} after Holm"
    if one.exact:
        test = jumps.RANKS if one.ahead is not None else jumps.FISHER
        return replace(one, why=jumps.too_few(*one.counts, level, test) or why)
    return replace(one, why=why, level=level)
