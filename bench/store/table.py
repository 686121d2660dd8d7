"""A matrix's cells as they are on disk, with what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store.folders import CellFolder, Row, Status, Store, rows_of
from bench.store.journal import curves
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
        DamagedManifest: if its manifest cannot be believed.
    """
    manifest = store.manifest(name)
    return Table(name, [_collected(store.cell(row.cell), row) for row in rows_of(manifest)], manifest)


def _collected(folder: CellFolder, row: Row) -> CellRecord:
    """One cell; its result, which may be large, is read and verified once."""
    result, damage = folder.outcome()
    status, reason = folder.status_of(result, damage)
    grid, steps = folder.samples / "grid.npy", {}
    for path in sorted(folder.samples.glob("step-*.npy")):
        if (step := path.stem.removeprefix("step-")).isdecimal():
            steps[int(step)] = path
    return CellRecord(row, status, reason, result, curves(folder.journal), grid if grid.is_file() else None, steps)
