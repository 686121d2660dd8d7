"""What each scheme can carry: schemes down, tasks (and their levels) across, with its cost. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from bench.findings.analysis import Analysis
from bench.findings.compare import together
from bench.findings.statistics import half_width_of_means
from bench.findings.summary import VariantSummary
from bench.store.metrics import Measurement

BLIND_MOST, ORACLE_LEAST = 0.1, 0.9  # scores of the two arms; a task beyond either is void
MEMORY = ("train_peak_allocated_bytes", "train_peak_resident_bytes")  # the first that was measured is shown
LEVELS = ("easy", "medium", "hard")
LOST = {"failed", "oom", "diverged", "timeout"}  # ends of cells without a result
MOST_ACROSS = 12  # columns of a figure that can be read


@dataclass(frozen=True, order=True)
class Task:
    """A task at a level; the level is empty where a matrix has one."""

    name: str
    level: str = ""

    def __str__(self) -> str:
        """`bind`, or `bind, hard`."""
        return f"{self.name}, {self.level}" if self.level else self.name


@dataclass(frozen=True)
class Capability:
    """A table of one metric, 0 for a prompt ignored and 1 for a prompt used whole.

    Attributes:
        kind: `score`, or `right` for control read off the samples. key: of each row, on disk.
        schemes: rows of schemes, in the matrix's order. arms: reference rows, scheme -> `blind` or `oracle`.
        tasks: columns, in the matrix's order.
        rows: (scheme, task) -> its cells over seeds.
        void: task -> the rule that it fails.
    """

    kind: str
    schemes: list[str]
    arms: dict[str, str]
    tasks: list[Task]
    rows: dict[tuple[str, Task], VariantSummary]
    void: dict[Task, str]

    def value(self, scheme: str, task: Task) -> tuple[float, float | None] | None:
        """Mean over seeds and half its 95 % interval; None where nothing was measured."""
        row = self.rows.get((scheme, task))
        key = row and key_of(row.values, self.kind)
        mean = row.mean(key) if row and key else None
        return None if row is None or mean is None else (mean, row.interval(str(key)))

    def mean(self, scheme: str) -> tuple[float, float | None] | None:
        """The mean over tasks that are not void with half its 95 % interval; None where one is missing."""
        rows = [self.rows.get((scheme, task)) for task in self.tasks if task not in self.void]
        values = [row.values[key] for row in rows if row and (key := key_of(row.values, self.kind))]
        if not values or len(values) < len(rows):
            return None
        return fmean(map(fmean, values)), half_width_of_means(values)

    def cost(self, scheme: str, key: str) -> float | None:
        """A cost of a scheme, the mean over `costed`; of memory the largest."""
        own = [fmean(row.values[key]) for row in self.costed(scheme, key)]
        return None if not own else max(own) if key in MEMORY else fmean(own)

    def costed(self, scheme: str, key: str) -> list[VariantSummary]:
        """The rows of a scheme on the tasks of which all schemes that have this cost have it: others cost otherwise."""
        known = {place: row for place, row in self.rows.items() if row.values.get(key)}
        tasks = [{task for name, task in known if name == one} for one in {scheme, *self.schemes}]
        shared = set.intersection(*filter(None, tasks)) if any(tasks) else set()
        return [row for (name, task), row in known.items() if name == scheme and task in shared]

    @property
    def costs(self) -> list[Measurement]:
        """What is shown beside: throughput, sampling time, memory, parameters, as far as measured."""
        keys = {key for row in self.rows.values() for key in row.values}
        memory = next((key for key in MEMORY if key in keys), "")
        wanted = ("train_images_per_second", "sample_ms", memory, "parameters_total")
        return [Measurement.parse(key) for key in wanted if key in keys]

    def together(self, key: str) -> bool:
        """Whether a cost of all schemes may be compared, by the rule of `compare`."""
        return together(list(self.rows.values()), key)


def key_of(keys: Iterable[str], kind: str) -> str | None:
    """The key of a kind on all held-out prompts, whoever read it and over however many samples."""
    form = re.compile(rf"{kind}(_template_\d+k?)?")
    return next((key for key in sorted(keys) if form.fullmatch(key)), None)


def capability(analysis: Analysis, kind: str = "score") -> Capability | None:
    """The table of a matrix over tasks; None where it has no task, or none with that metric."""
    places: dict[tuple[str, Task], VariantSummary] = {}
    arms: dict[str, str] = {}
    for row in analysis.rows:
        place = _place(row, analysis.table.manifest["config"])
        if place is not None:
            places[place] = row
            arms |= {place[0]: row.arm} if row.arm else {}
    if not any(key_of(row.values, kind) for row in places.values()):
        return None
    names = list(dict.fromkeys(scheme for scheme, _ in places))
    schemes = [name for name in names if name not in arms]
    found = Capability(kind, schemes, arms, _ordered([task for _, task in places]), places, {})
    return Capability(kind, schemes, arms, found.tasks, places, _void(capability_score(found)))


def shown_level(one: Capability) -> str:
    """The level that a figure shows first where all would be too many columns to read; empty where all are shown."""
    levels = [level for level in LEVELS if any(task.level == level for task in one.tasks)]
    if len(one.tasks) <= MOST_ACROSS or len(levels) < 2:
        return ""
    return "medium" if "medium" in levels else levels[len(levels) // 2]


def at_level(one: Capability, level: str) -> Capability:
    """The same of one level; of all where it is empty."""
    tasks = [task for task in one.tasks if not level or task.level == level]
    rows = {place: row for place, row in one.rows.items() if place[1] in tasks}
    return replace(one, tasks=tasks, rows=rows)


def capability_score(one: Capability) -> Capability:
    """The same table of scores, which validity is decided by."""
    return Capability("score", one.schemes, one.arms, one.tasks, one.rows, one.void)


def _ordered(tasks: list[Task]) -> list[Task]:
    """Every task once, its levels together, from easy to hard."""
    names, levels = list(dict.fromkeys(task.name for task in tasks)), list(dict.fromkeys(task.level for task in tasks))
    levels.sort(key=lambda level: LEVELS.index(level) if level in LEVELS else len(LEVELS))
    every = set(tasks)
    return [task for name in names for level in levels if (task := Task(name, level)) in every]


def _place(row: VariantSummary, config: dict[str, Any]) -> tuple[str, Task] | None:
    """The scheme's name, with what else is swept, and the task of a row."""
    cell = row.cells[0].row
    axes = dict(cell.axes)
    own = next((result.config.get("data") for result in row.results.values()), None)
    data: dict[str, Any] = {**config.get("data", {}), **(own if isinstance(own, dict) else {})}
    task = axes.pop("data.task", data.get("task"))
    level = axes.pop("data.level", "")
    if not task or (data.get("source", "task") != "task"):
        return None
    return cell.variant + "".join(f" {key.rpartition('.')[2]}={value}" for key, value in axes.items()), Task(
        str(task), str(level)
    )


