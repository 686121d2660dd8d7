"""Drawing pictures for what a user types, from any trained cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.config.spec import CellSpec
from bench.data import datasets
from bench.data import prompts as told
from bench.measure.images import png, tile
from bench.measure.sampling import generate, initial_noise
from bench.store.folders import CellFolder
from bench.training.checkpoints import load_checkpoint, newest_checkpoint
from bench.training.model import LoadedCell, build


class NoCheckpoint(ValueError):
    """A cell that has not been trained far enough to draw from."""


def load_subject(folder: CellFolder, cache: Path, device: str | None = None) -> LoadedCell:
    """A cell's model with its averaged weights, from its newest whole checkpoint.

    Raises:
        NoCheckpoint: if the cell has none yet.
    """
    import architectures

    spec = CellSpec.read(folder)
    for plugin in spec.plugins:
        architectures.load_plugin(plugin)
    path = newest_checkpoint(folder.checkpoints)
    if path is None:
        raise NoCheckpoint(f"cell {folder.id} has no checkpoint yet; run its matrix first")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = spec.config.changed({"train.compile": "off"})  # a handful of samples do not repay it
    if where.type == "cpu":
        config = config.changed({"train.precision": "32"})
    data = datasets.load(cache / "data" / spec.digests["data"])
    prompts = told.load(cache / "prompts" / spec.digests["prompts"])
    model = build(config, prompts.kind)
    model.load_state_dict(load_checkpoint(path)["ema"])
    return LoadedCell(model.to(where).eval(), data, prompts, config, where)


@dataclass(frozen=True)
class SampleSettings:
    """How pictures are drawn.

    Attributes:
        count: pictures of each prompt. seed: of the noise. steps, guidance: None takes the cell's own.
    """

    count: int = 4
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    warn: Callable[[str], None] = lambda text: None


def generate_images(folder: CellFolder, texts: list[str], how: SampleSettings, name: str = "draw") -> np.ndarray:
    """Pictures (len(texts) * count, H, W, 3) of a cell, prompt by prompt, the same noise for each.

    Raises:
        ValueError: for a prompt that the cell cannot take, or a cell without a checkpoint.
    """
    subject = load_subject(folder, folder.path.parent.parent / "cache")
    changes: dict[str, Any] = {"sample.steps": how.steps} if how.steps else {}
    changes |= {} if how.guidance is None else {"sample.guidance": how.guidance}
    subject = replace(subject, config=subject.config.changed(changes))
    prompt, unknown = subject.prompts.encode([text for text in texts for _ in range(how.count)])
    if unknown:
        how.warn(f"this cell never saw the words {', '.join(unknown)}")
    noise = initial_noise(how.seed, range(how.count), subject.shape).repeat(len(texts), 1, 1, 1)
    return generate(
        subject,
        prompt,
        noise,
        batch=subject.config.sample.batch,
        progress=lambda done: how.progress(name, done, len(noise)),
    )


def sample_prompts(folder: CellFolder, texts: list[str], how: SampleSettings) -> bytes:
    """A PNG with a row of pictures for each prompt, the same noise in every row.

    Raises:
        ValueError: for a prompt that the cell cannot take, or a cell without a checkpoint.
    """
    return png(tile(generate_images(folder, texts, how), columns=how.count))


def sample_variants(cells: dict[str, CellFolder], text: str, how: SampleSettings) -> bytes:
    """A PNG with a named row for each cell: one prompt, the same noise in every row.

    Raises:
        ValueError: for a prompt that a cell cannot take, or if none has a checkpoint.
    """
    from bench.views.figures.samples import image_rows

    rows: dict[str, list[np.ndarray]] = {}
    for name, folder in cells.items():
        try:
            rows[name] = list(generate_images(folder, [text], how, name))
        except NoCheckpoint as error:
            how.warn(str(error))
    if not rows:
        raise ValueError("no cell of this matrix has a checkpoint yet; run it first")
    return image_rows(list(rows), list(rows.values()), [f"noise {k}" for k in range(how.count)], size=8)
