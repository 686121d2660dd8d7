"""Training images that stay in their files, decoded as batches need them: for a set whose array would outgrow the disk.

A row of a folder, a tar or a table of paths is read alone, so that batches are those of prepared arrays, bit for bit.
Parquet and arrow are read in blocks (row groups, record batches): a batch of rows from anywhere would read half of the
files. Of those an epoch permutes the blocks, and rows within windows of `WINDOW` rows; less mixed, and a function of
(seed, epoch) all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data.errors import DataError
from bench.store.files import write_atomic, write_json

if TYPE_CHECKING:
    from bench.data.reading.parts import Part
    from bench.data.reading.rows import Rows

WINDOW = 4096  # rows that are permuted among each other
ROWS, BLOCKS, FILES, PLACE = "train-rows.npy", "train-blocks.npy", "train-files.txt", "place.txt"
HUB = "train-hub.json"  # of a data set of the hub: its name and commit
VERSION = 2  # of what is written; whoever changes it raises this, and all is prepared again


def write(part: Part, folder: Path, column: str) -> None:
    """What a cell needs to know of the rows: their numbers in the split, their blocks, and the files they are of."""
    np.save(folder / ROWS, part.kept)
    (folder / FILES).write_text(files_digest(part.rows, column))
    blocks = part.rows.blocks
    if blocks is not None:
        np.save(folder / BLOCKS, blocks[part.kept])


def files_digest(rows: Rows, column: str) -> str:
    """Of what says which image a row is: files with their sizes and rows, and the paths that they name, in order.

    No image is opened: of a folder these are the names that the walk found.
    """
    found = hashlib.sha256()
    for piece in rows.pieces:
        size = piece.file.stat().st_size if piece.file.is_file() else 0  # of a folder of images there is none
        found.update(f"{piece.file.name} {size} {piece.count}\n".encode())
        if not piece.blocks and not piece.embedded(column):
            for name in piece.read(column, np.ones(piece.count, bool)):
                found.update(f"{name}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def place(path: Path, folder: Path) -> None:
    """Writes down where the files are on this machine, which no digest knows."""
    write_atomic(folder / PLACE, str(path.expanduser().resolve()).encode())


def pin(config: Data, commit: str, folder: Path) -> None:
    """Writes down the name and commit of a data set of the hub, whose rows are those of no other commit."""
    write_json(folder / HUB, {"path": config.path, "revision": commit or config.revision})


def permuted(rng: np.random.Generator, blocks: NDArray[np.int64], window: int | None = None) -> NDArray[np.int64]:
    """A permutation of n rows of which any `window` that follow each other come from few blocks.

    Args:
        rng: of the epoch.
        blocks: (n,) the block of each row.
        window: rows; `WINDOW` by default.
    """
    window = window or WINDOW
    kinds, block = np.unique(blocks, return_inverse=True)
    order = np.argsort(rng.permutation(len(kinds))[block], kind="stable")
    return np.concatenate([rng.permutation(part) for part in np.split(order, range(window, len(order), window))])


def note(part: Part) -> str | None:
    """That a window of labelled rows has few of the classes, as it does where the files are sorted; else None."""
    blocks = part.rows.blocks
    if blocks is None or part.labels is None:
        return None
    rng, labels = np.random.default_rng(0), part.labels[part.kept]
    window = labels[permuted(rng, blocks[part.kept])[:WINDOW]]
    found, usual = len(np.unique(window)), len(np.unique(rng.permutation(labels)[:WINDOW]))
    if found > usual / 2:
        return None
    return (
        f"data.stream: images are mixed within {WINDOW:,} rows, which show about {found:,} of {usual:,} classes, since "
        "the files are sorted; write them with rows in random order"
    )


class StreamedImages:
    """Images of the training split, an array uint8 (n, H, W, 3) to whoever indexes it.

    Where rows are read in blocks, each process that loads keeps the stored bytes of the last blocks: at most those of
    2 `WINDOW` rows, or of `WINDOW` rows and two of the largest blocks if that is more. The blocks of one window never
    have more rows, so that none of them is read again before the next window.

    Args:
        folder: of the prepared data.
        config: of the data.
    """

    def __init__(self, folder: Path, config: Data) -> None:
        self.config = config
        self.rows: NDArray[np.int64] = np.load(folder / ROWS)
        self.blocks: NDArray[np.int64] | None = np.load(folder / BLOCKS) if (folder / BLOCKS).exists() else None
        self._largest = 0 if self.blocks is None else int(np.bincount(self.blocks).max())  # rows of a block
        self.shape = (len(self.rows), config.image_size, config.image_size, 3)
        self._folder = folder
        self._part: Part | None = None
        self._stored: OrderedDict[int, dict[int, Any]] = OrderedDict()  # of the blocks that were read last

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a worker of a loader opens its own."""
        return self.__dict__ | {"_part": None, "_stored": OrderedDict()}

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """The images at a number, a slice or numbers.

        Raises:
            DataError: if the files are not there or not those that were prepared, or an image cannot be decoded.
        """
        from bench.data.reading import decoding

        rows, back = np.unique(self.rows[index], return_inverse=True)
        part = self._opened()
        images = [
            decoding.decoded(part, self.config, int(row), stored).pixels
            for row, stored in zip(rows, self._read(part, rows), strict=True)
        ]
        return np.stack(images)[back] if len(images) else np.empty((0, *self.shape[1:]), np.uint8)

    def permutation(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The order of an epoch: of all rows, or within windows where they are read in blocks."""
        return rng.permutation(len(self)) if self.blocks is None else permuted(rng, self.blocks)

    def _opened(self) -> Part:
        if self._part is None:
            from bench.data.reading import convert
            from bench.data.reading.parts import Part

            path, config = self._place()
            rows = convert.training_rows(config, path)
            if files_digest(rows, self.config.image_column) != (self._folder / FILES).read_text():
                raise DataError(
                    f"{path or config.path}: its files are not those that were prepared, in that order, and a row "
                    f"({len(rows):,} now) would have another's label; run again"
                )
            self._part = Part("train", rows, self.rows)
        return self._part

    def _place(self) -> tuple[Path | None, Data]:
        """Where the files are on this machine, or None and the data set of the hub, pinned to its commit."""
        if (self._folder / HUB).exists():
            return None, replace(self.config, **json.loads((self._folder / HUB).read_text()))
        path = Path((self._folder / PLACE).read_text())
        if not path.exists():
            raise DataError(f"{path}: is not there; its images are streamed (data.stream), and training needs it")
        return path, self.config

    def _read(self, part: Part, rows: NDArray[np.int64]) -> Iterable[Any]:
        """Images as they are stored, of rows in rising order."""
        column = self.config.image_column
        if self.blocks is None:
            return part.rows.images(column, rows)
        blocks = self.blocks[np.searchsorted(self.rows, rows)]
        return [self._block(part, block)[row] for row, block in zip(rows.tolist(), blocks.tolist(), strict=True)]

    def _block(self, part: Part, block: int) -> dict[int, Any]:
        if block not in self._stored:
            assert self.blocks is not None
            own = self.rows[slice(*np.searchsorted(self.blocks, (block, block + 1)))]  # blocks rise with the rows
            limit = max(2 * WINDOW, WINDOW + 2 * self._largest)
            while sum(map(len, self._stored.values())) + len(own) > limit:  # before it is read: never more in memory
                self._stored.popitem(last=False)
            self._stored[block] = dict(zip(own.tolist(), part.rows.images(self.config.image_column, own), strict=True))
        self._stored.move_to_end(block)
        return self._stored[block]
