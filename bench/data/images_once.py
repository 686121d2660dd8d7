"""Images that are read once, batch by batch: of prepared arrays, or straight from the files they are stored in.

A prepared array of ImageNet at 256 px takes 252 GB; what is encoded straight from its files takes none of that. Rows,
splits, subsets and conversions are the same by both ways (`tests/test_latents.py` compares the latents' bytes).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data.datasets import Dataset, data_digest, local_path
from bench.data.errors import DataError
from bench.data.reading import convert, decoding
from bench.data.reading.parts import Part

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class OneSplit:
    """A split: how many images, their labels or captions, and what reads those from a row up to another in one pass."""

    count: int
    labels: NDArray[np.int64] | None
    captions: list[str] | None
    images: Callable[[int, int], Iterable[Uint8]]

    def batches(self, first: int, last: int, size: int) -> Iterator[tuple[range, Uint8]]:
        """Rows and images of each batch, read when it is asked for; the files are gone through once for all."""
        images = iter(self.images(first, last))
        for start in range(first, last, size):
            rows = range(start, min(start + size, last))
            yield rows, np.stack(list(islice(images, len(rows))))

    def read(self, first: int, last: int) -> Uint8:
        """Images (last - first, H, W, 3)."""
        return np.stack(list(self.images(first, last)))


@dataclass(frozen=True)
class Images:
    """Both splits, pixels a side, names of classes, the digest of what defines them, and of arrays that of content."""

    digest: str
    pixels: int
    classes: list[str] | None
    config: dict[str, Any]
    splits: dict[str, OneSplit]
    notes: list[str]
    content: str = ""


def of_arrays(data: Dataset) -> Images:
    """Those of prepared data.

    Raises:
        DataError: of a task, or of latents.
    """
    if data.task is not None or data.latents:
        raise DataError("data.source: images are encoded, and this is a task's or latents already")
    splits = {
        name: OneSplit(len(own), own.labels, own.captions, lambda a, b, own=own: own.images[a:b])  # type: ignore[misc]
        for name, own in data.splits.items()
        if name in ("train", "heldout")
    }
    about = data.about.get("config", {})
    return Images(data.digest, data.image_size, data.classes, about, splits, data.notes, data.content)


@contextmanager
def of_files(config: Data, scratch: Path) -> Iterator[Images]:
    """Those of files on this machine, decoded as they are asked for.

    Args:
        config: of a data set of files.
        scratch: where archives are unpacked meanwhile; it must not exist yet.

    Raises:
        DataError: for another source, a name of the hub, or what `prepare` would refuse.
    """
    path = local_path(config) if config.source == "huggingface" else None
    if path is None:
        raise DataError("--stream reads files on this machine (data.source=huggingface data.path=FOLDER)")
    try:
        layout = convert.layout_of(config, path, scratch, scratch)
        parts, names = convert.used(config, layout)
        splits = {part.name: _split(part, config) for part in parts}
        about = {"source": config.source, "path": path.name}
        yield Images(data_digest(config), config.image_size, names, about, splits, list(layout.notes))
    except DataError as error:
        said = str(error).replace(str(scratch), str(path))
        raise DataError(said if str(config.path) in said else f"{config.path}: {said}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _split(part: Part, config: Data) -> OneSplit:
    labels = None if part.labels is None else part.labels[part.kept]
    texts = None if part.texts is None else [part.texts[row] or "" for row in part.kept]

    def images(first: int, last: int) -> Iterator[Uint8]:
        rows = part.kept[first:last]
        for row, stored in zip(rows, part.rows.images(config.image_column, rows), strict=True):
            yield decoding.decoded(part, config, int(row), stored).pixels

    return OneSplit(len(part.kept), labels, texts, images)
