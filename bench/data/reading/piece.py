"""The rows of one file, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wanted = NDArray[np.bool_]  # (count,): which rows are read


@dataclass(frozen=True)
class Piece:
    """The rows of one file.

    Attributes:
        file: that they are in; paths of images are relative to its folder.
        count: of rows.
        columns: their names, and their types in words.
        read: column, and which rows -> their values in order.
        names: of columns whose numbers have names, these.
        files: whose bytes the rows are, but for images that a column names by path.
        embedded: whether all images of a column are in these bytes.
        blocks: rows of each part that is read whole to read one of it; empty where any row is read alone.
        complete: column of images -> of each block whether surely none is missing; empty where that is never known.
    """

    file: Path
    count: int
    columns: dict[str, str]
    read: Callable[[str, Wanted], Iterator[Any]]
    names: dict[str, list[str]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    embedded: Callable[[str], bool] = lambda column: False
    blocks: tuple[int, ...] = ()
    complete: Callable[[str], Sequence[bool]] = lambda column: ()


def of_columns(file: Path, columns: Mapping[str, Sequence[Any]], files: tuple[Path, ...]) -> Piece:
    """A piece of columns that are in memory, read from `files`."""
    count = len(next(iter(columns.values()), ()))
    types = dict.fromkeys(columns, "text")
    return Piece(
        file,
        count,
        types,
        lambda column, wanted: (columns[column][k] for k in np.flatnonzero(wanted).tolist()),
        files=files,
    )
