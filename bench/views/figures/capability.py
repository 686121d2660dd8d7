"""Capability by scheme: a heat map of scores with intervals, cost beside it; and how it comes with training."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from bench.findings.analysis import Analysis
from bench.store.metrics import Measurement
from bench.views.capability import Capability, Task, at_level, capability, shown_level, value_text
from bench.views.figures.style import HATCHES, FigureSpec, Plot, canvas, legend_below, render, style
from bench.views.short import short_heading, short_name

CELL, ROW, THIN, LOW, NAMES, COST = 0.74, 0.36, 0.24, 0.27, 1.75, 0.95  # inches
LARGER = 1.3  # letters of the figure for a phone
TITLES = {
    "score": "score S: 1 is the exact denoiser, 0 ignores the prompt, below is worse",
    "right": "control: 0 is a guess, 1 every attribute as the prompt says",
}


def capability_figure(analysis: Analysis, kind: str = "score", *, narrow: bool = False) -> Plot | None:
    """Schemes down, tasks across: capacity with its interval in each cell, and what a scheme costs.

    Of more columns than can be read, the middle level alone.

    Args:
        analysis: of a matrix over tasks.
        kind: `score` or `right`.
        narrow: costs below the map and not beside it, for a phone.
    """
    table = capability(analysis, kind)
    if table is None or not table.tasks:
        return None
    level = shown_level(table)
    table = at_level(table, level)
    return (_narrow if narrow else _wide)(table, [level])


def every_level(analysis: Analysis, kind: str = "score") -> Plot | None:
    """All levels, one below the other, where `capability_figure` shows one of them; else nothing."""
    table = capability(analysis, kind)
    if table is None or not shown_level(table):
        return None
    return _wide(table, list(dict.fromkeys(task.level for task in table.tasks)))


def _wide(table: Capability, levels: list[str]) -> Plot:
    """A map a level, with the costs beside."""
    names, heights = _rows(table)
    parts = [at_level(table, level) for level in levels]
    costs, height, most = table.costs, sum(heights), max(len(part.tasks) for part in parts)
    figure, axes = canvas(
        NAMES + CELL * most + COST * len(costs), (height + 1.15) * len(parts), nrows=len(parts), ncols=1 + len(costs),
        width_ratios=[CELL * most, *[COST] * len(costs)], squeeze=False,
    )  # fmt: skip
    for row, part, level in zip(axes, parts, levels, strict=True):
        _heat(row[0], part, part.tasks, names, heights)
        row[0].set_xlim(0, most)
        row[0].set_xlabel(_unit(table, level), fontsize=7)
        for k, (axis, cost) in enumerate(zip(row[1:], costs, strict=True)):
            _bars(axis, part, cost, k, height, ROW)
    return render(figure), _numbers(table)


def _rows(table: Capability) -> tuple[list[str], list[float]]:
    """Names and heights, in inches, of the rows of a map."""
    names = [*table.schemes, *table.arms]
    return names, [ROW if name not in table.arms else THIN for name in names]


def _unit(table: Capability, level: str) -> str:
    return TITLES.get(table.kind, table.kind) + (f"; level {level}" if level else "")


def _narrow(table: Capability, levels: list[str]) -> Plot:
    """For a phone: a few tasks at a time, one map below the other, costs below, in larger letters."""
    names, heights = _rows(table)
    most = 3 if any(task.level for task in table.tasks) else 4
    parts = [table.tasks[k : k + most] for k in range(0, len(table.tasks), most)]
    costs, height = table.costs, sum(heights)
    figure, axes = canvas(
        4.7, len(parts) * (height + 0.55) + _of_schemes(table) + 0.9, nrows=len(parts) + 1,
        height_ratios=[*[height] * len(parts), _of_schemes(table)],
    )  # fmt: skip
    for axis, tasks in zip(axes, parts, strict=False):
        _heat(axis, table, tasks, names, heights, LARGER)
        axis.set_xlim(0, min(most, len(table.tasks)))
    unit = _unit(table, levels[0]).replace(", below", ",\nbelow")
    axes[len(parts) - 1].set_xlabel(unit, fontsize=8.5, loc="right")
    _name_only(axes[-1], table)
    for k, cost in enumerate(costs):
        axis = axes[-1].inset_axes((k / len(costs), 0, 0.86 / len(costs), 1))
        _bars(axis, table, cost, k, _of_schemes(table), LOW, 1.1)
    return render(figure), _numbers(table)


def _tops(heights: list[float]) -> list[float]:
    return [sum(heights[:k]) for k in range(len(heights))]


def _heat(
    axis: Any, table: Capability, tasks: list[Task], names: list[str], heights: list[float], larger: float = 1.0
) -> None:
    """A map of these tasks; letters `larger` than on a wide page leave mean and interval a line each."""
    import matplotlib
    from matplotlib.patches import Rectangle

    tops, shades = _tops(heights), matplotlib.colormaps["Blues"]
    for name, top, height in zip(names, tops, heights, strict=True):
        for j, task in enumerate(tasks):
            value, void = table.value(name, task), task in table.void
            level = min(1.0, max(0.0, value[0])) if value else 0.0
            fill = "white" if void or value is None or name in table.arms else shades(0.05 + 0.9 * level)
            box = Rectangle((j, top), 1, height, facecolor=fill, edgecolor="#888888", linewidth=0.6, clip_on=False)
            box.set_hatch("////" if void else "")
            axis.add_patch(box)
            ink = "white" if level > 0.6 and fill != "white" else "black"
            size = 8 * larger if name not in table.arms else 6.5
            look = {"ha": "center", "va": "center", "fontsize": size, "color": ink, "linespacing": 0.95}
            words = value_text(value, "\n±" if larger > 1 and name not in table.arms else " ±")
            text = axis.text(j + 0.5, top + height / 2, words, **look)
            if void:
                text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axis.set(xlim=(0, len(tasks)), ylim=(sum(heights), 0))
    labels = [name if name not in table.arms else f"{name} (reference)" for name in names]
    axis.set_yticks([top + h / 2 for top, h in zip(tops, heights, strict=True)], labels)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontsize(6.5 if name in table.arms else 8 * larger)
    titles = [_title(task) + ("\nvoid" if task in table.void else "") for task in tasks]
    axis.set_xticks([j + 0.5 for j in range(len(titles))], titles, fontsize=8 * larger)
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)


def _title(task: Task) -> str:
    return f"{task.name}\n{task.level}" if task.level else task.name


def _of_schemes(table: Capability) -> float:
    return LOW * len(table.schemes)


def _name_only(axis: Any, table: Capability) -> None:
    """An axis that only names the schemes, for bars within it."""
    axis.set(xticks=[], ylim=(_of_schemes(table), 0))
    axis.set_yticks([LOW * (k + 0.5) for k in range(len(table.schemes))], table.schemes, fontsize=8 * LARGER)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _bars(
    axis: Any, table: Capability, cost: Measurement, index: int, height: float, step: float, larger: float = 1.0
) -> None:
    """Bars of one cost, each with its number; `height` is that of the rows beside, `step` that of one."""
    values = [table.cost(name, cost.key) for name in table.schemes]
    largest = max((value for value in values if value), default=1.0)
    for k, value in enumerate(values):
        if value is None:
            continue
        hatch, y = HATCHES[index % len(HATCHES)], step * (k + 0.5)
        axis.barh(
            y,
            value / largest,
            0.5 * ROW if step == ROW else 0.6 * step,
            color="#DDDDDD",
            edgecolor="#777777",
            linewidth=0.6,
            hatch=hatch,
        )
        axis.text(
            0.03, y, _cost_text(cost, value), va="center", fontsize=7.5 * larger,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )  # fmt: skip
    arrow = {"lower": " ↓", "higher": " ↑"}.get(cost.better, "")
    runs = "" if table.together(cost.key) else "\n(several runs)"
    axis.set_title(short_heading(cost, short_name(cost)).replace(", ", ",\n") + arrow + runs, fontsize=7.5 * larger)
    axis.set(xlim=(0, 1.08), ylim=(height, 0), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _cost_text(cost: Measurement, value: float) -> str:
    return f"{value:.2g}" if cost.metric.kind.endswith("_ms") else cost.write(value)


def _numbers(table: Capability) -> list[dict[str, Any]]:
    """A row a scheme and task."""
    numbers: list[dict[str, Any]] = []
    for name in (*table.schemes, *table.arms):
        for task in table.tasks:
            value = table.value(name, task)
            if value is not None:
                costs = {cost.key: table.cost(name, cost.key) for cost in table.costs}
                row = {"scheme": name, "task": task.name, "level": task.level, table.kind: value[0]}
                numbers.append(row | {"ci95": value[1], "void": table.void.get(task, "")} | costs)
    return numbers


CAPTION = (
    "Mean over seeds ± half its 95 % interval; darker is more. Hatched: void, since a reference fails its rule "
    "(blind below .1, oracle above .9). Costs: means over tasks, the largest memory."
)
CAPABILITY = FigureSpec("capability.png", "Capability by scheme", CAPTION, capability_figure, whole=True)
CAPABILITY_NARROW = FigureSpec(
    "capability-narrow.png", "Capability by scheme, for a narrow page", CAPTION,
    lambda analysis: capability_figure(analysis, narrow=True), whole=True,
)  # fmt: skip
EVERY_LEVEL = FigureSpec("capability-levels.png", "Capability by scheme, every level", CAPTION, every_level, whole=True)
CONTROL = FigureSpec(
    "control.png", "Control by scheme, read off the samples", CAPTION,
    lambda analysis: every_level(analysis, "right") or capability_figure(analysis, "right"), whole=True,
)  # fmt: skip


def learning(analysis: Analysis) -> Plot | None:
    """Control against training images, an axis a task, a line a scheme; 90 % is dashed."""
    table = capability(analysis) or capability(analysis, "right")
    if table is None:
        return None
    names = table.schemes
    lines = {(name, task): _curve(table, name, task, analysis) for name in names for task in table.tasks}
    tasks = [task for task in table.tasks if any(lines[name, task][1] for name in names)]
    if not tasks:
        return None
    columns = len(tasks) if len(tasks) < 4 else 2 if len(tasks) == 4 else 3
    rows = -(-len(tasks) // columns)
    figure, axes = canvas(3.2 * columns, 2.5 * rows + 0.6, nrows=rows, ncols=columns, squeeze=False, sharey=True)
    numbers = []
    for axis, task in zip(axes.flat, tasks, strict=False):
        for k, name in enumerate(names):
            kind, points = lines[name, task]
            axis.plot(list(points), list(points.values()), label=name, **(style(k) | {"markersize": 3}))
            numbers += [{"scheme": name, "task": str(task), "images": x, kind: y} for x, y in points.items()]
        axis.axhline(0.9, color="#444444", linewidth=0.8, linestyle=(0, (4, 3)))
        axis.set(ylim=(-0.08, 1.05), xlabel="training images, thousands")
        axis.xaxis.set_major_formatter(lambda x, place: f"{x / 1000:g}")
        axis.set_title(str(task) + (" (void)" if task in table.void else ""), fontsize=9)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(tasks) :]:
        axis.axis("off")
    axes[0][0].set_ylabel("control (0 a guess)")
    legend_below(figure, axes[0][0])
    return render(figure), numbers


def _curve(table: Capability, name: str, task: Task, analysis: Analysis) -> tuple[str, dict[int, float]]:
    """The kind of a curve, and training images -> its mean over the seeds that have that point."""
    row = table.rows.get((name, task))
    for kind in ("right", "score"):
        points: dict[int, list[float]] = {}
        for cell in row.cells if row else []:
            config = cell.result.config if cell.result else {}
            batch = (config.get("train") or {}).get("batch") or analysis.table.manifest["config"]["train"]["batch"]
            for step, value in cell.curves.get(kind, {}).items():
                points.setdefault(step * batch, []).append(value)
        if points:
            return kind, {images: fmean(values) for images, values in sorted(points.items())}
    return "right", {}


LEARNING = FigureSpec(
    "learning.png",
    "How fast a capability comes",
    "Mean over seeds of control on few samples; the dashed line is 90 %. A jump at other steps in other seeds shows as "
    "a slope: read the images to 90 % of the table for single seeds.",
    learning,
    whole=True,
)
