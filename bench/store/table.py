"""A matrix's cells as they are on disk, with what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store.folders import Row, Status, Store
from bench.store.result import Result


@dataclass(frozen=True)
class CellRecord:
    """A cell in a table.

    Attributes:
        result: None while there is none. curves: metric -> step -> value, of the journal.
        grid: images of its sample grid as a `.npy` file, or None. grids: the same by step of training.
    """

    row: Row
    status: Status
    reason: str
    result: Result | None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    grid: Path | None = None
    grids: dict[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A matrix's cells with what its manifest says."""

    name: str
    cells: list[CellRecord]
    manifest: dict[str, Any]

    @property
    def done(self) -> list[CellRecord]:
        """The cells that have a result."""
        return [cell for cell in self.cells if cell.result is not None]


def collect(store: Store, name: str) -> Table:
    """Reads a matrix from the results directory.

    Raises:
        FileNotFoundError: if no such matrix was planned.
    """
    from bench.store.journal import curves

    cells = []
    for row in store.rows(name):
        folder = store.cell(row.cell)
        status, reason = folder.status()
        grid = folder.samples / "grid.npy"
        steps = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.samples.glob("step-*.npy"))}
        cells.append(
            CellRecord(
                row, status, reason, folder.result(), curves(folder.journal), grid if grid.exists() else None, steps
            )
        )
    return Table(name, cells, store.manifest(name))
