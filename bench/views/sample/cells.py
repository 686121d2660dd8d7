"""Images of what a user types, from any trained cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.config.spec import CellSpec
from bench.data import datasets
from bench.data import prompts as encoded_prompts
from bench.data.errors import listed
from bench.data.task_prompts import TypedError
from bench.measure.images import png, tile
from bench.measure.sampling import generate, initial_noise
from bench.store.folders import CellFolder
from bench.training.checkpoints import load_checkpoint, newest_checkpoint
from bench.training.ddpm import unfit
from bench.training.model import LoadedCell, build


class NoCheckpointError(ValueError):
    """A cell that has not been trained far enough to sample from."""


def load_cell(folder: CellFolder, cache: Path, device: str | None = None) -> LoadedCell:
    """A cell's model with its averaged weights, from its newest whole checkpoint.

    Raises:
        NoCheckpointError: if the cell has none yet.
    """
    import architectures

    spec = CellSpec.read(folder)
    for plugin in spec.plugins:
        architectures.load_plugin(plugin)
    path = newest_checkpoint(folder.checkpoints)
    if path is None:
        raise NoCheckpointError(f"cell {folder.id} has no checkpoint yet; run its matrix first")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = spec.config.changed({"train.compile": "off"})  # a handful of samples do not repay it
    if where.type == "cpu":
        config = config.changed({"train.precision": "32"})
    data = datasets.load(cache / "data" / spec.digests["data"])
    prompts = encoded_prompts.load(cache / "prompts" / spec.digests["prompts"])
    model = build(config, prompts.kind)
    model.load_state_dict(load_checkpoint(path)["ema"])
    return LoadedCell(model.to(where).eval(), data, prompts, config, where)


@dataclass(frozen=True)
class SampleSettings:
    """How images are generated.

    Attributes:
        count: images of each prompt.
        seed: of the noise.
        steps: of the sampler; None takes the cell's own.
        guidance: scale of it; None takes the cell's own.
        progress: called with a name, how many images are done, and of how many.
        warn: called with what a user should know.
    """

    count: int = 4
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    warn: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number, got {self.guidance}")


def generate_images(folder: CellFolder, texts: list[str], settings: SampleSettings, name: str = "sample") -> np.ndarray:
    """Images (len(texts) * count, H, W, 3) of a cell, prompt by prompt, the same noise for each.

    Raises:
        ValueError: for a prompt that the cell cannot take, or a cell without a checkpoint.
    """
    cell = load_cell(folder, folder.path.parent.parent / "cache")
    if settings.steps and cell.config.train.process == "ddpm" and (why := unfit(settings.steps)):
        raise ValueError(f"--steps {settings.steps}: {why}")
    changes: dict[str, Any] = {"sample.steps": settings.steps} if settings.steps else {}
    changes |= {} if settings.guidance is None else {"sample.guidance": settings.guidance}
    cell = replace(cell, config=cell.config.changed(changes))
    prompt, unknown = cell.prompts.encode([text for text in texts for _ in range(settings.count)], cell.data.task)
    if cell.config.prompt.arm == "blind" and any(text.strip() for text in texts):
        settings.warn(f"cell {folder.id} is of the arm blind: whatever the prompt, its images are of the null prompt")
    if unknown:
        settings.warn(f"not in this cell's vocabulary: {', '.join(unknown)}")
    noise = initial_noise(settings.seed, range(settings.count), cell.shape).repeat(len(texts), 1, 1, 1)
    return generate(
        cell,
        prompt,
        noise,
        batch=cell.config.sample.batch,
        progress=lambda done: settings.progress(name, done, len(noise)),
    )


def sample_prompts(folder: CellFolder, texts: list[str], settings: SampleSettings) -> bytes:
    """A PNG with a row of images for each prompt, the same noise in every row.

    Raises:
        ValueError: for a prompt that the cell cannot take, or a cell without a checkpoint.
    """
    return png(tile(generate_images(folder, texts, settings), columns=settings.count))


def sample_variants(cells: dict[str, CellFolder], text: str, settings: SampleSettings) -> bytes:
    """A PNG with a named row for each cell: one prompt, the same noise in every row.

    Of a matrix over tasks the rows of tasks that have such a prompt.

    Raises:
        ValueError: for a prompt that no cell can take, or if none has a checkpoint.
    """
    from bench.views.figures.samples import image_rows

    rows: dict[str, list[np.ndarray]] = {}
    others: dict[str, TypedError] = {}
    for name, folder in cells.items():
        try:
            rows[name] = list(generate_images(folder, [text], settings, name))
        except NoCheckpointError as error:
            settings.warn(str(error))
        except TypedError as error:
            others[name] = error
    if others and not rows:
        raise max(others.values(), key=lambda error: error.fit)
    if others:
        settings.warn(f"{len(others)} rows are of tasks with other prompts: {listed(list(others), 5)}")
    if not rows:
        raise ValueError("no cell of this matrix has a checkpoint yet; run it first")
    return image_rows(list(rows), list(rows.values()), [f"noise {k}" for k in range(settings.count)], size=8)
