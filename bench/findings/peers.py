"""Which rows are compared with which, by which rule, and on which scale. Imports no torch.

The rule is registered, or follows from the data, so that nobody picks the one that suits: a claim's `compare`, else
`pooled` where the data are tasks, else `paired`, as committed records of images are. Rows that differ in the data they
learn (a task, a level) are other comparisons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, cast

from bench.findings.contrasts import Rule, Sample
from bench.findings.summary import VariantSummary
from bench.store.metrics import Measurement
from bench.store.table import Table


def rule_of(table: Table) -> Rule:
    """How the rows of a table are compared."""
    config = table.manifest["config"]
    registered = (config.get("claim") or {}).get("compare")
    return cast(Rule, registered) if registered else "pooled" if of_tasks(table) else "paired"


def of_tasks(table: Table) -> bool:
    """Whether cells learn tasks."""
    config = table.manifest["config"]
    return (config.get("data") or {}).get("source") == "task" or "data.task" in (config.get("axes") or {})


def point(row: VariantSummary, kind: str = "data.") -> tuple[tuple[str, str], ...]:
    """What of the data distinguishes a row: the values of its axes of `data`, knobs among them, as text.

    Of another `kind`, those of axes that start so.
    """
    axes = row.cells[0].row.axes.items()
    return tuple((axis, json.dumps(value, sort_keys=True)) for axis, value in axes if axis.startswith(kind))


def groups(table: Table, rows: Sequence[VariantSummary]) -> list[list[VariantSummary]]:
    """The rows by what they learn, and by all axes where the baseline is a variant; else all of them."""
    everywhere = of_variant(table)
    if not everywhere and not of_tasks(table):
        return [list(rows)]
    by_point: dict[Any, list[VariantSummary]] = {}
    for row in rows:
        by_point.setdefault(point(row, "" if everywhere else "data."), []).append(row)
    return list(by_point.values())


def of_variant(table: Table) -> bool:
    """Whether the baseline is a variant and no row: each row is compared with that variant at its own axes' values."""
    name = table.manifest["config"].get("baseline")
    own = [cell.row for cell in table.cells if cell.row.variant == name]
    return bool(own) and all(row.name != name for row in own)


def schemes(rows: Sequence[VariantSummary], *named: VariantSummary) -> list[VariantSummary]:
    """The rows that are judged: no arm, which is given the answer or nothing, but those that are named."""
    wanted = {row.name for row in named}
    return [row for row in rows if not row.arm or row.name in wanted]


def peers(rows: Sequence[VariantSummary], *named: VariantSummary) -> list[VariantSummary]:
    """The named rows and every scheme that learns what one of them learns."""
    points = [point(row) for row in named]
    return [row for row in schemes(rows, *named) if point(row) in points]


def twin(table: Table, rows: Sequence[VariantSummary], base: VariantSummary) -> VariantSummary | None:
    """The baseline among the rows of a group: `base` but for the data, or its variant at their point; or none."""
    everywhere = of_variant(table)

    def rest(one: VariantSummary) -> Any:
        first = one.cells[0].row
        kept = [(axis, value) for axis, value in first.axes.items() if not axis.startswith("data.")]
        return first.variant, [] if everywhere else kept

    return next((one for one in rows if rest(one) == rest(base)), None)


# --- the scale --------------------------------------------------------------------------------------------------------


def scaled(one: Measurement, value: float) -> float:
    """A value on the scale it is compared on.

    Raises:
        ValueError: for one that has no logarithm.
    """
    if not one.metric.log:
        return value
    if value <= 0:
        raise ValueError(f"{one.heading} {value:g} has no logarithm")
    return math.log(value)


def floor(one: Measurement) -> float:
    """The least variance of a value: a share of N samples is known to some .7 of a sample at best, else 0.

    Not the binomial variance, which is above the spread between seeds: all share noise and prompts, and `local` and
    `global` are means of several attributes. With this one, equal shares are found to differ at most as often as the
    level says (`tests/test_statistics.py`).
    """
    share = one.over_chance or one.metric.kind in ("precision", "recall")
    return 0.5 / one.count**2 if share and one.count else 0.0


def sample(one: Measurement, values: Sequence[float]) -> Sample:
    """The values of a row on the scale compared.

    Raises:
        ValueError: for a value that has no logarithm.
    """
    return Sample(tuple(scaled(one, value) for value in values), floor(one))


def samples(one: Measurement, rows: Sequence[VariantSummary]) -> dict[str, Sample]:
    """Row -> its values on the scale compared, of rows that have any and whose every value has its place there."""
    valued = {row.name: row.values[one.key] for row in rows if row.values.get(one.key)}
    return {name: sample(one, values) for name, values in valued.items() if not one.metric.log or min(values) > 0}
