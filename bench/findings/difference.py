"""The difference of two rows on one metric, before and after its verdict, and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.findings import contrasts
from bench.findings.statistics import more_seeds, more_seeds_text
from bench.findings.words import number
from bench.store.metrics import Measurement

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Difference:
    """Variant `a` against `b` on one metric.

    Attributes:
        seeds: that both finished; where they are not paired, that either did. mean_a, mean_b: over these seeds, of a
            metric compared on its logarithm geometric means.
        gap: mean of a - b; of a metric compared on its logarithm the factor a / b. low, high: its 95 % interval, not
            corrected; None where there is none.
        p: of the test; corrected: after Holm. effect: gap over the standard deviation of the differences, or of a row.
        verdict: of `a`. why: the reason, where it is undecided. level: that its p did not reach, after what Holm's
            correction left for it; None where it is decided, or something else leaves it open.
        gaps: where they are paired, one a seed. least: their standard deviation is at least this.
        method: how they are compared, in words. contrast: the estimate, where they are not paired. exact: whether by an
            exact test. counts: seeds of each.
        ahead: of ranks, the share of pairs in which a's value is the smaller, ties as half.
        unlike: whether they are no values of one quantity, or not measured alike: `why` says how; no gap is shown.
    """

    metric: str
    a: str
    b: str
    seeds: tuple[int, ...]
    mean_a: float
    mean_b: float
    gap: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    effect: float | None = None
    verdict: Outcome = "undecided"
    why: str = ""
    level: float | None = None
    gaps: tuple[float, ...] = ()
    least: float = 0.0
    method: str = "paired by seed"
    contrast: contrasts.Contrast | None = None
    exact: bool = False
    counts: tuple[int, int] = (0, 0)
    ahead: float | None = None
    unlike: bool = False

    @property
    def factor(self) -> bool:
        """Whether the gap is a factor."""
        return Measurement.parse(self.metric).metric.log

    @property
    def more(self) -> int | None:
        """Further seeds that give 80 % power if mean and spread stay; None if none would, or p is not what lacks.

        Of pairs at 5 %, not corrected for anything else.
        """
        if self.level is None:
            return None
        if self.contrast is None:
            return more_seeds(self.gaps, self.least)
        return contrasts.more_seeds(self.contrast, min(self.counts), level=self.level)

    @property
    def relative(self) -> float:
        """The gap as a share of b's mean."""
        if self.factor:
            return self.gap - 1
        if not self.gap:
            return 0.0
        return self.gap / abs(self.mean_b) if self.mean_b else math.copysign(math.inf, self.gap)

    @property
    def higher(self) -> bool | None:
        """Whether a has the higher values, by their ranks where these are compared, else by the gap; None if alike."""
        side = 0.5 - self.ahead if self.ahead is not None else self.relative
        return side > 0 if side else None


HEADINGS = ("metric", "{a}", "{b}", "gap (95 %)", "of {b}", "effect", "seeds", "verdict on {a}")
MARKS = {"better": "▲", "worse": "▼", "undecided": "·"}
UNLIKE = "n/a"


def lines(differences: Sequence[Difference]) -> list[list[str]]:
    """A row of text each: metric, a, b, gap with its interval, share, effect, seeds, verdict."""
    return [_line(one) for one in differences]


def _line(one: Difference) -> list[str]:
    metric = Measurement.parse(one.metric)
    return [
        metric.heading,
        _number(metric, one.mean_a),
        _number(metric, one.mean_b),
        *([""] * 3 if one.unlike else _gap(one, metric)),
        str(len(one.seeds)) if one.counts[0] == one.counts[1] else f"{one.counts[0]} and {one.counts[1]}",
        verdict(one),
    ]


def _gap(one: Difference, metric: Measurement) -> list[str]:
    return [
        gap_text(one),
        f"{one.relative:+.1%}" if one.seeds and metric.metric.relative and not one.factor else "",
        f"{one.effect:+.1f}" if one.effect is not None else "",
    ]


def gap_text(one: Difference) -> str:
    """The gap with its interval: `-0.12 [-0.2, -0.04]`, or the factor `x 1.74 [1.5, 2.0]`."""
    if one.factor:
        return factor_text(one.gap, one.low, one.high) if one.seeds else ""
    metric = Measurement.parse(one.metric)
    ends = f" [{_number(metric, one.low)}, {_number(metric, one.high)}]" if one.low is not None else ""
    return _number(metric, one.gap) + ends


def factor_text(gap: float, low: float | None, high: float | None) -> str:
    """`x 1.74 [1.5, 2.0]`."""
    ends = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    return f"x {number(gap)}{ends}"


def verdict(one: Difference) -> str:
    """The verdict with the reason where there is none, and how many more seeds give power."""
    if one.verdict != "undecided":
        tied = one.ahead is not None and one.gap == 1  # most are tied at the budget, and the factor says nothing
        return f"{one.verdict}: the smaller in {one.ahead:.0%} of pairs" if tied else one.verdict
    more = f"; {more_seeds_text(one.more)}" if one.more else ""
    return f"undecided: {one.why}{more}"


def mark(one: Difference) -> str:
    """The verdict as a sign with the gap: `▲ -3.1%`, `▼ x 1.74`; two that are no values of one quantity have none."""
    if not one.seeds:
        return ""
    if one.unlike:
        return UNLIKE
    if one.factor:
        return f"{MARKS[one.verdict]} x {number(one.gap)}"
    if not Measurement.parse(one.metric).metric.relative:
        return f"{MARKS[one.verdict]} {one.gap:+.3f}"
    return MARKS[one.verdict] + (f" {one.relative:+.1%}" if math.isfinite(one.relative) else "")


def _number(metric: Measurement, value: float | None) -> str:
    """A value as the table of means writes it where it has a unit, else to four digits."""
    if value is None or math.isnan(value):
        return ""
    return metric.write(value) if metric.metric.unit or metric.metric.timed else number(value, 4)