def _void(table: Capability) -> dict[Task, str]:
    """Task -> why it says nothing: a prompt that is not needed, or one that cannot be used even as a map."""
    reasons: dict[Task, str] = {}
    for task in table.tasks:
        for scheme, arm in table.arms.items():
            value, row = table.value(scheme, task), table.rows.get((scheme, task))
            if value is None:
                if row and row.cells and {*row.ended} <= LOST:
                    reasons[task] = f"{arm} finished in no seed ({', '.join(sorted(row.ended))})"
            elif arm == "blind" and value[0] >= BLIND_MOST:
                reasons[task] = f"blind scores {_beside(value[0], BLIND_MOST)}, not below {short(BLIND_MOST)}"
            elif arm == "oracle" and value[0] <= ORACLE_LEAST:
                reasons[task] = f"oracle scores {_beside(value[0], ORACLE_LEAST)}, not above {short(ORACLE_LEAST)}"
    return reasons


def _beside(value: float, limit: float) -> str:
    """A value in as many digits as distinguish it from the limit: `.8997` beside .90."""
    digits = next((digits for digits in range(2, 7) if round(value, digits) != limit), 2)
    return short(value) if digits == 2 else f"{value:.{digits}f}".replace("0.", ".", 1)


def short(value: float) -> str:
    """`.95`, `-.03`, `1.00`, `-12.3`."""
    if abs(value) >= 10:
        return f"{value:.3g}"
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def value_text(value: tuple[float, float | None] | None, plus_minus: str = " ±") -> str:
    """`.95 ±.02`; a hyphen where nothing was measured."""
    if value is None:
        return "-"
    mean, half = value
    return short(mean) + (f"{plus_minus}{short(half)}" if half is not None else "")
