"""The report's pictures: the same noise side by side, loss, loss by timestep, quality against cost. Needs no torch.

Readable in black and white and by the colour-blind: every line has its own dash and marker, every axis its unit.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.files import write_atomic
from bench.tables import Table, columns, summaries

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


def draw_all(table: Table, folder: Path) -> list[tuple[str, str]]:
    """Draws every figure there is something for, and returns (file name, caption)."""
    made = [
        ("samples.png", "The same prompts and the same noise, a row a variant.", samples(table)),
        ("loss.png", "Training loss (mean over windows of steps), the first seed of each variant.", loss(table)),
        ("heldout.png", "Held-out loss by timestep, mean over seeds: 0 is data, 1 is noise.", heldout(table)),
        (
            "quality-cost.png",
            "Quality against cost: means over seeds, bars their 95 % intervals.",
            quality_cost(table),
        ),
    ]
    shown = []
    for name, caption, png in made:
        if png is not None:
            write_atomic(folder / name, png)
            shown.append((name, caption))
    return shown


def _figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": "ditbench"})
    plt.close(figure)
    return buffer.getvalue()


def samples(table: Table, most: int = 8) -> bytes | None:
    """Rows variants, columns prompts; the first seed of each variant."""
    first: dict[str, Path] = {}
    for cell in table.cells:
        if cell.grid is not None and cell.result is not None:
            name = cell.row.variant + "".join(f" {k.rpartition('.')[2]}={v}" for k, v in cell.row.axes.items())
            first.setdefault(name, cell.grid)
    if not first:
        return None
    grids = {name: np.load(path) for name, path in first.items()}
    about = json.loads(next(iter(first.values())).with_suffix(".json").read_text())
    count = min(most, *(len(grid) for grid in grids.values()))
    figure, axes = _figure(1.25 * count + 1.6, 1.25 * len(grids) + 1.0, nrows=len(grids), ncols=count, squeeze=False)
    for row, (name, grid) in zip(axes, grids.items(), strict=True):
        for column, axis in enumerate(row):
            axis.imshow(grid[column], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(
            "\n".join(textwrap.wrap(name.replace("-", "- "), 14)).replace("- ", "-"),
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
        )
    for axis, prompt in zip(axes[0], about["prompts"], strict=False):
        axis.set_title(textwrap.fill(textwrap.shorten(prompt, 110, placeholder=" ..."), 20), fontsize=5.5)
    return _png(figure)


def loss(table: Table) -> bytes | None:
    """Training loss over steps."""
    lines: dict[str, dict[int, float]] = {}
    for cell in table.cells:
        name = cell.row.variant + "".join(f" {k.rpartition('.')[2]}={v}" for k, v in cell.row.axes.items())
        if cell.curves.get("loss") and name not in lines:
            lines[name] = cell.curves["loss"]
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
    axis.legend(fontsize=8)
    return _png(figure)


def _smooth(values: list[float], window: int = 3) -> list[float]:
    return [float(np.mean(values[max(0, k - window + 1) : k + 1])) for k in range(len(values))]


def _robust(values: Iterable[float]) -> tuple[float, float]:
    """Limits that a first steep fall does not squeeze the rest for."""
    found = np.array([value for value in values if np.isfinite(value)])
    return float(found.min() * 0.95), float(np.quantile(found, 0.9) * 1.1)


def heldout(table: Table) -> bytes | None:
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
    axis.legend(fontsize=8)
    return _png(figure)


def quality_cost(table: Table) -> bytes | None:
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
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    return _png(figure)
