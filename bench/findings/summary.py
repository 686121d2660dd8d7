"""Cells become rows: a mean with its spread over seeds, cost beside quality, failures as rows. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from architectures import nearest
from bench.findings.origins import run
from bench.findings.statistics import half_width
from bench.findings.words import machine
from bench.store import metrics
from bench.store.metrics import Measurement, numbers
from bench.store.result import Result
from bench.store.table import CellRecord, Table

if TYPE_CHECKING:
    import pandas as pd


IMAGES = ("source", "task", "level", "knobs", "path", "subset", "image_size", "objects")  # keys of data that say which
ARMS = ("blind", "oracle")  # never given its prompt, and given the answer as a map: what a task is bounded by


@dataclass(frozen=True)
class VariantSummary:
    """A variant (at one point of the axes) over its seeds.

    Attributes:
        cells: one a seed, in the order of the matrix.
        by_seed: key -> seed -> value, of finished seeds.
    """

    name: str
    cells: list[CellRecord]
    by_seed: dict[str, dict[int, float]]

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Key -> a value a finished seed."""
        return {key: list(values.values()) for key, values in self.by_seed.items()}

    @cached_property
    def results(self) -> dict[int, Result]:
        """Seed -> result, of finished seeds."""
        return {cell.row.seed: cell.result for cell in self.cells if cell.result}

    @cached_property
    def runs(self) -> dict[int, str]:
        """Seed -> the run that it was measured in, and on which machine."""
        return {seed: f"{run(one.provenance)} on {self.machines[seed]}" for seed, one in self.results.items()}

    @cached_property
    def machines(self) -> dict[int, str]:
        """Seed -> the machine that measured it."""
        return {seed: machine(result.provenance) for seed, result in self.results.items()}

    @cached_property
    def images(self) -> frozenset[str]:
        """Which images its cells are measured on, as their configs name them."""
        given = [one.config.get("data") for one in self.results.values()]
        known = [[one.get(key) for key in IMAGES] for one in given if isinstance(one, dict)]
        return frozenset(json.dumps(one, sort_keys=True) for one in known)

    @cached_property
    def contents(self) -> frozenset[str]:
        """Digests of its data, which a folder that was moved keeps."""
        given = [one.provenance.get("digests") for one in self.results.values()]
        return frozenset(str(one["data_content"]) for one in given if isinstance(one, dict) and "data_content" in one)

    @cached_property
    def arm(self) -> str:
        """`blind` or `oracle` where the row is a reference and no scheme, else nothing.

        As the prompts of its results say; of a row without any as it is named.
        """
        prompts = [result.config.get("prompt") for result in self.results.values()]
        arm = next((prompt.get("arm") for prompt in prompts if isinstance(prompt, dict)), None)
        if arm is None and self.cells:
            arm = self.cells[0].row.variant
        return arm if arm in ARMS else ""

    @property
    def planned(self) -> int:
        """Number of seeds."""
        return len(self.cells)

    @property
    def ended(self) -> Counter[str]:
        """How many ended how."""
        return Counter(cell.status for cell in self.cells)

    @property
    def reasons(self) -> list[str]:
        """Why cells have no result."""
        return [f"seed {cell.row.seed}: {cell.status}: {cell.reason}" for cell in self.cells if cell.reason]

    @property
    def complete(self) -> bool:
        """Whether every seed finished."""
        return self.ended["done"] == self.planned

    @property
    def seeds(self) -> str:
        """`3`, or `2/3 (1 diverged)`."""
        if self.complete:
            return str(self.planned)
        rest = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()) if status != "done")
        return f"{self.ended['done']}/{self.planned} ({rest})"

    def mean(self, key: str) -> float | None:
        """The mean over finished seeds; None without any."""
        return statistics.fmean(self.values[key]) if self.values.get(key) else None

    def interval(self, key: str) -> float | None:
        """Half of the 95 % t-interval of the mean over seeds; None for fewer than two."""
        values = self.values.get(key, [])
        return half_width(values) if len(values) > 1 else None


def frame(table: Table) -> pd.DataFrame:
    """Every number of a table, long: `row`, `seed`, `metric`, `value`, `run` (that it was measured in)."""
    import pandas as pd

    lines = [
        (cell.row.name, cell.row.seed, key, value, run(cell.result.provenance))
        for cell in table.cells
        if cell.result
        for key, value in numbers(cell.result).items()
    ]
    return pd.DataFrame(lines, columns=["row", "seed", "metric", "value", "run"])


def summaries(table: Table) -> list[VariantSummary]:
    """One for each variant and point of the axes, in the matrix's order."""
    by_seed: dict[str, dict[str, dict[int, float]]] = {cell.row.name: {} for cell in table.cells}
    cells: dict[str, list[CellRecord]] = {}
    for cell in table.cells:
        cells.setdefault(cell.row.name, []).append(cell)
        for key, value in numbers(cell.result).items() if cell.result else ():
            by_seed[cell.row.name].setdefault(key, {})[cell.row.seed] = value
    return [VariantSummary(name, cells[name], by_seed[name]) for name in by_seed]


def columns(rows: Sequence[VariantSummary]) -> list[Measurement]:
    """The columns that any row can fill."""
    return metrics.columns(key for row in rows for key in row.by_seed)


def find_row(rows: Sequence[VariantSummary], name: str) -> VariantSummary:
    """The row of a name; its axes may come in any order.

    Raises:
        ValueError: if there is none, with the nearest.
    """
    exact = [row for row in rows if row.name == name]  # two axes may have one short name and values in common
    alike = exact or [row for row in rows if sorted(row.name.split()) == sorted(name.split())]
    if alike:
        return alike[0]
    known = [row.name for row in rows]
    hint = nearest(name, known, f": choose from {', '.join(known)}")
    raise ValueError(f"there is no row {name!r}{hint}")
