"""What all figures share: colours, markers, canvases, legends, labels beside points.

Readable in black and white and by the colour-blind: every line has its own dash and marker, every axis its unit.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.findings.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's colours, distinct to every eye; with dashes, markers and hatches also without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKERS = "osD^vP*X"
FILLS = (*COLOURS[:-1], "#BBBBBB")  # of bars: a hatch does not show on black
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
DPI = 120
IN_LEGEND = 10  # lines at most; more are listed beside the axis

Plot = tuple[bytes, list[dict[str, Any]]]  # a PNG, and the numbers it shows, a row a point; empty for images


@dataclass(frozen=True)
class FigureSpec:
    """A figure that a report can hold.

    Attributes:
        file: name of its PNG.
        plot: makes it; None where the results hold nothing for it.
        whole: whether it is made of all rows, however many.
    """

    file: str
    title: str
    caption: str
    plot: Callable[[Analysis], Plot | None]
    whole: bool = False


def style(index: int) -> dict[str, Any]:
    """Colour, dash and marker of line `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


def point_style(index: int, *, hollow: bool = False) -> dict[str, Any]:
    """Colour and marker of point `index`; a hollow one is not to be compared with the filled."""
    return style(index) | {"linestyle": "none", "markersize": 8} | ({"markerfacecolor": "white"} if hollow else {})


def canvas(width: float, height: float, *, layout: str | None = "constrained", **grid: Any) -> tuple[Canvas, Any]:
    """A figure of `width` x `height` inches and its axis, or array of axes.

    With `layout` None the caller places the axes, which takes matplotlib longer than all else where they are forty.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), dpi=DPI, layout=layout, **grid)


def render(figure: Canvas) -> bytes:
    """The figure as PNG; it is closed."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _without_mathematics(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks shows as boxes
        warnings.filterwarnings("ignore", "(constrained|tight).?layout not applied")  # names longer than the figure
        # `Figure.savefig` renders everything twice, for the same bytes.
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "ditbench"})  # type: ignore[no-untyped-call]
    plt.close(figure)
    return buffer.getvalue()


def _without_mathematics(figure: Canvas) -> None:
    """Has a `$` of a name or a prompt shown as it is: matplotlib would read a formula, and fail on a wrong one.

    Ticks of numbers keep theirs: those of a log axis are formulas of matplotlib's own.
    """
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), FixedFormatter | StrCategoryFormatter):
                for label in axis.get_ticklabels():
                    label.set_parse_math(False)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and "mathdefault" not in text.get_text():
            text.set_parse_math(False)
            text.set_text("\n".join(_short(line) for line in text.get_text().split("\n")))


def _short(line: str, most: int = 120) -> str:
    """A line that fits a figure: a very long name keeps its two ends."""
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def legend(figure: Canvas, axis: Axes) -> None:
    """Inside the axis while the lines are few; else beside it, on a figure as large as it needs."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) <= IN_LEGEND:
        axis.legend(fontsize=8)
        return
    columns = -(-len(labels) // 24)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 2.0 * columns, max(height, 4.5))
    figure.legend(handles, labels, loc="outside right upper", ncols=columns, fontsize=6)


def legend_below(figure: Canvas, axis: Axes) -> None:
    """One legend of all axes, below them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=7)


@dataclass(frozen=True)
class Label:
    """A name of the point (x, y), in the axis's units."""

    text: str
    x: float
    y: float
    colour: str


def label_points(axis: Axes, labels: list[Label], *, size: float = 7) -> None:
    """Names in a column right of the axis, in the order of y and never over each other, each with a line to its point.

    Call it when the axis has its limits and the figure its size.
    """
    if not labels:
        return
    low, high = axis.get_ylim()
    figure = axis.get_figure(root=True)
    assert figure is not None
    line = 1.3 * size / 72 / (figure.get_size_inches()[1] * 0.8)  # height of a name, a share of the axis
    ordered = sorted(labels, key=lambda label: label.y)
    heights = _spread([(label.y - low) / (high - low) for label in ordered], line)
    for label, height in zip(ordered, heights, strict=True):
        axis.annotate(
            label.text, (label.x, label.y), xytext=(1.04, height), textcoords="axes fraction", fontsize=size,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.7, "linestyle": ":", "shrinkB": 5,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def _spread(places: list[float], least: float) -> list[float]:
    """Ascending places moved apart to `least`, as little as a single pass finds, around their common centre."""
    groups: list[tuple[float, int]] = []  # centre and count of runs of names that touch
    for place in places:
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < least * (groups[-1][1] + groups[-2][1]) / 2:
            (b, m), (a, n) = groups.pop(), groups.pop()
            groups.append(((a * n + b * m) / (n + m), n + m))
    return [centre + least * (k - (count - 1) / 2) for centre, count in groups for k in range(count)]


def limits(values: list[float]) -> tuple[float, float]:
    """Limits of an axis that a first steep fall does not squeeze the rest for."""
    finite = np.array([value for value in values if np.isfinite(value)])
    return float(finite.min() * 0.95), float(np.quantile(finite, 0.9) * 1.1)
