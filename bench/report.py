"""The report of a matrix: table first, then pictures, then where it all came from. Needs neither torch nor MLflow."""

from __future__ import annotations

import time
from pathlib import Path

from bench import figures
from bench.files import write_atomic
from bench.store import Store
from bench.tables import Table, as_csv, collect, markdown, notes, terminal

__all__ = ["collect", "terminal", "write_files", "write_report"]


def write_report(store: Store, name: str) -> Path:
    """Writes `matrices/<name>/report/` and returns its `report.md`.

    Raises:
        FileNotFoundError: if no such matrix was planned.
    """
    return write_files(collect(store, name), store.matrix_folder(name) / "report")


def write_files(table: Table, folder: Path) -> Path:
    """Writes `report.md`, `cells.csv` and the figures into a folder, and returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = figures.draw_all(table, folder)
    write_atomic(folder / "cells.csv", as_csv(table))
    write_atomic(folder / "report.md", text(table, shown))
    return folder / "report.md"


def text(table: Table, shown: list[tuple[str, str]]) -> str:
    """The report in Markdown."""
    parts = [f"# {table.name}\n", _what(table), markdown(table)]
    parts.append("\n".join(f"- {note}" for note in notes(table)) + "\n")
    parts += [f"![{caption}]({name})\n\n{caption}\n" for name, caption in shown]
    parts.append(_provenance(table))
    return "\n".join(parts)


def _what(table: Table) -> str:
    config = table.manifest["config"]
    backbone, data, train, sample = (config[group] for group in ("backbone", "data", "train", "sample"))
    return (
        f"{len(table.done)} of {len(table.cells)} cells done. {backbone['name']} on {table.cells[0].row.data} at "
        f"{data['image_size']} px; {train['steps']:,} steps of {train['batch']}, learning rate {train['lr']:g}, EMA "
        f"{train['ema']:g}; sampled by {sample['sampler']} in {sample['steps']} steps with guidance "
        f"{sample['guidance']:g}, EMA weights.\n"
    )


def _provenance(table: Table) -> str:
    """Command, commits, hardware, versions; and whether every cell agrees on them."""
    out = ["## Where the numbers come from\n", f"Command: `{table.manifest['command']}`\n"]
    told = [cell.result.provenance for cell in table.cells if cell.result]
    if not told:
        return "\n".join(out)
    for label, found in (
        ("Commit", {p["commit"] + (" with uncommitted changes" if p.get("dirty") else "") for p in told}),
        ("Hardware", {_hardware(p["hardware"]) for p in told}),
        ("Versions", {", ".join(f"{k} {v}" for k, v in p["versions"].items()) for p in told}),
        ("Data digest", {p["digests"]["data"] for p in told}),
        (
            "First weights of the backbone",
            {f"{p['digests']['initial_backbone_weights']} (seed {p['seeds']['train']})" for p in told},
        ),
        ("Extractor", {p["measured"]["extractor"] for p in told}),
    ):
        out.append(f"- {label}: {'; '.join(sorted(found))}")
    first, last = min(p["started"] for p in told), max(p["ended"] for p in told)
    attempts = sum(p["attempts"] for p in told)
    out.append(f"- Measured: {_when(first)} to {_when(last)} UTC, {attempts} attempts for {len(told)} cells")
    return "\n".join(out) + "\n"


def _hardware(machine: dict) -> str:
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    return f"{machine.get('gpu', 'CPU')}, {machine['cpu']}, {machine['cores']} cores, {memory}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
