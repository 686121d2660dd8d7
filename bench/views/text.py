"""Tables as Markdown, LaTeX, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.findings.analysis import Analysis
from bench.findings.claims import ClaimVerdict
from bench.findings.summary import VariantSummary
from bench.findings.words import p_value
from bench.store.inert import one_line
from bench.store.metrics import ARROWS, Measurement, numbers
from bench.store.table import CellRecord, Table
from bench.views.answers import answers
from bench.views.capability import Capability, capability, short, value_text
from bench.views.escape import csv_value, markdown_line, markdown_text
from bench.views.grid import Grid
from bench.views.rates import rate_text, tuned_values
from bench.views.short import short_heading, short_name, short_names

if TYPE_CHECKING:
    from rich.console import RenderableType

BOLD, END = "\ue000", "\ue001"  # around what is bold, until the format's own marks replace them


@dataclass(frozen=True)
class Sheet:
    """A table of text for the report, with a sentence before it and notes under it."""

    title: str
    text: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]

    def markdown(self) -> str:
        """The sheet as a section."""
        notes = "".join(f"- {markdown_line(note)}\n" for note in self.notes)
        table = markdown_table(self.headings, self.rows, numeric=False)
        return f"## {markdown_text(self.title)}\n\n{markdown_line(self.text)}\n\n{table}" + (
            f"\n{notes}" if notes else ""
        )


def written(row: VariantSummary, column: Measurement) -> str:
    """A mean with the half width of its interval, or what there is."""
    mean, half = row.mean(column.key), row.interval(column.key)
    if mean is None:
        return ""
    text = re.sub(r"^-(0\.0+)$", r"\1", column.write(mean))  # what rounds to nothing has no sign
    if half is None or (half == 0 and column.metric.exact):
        return text
    return f"{text} ± {column.write(half)}"


@dataclass(frozen=True)
class MeansTable:
    """The table of means as text: headings, a row a variant, and for each row the places of what is bold."""

    headings: list[str]
    rows: list[list[str]]
    bold: list[set[int]]

    def marked(self, escape: Callable[[str], str]) -> list[list[str]]:
        """The rows, escaped, with marks around what is bold."""
        return [
            [f"{BOLD}{escape(text)}{END}" if k in bold and text else escape(text) for k, text in enumerate(row)]
            for row, bold in zip(self.rows, self.bold, strict=True)
        ]


def means(analysis: Analysis, minor: Literal["shown", "last", "left out"] = "shown", brief: bool = False) -> MeansTable:
    """The table of means.

    Args:
        analysis: of the matrix.
        minor: what becomes of the minor columns.
        brief: only the columns that the README shows.
    """
    columns = [one for one in analysis.columns if minor != "left out" or not one.metric.minor]
    columns = [one for one in columns if one.metric.brief or not brief]
    if minor == "last":
        columns.sort(key=lambda one: one.metric.minor)
    tuned = ["learning rate"] if tuned_values(analysis) else []
    before = 2 + len(tuned)
    return MeansTable(
        ["variant", "seeds", *tuned, *(one.heading + ARROWS[one.better] for one in columns)],
        [
            [row.name, row.seeds, *(rate_text([row]) for _ in tuned), *(written(row, one) for one in columns)]
            for row in analysis.rows
        ],
        [{k + before for k, one in enumerate(columns) if row.name in analysis.bold[one.key]} for row in analysis.rows],
    )


# --- formats ----------------------------------------------------------------------------------------------------------


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: bool = True) -> str:
    """A table in Markdown, of text that is shown as it is.

    Args:
        headings: one a column.
        rows: of text.
        numeric: whether all columns but the first are aligned to the right.
    """
    escaped = [[markdown_text(text) for text in row] for row in rows]
    return _pipes([markdown_text(heading) for heading in headings], escaped, numeric=numeric)


def _pipes(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: bool) -> str:
    """A table of what is Markdown already."""
    from tabulate import tabulate

    align = ["left", *(["right" if numeric else "left"] * (len(headings) - 1))]
    table = tabulate(rows, headings, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)
    return table.replace(BOLD, "**").replace(END, "**") + "\n"


def markdown(analysis: Analysis, *, brief: bool = False) -> str:
    """The table of means in Markdown."""
    table = means(analysis, brief=brief)
    return _pipes([markdown_text(one) for one in table.headings], table.marked(markdown_text), numeric=True)


SEVERAL = " (several runs)"  # of a cost that may not be compared


def capability_markdown(analysis: Analysis) -> str:
    """Capability by scheme in Markdown: a column a task, its levels from easy to hard in one; nothing without tasks."""
    table = capability(analysis) or capability(analysis, "right")
    if table is None:
        return ""
    names = list(dict.fromkeys(task.name for task in table.tasks))
    levels = {name: [task for task in table.tasks if task.name == name] for name in names}
    heads = [f"{name} ({', '.join(task.level for task in own)})" if own[1:] else name for name, own in levels.items()]
    rows = []
    for scheme in (*table.schemes, *table.arms):
        cells = [
            value_text(table.value(scheme, own[0]))
            if len(own) == 1
            else " / ".join(short(value[0]) if (value := table.value(scheme, task)) else "-" for task in own)
            for own in levels.values()
        ]
        spent = [(cost, table.cost(scheme, cost.key)) for cost in table.costs]
        rates = [_rates(table, scheme)] if tuned_values(analysis) else []
        rows.append([scheme, *cells, *("" if value is None else cost.write(value) for cost, value in spent), *rates])
    costs = [
        short_heading(cost, short_name(cost)) + ARROWS[cost.better] + ("" if table.together(cost.key) else SEVERAL)
        for cost in table.costs
    ]
    rate = ["learning rate"] if tuned_values(analysis) else []
    return markdown_table(["scheme", *heads, *costs, *rate], rows, numeric=True)


LATEX = str.maketrans({BOLD: r"\textbf{", END: "}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "±": r"$\pm$"})


def latex(analysis: Analysis) -> str:
    """The table of means in LaTeX (booktabs), its notes as comments before it."""
    from tabulate import tabulate

    table = means(analysis)
    align = ["left", *(["right"] * (len(table.headings) - 1))]
    rows, headings = table.marked(one_line), [one_line(heading) for heading in table.headings]
    text = tabulate(rows, headings, "latex_booktabs", colalign=align, disable_numparse=True)
    return "".join(f"% {one_line(note)}\n" for note in analysis.notes) + text.translate(LATEX) + "\n"


TERMINAL = 100  # columns of a terminal's table at most: what fits a page, a log and half a screen


def terminal(analysis: Analysis) -> RenderableType:
    """What is printed at the end of a run: capability by scheme of a matrix over tasks, else the table of means."""
    from rich.console import Group
    from rich.constrain import Constrain
    from rich.text import Text

    table = capability(analysis) or capability(analysis, "right")
    if table is None:
        return Group(Constrain(_means_grid(analysis), TERMINAL), *(Text(f"- {note}") for note in analysis.notes))
    grid = _capability_grid(analysis.name, table, tuned=bool(tuned_values(analysis)))
    found = [Constrain(Text(f"{one.word}: {one.text}"), TERMINAL) for one in answers(analysis)]
    return Group(Constrain(grid, TERMINAL), *(Text(f"- {note}") for note in analysis.row_notes), *found)


MORE = "A wider terminal or the report shows all"


def _means_grid(analysis: Analysis) -> Grid:
    table = means(analysis, minor="left out")
    names = short_names(column.key for column in analysis.columns)
    columns = [one for one in analysis.columns if not one.metric.minor]
    headings = [
        *table.headings[: len(table.headings) - len(columns)],
        *(short_heading(one, names[one.key]) + ARROWS[one.better] for one in columns),
    ]
    styles = {(i, k): "bold" for i, bold in enumerate(table.bold) for k in bold}
    return Grid(headings, table.rows, analysis.name, frozenset({0, 1}), droppable=True, styles=styles, more=MORE)


def _capability_grid(name: str, table: Capability, *, tuned: bool) -> Grid:
    """A row a scheme: a column a task, then what it costs and, where tuned, its learning rate; the arms below."""
    tasks = [f"{task} (void)" if task in table.void else str(task) for task in table.tasks]
    costs = [
        short_heading(cost, short_name(cost)).replace("parameters", "params")
        for cost in table.costs
        if not cost.metric.kind.endswith("_ms")
    ]
    keys = [cost.key for cost in table.costs if not cost.metric.kind.endswith("_ms")]
    rows = []
    for scheme in (*table.schemes, *table.arms):
        values = [value_text(table.value(scheme, task), "±") for task in table.tasks]
        numbers_ = [(key, table.cost(scheme, key)) for key in keys]
        rates = [_rates(table, scheme)] if tuned else []
        rows.append(
            [scheme, *values, *("" if v is None else Measurement.parse(k).write(v) for k, v in numbers_), *rates]
        )
    title = f"{name}: {'score S' if table.kind == 'score' else 'control'} by task (0 none, 1 all)"
    return Grid(
        ["scheme", *tasks, *costs, *(["rate"] if tuned else [])],
        rows,
        title,
        droppable=True,
        more=MORE,
        least=24,
        fewest=2,
    )


def _rates(table: Capability, scheme: str) -> str:
    return rate_text(row for (name, _), row in table.rows.items() if name == scheme)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, a column for every key of any; text that a spreadsheet would compute is marked as text."""
    inert = [{csv_value(key): csv_value(value) for key, value in row.items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in inert for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(inert)
    return text.getvalue()


def as_csv(table: Table) -> str:
    """A row a cell: what it is, how it ended, every number, where it came from."""
    return csv_text([_cell(cell) for cell in table.cells])


def _cell(cell: CellRecord) -> dict[str, Any]:
    row = cell.row
    values = {"cell": row.cell, "variant": row.variant, "scheme": row.scheme, "seed": row.seed, **row.axes}
    values |= {"backbone": row.backbone, "data": row.data, "status": cell.status, "reason": cell.reason}
    if cell.result:
        values |= {"commit": cell.result.provenance.get("commit", "")} | numbers(cell.result)
    return values


def claims_markdown(verdicts: Sequence[tuple[ClaimVerdict, str]]) -> str:
    """A table of claims, each with a link (or an empty one) to what it rests on, its tests under it."""
    rows = []
    for one, link in verdicts:
        text = markdown_text(one.says)
        says = f"[{text}]({link})" if link else text
        rows.append([f"**{says}**", f"**{one.verdict}**", markdown_text(" ".join(one.caveats)), ""])
        for test in one.tests:
            p = "" if test.p is None else p_value(test.p)
            rows.append([*(markdown_text(text) for text in (test.text, test.verdict, test.gap or test.evidence)), p])
    return _pipes(["claim and its tests", "verdict", "gap", "p"], rows, numeric=False)
