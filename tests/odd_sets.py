"""Small sets of images as users have them, and what is read of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from bench.config.schema import Data
from bench.data import datasets


def png(value: int = 0, size: int = 8) -> bytes:
    """An image of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(file: Path, kind: Any = None, *, column: str = "label", **columns: Any) -> Path:
    """A parquet file of images (grey k is row k) and other columns, the one named `column` of an arrow type."""
    count = len(next(iter(columns.values())))
    images = [{"bytes": png(k % 256), "path": None} for k in range(count)]
    arrays = {"image": pyarrow.array(images)}
    arrays |= {name: pyarrow.array(values, kind if name == column else None) for name, values in columns.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(arrays), file)
    return file


def labelled(folder: Path, train: list[Any], heldout: list[Any] | None = None, kind: Any = None) -> Path:
    """A folder of train.parquet and test.parquet with a column `label`."""
    parquet(folder / "train.parquet", kind, label=train)
    parquet(folder / "test.parquet", kind, label=train if heldout is None else heldout)
    return folder


def captioned(folder: Path, train: list[Any], heldout: list[Any] | None = None, kind: Any = None) -> Path:
    """The same with a column `text`."""
    parquet(folder / "train.parquet", kind, column="text", text=train)
    parquet(folder / "test.parquet", kind, column="text", text=train if heldout is None else heldout)
    return folder


def read(path: Path | str, cache: Path, **changes: Any) -> datasets.Dataset:
    """What is read of a path; by default of its column `label`."""
    kept = {"source": "huggingface", "path": str(path), "image_size": 8, "label_column": "label"}
    if "caption_column" in changes:
        kept.pop("label_column")
    return datasets.load(datasets.prepare(Data(**(kept | changes)), cache))


def greys(split: datasets.Split) -> list[int]:
    """The grey of each image."""
    return split.images[:, 0, 0, 0].tolist()
