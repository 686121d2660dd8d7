"""A sheet of a task's images, each with its prompt below: what a scheme has to learn, as anyone can see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.data.pixels import to_images
from bench.data.tasks.registry import sample_batch

if TYPE_CHECKING:
    from bench.data.tasks.contract import Task
    from bench.views.understood import Tile


def rows(task: Task, title: str, count: int = 12) -> list[tuple[str, list[Tile]]]:
    """Rows of the sheet: a sample of training, and one of the withheld pairs where there are any."""
    splits = {"train": title} | ({"unseen": f"{title}: pairs that training lacks"} if task.has_unseen else {})
    return [(text, tiles(task, split, count if split == "train" else count // 2)) for split, text in splits.items()]


def tiles(task: Task, split: str, count: int) -> list[Tile]:
    """The first `count` images of a split, pixels enlarged by a whole number, and their prompts."""
    from bench.views.understood import TILE

    x_0, words, _ = sample_batch(task, split, 0, 0, count)
    pixels = to_images(x_0).numpy()
    scale = max(1, TILE // task.size)
    large = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    return [(np.asarray(one), task.text(row)) for one, row in zip(large, words.tolist(), strict=True)]
