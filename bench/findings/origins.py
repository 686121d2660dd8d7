"""Where cells come from: commits, machines, runs, records; and what of that speaks against comparing them.

Quality may be pooled over machines, for a cell's id holds config, data and the code that makes its numbers. What a cell
costs may not: rates, times and memory are a machine's, and rates and times a run's. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from architectures import few
from bench.config.spec import cell_id
from bench.findings.words import counted, machine, seeds
from bench.store.result import Result
from bench.store.table import CellRecord, Table


def run(provenance: Mapping[str, Any]) -> str:
    """The run that a cell was measured in: its launch, and the record that it was restored from, if any.

    A command that is typed again is another launch. Of older cells, which name none, it is the command; of a cell that
    another launch resumed it is both launches.
    """
    restored, launch = provenance.get("restored"), provenance.get("launch")
    text = f"launch {launch}" if launch else f"{provenance.get('command')}"
    return text + (f", restored from {restored}" if restored else "")


def by_its_id(result: Result) -> bool:
    """Whether config and digests of a result are those that its cell's id is the hash of."""
    try:
        return cell_id(result.config, result.provenance["digests"]) == result.cell
    except (KeyError, TypeError, AttributeError, ValueError):  # of another version, or edited
        return False


def same_code(table: Table) -> bool:
    """Whether all cells were made by the code of the plan, at whatever commit.

    An id is a hash over the bytes of all code that makes numbers (`bench.config.identity`), so that it is enough that
    each cell has the id of its config and digests, and the plan the digest of its code.
    """
    planned = table.manifest.get("code") or []
    results = [cell.result for cell in table.done if cell.result]
    return all(by_its_id(one) and one.provenance["digests"]["code"] in planned for one in results)


def origins(cells: Sequence[CellRecord], *, same: bool = False) -> list[str]:
    """What speaks against comparing cells by where they come from.

    Args:
        cells: of a table.
        same: whether they are of the same code for certain (`same_code`).
    """
    text, provenance = [], [cell.result.provenance for cell in cells if cell.result]
    if any(p.get("dirty") for p in provenance):
        text.append("measured with uncommitted changes")
    commits = sorted({str(p.get("commit", "unknown"))[:8] for p in provenance})
    if len(commits) > 1:
        equal = ", at which the code that makes numbers is the same" if same else ""
        text.append(f"measured at different commits: {', '.join(commits)}{equal}")
    machines = sorted({machine(p) for p in provenance})
    if len(machines) > 1:
        text.append(f"measured on different machines: {', '.join(machines)}; costs are compared within one alone")
    if len({p.get("restored") for p in provenance}) > 1:
        text.append("restored from a record in part; rates and times are compared within a run alone")
    return text


def notes(table: Table) -> list[str]:
    """Which cells were measured where, if some are of another machine or of a record."""
    groups: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in table.done:
        assert cell.result is not None
        provenance = cell.result.provenance
        groups.setdefault((machine(provenance), provenance.get("restored") or ""), []).append(cell)
    if len(groups) < 2 and not any(record for _, record in groups):
        return []
    every = "; ".join(f"{_which(cells)} on {_where(*key)}" for key, cells in groups.items())
    text = f"Measured apart: {every}. Rates, times and memory are compared within one of these alone."
    kept = " No samples of restored cells were kept." if any(record for _, record in groups) else ""
    return [text + kept]


def _which(cells: Sequence[CellRecord]) -> str:
    names = dict.fromkeys(cell.row.variant for cell in cells)
    return f"{counted(len(cells), 'cell')} ({seeds({cell.row.seed for cell in cells})}; {few(names)})"


def _where(machine: str, record: str) -> str:
    return machine + (f", restored from {record}" if record else "")
