"""What a plan costs before anything is trained, as a table: a row for cells that differ by seed or by task alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from bench.findings.words import machine, number

if TYPE_CHECKING:
    from bench.config.schema import Matrix
    from bench.run.plan import Plan, PlannedCell
    from bench.views.grid import Grid

OF_TASKS = ("data.task", "data.level")  # axes that change a model by no more than its tokens and words
PREFIXES = ("", "k", "M", "G", "T", "P")  # powers of a thousand


@dataclass(frozen=True)
class Column:
    """A quantity of cells in one unit.

    Attributes:
        heading: with `{}` where its unit's prefix belongs, none where it has no unit.
        of: its value for a cell.
        text: how a value is written, in that unit.
    """

    heading: str
    of: Callable[[PlannedCell], float]
    text: Callable[[float], str] = number


def _share(name: str) -> Callable[[PlannedCell], float]:
    return lambda cell: cell.cost[name] / cell.cost["parameters_total"]


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _work(cell: PlannedCell) -> float:
    train = cell.spec.config.train
    return cell.cost["flops_train_per_image"] * train.batch * train.steps


COLUMNS = (
    Column("parameters", lambda cell: cell.cost["parameters_total"] / 1e6, lambda value: f"{value:.2f} M"),
    Column("modulation", _share("parameters_modulation"), _percent),
    Column("prompt path", _share("parameters_prompt"), _percent),
    Column("{}MAC an image", lambda cell: cell.cost["macs_forward"]),
    Column("training {}FLOP", _work),
)


def plan_grid(planned: Plan, *, hours: bool = False) -> Grid:
    """What a cell of each row costs; with `hours` on a GPU too, where that was measured."""
    from bench.views.grid import Grid

    matrix, groups = planned.matrix, _groups(planned.cells)
    columns = {
        "row": [_name(cells) for cells in groups],
        "cells": [f"{len(cells):,}" for cells in groups],
        "train.lr": [_span([one.spec.config.train.lr for one in cells], lambda rate: f"{rate:g}") for cells in groups],
    }
    columns |= dict(_scaled(column, groups) for column in COLUMNS)
    columns |= _hours(groups) if hours else {}
    if any(one.budget for one in planned.cells):
        columns[f"equal {matrix.budget.match}"] = [cells[0].budget for cells in groups]
    words = {0, len(columns) - 1} if f"equal {matrix.budget.match}" in columns else {0}
    if any(one.reason for one in planned.cells):
        words.add(len(columns))
        columns["cannot be run"] = [cells[0].reason for cells in groups]
    title = f"{matrix.name}: {len(planned.cells):,} cells of {matrix.train.steps:,} steps; costs are of one cell"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Grid(list(columns), rows, title, frozenset(words))


def recorded_time(matrix: Matrix, left: Sequence[PlannedCell], records: Path) -> str:
    """How long the cells that are left would take by the newest record of this matrix, in a sentence.

    Empty where none is there, it is damaged, or it lacks a cell of some row with as many steps of as many images and
    multiply-adds.
    """
    from bench.views.records import DamagedRecord, load_record, newest_records

    folder = newest_records(records).get(matrix.name)
    if folder is None or not left:
        return ""
    try:
        results = [(cell.row.name, cell.result) for cell in load_record(folder).done if cell.result is not None]
    except DamagedRecord:
        return ""
    took: dict[tuple[object, ...], list[float]] = {}
    for name, one in results:
        train, cost = one.config["train"], one.cost
        key = (name, train["steps"], train["batch"], cost.get("macs_forward"))
        took.setdefault(key, []).append(cost.get("train_seconds", math.nan) + cost.get("evaluate_seconds", math.nan))
    seconds = sum(mean(took.get(_same(cell), [math.nan])) for cell in left)
    if not math.isfinite(seconds):
        return ""
    jobs = matrix.run.jobs or 1
    minutes = seconds / jobs / 60
    text = f"{number(minutes, 2)} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    machines = " and ".join(dict.fromkeys(machine(one.provenance) for _, one in results))
    where = f"from the same rows of the record {folder} ({machines})"
    return f"estimate: {text}, {jobs} at a time, {where}. Without preparing data and starting cells."


def _same(cell: PlannedCell) -> tuple[object, ...]:
    """What a recorded cell must share to have taken as long."""
    train = cell.spec.config.train
    return (cell.row.name, train.steps, train.batch, cell.cost.get("macs_forward"))


def _groups(cells: Iterable[PlannedCell]) -> list[list[PlannedCell]]:
    """Cells by the row that they are shown in."""
    groups: dict[tuple[str, ...], list[PlannedCell]] = {}
    for cell in cells:
        axes = [f"{key}={value}" for key, value in cell.row.axes.items() if key not in OF_TASKS]
        groups.setdefault((cell.row.variant, *axes, cell.reason, cell.budget), []).append(cell)
    return list(groups.values())


def _name(cells: Sequence[PlannedCell]) -> str:
    """The row of the table, without the axes of tasks where they differ."""
    names = dict.fromkeys(one.row.name for one in cells)
    if len(names) == 1:
        return next(iter(names))
    row = cells[0].row
    return replace(row, axes={key: value for key, value in row.axes.items() if key not in OF_TASKS}).name


def _scaled(column: Column, groups: Sequence[Sequence[PlannedCell]]) -> tuple[str, list[str]]:
    """The heading with the unit that the largest value asks for, and a text for each row, empty where none is known."""
    values = [[column.of(one) for one in cells if one.cost] for cells in groups]
    if "{}" not in column.heading:
        return column.heading, [_span(own, column.text) for own in values]
    largest = max((value for own in values for value in own), default=0.0)
    power = min(int(math.log10(largest)) // 3, len(PREFIXES) - 1) if largest >= 1 else 0
    texts = [_span([value / 1000**power for value in own], column.text) for own in values]
    return column.heading.format(PREFIXES[power]), texts


def _hours(groups: Sequence[Sequence[PlannedCell]]) -> dict[str, list[str]]:
    """The column of GPU hours; none where nothing of its kind was measured."""
    from bench.run import estimate

    found = [[one for one in map(estimate.hours, cells) if one is not None] for cells in groups]
    if not any(found):
        return {}
    return {f"{estimate.CARD} hours": [str(max(own, key=lambda one: one.mean)) if own else "" for own in found]}


def _span(values: Sequence[float], text: Callable[[float], str]) -> str:
    """One value, or the least and the largest where they are not written alike; empty for none."""
    if not values:
        return ""
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"
