"""The report's pictures: the same noise side by side, loss, loss by timestep, quality against cost. Needs no torch.

Readable in black and white and by the colour-blind: every line has its own dash and marker, every axis its unit.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.tables import Cell, Table, columns, name_of, summaries

# Okabe and Ito's colours, told apart by every eye; with dashes and markers also without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKERS = "osD^vP*X"


def style(index: int) -> dict[str, Any]:
    """Colour, dash and marker of line `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


Drawn = tuple[bytes, list[dict[str, Any]]]  # a PNG, and the numbers it shows


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes:
        file: name of its PNG. data: the numbers it shows, a row a point; empty for pictures.
    """

    file: str
    title: str
    caption: str
    png: bytes
    data: list[dict[str, Any]]


def draw_all(table: Table, kept: Path | None = None) -> list[Figure]:
    """Draws every figure there is something for.

    Args:
        kept: a record's folder, whose pictures are shown where those they are made of are not there.
    """
    made: list[tuple[str, str, str, Callable[[Table], Drawn | None]]] = [
        ("quality-cost.png", "Quality against cost", "Means over seeds, bars their 95 % intervals.", quality_cost),
        ("samples.png", "Samples", "The same prompts and the same noise, a row a variant.", samples),
        ("training.png", "Samples over training", "One prompt, the same noise, after more and more steps.", training),
        ("loss.png", "Training loss", "Mean over windows of steps, the first seed of each variant.", loss),
        ("heldout.png", "Held-out loss by timestep", "Mean over seeds: 0 is data, 1 is noise.", heldout),
        ("parameters.png", "Where the parameters are", "By what they serve; equal but for the scheme.", parameters),
    ]
    shown = []
    for file, title, caption, draw in made:
        drawn = draw(table)
        if drawn is None and kept is not None and (kept / file).is_file():
            drawn = (kept / file).read_bytes(), []
        if drawn is not None:
            shown.append(Figure(file, title, caption, *drawn))
    return shown


def _figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def _legend(figure: Any, axis: Any) -> None:
    """Inside the axis while the lines are few; else beside it, on a figure made as large as it needs."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) <= 10:
        axis.legend(fontsize=8)
        return
    columns = -(-len(labels) // 24)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 2.0 * columns, max(height, 4.5))
    figure.legend(handles, labels, loc="outside right upper", ncols=columns, fontsize=6)


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": "ditbench"})
    plt.close(figure)
    return buffer.getvalue()


def _first_cells(table: Table) -> dict[str, Cell]:
    """The first finished seed of each variant, by the row's name."""
    first: dict[str, Cell] = {}
    for cell in table.done:
        first.setdefault(name_of(cell.row), cell)
    return first


def samples(table: Table, most: int = 8) -> Drawn | None:
    """Rows variants, columns prompts; the first seed of each variant."""
    grids = {name: cell.grid for name, cell in _first_cells(table).items() if cell.grid is not None}
    if not grids:
        return None
    pictures = {name: np.load(path) for name, path in grids.items()}
    prompts = json.loads(next(iter(grids.values())).with_suffix(".json").read_text())["prompts"]
    count = min(most, *(len(grid) for grid in pictures.values()))
    titles = [textwrap.fill(textwrap.shorten(prompt, 110, placeholder=" ..."), 20) for prompt in prompts[:count]]
    return pictures_in_rows(list(pictures), [list(grid[:count]) for grid in pictures.values()], titles), []


def training(table: Table, most: int = 8) -> Drawn | None:
    """Rows variants, columns steps of training; the last prompt's picture, from the same noise each time."""
    found = {name: cell.grids for name, cell in _first_cells(table).items() if len(cell.grids) > 1}
    steps = sorted(set.intersection(*(set(grids) for grids in found.values()))) if found else []
    if len(steps) < 2:
        return None
    steps = [steps[k] for k in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]
    rows = [[np.load(grids[step])[-1] for step in steps] for grids in found.values()]
    return pictures_in_rows(list(found), rows, [f"step {step:,}" for step in steps], size=8), []


def pictures_in_rows(names: list[str], rows: list[list[np.ndarray]], titles: list[str], size: float = 5.5) -> bytes:
    """Pictures in rows under titles, each row with its name. One canvas: many axes would take minutes."""
    height, width, gap = rows[0][0].shape[0], rows[0][0].shape[1], max(1, rows[0][0].shape[0] // 16)
    canvas = np.full((len(rows) * (height + gap) - gap, len(titles) * (width + gap) - gap, 3), 255, np.uint8)
    for i, pictures in enumerate(rows):
        for j, picture in enumerate(pictures):
            y, x = i * (height + gap), j * (width + gap)
            canvas[y : y + height, x : x + width] = picture
    figure, axis = _figure(1.25 * len(titles) + 1.6, 1.25 * len(rows) + 1.0)
    axis.imshow(canvas, interpolation="nearest")
    labels = ["\n".join(textwrap.wrap(name.replace("-", "- "), 14)).replace("- ", "-") for name in names]
    axis.set_yticks([i * (height + gap) + height / 2 for i in range(len(rows))], labels, fontsize=8)
    axis.set_xticks([j * (width + gap) + width / 2 for j in range(len(titles))], titles, fontsize=size)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return _png(figure)


def loss(table: Table) -> Drawn | None:
    """Training loss over steps."""
    lines: dict[str, dict[int, float]] = {}
    for cell in table.cells:
        if cell.curves.get("loss"):
            lines.setdefault(name_of(cell.row), cell.curves["loss"])
    if not lines:
        return None
    figure, axis = _figure(7, 4)
    for index, (name, points) in enumerate(lines.items()):
        steps, values = list(points), _smooth(list(points.values()))
        axis.plot(steps, values, label=name, markevery=max(1, len(steps) // 8), **style(index))
    axis.set(
        xlabel="step",
        ylabel="training loss (lower is better)",
        ylim=_robust([v for p in lines.values() for v in p.values()]),
    )
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return _png(figure), [{"variant": n, "step": k, "loss": v} for n, p in lines.items() for k, v in p.items()]


def _smooth(values: list[float], window: int = 3) -> list[float]:
    return [float(np.mean(values[max(0, k - window + 1) : k + 1])) for k in range(len(values))]


def _robust(values: Iterable[float]) -> tuple[float, float]:
    """Limits that a first steep fall does not squeeze the rest for."""
    found = np.array([value for value in values if np.isfinite(value)])
    return float(found.min() * 0.95), float(np.quantile(found, 0.9) * 1.1)


def heldout(table: Table) -> Drawn | None:
    """Held-out loss by timestep bin."""
    rows = [row for row in summaries(table) if "heldout_loss_bin0" in row.values]
    if not rows:
        return None
    bins = sum(key.startswith("heldout_loss_bin") for key in rows[0].values)
    figure, axis = _figure(7, 4)
    places = (np.arange(bins) + 0.5) / bins
    for index, row in enumerate(rows):
        values = [row.mean(f"heldout_loss_bin{k}") for k in range(bins)]
        axis.plot(places, values, label=row.name, **style(index))
    axis.set(xlabel="timestep t (0 data, 1 noise)", ylabel="held-out loss (lower is better)", xlim=(0, 1))
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    data = [
        {"variant": row.name, "t": float(t), "heldout_loss": row.mean(f"heldout_loss_bin{k}")}
        for row in rows
        for k, t in enumerate(places)
    ]
    return _png(figure), data


def quality_cost(table: Table) -> Drawn | None:
    """The first quality column against throughput and parameters."""
    rows = [row for row in summaries(table) if row.values]
    if not rows:
        return None
    quality = columns(rows)[0]
    costs = [
        ("train_images_per_second", "training images/s (more is better)", 1.0),
        ("parameters_total", "parameters, M (fewer is better)", 1e6),
    ]
    figure, axes = _figure(9, 4, ncols=2, sharey=True)
    for axis, (key, label, unit) in zip(axes, costs, strict=True):
        for index, row in enumerate(rows):
            x, y = row.mean(key), row.mean(quality.key)
            if x is None or y is None:
                continue
            look = style(index) | {"linestyle": "none", "markersize": 8}
            axis.errorbar(
                x / unit,
                y,
                xerr=(row.interval(key) or 0) / unit or None,
                yerr=row.interval(quality.key),
                label=row.name,
                capsize=3,
                **look,
            )
        axis.set_xlabel(label)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{quality.heading} ({quality.better} is better)")
    handles, labels = axes[0].get_legend_handles_labels()
    lines = -(-len(labels) // 4)
    figure.set_size_inches(9, 3.7 + 0.17 * lines)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8 if lines < 4 else 6
    )
    keys = (quality.key, *(key for key, _, _ in costs))
    data = [{"variant": row.name} | {k: row.mean(k) for k in keys} for row in rows]
    data = [told | {f"{k}_ci95": row.interval(k) for k in keys} for told, row in zip(data, rows, strict=True)]
    return _png(figure), data


def parameters(table: Table) -> Drawn | None:
    """Bars of parameters by what they serve; told apart by hatches too."""
    parts = ("backbone", "modulation", "prompt")
    rows = [row for row in summaries(table) if all(f"parameters_{part}" in row.values for part in parts)]
    if not rows:
        return None
    figure, axis = _figure(7, 0.45 * len(rows) + 1.4)
    left = np.zeros(len(rows))
    for part, colour, hatch in zip(parts, ("#DDDDDD", COLOURS[0], COLOURS[4]), ("", "//", ".."), strict=True):
        widths = np.array([row.values[f"parameters_{part}"][0] / 1e6 for row in rows])
        axis.barh(
            [row.name for row in rows], widths, left=left, color=colour, hatch=hatch, edgecolor="black", label=part
        )
        left += widths
    axis.invert_yaxis()
    axis.set_xlabel("parameters, M")
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    keys = [f"parameters_{part}" for part in parts]
    return _png(figure), [{"variant": row.name} | {key: row.values[key][0] for key in keys} for row in rows]
