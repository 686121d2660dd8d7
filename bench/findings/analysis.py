"""All that results say, computed once: every view is a pure function of an `Analysis`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.findings import best, claims, compare, fairness, origins
from bench.findings.caveats import caveats
from bench.findings.claims import ClaimVerdict
from bench.findings.compare import Difference
from bench.findings.ladder import Choice, Ladder, choices, ladders
from bench.findings.summary import VariantSummary, columns, find_row, frame, summaries
from bench.store.metrics import Measurement
from bench.store.result import is_number
from bench.store.table import CellRecord, Table

__all__ = ["Analysis", "VariantSummary", "analyse", "columns", "frame", "summaries"]


@dataclass(frozen=True)
class Analysis:
    """What the cells of a matrix say together.

    Attributes:
        rows: a variant (at one point of the axes) over its seeds, in the matrix's order.
        columns: of the table of means.
        bold: a column's key -> the rows not significantly worse than its best; empty where nothing is decided.
        baseline: the row that the others are compared with. verdicts: row -> its differences to that, judged.
        fairness: what was equal between cells. row_notes: sentences without which the rows could be read wrongly.
        column_notes: likewise the columns of the table of means.
    """

    table: Table
    rows: list[VariantSummary]
    columns: list[Measurement]
    bold: dict[str, set[str]]
    baseline: str
    verdicts: dict[str, list[Difference]]
    claim: ClaimVerdict | None
    ladders: list[Ladder]
    choices: list[Choice]
    fairness: list[fairness.Statement]
    row_notes: list[str]
    column_notes: list[str]

    @property
    def name(self) -> str:
        """The matrix's name."""
        return self.table.name

    @property
    def notes(self) -> list[str]:
        """All sentences without which the table of means could be read wrongly."""
        return [*self.row_notes, *self.column_notes]

    @cached_property
    def first_cells(self) -> dict[str, CellRecord]:
        """The first finished seed of each row, by the row's name; one that has samples, where any has."""
        first: dict[str, CellRecord] = {}
        for cell in sorted(self.table.done, key=lambda cell: cell.grid is None):
            first.setdefault(cell.row.name, cell)
        return {row.name: first[row.name] for row in self.rows if row.name in first}

    def row(self, name: str) -> VariantSummary:
        """The row of a name.

        Raises:
            ValueError: if there is none.
        """
        return find_row(self.rows, name)


def analyse(table: Table) -> Analysis:
    """Everything that the views show.

    Raises:
        ValueError: if config or claim name a row that is not there.
    """
    rows = summaries(table)
    shown = columns(rows)
    bold = {column.key: best.bold(table, rows, column) for column in shown}
    return Analysis(
        table,
        rows,
        shown,
        bold,
        compare.baseline(table, rows),
        compare.against(table, rows),
        claims.decide(table, rows),
        ladders(table),
        choices(table),
        fairness.statement(table),
        _row_notes(table, rows),
        _column_notes(table, rows, any(bold.values())),
    )


def _row_notes(table: Table, rows: list[VariantSummary]) -> list[str]:
    text = []
    if not table.done:
        text.append("No cell has a result yet.")
    elif max((row.planned for row in rows), default=0) == 1:
        text.append("One seed: there is no spread, and differences between rows are not established.")
    else:
        text.append("Mean over seeds ± half the 95 % t-interval of that mean.")
    text += origins.notes(table)
    text += [f"{row.name}, {reason}" for row in rows for reason in row.reasons]
    return text + [
        f"{row.name}, seed {seed}, was trained on {' and then '.join(on)}: not one machine's number."
        for row in rows
        for seed, result in row.results.items()
        if len(on := result.provenance.get("trained_on", [])) > 1
    ]


def _column_notes(table: Table, rows: list[VariantSummary], bold: bool) -> list[str]:
    text = caveats((key for row in rows for key in row.by_seed), _dimensions(rows))
    text += sorted({labels for one in _measured(rows) if (labels := one.get("labels"))})
    return [*text, _bold_note(table)] if bold else text


def _bold_note(table: Table) -> str:
    among, where = ", among rows whose every seed finished", "column"
    if compare.how(table) != "paired by seed":
        among, where = "", "column and task"
    return (
        f"Bold: not significantly worse than the best of a {where} ({compare.how(table)}, 95 % over all pairs of rows"
        f"){among}; in a {where} without bold nothing is decided."
    )


def _dimensions(rows: Iterable[VariantSummary]) -> dict[str, int]:
    """Extractor's slug -> number of its features, as far as the results say."""
    known = [one for one in _measured(rows) if is_number(one.get("dim")) and "extractor" in one]
    return {str(one["extractor"]).lower().replace("-", "_"): int(one["dim"]) for one in known}


def _measured(rows: Iterable[VariantSummary]) -> list[dict[str, Any]]:
    """What each result was measured with."""
    return [result.provenance.get("measured", {}) for row in rows for result in row.results.values()]
