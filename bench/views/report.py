"""The report of a matrix: findings, means, figures, then where it all came from; as Markdown and as a page of its own.

Imports neither torch nor MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.findings.analysis import Analysis
from bench.findings.coverage import coverage
from bench.store.files import make_folder, write_atomic
from bench.store.result import is_number
from bench.store.table import Table
from bench.views.answers import answers
from bench.views.escape import markdown_code, markdown_line, markdown_text
from bench.views.figures.catalogue import Figure, plot_all
from bench.views.limits import limits
from bench.views.page import FIRST, html
from bench.views.sheets import sheets
from bench.views.text import as_csv, capability_markdown, latex, markdown


def write_files(analysis: Analysis, folder: Path, *, kept: Path | None = None) -> Path:
    """Writes `report.md`, `report.html`, `cells.csv`, `table.tex` and the figures into a folder; returns the page.

    Args:
        analysis: of the matrix.
        folder: made if it is not there.
        kept: a record's folder, whose images are shown where those they are made of are not there.
    """
    make_folder(folder)
    figures, analysis = _plotted(analysis, kept)
    for figure in figures:
        write_atomic(folder / figure.file, figure.png)
    write_atomic(folder / "cells.csv", as_csv(analysis.table))
    write_atomic(folder / "table.tex", latex(analysis))
    write_atomic(folder / "report.md", text(analysis, figures))
    command, table = analysis.table.manifest["command"], analysis.table
    page = html(analysis, figures, sheets(analysis), what=_what(table), command=command, provenance=_provenance(table))
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def write_record_files(analysis: Analysis, folder: Path, *, kept: Path | None = None) -> None:
    """Writes what of a report is committed: `report.md`, `cells.csv`, the capability, and the figures of images.

    Figures of images cannot be plotted again from the record's numbers; the capability is what a reader comes for.
    """
    every, analysis = _plotted(analysis, kept)
    figures = [figure for figure in every if not figure.data or figure.file == FIRST[0]]
    for figure in figures:
        write_atomic(folder / figure.file, figure.png)
    write_atomic(folder / "cells.csv", as_csv(analysis.table))
    write_atomic(folder / "report.md", text(analysis, figures) + f"\n{MORE}\n")


def _plotted(analysis: Analysis, kept: Path | None) -> tuple[list[Figure], Analysis]:
    """The figures, and the analysis with a note on each that could not be plotted whole."""
    notes: list[str] = []
    figures = plot_all(analysis, kept, notes.append)
    return figures, replace(analysis, row_notes=[*analysis.row_notes, *notes])


MORE = (
    "`ditbench report` with this folder makes one page of it, with all figures, the numbers they show, and the table "
    "in LaTeX."
)


def text(analysis: Analysis, figures: Sequence[Figure]) -> str:
    """The report in Markdown."""
    before, after = sheets(analysis)
    parts = [f"# {markdown_text(analysis.name)}\n", f"{markdown_line(_what(analysis.table))}\n"]
    parts += [_figure(one) for one in figures if one.file == FIRST[0]]
    parts.append(capability_markdown(analysis))
    parts += [_bullets(f"**{one.word}** {markdown_line(one.text)}" for one in answers(analysis))]
    parts += [_bullets(markdown_line(one) for one in limits(analysis))]
    parts += [sheet.markdown() for sheet in before]
    parts += ["## Means over seeds\n", markdown(analysis)]
    parts.append(_bullets(markdown_line(note) for note in analysis.notes))
    parts += [sheet.markdown() for sheet in after]
    parts += [_figure(one) for one in figures if one.file not in FIRST]
    parts.append(f"## Where the numbers come from\n\nCommand: {markdown_code(analysis.table.manifest['command'])}\n")
    provenance = _provenance(analysis.table)
    parts.append("".join(f"- {label}: {markdown_text('; '.join(values))}\n" for label, values in provenance))
    return "\n".join(part for part in parts if part)


def _bullets(lines: Iterable[str]) -> str:
    """A list in Markdown; nothing without lines."""
    return "".join(f"- {line}\n" for line in lines)


def _figure(one: Figure) -> str:
    caption = markdown_text(one.caption)
    return f"## {markdown_text(one.title)}\n\n![{caption}]({one.file})\n\n{caption}\n"


SOURCES = 9  # of data named in the first sentence


def _what(table: Table) -> str:
    config = table.manifest["config"]
    data, sample = config["data"], config["sample"]
    named = list(dict.fromkeys(cell.row.data for cell in table.cells))
    shown = (
        ", ".join(named) if len(named) <= SOURCES else f"{', '.join(named[:SOURCES])} and {len(named) - SOURCES} more"
    )
    sizes = " and ".join(f"{size:,}" for size in _used(table, "data", "image_size") or [data["image_size"]])
    model = " and ".join(dict.fromkeys(cell.row.backbone for cell in table.cells))
    changed = [f"{key} {_span(table, 'backbone', key)}" for key in ("width", "depth") if config["backbone"].get(key)]
    model += f" of {', '.join(changed)}" if changed else ""
    rate = (
        "learning rates tuned on other seeds" if config.get("tuned") else f"learning rate {_span(table, 'train', 'lr')}"
    )
    modulated = f", and of the modulation {scale:g}" if (scale := sample.get("modulation_guidance")) else ""
    lacks = f": {lacks}. Means and verdicts are of the cells that are there" if (lacks := coverage(table)) else ""
    return (
        f"{len(table.done)} of {len(table.cells)} cells done{lacks}. {model} on {shown} at "
        f"{sizes} px; {_span(table, 'train', 'steps')} steps of {_span(table, 'train', 'batch')}, {rate}, EMA "
        f"{_span(table, 'train', 'ema')}; sampled by {sample['sampler']} in {sample['steps']} steps with guidance "
        f"{sample['guidance']:g}{modulated}, EMA weights."
    )


def _used(table: Table, group: str, key: str) -> list[float]:
    """The values that finished cells had, in order: axes, variants, budgets and tasks may set others."""
    configs = [cell.result.config.get(group) for cell in table.cells if cell.result]
    return sorted({one[key] for one in configs if isinstance(one, dict) and is_number(one.get(key))})


def _span(table: Table, group: str, key: str) -> str:
    """`48`, or `24 to 96` where cells differ; what the matrix says as long as none is finished."""
    values = _used(table, group, key) or [table.manifest["config"][group][key]]
    ends = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in (values[0], values[-1])]
    return " to ".join(dict.fromkeys(ends))


def _provenance(table: Table) -> list[tuple[str, list[str]]]:
    """Commits, hardware, versions, plugins: all that occur, so that cells which disagree show."""
    provenance = [cell.result.provenance for cell in table.cells if cell.result]
    if not provenance:
        return []
    values = {
        "Commit": {_of(p, "commit") + (" with uncommitted changes" if p.get("dirty") else "") for p in provenance},
        "Hardware": {_hardware(p) for p in provenance},
        "Versions": {", ".join(f"{k} {v}" for k, v in p.get("versions", {}).items()) for p in provenance},
        "Data digest": {_of(p, "digests", "data") for p in provenance},
        "Initial weights of the backbone": {
            f"{_of(p, 'digests', 'initial_backbone_weights')} (seed {_of(p, 'seeds', 'train')})" for p in provenance
        },
        "Extractor": {_of(p, "measured", "extractor") for p in provenance},
        "Plugins": {_plugin(p.get("scheme", {})) for p in provenance},
    }
    values["Plugins"].discard("")
    times = [(p["started"], p["ended"]) for p in provenance if "started" in p and "ended" in p]
    attempts = sum(p.get("attempts", 1) for p in provenance)
    lines = [(label, sorted(every)) for label, every in values.items() if every]
    if times:
        first, last = min(start for start, _ in times), max(end for _, end in times)
        measured = f"{_when(first)} to {_when(last)} UTC, {attempts} attempts for {len(provenance)} cells"
        lines.append(("Measured", [measured]))
    return lines


def _of(provenance: dict[str, Any], *keys: str) -> str:
    """A value of a provenance, which one of another version may lack."""
    value: Any = provenance
    for key in keys:
        value = value.get(key, UNKNOWN) if isinstance(value, dict) else UNKNOWN
    return str(value)


UNKNOWN = "not recorded"


def _plugin(scheme: dict[str, Any]) -> str:
    """Which plugin a scheme came from: distribution and version or file, and the digest of its source."""
    origin = scheme.get("origin", {})
    if not isinstance(origin, dict) or origin.get("kind", "built-in") == "built-in":
        return ""
    words = [_of(origin, "name"), str(origin.get("version", "")), f"sha256 {_of(origin, 'sha256')[:16]}"]
    return f"{_of(scheme, 'name')} of {' '.join(word for word in words if word)}"


def _hardware(provenance: dict[str, Any]) -> str:
    machine: dict[str, Any] = provenance.get("hardware", {})
    devices = provenance.get("devices", 1)
    size: Any = machine.get("memory_bytes")
    memory = f"{size / 2**30:.0f} GiB" if is_number(size) else f"memory {UNKNOWN}"
    several, cut = f"{devices} x " if devices != 1 else "", " (fsdp)" if provenance.get("sharded") else ""
    return f"{several}{machine.get('gpu', 'CPU')}{cut}, {_of(machine, 'cpu')}, {_of(machine, 'cores')} cores, {memory}"


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):  # no time that a calendar has
        return UNKNOWN
