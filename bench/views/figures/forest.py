"""The forest plot: differences of rows over many records, each with its interval. Needs no torch.

A panel a scale: factors of what is compared on its logarithm, differences of scores and control, shares of all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.findings.difference import Difference
from bench.store.metrics import ARROWS, Measurement
from bench.views.figures.style import COLOURS, canvas, render
from bench.views.short import short_name

COLOUR, MARGIN = COLOURS[0], "#999999"
Scale = Literal["factor", "difference", "share"]
NEUTRAL = {"factor": 1.0, "difference": 0.0, "share": 0.0}
AXES = {
    "factor": "factor of the {what}: the first row over the other, logarithmic (1: no difference)",
    "difference": "difference of the {what}, the first row less the other (0: none)",
    "share": "difference of the {what}, % of the other's mean",
}


@dataclass(frozen=True)
class Line:
    """One line of the plot: a difference with an interval and, where its claim has one, the margin.

    Attributes:
        margin: on the scale of a claim's `within`: of factors, differences or shares of the rival's mean.
        both: whether the margin is one on either side, as of equivalence, or that of the worse side.
        task: where the matrix has one, which its rows do not name.
    """

    difference: Difference
    margin: float | None = None
    both: bool = False
    task: str = ""

    @property
    def metric(self) -> Measurement:
        """What differs."""
        return Measurement.parse(self.difference.metric)

    @property
    def scale(self) -> Scale:
        """How the difference is shown."""
        if self.difference.factor:
            return "factor"
        return "share" if self.metric.metric.relative else "difference"

    @property
    def ends(self) -> tuple[float, float, float]:
        """Gap and both ends of its interval, on the scale."""
        one = self.difference
        assert one.low is not None and one.high is not None
        unit = 100 / abs(one.mean_b) if self.scale == "share" else 1.0
        return one.gap * unit, one.low * unit, one.high * unit

    @property
    def marks(self) -> list[float]:
        """Where the margin lies."""
        if self.margin is None:
            return []
        factor, higher = self.scale == "factor", self.metric.better == "higher"
        size = self.margin * (100 if self.scale == "share" else 1)
        above, below = (1 + size, 1 / (1 + size)) if factor else (size, -size)
        return [above, below] if self.both else [below if higher else above]

    @property
    def apart(self) -> bool:
        """Whether its interval excludes no difference."""
        _, low, high = self.ends
        return low > NEUTRAL[self.scale] or high < NEUTRAL[self.scale]

    def label(self, named: bool) -> str:
        """`scene, local ↑: cross-attention against adaln-zero (3 seeds)`; the metric only where `named`."""
        return f"{self.compared(named)} ({len(self.difference.seeds)} seeds)"

    def compared(self, named: bool) -> str:
        """What the label says but for the number of seeds."""
        one = self.difference
        (a, *point), (b, *other) = one.a.split(" "), one.b.split(" ")
        if point != other:
            a, b, point = one.a, one.b, []
        where = " ".join(part for part in (self.task, *(word.partition("=")[2] for word in point)) if part)
        what = short_name(self.metric) + ARROWS[self.metric.better]
        before = ", ".join(part for part in (where, what if named else "") if part)
        return f"{before + ': ' if before else ''}{a} against {b}"


def forest(lines: Sequence[Line]) -> bytes:
    """A PNG: a panel a scale, in it the best for the first row on top; filled where the interval excludes none.

    Args:
        lines: at least one, each with an interval.
    """
    panels = {scale: [line for line in lines if line.scale == scale] for scale in AXES}
    panels = {scale: own for scale, own in panels.items() if own}
    heights = [len(own) + 1.6 for own in panels.values()]
    figure, axes = canvas(8.6, 0.36 * sum(heights) + 0.6, nrows=len(panels), height_ratios=heights, squeeze=False)
    for axis, (scale, own) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, scale, own)
    return render(figure)


def _panel(axis: Any, scale: str, lines: list[Line]) -> None:
    metrics = list(dict.fromkeys(line.metric for line in lines))
    ways = {metric.better for metric in metrics}
    shown = sorted(lines, key=lambda line: (-1 if line.metric.better == "higher" else 1) * -line.ends[0])
    for y, line in enumerate(shown):
        gap, low, high = line.ends
        axis.plot([low, high], [y, y], color=COLOUR, linewidth=2, solid_capstyle="butt")
        axis.plot(gap, y, "o", color=COLOUR, markersize=7, markerfacecolor=COLOUR if line.apart else "white")
        for mark in line.marks:
            axis.plot([mark] * 2, [y - 0.35, y + 0.35], color=MARGIN, linewidth=2)
    axis.axvline(NEUTRAL[scale], color="black", linewidth=1)
    axis.set_yticks(range(len(shown)), [line.label(len(metrics) > 1) for line in shown], fontsize=8)
    axis.set_ylim(-0.6, len(shown) - 0.4)
    if scale == "factor":
        _logarithmic(axis, [end for line in shown for end in (*line.ends, *line.marks)])
    what = short_name(metrics[0]) if len(metrics) == 1 else "metric that is named"
    way = next(iter(ways)) if len(ways) == 1 else ""
    better = {"lower": "; left is better", "higher": "; right is better", "": ""}[way]
    axis.set_xlabel(AXES[scale].format(what=what) + better, fontsize=8, loc="right")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _logarithmic(axis: Any, values: list[float]) -> None:
    """A logarithmic axis with plain numbers, as few as can be read."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    low, high = min(1.0, *values) / 1.1, max(1.0, *values) * 1.1
    steps = (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    ticks = [step * 10.0**power for power in range(-6, 7) for step in steps]
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
