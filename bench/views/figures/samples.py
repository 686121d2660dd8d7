"""Samples side by side: of all variants, and over training."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.findings.analysis import Analysis
from bench.store.inert import plain
from bench.views.figures.style import FigureSpec, Plot, canvas, render
from bench.views.figures.tasksheet import task_sheet

Image = NDArray[np.uint8]  # (H, W, 3)
Grid = NDArray[np.uint8]  # (n, H, W, 3)


def samples(analysis: Analysis, most: int = 8) -> Plot | None:
    """Rows variants, columns prompts; the first seed of each variant. Of tasks, columns prompts of each task."""
    if (sheet := task_sheet(analysis)) is not None:
        return sheet, []
    grids = {name: cell.grid for name, cell in analysis.first_cells.items() if cell.grid is not None}
    rows = {name: grid for name, path in grids.items() if (grid := read_grid(path)) is not None}
    if not rows:
        return None
    prompts = prompts_of(grids[next(iter(rows))])
    count = min(most, *(len(grid) for grid in rows.values()))
    titles = [textwrap.fill(textwrap.shorten(prompt, 110, placeholder=" ..."), 20) for prompt in prompts[:count]]
    titles += [""] * (count - len(titles))
    return image_rows(list(rows), [list(grid[:count]) for grid in rows.values()], titles), []


SAMPLES = FigureSpec(
    "samples.png", "Samples", "The same prompts and the same noise, a row a variant.", samples, whole=True
)


def read_grid(path: Path) -> Grid | None:
    """The images of a sample grid; None if the file is cut or holds something else."""
    try:
        grid = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError):  # numpy parses the head as Python
        return None
    right = isinstance(grid, np.ndarray) and grid.dtype == np.uint8 and grid.ndim == 4 and grid.shape[-1] == 3
    return grid if right and grid.size else None


def damaged(analysis: Analysis) -> list[str]:
    """The grids that cannot be read, of the cells whose samples are shown."""
    places = [place for cell in analysis.first_cells.values() for place in (cell.grid, *cell.grids.values()) if place]
    return [f"{path.parent.parent.name}/samples/{path.name} is damaged" for path in places if read_grid(path) is None]


def prompts_of(grid: Path) -> list[str]:
    """The prompts beside a grid; none if they cannot be read."""
    try:
        prompts = json.loads(grid.with_suffix(".json").read_text())["prompts"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [plain(prompt) for prompt in prompts] if isinstance(prompts, list) else []


def training(analysis: Analysis, most: int = 8) -> Plot | None:
    """Rows variants, columns steps of training; the last prompt's sample, from the same noise each time."""
    grids = {name: _whole(cell.grids) for name, cell in analysis.first_cells.items() if len(cell.grids) > 1}
    grids = {name: by_step for name, by_step in grids.items() if len(by_step) > 1}
    steps = sorted(set.intersection(*(set(by_step) for by_step in grids.values()))) if grids else []
    if len(steps) < 2:
        return None
    steps = [steps[k] for k in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]
    rows = [[by_step[step] for step in steps] for by_step in grids.values()]
    return image_rows(list(grids), rows, [f"step {step:,}" for step in steps], size=8), []


def _whole(grids: dict[int, Path]) -> dict[int, Image]:
    """The last image of each grid that can be read."""
    return {step: grid[-1] for step, path in grids.items() if (grid := read_grid(path)) is not None}


TRAINING = FigureSpec(
    "training.png", "Samples over training", "One prompt, the same noise, after more and more steps.", training
)


def image_rows(names: list[str], rows: list[list[Image]], titles: list[str], size: float = 5.5) -> bytes:
    """A PNG of images in rows under titles, each row with its name.

    One canvas, since many axes would take minutes; by numpy, since a record's report is made without torchvision.
    """
    height, width, gap = rows[0][0].shape[0], rows[0][0].shape[1], max(1, rows[0][0].shape[0] // 16)
    sheet = np.full((len(rows) * (height + gap) - gap, len(titles) * (width + gap) - gap, 3), 255, np.uint8)
    for i, images in enumerate(rows):
        for j, image in enumerate(images):
            y, x = i * (height + gap), j * (width + gap)
            sheet[y : y + height, x : x + width] = image
    figure, axis = canvas(1.25 * len(titles) + 1.6, 1.25 * len(rows) + 1.0)
    axis.imshow(sheet, interpolation="nearest")
    labels = ["\n".join(textwrap.wrap(name.replace("-", "- "), 14)).replace("- ", "-") for name in names]
    axis.set_yticks([i * (height + gap) + height / 2 for i in range(len(rows))], labels, fontsize=8)
    axis.set_xticks([j * (width + gap) + width / 2 for j in range(len(titles))], titles, fontsize=size)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return render(figure)
