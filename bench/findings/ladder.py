"""Matrices that sweep a training value: which value each variant would choose, and how far up it trains at all.

The choice is made by validation loss, or on tasks by the excess error of seeds that are reported nowhere else; a matrix
may name another metric (`choose_by`). A run counts as *diverged* where its
loss stopped being a number, or where its validation loss ended above `LOST` times the lowest of its variant and seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.findings.peers import of_tasks
from bench.store.metrics import Measurement, find, numbers
from bench.store.table import CellRecord, Table

LOST = 2.0
LOSS = "heldout_loss"


@dataclass(frozen=True)
class Choice:
    """What a variant chooses on an axis.

    Attributes:
        value: the chosen one; row: its row in the table. own: the matrix's value, own_row: its row, None if not tried.
        edge: whether the choice lies at an end of the axis, so that a better one may lie beyond.
        name: the variant with its point of the other axes. metric: the key that it was chosen by. means: value -> the
            mean of that over seeds, of values at which no seed was lost.
    """

    variant: str
    value: Any
    row: str
    own: Any
    own_row: str | None
    edge: bool
    name: str = ""
    metric: str = LOSS
    means: dict[Any, float] = field(default_factory=dict)


def choices(table: Table) -> list[Choice]:
    """One for each variant (and point of the other axes); none where the matrix chooses nothing."""
    config = table.manifest["config"]
    axis = config.get("choose")
    if not axis:
        return []
    own = config.get(axis.partition(".")[0], {}).get(axis.partition(".")[2])
    metric, chosen = chosen_by(table), []
    for name, cells in _others(table, axis).items():
        means: dict[Any, float] = {}
        for value in config["axes"][axis]:
            found = [_number(cell, metric) for cell in cells if cell.row.axes[axis] == value]
            known = [number for number in found if number is not None]
            if known and len(known) == len(found):  # a value at which a seed was lost is not chosen
                means[value] = statistics.geometric_mean(known) if metric.metric.log else statistics.fmean(known)
        if not means:
            continue
        best = min(means, key=lambda value: -means[value] if metric.better == "higher" else means[value])
        rows = {cell.row.axes[axis]: cell.row.name for cell in cells}
        ends = outermost(config["axes"][axis])
        row = cells[0].row
        chosen.append(Choice(row.variant, best, rows[best], own, rows.get(own), best in ends, name, metric.key, means))
    return chosen


def outermost(values: Sequence[Any]) -> tuple[Any, Any]:
    """The ends of an axis: the least and the largest of numbers, whatever their order, else the first and the last."""
    numbers = all(isinstance(value, int | float) for value in values)
    return (min(values), max(values)) if numbers else (values[0], values[-1])


def chosen_by(table: Table) -> Measurement:
    """The metric that values are chosen by.

    Raises:
        ValueError: if no cell has the one that the matrix names.
    """
    name = table.manifest["config"].get("choose_by") or ("excess_error" if of_tasks(table) else LOSS)
    keys = {key for cell in table.done if cell.result for key in numbers(cell.result)}
    return Measurement.parse(find(keys, name) if keys else name)


def _number(cell: CellRecord, metric: Measurement) -> float | None:
    return numbers(cell.result).get(metric.key) if cell.result else None


@dataclass(frozen=True)
class Rung:
    """One value of a ladder.

    Attributes:
        value: of the axis.
        loss: the median over seeds of the validation loss; None if none has one.
        lost: how many of the seeds were lost.
        seeds: how many there are.
    """

    value: float
    loss: float | None
    lost: int
    seeds: int


@dataclass(frozen=True)
class Ladder:
    """A variant on a ladder.

    Attributes:
        highest: seed -> the highest value below the first at which it was lost.
        unlost: seeds that no value lost: their `highest` is only the top of the ladder.
        below: seeds that the lowest value lost: they have no `highest`, which would be below the ladder.
        unknown: seeds without a result at a value up to their first loss: they have none either, and count for nothing.
    """

    name: str
    rungs: list[Rung]
    highest: dict[int, float]
    unlost: int
    below: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()

    @property
    def limit(self) -> float | None:
        """The median over seeds of the highest value; None where that is below the ladder, or without seeds."""
        values = [*self.highest.values(), *(-math.inf for _ in self.below)]
        middle = statistics.median(values) if values else -math.inf
        return middle if math.isfinite(middle) else None


def ladders(table: Table, axis: str = "train.lr") -> list[Ladder]:
    """One for each variant (and point of the other axes) of a matrix with three values or more on the axis."""
    values = sorted(table.manifest["config"].get("axes", {}).get(axis, []))
    if len(values) < 3:
        return []
    return [_ladder(name, cells, axis, values) for name, cells in _others(table, axis).items()]


def off(known: Sequence[Ladder]) -> tuple[dict[str, int], dict[str, int]]:
    """Row -> how many of its seeds the lowest value loses, and how many none: their highest is not on the ladder."""
    return {one.name: len(one.below) for one in known}, {one.name: one.unlost for one in known}


def _ladder(name: str, cells: list[CellRecord], axis: str, values: list[float]) -> Ladder:
    by_seed: dict[int, dict[float, CellRecord]] = {}
    for cell in cells:
        by_seed.setdefault(cell.row.seed, {})[cell.row.axes[axis]] = cell
    lost: dict[tuple[int, float], bool] = {}
    for seed, row in by_seed.items():
        known = [loss for loss in map(_loss, row.values()) if loss is not None]
        lowest = min(known) if known else None
        for value, cell in row.items():
            loss = _loss(cell)
            if loss is not None and lowest is not None:
                lost[seed, value] = loss > LOST * lowest
            elif cell.status == "diverged":
                lost[seed, value] = True
    highest, unlost, below, unknown = {}, 0, [], []
    for seed in by_seed:
        first = next((k for k, value in enumerate(values) if lost.get((seed, value))), None)
        held = values[:first]
        if any((seed, value) not in lost for value in held):
            unknown.append(seed)
        elif held:
            unlost += first is None
            highest[seed] = held[-1]
        else:
            below.append(seed)
    rungs = []
    for value in values:
        here = [row[value] for row in by_seed.values() if value in row]
        known = [loss for loss in map(_loss, here) if loss is not None]
        gone = sum(lost.get((cell.row.seed, value), False) for cell in here)
        rungs.append(Rung(value, statistics.median(known) if known else None, gone, len(here)))
    return Ladder(name, rungs, highest, unlost, tuple(below), tuple(unknown))


def _others(table: Table, axis: str) -> dict[str, list[CellRecord]]:
    """Cells by variant and the other axes."""
    groups: dict[str, list[CellRecord]] = {}
    for cell in table.cells:
        if axis in cell.row.axes:
            rest = [f" {key.rpartition('.')[2]}={value}" for key, value in cell.row.axes.items() if key != axis]
            groups.setdefault(cell.row.variant + "".join(rest), []).append(cell)
    return groups


def _loss(cell: CellRecord) -> float | None:
    return cell.result.quality.get(LOSS) if cell.result else None
