"""Samples of tasks: a row a scheme, columns prompts of each task, each pixel a crisp square; the true image on top."""

from __future__ import annotations

import io
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.findings.analysis import Analysis
from bench.store.table import CellRecord
from bench.views.capability import Capability, Task, at_level, capability, shown_level

Images = NDArray[np.uint8]  # (n, H, W, 3)
TILE, GAP, NAMES, LINE = 72, 8, 150, 13  # pixels: an image, between two, of the names, of a line of text
PROMPTS, ACROSS = 3, 4  # columns of a task, tasks side by side
TRUE = "true.npy"  # beside `grid.npy`: what the prompts' images really are


def task_sheet(analysis: Analysis) -> bytes | None:
    """A PNG of the first seed's samples of every scheme and task, of many levels the middle one; None without any."""
    table = capability(analysis) or capability(analysis, "right")
    if table is None:
        return None
    table = at_level(table, shown_level(table))
    tasks = [task for task in table.tasks if any(_images(table, name, task) is not None for name in table.schemes)]
    blocks = [_block(table, some) for some in _parts(tasks)]
    if not blocks:
        return None
    page = np.full((sum(map(len, blocks)), max(block.shape[1] for block in blocks), 3), 255, np.uint8)
    top = 0
    for block in blocks:
        page[top : top + len(block), : block.shape[1]] = block
        top += len(block)
    return _png(page)


def _parts(tasks: list[Task]) -> list[list[Task]]:
    """At most so many side by side, and parts alike."""
    parts = -(-len(tasks) // ACROSS)
    across = -(-len(tasks) // parts) if parts else ACROSS
    return [tasks[k : k + across] for k in range(0, len(tasks), across)]


def _block(table: Capability, tasks: list[Task]) -> Images:
    """Some tasks side by side: name, prompts, true images, a row a scheme."""
    from PIL import Image, ImageDraw

    columns = [(task, k) for task in tasks for k in range(PROMPTS)]
    texts = [_wrapped(_prompt(table, task, k)) for task, k in columns]
    head = 24 + LINE * max(1 + text.count("\n") for text in texts)
    rows = [("true image", _true), *((name, _images) for name in table.schemes)]
    x_of = [NAMES + k * (TILE + GAP) + k // PROMPTS * 2 * GAP for k in range(len(columns))]
    page = Image.new("RGB", (x_of[-1] + TILE + GAP, head + GAP + len(rows) * (TILE + GAP)), "white")
    pen, small, large = ImageDraw.ImageDraw(page), _font(11), _font(14)
    for (task, k), x, text in zip(columns, x_of, texts, strict=True):
        if k == 0:
            pen.text((x, 4), str(task), fill="black", font=large)
        pen.multiline_text((x, 24), text, fill="black", font=small, spacing=1)
    for i, (name, found) in enumerate(rows):
        y = head + GAP + i * (TILE + GAP)
        pen.multiline_text((4, y + TILE // 3), textwrap.fill(name, 20), fill="black", font=_font(12))
        for (task, k), x in zip(columns, x_of, strict=True):
            images = found(table, name, task)
            if images is not None and k < len(images):
                tile = Image.fromarray(images[k]).resize((TILE, TILE), Image.Resampling.NEAREST)
                page.paste(tile, (x, y))
                pen.rectangle((x - 1, y - 1, x + TILE, y + TILE), outline="#999999")
    return np.asarray(page)


def _first(table: Capability, name: str, task: Task) -> CellRecord | None:
    """The first seed that has samples."""
    row = table.rows.get((name, task))
    return next((cell for cell in row.cells if cell.result and cell.grid), None) if row else None


def _images(table: Capability, name: str, task: Task) -> Images | None:
    from bench.views.figures.samples import read_grid

    cell = _first(table, name, task)
    return read_grid(cell.grid) if cell and cell.grid else None


def _true(table: Capability, name: str, task: Task) -> Images | None:
    """The true images of a task, which are the same for all schemes."""
    from bench.views.figures.samples import read_grid

    for scheme in table.schemes:
        cell = _first(table, scheme, task)
        if cell and cell.grid and cell.grid.with_name(TRUE).is_file():
            return read_grid(cell.grid.with_name(TRUE))
    return None


def _prompt(table: Capability, task: Task, k: int) -> str:
    from bench.views.figures.samples import prompts_of

    cells = (_first(table, name, task) for name in table.schemes)
    prompts = next((prompts_of(cell.grid) for cell in cells if cell and cell.grid), [])
    return prompts[k] if k < len(prompts) else ""


def _wrapped(text: str) -> str:
    """A slot a line, as far as that fits; few lines in all."""
    lines = [line for part in text.split(", ") for line in textwrap.wrap(part, 13)] or [""]
    return "\n".join(lines[:7] + ["..."] * (len(lines) > 7))


def _font(size: int) -> Any:
    """DejaVu, which matplotlib brings; else Pillow's own."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    file = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else None
    return ImageFont.truetype(file, size) if file and file.is_file() else ImageFont.load_default(size)


def _png(page: Images) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
