"""The rows of one split, whatever files they are in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.errors import DataError, short
from bench.data.reading.piece import Piece


@contextmanager
def _naming(piece: Piece, column: str) -> Iterator[None]:
    """Turns what a damaged file raises into a sentence with its name."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # pyarrow, tarfile, zlib and Pillow raise many kinds
        raise DataError(f"{piece.file}: column {column!r}: {short(error)}") from error


@dataclass(frozen=True)
class Rows:
    """The rows of one split, in the order of its files.

    Attributes:
        split: its name.
        pieces: one a file.
        root: the folder of the data, where paths of images may be relative to as well.
    """

    split: str
    pieces: list[Piece]
    root: Path

    def __len__(self) -> int:
        return sum(piece.count for piece in self.pieces)

    @property
    def columns(self) -> list[str]:
        """Columns that every file has."""
        return [name for name in self.pieces[0].columns if all(name in piece.columns for piece in self.pieces)]

    @property
    def blocks(self) -> NDArray[np.int64] | None:
        """The block of each row, whose rows are read together, (rows,) rising; None where any row is read alone."""
        if not any(piece.blocks for piece in self.pieces):
            return None
        sizes = [piece.blocks or (1,) * piece.count for piece in self.pieces]
        return np.repeat(np.arange(sum(map(len, sizes))), np.concatenate(sizes))

    def names(self, column: str) -> list[str] | None:
        """Class names that the files carry.

        Raises:
            DataError: if two files carry different ones.
        """
        found = [piece.names.get(column) for piece in self.pieces]
        for piece, names in zip(self.pieces, found, strict=True):
            if names != found[0]:
                raise DataError(
                    f"{piece.file}: column {column!r} has other class names than {self.pieces[0].file.name}"
                )
        return found[0]

    def values(self, column: str, rows: NDArray[np.int64] | None = None) -> Iterator[Any]:
        """Values of a column, of all rows or of `rows` in rising order.

        Raises:
            DataError: if a file is damaged.
        """
        return (value for _, value in self._located(column, rows))

    def images(self, column: str, rows: NDArray[np.int64] | None = None) -> Iterator[Any]:
        """Images as they are stored: bytes, arrays or None, or the path of a file.

        Raises:
            DataError: if a file is damaged, or names an image that is not there.
        """
        order = np.arange(len(self)) if rows is None else np.sort(rows)
        for index, (piece, value) in zip(order, self._located(column, rows), strict=True):
            yield self._found(piece, int(index), value)

    def unsure(self, column: str) -> NDArray[np.int64]:
        """Rows whose image may be missing, rising: all but those of blocks of which a file says that none is.

        Raises:
            DataError: if a file is damaged.
        """
        sure = [np.zeros(0, bool)]
        for piece in self.pieces:
            with _naming(piece, column):
                known = piece.complete(column)
            sure.append(np.repeat(known, piece.blocks) if known else np.zeros(piece.count, bool))
        return np.flatnonzero(~np.concatenate(sure))

    def files(self, column: str) -> Iterator[tuple[str, Path]]:
        """Every file that is read for these rows and the images of a column, with the name that the data gives it."""
        for piece in self.pieces:
            yield from ((self._name(file), file) for file in piece.files)
        if not all(self._embedded(piece, column) for piece in self.pieces):
            yield from ((self._name(path), path) for path in self.images(column) if isinstance(path, Path))

    def place(self, row: int) -> str:
        """A row in words: its number, its split, and its file where there are several."""
        start = 0
        for piece in self.pieces:
            if row < start + piece.count:
                break
            start += piece.count
        file = f" ({piece.file.name}, row {row - start})" if len(self.pieces) > 1 else ""
        return f"row {row} of split {self.split!r}{file}"

    def _located(self, column: str, rows: NDArray[np.int64] | None) -> Iterator[tuple[Piece, Any]]:
        wanted = np.ones(len(self), bool)
        if rows is not None:
            wanted[:] = False
            wanted[rows] = True
        start = 0
        for piece in self.pieces:
            own = wanted[start : start + piece.count]
            start += piece.count
            found = 0
            if not own.any():
                continue  # a file of which nothing is wanted is not opened
            with _naming(piece, column):
                for value in piece.read(column, own):
                    found += 1
                    yield piece, value
                if found != own.sum():
                    raise ValueError(f"{found} values for {own.sum()} rows")

    def _embedded(self, piece: Piece, column: str) -> bool:
        with _naming(piece, column):
            return piece.embedded(column)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.name

    def _found(self, piece: Piece, index: int, value: Any) -> Any:
        """The value, or the path that it names."""
        is_struct = isinstance(value, dict) and value.get("bytes") is None and "path" in value
        name = value["path"] if is_struct else value
        if not isinstance(name, str):
            return name
        if not name.strip():
            return None
        if "://" in name:
            raise DataError(f"{piece.file}: {self.place(index)}: {name[:80]!r} is an address; save the image as a file")
        for folder in (piece.file.parent, self.root):
            for written in (name, name.replace("\\", "/")):  # a table from Windows
                if os.path.isfile(folder / written):  # of Path, is_file raises for a name that is too long
                    return folder / written
        raise DataError(
            f"{piece.file}: {self.place(index)}: no image {name[:80]!r} (paths are relative to {piece.file.parent})"
        )
