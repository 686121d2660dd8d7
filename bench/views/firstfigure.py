"""The README's first figure, of the newest record over tasks: capability by scheme, and the text below it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from bench.findings.analysis import Analysis, analyse
from bench.findings.coverage import coverage, has_spread, missing, whole
from bench.findings.peers import of_tasks
from bench.findings.words import counted, in_letters
from bench.store.table import Table
from bench.views.capability import LEVELS, capability, shown_level
from bench.views.figures.capability import capability_figure
from bench.views.limits import OF_TASKS
from bench.views.records import load_record, newest_records

FILE = "docs/images/capability.png"
RECORDS = ("tasks", "quickstart")  # the first that is a record over tasks, of enough seeds, is shown
NONE = "No record of the suite is committed yet; `make quickstart` measures five schemes on four of its tasks here.\n"


def front_record(results: Path) -> tuple[Path, Analysis] | None:
    """The folder and analysis of the record that is shown; None without one over tasks that has a spread to show."""
    newest = newest_records(results)
    for name in RECORDS:
        if name in newest and of_tasks(table := _table(newest[name])) and has_spread(table):
            return newest[name], _analysed(newest[name])
    return None


@functools.lru_cache(maxsize=len(RECORDS))
def _table(folder: Path) -> Table:
    """A record, which nobody writes again."""
    return load_record(folder)


@functools.lru_cache(maxsize=len(RECORDS))
def _analysed(folder: Path) -> Analysis:
    """Its analysis, once for the figure and the text below it."""
    return analyse(_table(folder))


def front_figure(analysis: Analysis) -> bytes:
    """A PNG of its capability.

    Raises:
        ValueError: if it has no score of a task.
    """
    plot = capability_figure(analysis)
    if plot is None:
        raise ValueError(f"record {analysis.name!r} has no score of a task to show")
    return plot[0]


def front_text(root: Path) -> str:
    """Markdown: the figure, what it is of, what it cost, and what it cannot say.

    Args:
        root: of the repository.
    """
    found = front_record(root / "results")
    lines = [NONE]
    if found is not None:
        where = f"{found[0].relative_to(root).as_posix()}/report.md"
        lines = [f"![Capability by scheme, tasks across: score S with intervals, cost beside it]({FILE})\n"]
        lines += [f"{measured(found[1])} ([record]({where})).\n"]
    return "\n".join([*lines, "".join(f"- {sentence}\n" for sentence in OF_TASKS)])


def measured(analysis: Analysis) -> str:
    """What was measured, on which tasks, and what it cost."""
    table = analysis.table
    config = table.manifest["config"]
    results = [cell.result for cell in table.done if cell.result]
    sizes = [one.cost["parameters_total"] / 1000 for one in results]
    schemes = len({row.cells[0].row.scheme for row in analysis.rows if row.results and not row.arm})
    seeds = len({cell.row.seed for cell in table.done})
    machines = " and ".join(dict.fromkeys(_machine(one.provenance["hardware"]) for one in results))
    cells = counted(len(table.done), "cell")
    train, shape = config["train"], config["backbone"]
    tuned = ", each scheme at the learning rate that it chose on another seed" if config.get("tuned") else ""
    size = "".join(f", {key} {shape[key]}" for key in ("width", "depth") if shape.get(key))
    return (
        "Score `S = 1 - E|x - x*|² / E|x*_blind - x*|²` of each scheme on each task, `x*` the optimal denoiser, "
        "`x*_blind` the optimal one that ignores the prompt: 1 is the first, 0 the second, below is worse, on a scale "
        f"of each task's own; mean over {counted(seeds, 'seed')} with half its 95 % interval. "
        f"{_planned(table)}{counted(schemes, 'scheme')} of {min(sizes):.0f} to {max(sizes):.0f} thousand parameters"
        f"{size}, on {_tasks(analysis)}; {cells} of {train['steps']:,} steps of {train['batch']} images{tuned}, "
        f"{_time(_minutes(table))} on {machines}"
    )


def _planned(table: Table) -> str:
    """`Three of five planned seeds are complete; the other two are not shown. `; nothing of a whole matrix."""
    left = len((table.manifest.get("left_out") or {}).get("seeds", ()))
    if lacks := missing(table):
        return f"{counted(len(lacks), 'cell')} without a result: {coverage(table)}. "
    if not left:
        return ""
    shown = len(whole(table))
    return (
        f"{in_letters(shown).capitalize()} of {in_letters(shown + left)} planned seeds {'are' if shown > 1 else 'is'} "
        f"complete; the other {f'{in_letters(left)} are' if left > 1 else 'one is'} not shown. "
    )


def _tasks(analysis: Analysis) -> str:
    """Their names, with the levels where there are several."""
    table = analysis.table
    own = table.manifest["config"]["data"].get("task")
    names = dict.fromkeys(str(cell.row.axes.get("data.task") or own) for cell in table.cells)
    levels = [level for level in LEVELS if any(cell.row.axes.get("data.level") == level for cell in table.cells)]
    text = f"{', '.join(f'`{name}`' for name in names)} ([what each isolates](docs/tasks.md))"
    capable = capability(analysis)
    shown = shown_level(capable) if capable else ""
    return (
        text + (f" at the levels {', '.join(levels)}" if levels[1:] else "") + (f" (shown: {shown})" if shown else "")
    )


def _minutes(table: Table) -> float:
    """Of all cells, so many at a time as the matrix says, without pauses between them."""
    spans = [(one.result.provenance["started"], one.result.provenance["ended"]) for one in table.done if one.result]
    jobs = (table.manifest["config"].get("run") or {}).get("jobs") or 1
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return float(min(whole, sum(end - start for start, end in spans) / jobs)) / 60


def _time(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _machine(hardware: dict[str, Any]) -> str:
    return str(hardware["gpu"]) if hardware.get("gpu") else f"{hardware['cores']} cores of a CPU"
