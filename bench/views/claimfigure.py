"""The README's figure of claims: what their tests compare, as differences with intervals, and the text below it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from bench.config.claim import RIVALS
from bench.findings.compare import difference
from bench.findings.peers import of_tasks, peers, rule_of
from bench.findings.summary import summaries
from bench.store.metrics import find
from bench.store.table import Table
from bench.views.figures.forest import Line, forest
from bench.views.limits import outdated
from bench.views.records import load_record, newest_records

FILE = "docs/images/result.png"
OLDER_METRIC = "heldout_loss"  # the one metric of the older claims that is shown
READ = """\
Bars are 95 % intervals, not corrected; the interval of a filled point excludes no difference; grey marks are margins
that a claim allows. It holds for this size and data.
"""
APART = """\
differences of scores and control, where the 95 % interval, not corrected, excludes no difference; the others are among
the claims, so that what is shown here is larger than what was found in all. Of a comparison that was made again it is
that of most seeds; grey marks are margins that a claim allows. They hold for this size and data.
"""
ON_TASKS = f"""\
![Differences between schemes on tasks with 95 % intervals, over the tests of the committed claims]({FILE})

Effect sizes of the tests of the committed claims on tasks: factors of an excess error, on a logarithmic axis, and
{APART}"""
ON_SCENES = f"""\
![Differences of the validation loss with 95 % intervals, over the tests of the committed claims]({FILE})

Paired by seed on rendered scenes, 1 to 2 M parameters, two CPU cores. Modulation without a shift costs some 5 % of
validation loss, beside LayerNorm and beside RMSNorm; whether gates are initialised at zero or as small Gaussians
made no difference in six fresh seeds. {READ}"""


def result_text(root: Path) -> str:
    """Markdown: the figure, and how it is read.

    Args:
        root: of the repository.
    """
    return ON_TASKS if _newer(root) else ON_SCENES


def claim_figure(root: Path) -> bytes:
    """A PNG of the newest claims: what is apart on tasks as soon as there is one, else the older by validation loss."""
    if newer := _newer(root):
        lines = of_most_seeds(line for folder in newer for line in claim_lines(load_record(folder)))
        return forest([line for line in lines if line.apart] or lines)
    tables = [load_record(folder) for folder in _claims(root)]
    return forest([line for table in tables for line in claim_lines(table) if line.difference.metric == OLDER_METRIC])


def of_most_seeds(lines: Iterable[Line]) -> list[Line]:
    """Of a comparison that several claims make, the one of most seeds, of as many the last; in their order."""
    found: dict[str, Line] = {}
    for line in lines:
        one = line.difference
        of = line.compared(named=True)  # neither how rows are named nor the number of samples
        if of not in found or len(one.seeds) >= len(found[of].difference.seeds):
            found[of] = line
    return list(found.values())


def claim_lines(table: Table) -> list[Line]:
    """The tests of a claim that compare two rows, as far as their difference has an interval."""
    rows, rule, lines = {row.name: row for row in summaries(table)}, rule_of(table), []
    for test in (table.manifest["config"].get("claim") or {"tests": []})["tests"]:
        rival = next((test[key] for key in RIVALS if test.get(key)), None)
        if rival is None or test.get("per") or not {test["variant"], rival} <= rows.keys():
            continue
        a, b = rows[test["variant"]], rows[rival]
        shared = a.by_seed.keys() & b.by_seed.keys()
        try:
            one = difference(a, b, find(shared, test["metric"]), rule, peers(list(rows.values()), a, b))
        except ValueError:  # neither has it: a ladder's metric, or cells that ended early
            continue
        if one.low is not None and one.high is not None:
            lines.append(Line(one, test.get("within"), both="no_worse_than" not in test, task=_only_task(table)))
    return lines


def _only_task(table: Table) -> str:
    """The task of a matrix that has one; empty where rows name theirs, or there is none."""
    config = table.manifest["config"]
    named = "data.task" in (config.get("axes") or {})
    return str(config["data"]["task"]) if of_tasks(table) and not named else ""


def _claims(root: Path) -> list[Path]:
    return [folder for folder in newest_records(root / "results").values() if _config(folder).get("claim")]


def _newer(root: Path) -> list[Path]:
    """Records of claims that are not at the size of the older ones, nor of tasks that were void."""
    return [folder for folder in _claims(root) if not outdated(_config(folder))]


def _config(folder: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}
