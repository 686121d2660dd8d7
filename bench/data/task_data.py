"""A task's data: what is prepared of it, and training batches that are sampled as they are needed.

cache/data/<digest>/   heldout-images.npy  uint8 (n, S, S, 3), for grids and distances
                       heldout-x0.npy      float32 (n, 3, S, S), grain and all
                       heldout-z.npy       int64 (n, M)
                       heldout-words.npy   int64 (n, L)
                       heldout-captions.txt  the prompt in words
                       the same of `train`, a few to show, and of `unseen`
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import architectures
from bench.config.schema import Data
from bench.data.errors import DataError
from bench.data.pixels import to_images
from bench.data.tasks import registry
from bench.data.tasks.contract import Task
from bench.store.files import digest, sources

VERSION = 1
SHOWN = 256  # training images that are prepared, to be seen; those that are trained on are sampled
HELDOUT, UNSEEN = 2048, 1024


def task_of(config: Data) -> Task:
    """The task that a config names, its knobs set.

    Raises:
        DataError: for an unknown task, level or knob, with the nearest; for one whose images do not fit in memory.
    """
    assert config.task is not None
    try:
        return registry.make(config.task, config.level, config.knobs)
    except (registry.TaskError, architectures.PluginError) as error:
        raise DataError(f"data.{error}" if str(error).startswith("task ") else str(error)) from error


def resolved(config: Data) -> Data:
    """The config with the task's image size and all of its knobs.

    Raises:
        DataError: for an image size that is not the task's.
    """
    task = task_of(config)
    if config.image_size not in (Data.image_size, task.size):
        raise DataError(f"data.image_size {config.image_size}: images of task {config.task} have {task.size} pixels")
    knobs = {**task.levels[config.level], **config.knobs}
    return replace(config, image_size=task.size, knobs=knobs)


def task_digest(config: Data) -> str:
    """The digest of what defines a task's data, its code with it: what is prepared by other code is not its."""
    own = resolved(config)
    code = [shared_code(), registry.digest(str(own.task))]  # the second is empty of a built-in task
    return digest(["task", VERSION, own.task, own.knobs, own.seed, counts(own), own.words, *code], 16)


@functools.cache
def shared_code() -> str:
    """The digest of what all tasks are made with, and of the built-in ones: a plan asks for it with every cell."""
    return sources(Path(registry.__file__).parent)


def counts(config: Data) -> dict[str, int]:
    """Images to prepare of each split."""
    return {"train": SHOWN, "heldout": config.heldout_count or HELDOUT, "unseen": config.unseen_count or UNSEEN}


def fill(config: Data, folder: Path, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Writes a task's splits."""
    from bench.data.datasets import write_captions

    task = task_of(config)
    wanted = {name: count for name, count in counts(config).items() if name != "unseen" or task.has_unseen}
    for done, (split, count) in enumerate(wanted.items()):
        progress(f"task {config.task}", done, len(wanted))
        x_0, words, z = registry.sample_batch(task, split, config.seed, 0, count)
        np.save(folder / f"{split}-images.npy", np.ascontiguousarray(to_images(x_0).numpy()))
        for name, part in (("x0", x_0.float()), ("z", z), ("words", words)):
            np.save(folder / f"{split}-{name}.npy", part.numpy())
        write_captions(folder / f"{split}-captions.txt", [task.text(row) for row in words.tolist()])
    progress(f"task {config.task}", len(wanted), len(wanted))
    return {"classes": None, "tokens": task.tokens, "entropy_bits": sum(task.bits)}
