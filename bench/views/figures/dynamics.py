"""How training went: loss over steps; blocks, gates, scales and gradients by depth."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.findings.analysis import Analysis
from bench.views.figures.style import FigureSpec, Plot, canvas, legend, limits, render, style


def loss(analysis: Analysis) -> Plot | None:
    """Training loss over steps."""
    curves: dict[str, dict[int, float]] = {}
    for cell in analysis.table.cells:
        if cell.curves.get("loss"):
            curves.setdefault(cell.row.name, cell.curves["loss"])
    if not curves:
        return None
    figure, axis = canvas(7, 4)
    for index, (name, points) in enumerate(curves.items()):
        steps, values = list(points), _smooth(list(points.values()))
        axis.plot(steps, values, label=name, markevery=max(1, len(steps) // 8), **style(index))
    every = [value for points in curves.values() for value in points.values()]
    axis.set(xlabel="step", ylabel="training loss (lower is better)", ylim=limits(every))
    axis.grid(alpha=0.3)
    legend(figure, axis)
    return render(figure), [{"variant": n, "step": k, "loss": v} for n, p in curves.items() for k, v in p.items()]


def _smooth(values: list[float], window: int = 3) -> list[float]:
    return [float(np.mean(values[max(0, k - window + 1) : k + 1])) for k in range(len(values))]


LOSS = FigureSpec("loss.png", "Training loss", "Mean over windows of steps, the first seed of each variant.", loss)

# Of a probe: key of its columns, their name in the data, how a tick is written, label of the axis.
COLUMNS = {"dynamics": ("steps", "step", "{:,}", "step"), "times": ("t", "t", "{:g}", "timestep t")}

QUANTITIES = {"open": "|added| / |input|", "gate": "|gate|", "scale": "|scale|", "gradient": "norm of the gradient"}


def depth_maps(analysis: Analysis, kind: str, over: str = "dynamics") -> Plot | None:
    """Heat maps of depth over training steps (`dynamics`) or over t (`times`), one a variant, on one scale.

    The first seed of each variant.
    """
    probes = {name: cell.result.probes.get(over, {}) for name, cell in analysis.first_cells.items() if cell.result}
    maps = {name: probe[kind] for name, probe in probes.items() if kind in probe}
    if not maps:
        return None
    columns = min(4, len(maps))
    lines = -(-len(maps) // columns)
    figure, axes, bar = _panels(lines, columns, [values["rows"] for values in maps.values()])
    every = np.concatenate([np.ravel(values["values"]) for values in maps.values()])
    top = max(float(np.quantile(every, 0.99)), 1e-9)
    for axis in axes.flat[len(maps) :]:
        axis.set_axis_off()
    images = [
        _heat_map(axis, name, values, over, top) for axis, (name, values) in zip(axes.flat, maps.items(), strict=False)
    ]
    figure.supxlabel(COLUMNS[over][3], fontsize=8)
    figure.colorbar(images[-1], cax=bar, label=QUANTITIES.get(kind, kind))
    return render(figure), [point for name, values in maps.items() for point in _points(name, values, kind, over)]


def _panels(lines: int, columns: int, rows: list[list[str]]) -> tuple[Any, Any, Any]:
    """A figure, `lines` x `columns` axes that leave room for the names of their rows, and one for the colour bar."""
    wide, high = 2.4, 0.11 * max(len(names) for names in rows) + 0.5  # of an axis, in inches
    beside, between = 0.2 + 0.045 * max(len(name) for names in rows for name in names), 0.55
    width, height = columns * (beside + wide) + 1.2, lines * (high + between) + 0.3
    figure, axes = canvas(width, height, layout=None, nrows=lines, ncols=columns, squeeze=False)
    right, top, bottom = width - 1.2, height - 0.3, 0.55
    figure.subplots_adjust(
        left=beside / width, right=right / width, top=top / height, bottom=bottom / height,
        wspace=beside / wide, hspace=between / high,
    )  # fmt: skip
    tall = min(top - bottom, 4.0)
    return figure, axes, figure.add_axes(((right + 0.2) / width, (top - tall) / height, 0.15 / width, tall / height))


def _heat_map(axis: Any, name: str, values: dict[str, Any], over: str, top: float) -> Any:
    along, _, mark, _ = COLUMNS[over]
    image = axis.imshow(values["values"], aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
    axis.set_title(name, fontsize=8)
    marks = np.unique(np.linspace(0, len(values[along]) - 1, 5).round().astype(int))
    axis.set_xticks(marks, [mark.format(values[along][k]) for k in marks], fontsize=6)
    rows = range(0, len(values["rows"]), max(1, len(values["rows"]) // 8))
    axis.set_yticks(list(rows), [values["rows"][k] for k in rows], fontsize=5)
    return image


def _points(name: str, values: dict[str, Any], kind: str, over: str) -> list[dict[str, Any]]:
    along, column, _, _ = COLUMNS[over]
    return [
        {"variant": name, "row": row, column: at, kind: value}
        for row, line in zip(values["rows"], values["values"], strict=True)
        for at, value in zip(values[along], line, strict=True)
    ]


OPENING = FigureSpec(
    "opening.png",
    "How far blocks move the stream",
    "|what a block adds| over |its input|, by depth and step (steps 1, 2, 4, ... then evenly); the first seed.",
    partial(depth_maps, kind="open"),
)
GATES = FigureSpec(
    "gates.png",
    "Gates",
    "Mean |gate| of every branch over training; the first seed.",
    partial(depth_maps, kind="gate"),
)
GATES_BY_TIME = FigureSpec(
    "gates-time.png",
    "Gates by timestep",
    "Mean |gate| of every branch of the trained model, by timestep: 0 is data, 1 is noise; the first seed.",
    partial(depth_maps, kind="gate", over="times"),
)
SCALES_BY_TIME = FigureSpec(
    "scales-time.png",
    "Scales by timestep",
    "Mean |scale| of every branch of the trained model, by timestep; the first seed.",
    partial(depth_maps, kind="scale", over="times"),
)
GRADIENTS = FigureSpec(
    "gradients.png",
    "Gradients",
    "Norm of every block's gradient before clipping, by depth and step; the first seed.",
    partial(depth_maps, kind="gradient"),
)
