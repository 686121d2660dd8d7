"""Tables as Markdown, LaTeX, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, Literal

from bench.findings.analysis import VariantSummary, best, columns, summaries
from bench.store.metrics import ARROWS, Measurement, caveats, numbers
from bench.store.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table of words for the report: what it says, its rows, and notes under it."""

    title: str
    says: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]

    def markdown(self) -> str:
        """The sheet as a section."""
        clean = [[cell.replace("|", "\\|") for cell in row] for row in (self.headings, *self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in clean]
        lines.insert(1, "|" + "---|" * len(self.headings))
        said = "".join(f"- {note}\n" for note in self.notes)
        return f"## {self.title}\n\n{self.says}\n\n" + "\n".join(lines) + "\n" + (f"\n{said}" if said else "")


def written(row: VariantSummary, column: Measurement) -> str:
    """A mean with the half width of its interval, or what there is."""
    mean, half = row.mean(column.key), row.interval(column.key)
    if mean is None:
        return ""
    if half is None or (half == 0 and column.metric.exact):
        return column.write(mean)
    return f"{column.write(mean)} ± {column.write(half)}"


def lines(
    table: Table, minor: Literal["shown", "last", "left out"] = "shown"
) -> tuple[list[str], list[list[str]], list[set[int]]]:
    """Headings, cells of text a row, and for each row the columns in which it is best.

    Args:
        minor: what becomes of the minor columns.
    """
    rows = summaries(table)
    cols = [column for column in columns(rows) if minor != "left out" or not column.metric.minor]
    if minor == "last":
        cols.sort(key=lambda column: column.metric.minor)
    headings = ["variant", "seeds", *(column.heading + ARROWS[column.better] for column in cols)]
    marks = [best(rows, column) for column in cols]
    text, top = [], []
    for row in rows:
        text.append([row.name, row.seeds, *(written(row, column) for column in cols)])
        top.append({k + 2 for k, mark in enumerate(marks) if mark == row.name})
    return headings, text, top


def notes(table: Table) -> list[str]:
    """Sentences without which the table could be read wrongly."""
    rows = summaries(table)
    said = []
    if not table.done:
        said.append("No cell has a result yet.")
    elif max((row.planned for row in rows), default=0) == 1:
        said.append("One seed: there is no spread, and differences between rows are not established.")
    else:
        said.append("Mean over seeds ± half the 95 % t-interval of that mean.")
    said += caveats((key for row in rows for key in row.values), dimensions(table))
    said += [f"{row.name}, {reason}" for row in rows for reason in row.reasons]
    if any(best(rows, column) for column in columns(rows)):
        said.append("Bold is the best mean of a column among rows whose every seed finished; read its interval too.")
    return said


def dimensions(table: Table) -> dict[str, int]:
    """Extractor's slug -> number of its features, as far as the results say."""
    found = {}
    for cell in table.done:
        measured = cell.result.provenance.get("measured", {}) if cell.result else {}
        if "dim" in measured:
            found[str(measured["extractor"]).lower().replace("-", "_")] = int(measured["dim"])
    return found


# --- as text ----------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """The table in Markdown, the best of each column bold."""
    headings, text, top = lines(table)
    out = ["| " + " | ".join(headings) + " |", "|" + "---|" + "---:|" * (len(headings) - 1)]
    for row, marks in zip(text, top, strict=True):
        cells = [f"**{value}**" if k in marks and value else value for k, value in enumerate(row)]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def latex(table: Table) -> str:
    """The table in LaTeX (booktabs), the best of each column bold."""
    headings, text, top = lines(table)
    rows = [
        " & ".join(f"\\textbf{{{_tex(value)}}}" if k in marks and value else _tex(value) for k, value in enumerate(row))
        for row, marks in zip(text, top, strict=True)
    ]
    head = " & ".join(f"\\shortstack{{{_tex(heading)}}}" for heading in headings)
    body = "\n".join(f"{row} \\\\" for row in rows)
    said = "\n".join(f"% {note}" for note in notes(table))
    columns = "l" + "r" * (len(headings) - 1)
    return (
        f"{said}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


TEX = {"\\": r"\textbackslash{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "±": r"$\pm$", "~": r"\textasciitilde{}"}
TEX |= {"^": r"\textasciicircum{}", **{character: "\\" + character for character in "&%$#_{}"}}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def terminal(table: Table) -> Any:
    """The table for a terminal (a rich renderable)."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    headings, text, top = lines(table, minor="left out")
    shown = RichTable(title=table.name, title_justify="left")
    for k, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if k == 0 else "right", no_wrap=k == 0, overflow="fold")
    for row, marks in zip(text, top, strict=True):
        shown.add_row(*(Text(value, style="bold" if k in marks else "") for k, value in enumerate(row)))
    return Group(shown, *(Text(f"- {note}") for note in notes(table)))


def as_csv(table: Table) -> str:
    """A row a cell: what it is, how it ended, every number, where it came from."""
    rows = []
    for cell in table.cells:
        row: dict[str, Any] = {
            "cell": cell.row.cell,
            "variant": cell.row.variant,
            "scheme": cell.row.scheme,
            "seed": cell.row.seed,
            **cell.row.axes,
            "backbone": cell.row.backbone,
            "data": cell.row.data,
            "status": cell.status,
            "reason": cell.reason,
        }
        if cell.result:
            row |= {"commit": cell.result.provenance.get("commit", "")} | numbers(cell.result)
        rows.append(row)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
