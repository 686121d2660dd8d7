"""Tests of means of rows, on the scale compared: better, no worse, equivalent, above or below a value."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.config.claim import ClaimTest
from bench.findings.contrasts import Contrast, Rule, Sample, contrast, equivalence_power, fewest, more_seeds
from bench.findings.difference import factor_text
from bench.findings.peers import sample
from bench.findings.statistics import more_seeds_text
from bench.findings.trial import Rows, Trial
from bench.findings.words import number
from bench.store.metrics import Measurement


@dataclass(frozen=True)
class _Means:
    """Rows on the scale compared."""

    metric: Measurement
    named: Mapping[str, Sample]
    peers: Sequence[Sample]
    rule: Rule
    seeds: int

    def text(self, value: float, digits: int = 3) -> str:
        """A value of the metric, in its unit."""
        return number(value / self.metric.metric.scale, digits)

    def contrast(self, a: str, b: str | None = None, share: float = 1.0) -> Contrast:
        """Of the named rows.

        Raises:
            ValueError: if no variance is known.
        """
        found = contrast(self.named[a], self.named[b] if b else None, self.peers, self.rule, share)
        if found is None:
            raise ValueError("one seed shows no spread")
        return found

    def margin(self, size: float, base: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lower and upper edge of a margin, each as the share of b and what a - share * b is compared with."""
        if self.metric.metric.log:
            return (1.0, -math.log1p(size)), (1.0, math.log1p(size))
        if not self.metric.metric.relative:
            return (1.0, -size), (1.0, size)
        size = math.copysign(size, base)
        return (1 - size, 0.0), (1 + size, 0.0)


def by_means(test: ClaimTest, data: Rows, rule: Rule) -> Trial:
    """A test of means.

    Raises:
        ValueError: where no variance is known, or a value has no logarithm.
    """
    metric = data.metric
    named = {name: _sample(metric, [*values.values()], data.least) for name, values in data.named.items()}
    others = {
        name: _sample(metric, [*values.values()], data.least)
        for name, values in data.peers.items()
        if name not in named and values and (not metric.metric.log or min(values.values()) > 0)
    }
    means = _Means(metric, named, [*named.values(), *others.values()], rule, min(map(len, data.named.values())))
    if test.all_equivalent is not None:
        return _all_alike(test, means)
    a, b = test.variant, test.rival
    if b is None:
        return _beyond(test, means)
    evidence = _evidence(test, means, data)
    if test.equivalent_to is not None:
        return replace(_alike(means, a, b, test.within or 0.0), gap=evidence[0], evidence=evidence[1])
    return replace(_better(test, means, a, b), gap=evidence[0], evidence=evidence[1])


def _sample(metric: Measurement, values: Sequence[float], least: float) -> Sample:
    one = sample(metric, values)
    return replace(one, least=max(one.least, least))


def _better(test: ClaimTest, means: _Means, a: str, b: str) -> Trial:
    """`beats` and `no_worse_than`."""
    metric, base = means.metric, means.named[b].mean
    higher = metric.better != "lower"
    share, null = 1.0, 0.0
    if test.no_worse_than is not None:
        share, null = means.margin(test.within or 0.0, base)[0 if higher else 1]
    elif test.by is not None and metric.metric.log:
        null = math.log(test.by) if higher else -math.log(test.by)
    elif test.by is not None and metric.metric.relative:
        share = test.by if higher == (base > 0) else 1 / test.by
    elif test.by is not None:
        null = test.by if higher else -test.by
    found = means.contrast(a, b, share)
    noise = metric.metric.margin
    if noise and test.beats is not None and test.by is None and base and abs(means.contrast(a, b).gap / base) <= noise:
        return Trial(f"under the {noise:.1%} of seed noise")
    same = _alike(means, a, b, test.within).same if test.beats is not None and test.within else None
    holds = (found.gap > null) == higher

    def more(level: float) -> str:
        count = more_seeds(found, means.seeds, null, level)
        return more_seeds_text(count) if count else ""

    return Trial("", found.p(null), holds and found.gap != null, same=same, more=more)


