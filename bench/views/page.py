"""The report as one HTML page that holds everything it shows: no network; its script only sorts and hides columns.

Imports neither torch nor MLflow.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from bench.findings.analysis import Analysis
from bench.store.inert import plain
from bench.views.answers import answers
from bench.views.figures.catalogue import Figure
from bench.views.limits import limits
from bench.views.text import Sheet, as_csv, csv_text, latex, means

FIRST = ("capability.png", "capability-narrow.png")  # on the first screen


def html(
    analysis: Analysis,
    figures: Sequence[Figure],
    sheets: tuple[list[Sheet], list[Sheet]],
    *,
    what: str,
    command: str,
    provenance: list[tuple[str, list[str]]],
) -> str:
    """The page: findings, table, notes, figures each with its data as a link, provenance and the command.

    Args:
        analysis: of the matrix.
        figures: in the page's order.
        sheets: those before the table of means, and those after it.
        what: the sentence under the name.
        command: that repeats it.
        provenance: label -> values.
    """
    from jinja2 import Environment

    table = means(analysis, minor="last")
    complete = [row.complete for row in analysis.rows]
    rows = [
        {"cells": cells, "bold": bold, "complete": done}
        for cells, bold, done in zip(table.rows, table.bold, complete, strict=True)
    ]
    template = files("bench.views").joinpath("report.html.j2").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True, finalize=_inert)
        .from_string(template)
        .render(
            name=analysis.name,
            what=what,
            headings=table.headings,
            rows=rows,
            notes=analysis.notes,
            cells_csv=_inline("text/csv", as_csv(analysis.table).encode()),
            latex=_inline("text/plain", latex(analysis).encode()),
            before=[_sheet(sheet) for sheet in sheets[0]],
            after=[_sheet(sheet) for sheet in sheets[1]],
            answers=answers(analysis),
            limits=limits(analysis),
            first=[_figure(figure) for figure in figures if figure.file in FIRST],
            figures=[_figure(figure) for figure in figures if figure.file not in FIRST],
            command=command,
            provenance=provenance,
        )
    )


def _inert(value: Any) -> Any:
    """What is written into the page; jinja escapes its own signs, and markup that it made is left alone."""
    return plain(value) if type(value) is str else value


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "caption": figure.caption,
        "stem": figure.file.partition(".")[0],
        "src": _inline("image/png", figure.png),
        "csv": _inline("text/csv", csv_text(figure.data).encode()) if figure.data else "",
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    rows = [dict(zip(sheet.headings, row, strict=True)) for row in sheet.rows]
    name = "".join(c if c.isalnum() else "-" for c in sheet.title.lower())
    return {"sheet": sheet, "stem": name, "csv": _inline("text/csv", csv_text(rows).encode())}


def _inline(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
