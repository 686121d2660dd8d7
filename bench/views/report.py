"""The report of a matrix: findings, means, figures, then where it all came from; as Markdown and as a page of its own.

Imports neither torch nor MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.findings.analysis import Analysis, analyse
from bench.store.files import write_atomic
from bench.store.folders import Store
from bench.store.table import Table, collect
from bench.views.figures.catalogue import Figure, plot_all
from bench.views.page import html
from bench.views.sheets import sheets
from bench.views.text import as_csv, latex, markdown


def write_report(store: Store, name: str) -> Path:
    """Writes `matrices/<name>/report/` and returns its `report.html`.

    Raises:
        FileNotFoundError: if no such matrix was planned.
    """
    return write_files(analyse(collect(store, name)), store.matrix_folder(name) / "report")


def write_files(analysis: Analysis, folder: Path, *, kept: Path | None = None) -> Path:
    """Writes `report.md`, `report.html`, `cells.csv`, `table.tex` and the figures into a folder; returns the page.

    Args:
        analysis: of the matrix.
        folder: made if it is not there.
        kept: a record's folder, whose images are shown where those they are made of are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = plot_all(analysis, kept)
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
    """Writes what of a report is committed: `report.md`, `cells.csv`, and the figures of images.

    Those figures alone cannot be plotted again from the record's numbers.
    """
    figures = [figure for figure in plot_all(analysis, kept) if not figure.data]
    for figure in figures:
        write_atomic(folder / figure.file, figure.png)
    write_atomic(folder / "cells.csv", as_csv(analysis.table))
    write_atomic(folder / "report.md", text(analysis, figures) + f"\n{MORE}\n")


MORE = (
    "`ditbench report` with this folder makes one page of it, with all figures, the numbers they show, and the table "
    "in LaTeX."
)


def text(analysis: Analysis, figures: Sequence[Figure]) -> str:
    """The report in Markdown."""
    before, after = sheets(analysis)
    parts = [f"# {analysis.name}\n", _what(analysis.table) + "\n", *(sheet.markdown() for sheet in before)]
    parts += ["## Means over seeds\n", markdown(analysis)]
    parts.append("\n".join(f"- {note}" for note in analysis.notes) + "\n")
    parts += [sheet.markdown() for sheet in after]
    parts += [f"## {one.title}\n\n![{one.caption}]({one.file})\n\n{one.caption}\n" for one in figures]
    parts.append(f"## Where the numbers come from\n\nCommand: `{analysis.table.manifest['command']}`\n")
    parts.append("".join(f"- {label}: {'; '.join(values)}\n" for label, values in _provenance(analysis.table)))
    return "\n".join(parts)


def _what(table: Table) -> str:
    config = table.manifest["config"]
    backbone, data, train, sample = (config[group] for group in ("backbone", "data", "train", "sample"))
    return (
        f"{len(table.done)} of {len(table.cells)} cells done. {backbone['name']} on {table.cells[0].row.data} at "
        f"{data['image_size']} px; {train['steps']:,} steps of {train['batch']}, learning rate {train['lr']:g}, EMA "
        f"{train['ema']:g}; sampled by {sample['sampler']} in {sample['steps']} steps with guidance "
        f"{sample['guidance']:g}, EMA weights."
    )


def _provenance(table: Table) -> list[tuple[str, list[str]]]:
    """Commits, hardware, versions, plugins: all that occur, so that cells which disagree show."""
    provenance = [cell.result.provenance for cell in table.cells if cell.result]
    if not provenance:
        return []
    values = {
        "Commit": {p["commit"] + (" with uncommitted changes" if p.get("dirty") else "") for p in provenance},
        "Hardware": {_hardware(p["hardware"]) for p in provenance},
        "Versions": {", ".join(f"{k} {v}" for k, v in p["versions"].items()) for p in provenance},
        "Data digest": {p["digests"]["data"] for p in provenance},
        "Initial weights of the backbone": {
            f"{p['digests']['initial_backbone_weights']} (seed {p['seeds']['train']})" for p in provenance
        },
        "Extractor": {p["measured"]["extractor"] for p in provenance},
        "Plugins": {_plugin(p.get("scheme", {})) for p in provenance},
    }
    values["Plugins"].discard("")
    first, last = min(p["started"] for p in provenance), max(p["ended"] for p in provenance)
    attempts = sum(p["attempts"] for p in provenance)
    measured = f"{_when(first)} to {_when(last)} UTC, {attempts} attempts for {len(provenance)} cells"
    return [(label, sorted(every)) for label, every in values.items() if every] + [("Measured", [measured])]


def _plugin(scheme: dict[str, Any]) -> str:
    """Which plugin a scheme came from: distribution and version or file, and the digest of its source."""
    origin = scheme.get("origin", {})
    if origin.get("kind", "built-in") == "built-in":
        return ""
    words = [origin["name"], origin.get("version", ""), f"sha256 {origin.get('sha256', 'unknown')[:16]}"]
    return f"{scheme['name']} of {' '.join(word for word in words if word)}"


def _hardware(machine: dict[str, Any]) -> str:
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    return f"{machine.get('gpu', 'CPU')}, {machine['cpu']}, {machine['cores']} cores, {memory}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
