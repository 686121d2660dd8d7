"""The forest plot: every paired difference of one metric over many records, with its interval. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.findings.compare import Difference
from bench.views.figures.style import COLOURS, canvas, render

COLOUR, MARGIN = COLOURS[0], "#999999"


@dataclass(frozen=True)
class Line:
    """One line of the plot: a difference and, where its claim allows one, the largest gap that is no worse.

    Attributes:
        margin: a share of the rival's mean, or None.
    """

    difference: Difference
    margin: float | None = None

    @property
    def label(self) -> str:
        """`scale-only against adaln-zero (6 seeds)`."""
        one = self.difference
        return f"{one.a} against {one.b} ({len(one.seeds)} seeds)"


def forest(lines: Sequence[Line], what: str) -> bytes:
    """A PNG: gaps as shares of the rival's mean with their 95 % t-intervals, the smallest on top.

    Args:
        lines: at least one, each with an interval.
        what: the metric, for the axis.
    """
    shown = sorted(lines, key=lambda line: -line.difference.relative)
    figure, axis = canvas(8.2, 0.36 * len(shown) + 1.2)
    for y, line in enumerate(shown):
        one = line.difference
        assert one.low is not None and one.high is not None
        low, high, gap = (100 * value / abs(one.mean_b) for value in (one.low, one.high, one.gap))
        decided = low > 0 or high < 0
        axis.plot([low, high], [y, y], color=COLOUR, linewidth=2, solid_capstyle="butt")
        axis.plot(gap, y, "o", color=COLOUR, markersize=7, markerfacecolor=COLOUR if decided else "white")
        if line.margin is not None:
            axis.plot([100 * line.margin] * 2, [y - 0.35, y + 0.35], color=MARGIN, linewidth=2)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(shown)), [line.label for line in shown])
    axis.set_xlabel(f"difference of the {what}, % of the other's mean (left is better)")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return render(figure)
