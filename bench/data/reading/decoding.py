"""Stored images become pixels, and what was done to them is counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data.datasets import Progress
from bench.data.errors import DataError, short
from bench.data.prepared import images_file
from bench.data.reading.images import Decoded, decode
from bench.data.reading.parts import Part
from bench.data.subsets import chosen
from bench.store.seeds import derive

SIZES = 5  # sizes of images that are listed
EXAMINED, BLOCKS = 500, 8  # of streamed images, when they are prepared; from so many blocks at most


def write_images(part: Part, config: Data, folder: Path, progress: Progress) -> Counter[bytes]:
    """Writes the images; returns how often each is there."""
    out = images_file(folder / f"{part.name}-images.npy", len(part.kept), config.image_size)
    seen = Counter[bytes]()
    for index, pixels in _decode(part, config, np.arange(len(part.kept)), progress):
        out[index] = pixels
        seen[hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()] += 1
    out.flush()
    return seen


def examine(part: Part, config: Data, progress: Progress) -> None:
    """Decodes a sample of images that are streamed later, so that what is done to them is known before."""
    near = _near(part, config)
    own = None if part.labels is None else part.labels[part.kept[near]]
    sample = near[chosen(EXAMINED, len(near), seed=config.seed, name="examined", labels=own)]
    for _ in _decode(part, config, sample, progress):
        pass
    part.about["examined"] = len(sample)


def _near(part: Part, config: Data) -> NDArray[np.int64]:
    """Those of the kept rows that are in a few blocks, where a row costs its whole block; else all."""
    if part.rows.blocks is None:
        return np.arange(len(part.kept))
    blocks = part.rows.blocks[part.kept]
    every = np.unique(blocks)
    few = np.random.default_rng(derive(config.seed, "examined blocks")).permutation(every)[:BLOCKS]
    return np.flatnonzero(np.isin(blocks, few))


def _decode(
    part: Part, config: Data, wanted: NDArray[np.int64], progress: Progress
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Index and pixels of the wanted images, rising; writes down what was done to them."""
    done, sizes = Counter[str](), Counter[str]()
    examples: dict[str, int] = {}
    rows = part.kept[wanted]
    for count, (index, row, stored) in enumerate(
        zip(wanted.tolist(), rows.tolist(), part.rows.images(config.image_column, rows), strict=True)
    ):
        image = decoded(part, config, row, stored)
        done.update(image.conversions)
        examples = dict.fromkeys(image.conversions, index) | examples
        sizes["{} x {}".format(*image.source)] += 1
        if count % 500 == 0 or count == len(wanted) - 1:
            progress(f"decode {part.name} images", count + 1, len(wanted))
        yield index, image.pixels
    part.about |= {
        "conversions": dict(done.most_common()),
        "examples": examples,
        "sizes": dict(sizes.most_common(SIZES)),
        "kinds of size": len(sizes),
    }


def decoded(part: Part, config: Data, row: int, stored: Any) -> Decoded:
    """An image of a row.

    Raises:
        DataError: if there is none, or it cannot be decoded.
    """
    if stored is None:
        raise DataError(
            f"{config.path}: image {row} of split {part.rows.split!r}: nothing in column {config.image_column!r}; "
            "data.missing=drop leaves such rows out"
        )
    try:
        return decode(stored, config.image_size)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise DataError(
            f"{config.path}: image {row} of split {part.rows.split!r}{name_of(stored)}: {short(error)}"
        ) from error


def name_of(stored: Any) -> str:
    """The file of a stored image, in brackets, if it is known."""
    name = stored.get("path") if isinstance(stored, dict) else stored if isinstance(stored, Path) else None
    return f" ({name})" if name else ""
