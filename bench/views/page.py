"""The report as one HTML page that holds everything it shows: no network, no script. Needs neither torch nor MLflow."""

from __future__ import annotations

import base64
import csv
import io
from importlib.resources import files
from typing import Any

from bench.findings.analysis import summaries
from bench.store.table import Table
from bench.views.figures.catalogue import Figure
from bench.views.text import Sheet, as_csv, latex, lines, notes


def html(
    table: Table,
    figures: list[Figure],
    sheets: tuple[list[Sheet], list[Sheet]],
    *,
    what: str,
    command: str,
    provenance: list[tuple[str, list[str]]],
) -> str:
    """The page: findings, table, notes, figures each with its data as a link, provenance and the command.

    Args:
        sheets: what stands before the table of means, and after it.
    """
    from jinja2 import Environment

    headings, text, top = lines(table, minor="last")
    complete = [row.complete for row in summaries(table)]
    rows = [
        {"cells": cells, "best": best, "complete": done} for cells, best, done in zip(text, top, complete, strict=True)
    ]
    template = files("bench.views").joinpath("report.html.j2").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(template)
        .render(
            name=table.name,
            what=what,
            headings=headings,
            rows=rows,
            notes=notes(table),
            cells_csv=_inline("text/csv", as_csv(table).encode()),
            latex=_inline("text/plain", latex(table).encode()),
            before=[_sheet(sheet) for sheet in sheets[0]],
            after=[_sheet(sheet) for sheet in sheets[1]],
            figures=[_shown(figure) for figure in figures],
            command=command,
            provenance=provenance,
        )
    )


def _shown(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "caption": figure.caption,
        "stem": figure.file.partition(".")[0],
        "src": _inline("image/png", figure.png),
        "csv": _inline("text/csv", _csv(figure.data).encode()) if figure.data else "",
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    rows = [dict(zip(sheet.headings, row, strict=True)) for row in sheet.rows]
    name = "".join(c if c.isalnum() else "-" for c in sheet.title.lower())
    return {"sheet": sheet, "stem": name, "csv": _inline("text/csv", _csv(rows).encode())}


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _inline(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