def _alike(means: _Means, a: str, b: str, within: float) -> Trial:
    """Two one-sided tests; where the gap lies beyond the margin, the p of its being there."""
    ends = means.margin(within, means.named[b].mean)
    low, high = (means.contrast(a, b, share) for share, _ in ends)
    nulls = ends[0][1], ends[1][1]
    inside = max(low.above(nulls[0]), high.below(nulls[1]))
    beyond = min(1.0, 2 * min(low.below(nulls[0]), high.above(nulls[1])))
    holds = low.gap > nulls[0] and high.gap < nulls[1]

    def more(level: float) -> str:
        if not holds or not low.error or not high.error or means.seeds < 2:
            return ""
        power = functools.partial(equivalence_power, low, high, nulls, level=level)
        count = fewest(power, means.seeds)
        return more_seeds_text(count) if count else ""

    return Trial("", inside if holds else beyond, holds, same=inside, more=more)


def _all_alike(test: ClaimTest, means: _Means) -> Trial:
    """Every two rows. All must be alike, so the largest p counts; one pair beyond is enough: the least, times pairs."""
    pairs = list(itertools.combinations(test.rows, 2))
    trials = [_alike(means, a, b, test.within or 0.0) for a, b in pairs]
    spread = max(means.named.values(), key=lambda one: one.mean), min(means.named.values(), key=lambda one: one.mean)
    names = [next(name for name, one in means.named.items() if one is end) for end in spread]
    gap = _gap(means, names[0], names[1])
    evidence = (
        f"{len(test.rows)} rows, from {names[1]} to {names[0]} {gap}, {means.contrast(names[0], names[1]).method}"
    )
    holds = all(one.holds for one in trials)
    if holds:
        worst = max(trials, key=lambda one: one.p or 0.0)
        return replace(worst, gap=gap, evidence=evidence)
    beyond = [one.p for one in trials if not one.holds and one.p is not None]
    return Trial("", min(1.0, len(pairs) * min(beyond)), False, gap, evidence)


def _beyond(test: ClaimTest, means: _Means) -> Trial:
    """`above` and `below`."""
    found, log = means.contrast(test.variant), means.metric.metric.log
    if log and test.bound <= 0:
        raise ValueError(f"{means.metric.heading} is above zero always")
    null = math.log(test.bound) if log else test.bound
    back = math.exp if log else float
    low, high = (back(end) for end in found.interval())
    gap = f"{means.text(back(found.gap))} [{means.text(low)}, {means.text(high)}]"

    def more(level: float) -> str:
        count = more_seeds(found, means.seeds, null, level)
        return more_seeds_text(count) if count else ""

    holds = found.gap > null if test.above is not None else found.gap < null
    return Trial("", found.p(null), holds, gap, f"{gap}, {means.seeds} seeds, {found.method}", more=more)


# --- as text ----------------------------------------------------------------------------------------------------------


def _gap(means: _Means, a: str, b: str) -> str:
    """The difference of two rows with its interval, or the factor."""
    found = means.contrast(a, b)
    low, high = found.interval()
    if means.metric.metric.log:
        return factor_text(math.exp(found.gap), math.exp(low), math.exp(high))
    base = means.named[b].mean
    share = f" ({found.gap / abs(base):+.1%})" if base and means.metric.metric.relative else ""
    return f"{means.text(found.gap)} [{means.text(low)}, {means.text(high)}]{share}"


def _evidence(test: ClaimTest, means: _Means, data: Rows) -> tuple[str, str]:
    a, b = test.variant, test.rival or ""
    gap, back = _gap(means, a, b), math.exp if means.metric.metric.log else float
    values = " against ".join(means.text(back(means.named[name].mean), 4) for name in (a, b))
    counts = [len(data.named[name]) for name in (a, b)]
    seeds = f"{counts[0]} seeds" if counts[0] == counts[1] else f"{counts[0]} and {counts[1]} seeds"
    method = means.contrast(a, b).method
    if means.rule == "paired" and counts[0] > 2 and all(len(set(one.values)) > 1 for one in means.named.values()):
        r = statistics.correlation(*(one.values for one in means.named.values()))
        method += f", whose values correlate at r = {r:.2f}"
    return gap, f"{values}, {'' if means.metric.metric.log else 'gap '}{gap}, {seeds}, {method}"
