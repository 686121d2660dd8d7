"""Cells become rows: a mean with its spread over seeds, cost beside quality, failures as rows. Needs no torch."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.store import metrics
from bench.store.folders import name_of
from bench.store.metrics import Measurement, numbers
from bench.store.table import CellRecord, Table

# --- rows over seeds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VariantSummary:
    """A variant (at one point of the axes) over its seeds.

    Attributes:
        values: key -> a value a finished seed. runs: seed -> the command that measured it.
        planned: number of seeds. ended: how many ended how.
        reasons: of those that have no result.
    """

    name: str
    values: dict[str, list[float]]
    planned: int
    ended: Counter[str]
    reasons: list[str]
    runs: dict[int, str]

    @property
    def complete(self) -> bool:
        return self.ended["done"] == self.planned

    @property
    def seeds(self) -> str:
        """`3`, or `2/3 (1 diverged)`."""
        if self.complete:
            return str(self.planned)
        rest = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()) if status != "done")
        return f"{self.ended['done']}/{self.planned} ({rest})"

    def mean(self, key: str) -> float | None:
        return statistics.fmean(self.values[key]) if self.values.get(key) else None

    def interval(self, key: str) -> float | None:
        """Half of the 95 % t-interval of the mean over seeds; None for fewer than two."""
        values = self.values.get(key, [])
        return half_width(values) if len(values) > 1 else None


def half_width(values: Sequence[float], level: float = 0.05) -> float:
    """Half of the (1 - level) t-interval of the mean of two values or more."""
    from scipy.stats import t

    return float(t.ppf(1 - level / 2, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def summaries(table: Table) -> list[VariantSummary]:
    """One for each variant and point of the axes, in the matrix's order."""
    groups: dict[str, list[CellRecord]] = {}
    for cell in table.cells:
        groups.setdefault(name_of(cell.row), []).append(cell)
    return [_summary(name, cells) for name, cells in groups.items()]


def _summary(name: str, cells: list[CellRecord]) -> VariantSummary:
    values: dict[str, list[float]] = {}
    for cell in cells:
        for key, value in (numbers(cell.result) if cell.result else {}).items():
            values.setdefault(key, []).append(value)
    ended = Counter(cell.status for cell in cells)
    reasons = [f"seed {cell.row.seed}: {cell.status}: {cell.reason}" for cell in cells if cell.reason]
    runs = {cell.row.seed: str(cell.result.provenance.get("command")) for cell in cells if cell.result}
    return VariantSummary(name, values, len(cells), Counter(ended), reasons, runs)


def columns(rows: list[VariantSummary]) -> list[Measurement]:
    """The columns that any row can fill."""
    return metrics.columns(key for row in rows for key in row.values)


def best(rows: list[VariantSummary], column: Measurement) -> str | None:
    """The row that is best by its mean: of those whose every seed finished, if there are two of them with two seeds or
    more and no other shares the place. One seed shows no spread, so nothing is best; nor is any of rates of
    different runs."""
    whole = [row for row in rows if row.complete and row.planned > 1]
    ranked = sorted((mean, row.name) for row in whole if (mean := row.mean(column.key)) is not None)
    if column.better == "higher":
        ranked.reverse()
    apart = column.metric.timed and any(row.runs != whole[0].runs for row in whole)
    if not column.better or apart or len(ranked) < 2 or ranked[0][0] == ranked[1][0]:
        return None
    return ranked[0][1]
