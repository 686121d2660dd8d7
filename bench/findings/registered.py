"""Tests of a claim that says how rows are compared, or that is about tasks: pooled, Welch's or paired, and exact tests.

    variant: A, beats: B              A is better than B (`by: 1.3`: by more than that; `within: 0.05`: or *equivalent*)
    variant: A, no_worse_than: B      it is not worse by the margin `within`
    variant: A, equivalent_to: B      it differs by less than the margin `within`: two one-sided tests
    all_equivalent: [A, B, C]         every two of them do
    variant: A, above: X / below: X   A's mean lies there

A margin of a metric compared on its logarithm is a factor (`within: 0.05` is x 1.05 either way); of one whose zero is
chance, as a score or control, it is a difference; of any other a share of B's mean. `mastered` is decided by Fisher's
exact test, `images_to_90` by ranks, censored at the budget, and `highest_lr` by ranks where the lowest rate loses a
seed, which then is below all others, or no rate does, which then is above. p values are corrected by Holm over the
tests of a claim.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from bench.config.claim import ClaimSpec, ClaimTest
from bench.findings import jumps
from bench.findings.contrasts import Rule
from bench.findings.difference import factor_text
from bench.findings.means import by_means
from bench.findings.statistics import LEVEL, holm, levels
from bench.findings.trial import Rows, Trial, off_the_ladder
from bench.findings.verdicts import TestResult
from bench.findings.words import number, p_value
from bench.store.metrics import MASTERED, UNTIL


def decide(claim: ClaimSpec, data: Sequence[Rows], texts: Sequence[str], rule: Rule) -> list[TestResult]:
    """The result of each test.

    Args:
        claim: the claim.
        data: what each test is about.
        texts: each as a sentence.
        rule: how rows are compared.
    """
    trials = [_tried(test, one, rule) for test, one in zip(claim.tests, data, strict=True)]
    ps = [one.p for one in trials]
    return [_result(*one, len(trials)) for one in zip(texts, trials, holm(ps), levels(ps), strict=True)]


def _result(text: str, one: Trial, corrected: float | None, level: float | None, tests: int) -> TestResult:
    if corrected is None or level is None:
        return TestResult(text, "undecided", f"{one.evidence}; {one.why}" if one.evidence else one.why, one.gap)
    evidence = f"{one.evidence}, p {p_value(corrected)} after Holm"
    if corrected <= LEVEL:
        return TestResult(text, "supported" if one.holds else "contradicted", evidence, one.gap, corrected)
    if one.same is not None and one.same * tests <= LEVEL:
        same = f"{evidence}; within the margin, p {p_value(min(1.0, one.same * tests))} after Bonferroni"
        return TestResult(text, "equivalent", same, one.gap, corrected)
    more = one.more(level)
    return TestResult(text, "undecided", evidence + (f"; {more}" if more else ""), one.gap, corrected)


def _tried(test: ClaimTest, data: Rows, rule: Rule) -> Trial:
    if off := off_the_ladder(data.below, data.beyond):
        return _off_the_ladder(test, data, off)
    missing = [name for name, values in data.named.items() if not values]
    if missing:
        return Trial(f"{' and '.join(missing)} has no finished seed with it")
    if data.apart:
        return Trial(data.apart)
    if rule == "paired" and len(data.named) > 1:
        common = set.intersection(*(set(values) for values in data.named.values()))
        named = {name: {seed: values[seed] for seed in sorted(common)} for name, values in data.named.items()}
        if len(common) < 2:
            return Trial("one seed shows no spread" if common else "no seed is finished in all of them")
        data = replace(data, named=named)
    if data.metric.metric.kind == MASTERED or (data.metric.metric.kind == UNTIL and _exact(test)):
        return _jump(test, data)
    if data.metric.metric.kind == UNTIL and (lost := sum((data.lost or {}).get(name, 0) for name in data.named)):
        return Trial(f"{lost} of the seeds never reach 90 %, so that their time is unknown: compare by `beats`")
    try:
        return by_means(test, data, rule)
    except ValueError as error:
        return Trial(str(error))


def _off_the_ladder(test: ClaimTest, data: Rows, off: str) -> Trial:
    """Rows of a ladder with seeds that are lost at its lowest rate or at none: by ranks, these below and above all."""
    if not _exact(test):
        return Trial(f"{off}, so that there is no mean: compare by `beats`")
    ours, theirs = ([*values.values()] + [-math.inf] * data.below.get(name, 0) for name, values in data.named.items())
    if not ours or not theirs:
        return Trial(f"{' and '.join(name for name in data.named)} have no common ladder")
    higher, counts = jumps.ahead(theirs, ours), (len(ours), len(theirs))
    gap = f"higher in {higher:.0%} of pairs"
    evidence = f"{gap}, {off}, {counts[0]} and {counts[1]} seeds, ranks"
    return Trial(
        "", jumps.rank_p(ours, theirs), higher > 0.5, gap, evidence, more=lambda level: jumps.too_few(*counts, level)
    )


def _exact(test: ClaimTest) -> bool:
    return test.beats is not None and test.by is None


# --- what is learned at once ------------------------------------------------------------------------------------------


def _jump(test: ClaimTest, data: Rows) -> Trial:
    """Fisher's or the rank test, of `beats` alone."""
    if not _exact(test):
        return Trial(f"{data.metric.heading} is decided by `beats` alone, without `by`")
    ours, theirs = ([*values.values()] for values in data.named.values())
    counts = len(ours), len(theirs)
    if data.metric.metric.kind == MASTERED:
        won = [sum(value > 0.5 for value in values) for values in (ours, theirs)]
        gap = f"{won[0]} of {counts[0]} against {won[1]} of {counts[1]}"
        p, holds, evidence = jumps.fisher_p(ours, theirs), won[0] / counts[0] > won[1] / counts[1], f"{gap}, Fisher"
        kind = jumps.FISHER
    else:
        factor = jumps.ratio(ours, theirs, LEVEL)
        gap = factor_text(*factor)
        lost = [(data.lost or {}).get(name, 0) for name in data.named]
        never = f", never in {lost[0]} and {lost[1]} seeds" if any(lost) else ""
        means = " against ".join(number(statistics.geometric_mean(values), 4) for values in (ours, theirs))
        earlier, kind = jumps.ahead(ours, theirs), jumps.RANKS
        p, holds = jumps.rank_p(ours, theirs), earlier > 0.5
        pairs = f", earlier in {earlier:.0%} of pairs" if factor[0] == 1 else ""
        evidence = f"{means}, {gap}{never}, {counts[0]} and {counts[1]} seeds, ranks{pairs}"
    return Trial("", p, holds, gap, evidence, more=lambda level: jumps.too_few(*counts, level, kind))
