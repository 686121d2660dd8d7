"""The report of a matrix: table, pictures, then where it all came from; as Markdown and as a page of its own. Needs
neither torch nor MLflow."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.findings import claims, compare, fairness
from bench.findings.analysis import columns, summaries
from bench.findings.ladder import choices, ladders
from bench.store.files import write_atomic
from bench.store.folders import Store, name_of
from bench.store.metrics import Measurement
from bench.store.table import Table, collect
from bench.views.figures import catalogue as figures
from bench.views.page import html
from bench.views.text import Sheet, as_csv, latex, markdown, notes, written


def write_report(store: Store, name: str) -> Path:
    """Writes `matrices/<name>/report/` and returns its `report.html`.

    Raises:
        FileNotFoundError: if no such matrix was planned.
    """
    return write_files(collect(store, name), store.matrix_folder(name) / "report", page=True)


def write_files(table: Table, folder: Path, *, page: bool, kept: Path | None = None) -> Path:
    """Writes `report.md`, `cells.csv`, `table.tex`, the figures and, if asked, `report.html` into a folder, and returns
    the last of the reports.

    Args:
        kept: a record's folder, whose pictures are shown where those they are made of are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = figures.plot_all(table, kept)
    for figure in shown:
        write_atomic(folder / figure.file, figure.png)
    write_atomic(folder / "cells.csv", as_csv(table))
    write_atomic(folder / "table.tex", latex(table))
    sheets = findings(table)
    write_atomic(folder / "report.md", text(table, shown, sheets))
    if not page:
        return folder / "report.md"
    command, told = table.manifest["command"], _provenance(table)
    page_of = html(table, shown, sheets, what=_what(table), command=command, provenance=told)
    write_atomic(folder / "report.html", page_of)
    return folder / "report.html"


def text(table: Table, shown: list[figures.Figure], sheets: tuple[list[Sheet], list[Sheet]]) -> str:
    """The report in Markdown."""
    before, after = sheets
    parts = [f"# {table.name}\n", _what(table) + "\n", *(sheet.markdown() for sheet in before)]
    parts += ["## Means over seeds\n", markdown(table)]
    parts.append("\n".join(f"- {note}" for note in notes(table)) + "\n")
    parts += [sheet.markdown() for sheet in after]
    parts += [f"## {one.title}\n\n![{one.caption}]({one.file})\n\n{one.caption}\n" for one in shown]
    parts.append(f"## Where the numbers come from\n\nCommand: `{table.manifest['command']}`\n")
    parts.append("".join(f"- {label}: {'; '.join(values)}\n" for label, values in _provenance(table)))
    return "\n".join(parts)


# --- what is found, in words ------------------------------------------------------------------------------------------


def findings(table: Table) -> tuple[list[Sheet], list[Sheet]]:
    """What a reader wants before the numbers (the claim, verdicts against the baseline), and what after them (what was
    tuned, what was equal)."""
    before = [sheet for sheet in (_claim(table), _verdicts(table)) if sheet is not None]
    after = [sheet for sheet in (_tuned(table), _stable(table), _chance(table), _fair(table)) if sheet is not None]
    return before, after


def _claim(table: Table) -> Sheet | None:
    told = claims.decide(table)
    if told is None:
        return None
    rows = [[finding.asks, finding.verdict, finding.evidence] for finding in told.findings]
    return Sheet(f"Claim: {told.verdict}", told.says, ["test", "verdict", "evidence"], rows, told.caveats)


def _verdicts(table: Table) -> Sheet | None:
    headings, rows = compare.verdict_table(table)
    if not rows:
        return None
    told = (
        f"▲ better, ▼ worse, · undecided than {compare.baseline(table)}, and the gap (a share; of control, the "
        "difference): paired by seed, 95 % after Holm's correction over the whole table; gaps of FID under "
        f"{Measurement.of('fid').metric.margin:.1%} are undecided: training seeds alone make such."
    )
    return Sheet("Verdicts", told, headings, rows, [])


def _tuned(table: Table) -> Sheet | None:
    found = choices(table)
    if not found:
        return None
    axis = table.manifest["config"]["choose"]
    rows_by_name = {row.name: row for row in summaries(table)}
    cols = [column for column in columns(list(rows_by_name.values())) if column.better][:6]
    headings = ["variant", axis, *(column.heading for column in cols)]
    rows, said = [], []
    for one in found:
        for name, value, kind in ((one.own_row, one.own, "untuned"), (one.row, one.value, "tuned")):
            if name is not None:
                shown = [written(rows_by_name[name], column) for column in cols]
                rows.append(
                    [f"{one.variant}, {kind}", f"{value:g}" if isinstance(value, float) else str(value), *shown]
                )
        if one.edge:
            said.append(f"{one.variant} chose an end of the axis, {one.value}: a better value may lie beyond.")
    told = f"{axis} chosen for each variant by the mean held-out loss over seeds, never by a metric shown here."
    return Sheet("Untuned and tuned", told, headings, rows, said)


def _stable(table: Table) -> Sheet | None:
    found = ladders(table)
    if not found:
        return None
    rows = []
    for one in found:
        seeds = len(one.highest)
        top = f" (none of {one.unlost} seeds lost at the top)" if one.unlost == seeds and seeds else ""
        rows.append([one.name, f"{one.limit:g}{top}" if one.limit else "none", str(seeds)])
    told = "The highest learning rate below the first at which training is lost, median over seeds."
    return Sheet("How far up the learning rate goes", told, ["variant", "highest rate", "seeds"], rows, [])


def _chance(table: Table) -> Sheet | None:
    """What the finite number of pictures leaves open, beside what seeds do."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for cell in table.done:
        for key, bounds in (cell.result.sampling if cell.result else {}).items():
            if bounds[0] == bounds[1]:  # pictures all alike: their chance is not known
                continue
            found.setdefault(name_of(cell.row), {}).setdefault(key, []).append(bounds)
    shown = {row.name: row for row in summaries(table)}
    cols = [c for c in columns(list(shown.values())) if any(c.key in told for told in found.values())]
    if not cols:
        return None
    rows = [[name, *(_bounds(column, told.get(column.key, [])) for column in cols)] for name, told in found.items()]
    told = (
        "95 % intervals for the chance of the pictures alone, means over seeds. That of FID takes the bias of few "
        "pictures off once, and so lies below the number in the table of means."
    )
    return Sheet("What so few pictures leave open", told, ["variant", *(c.heading for c in cols)], rows, [])


def _bounds(column: Measurement, found: list[list[float]]) -> str:
    ends = [statistics.fmean(side) for side in zip(*found, strict=True)]
    return " to ".join(column.write(end) for end in ends)


def _fair(table: Table) -> Sheet | None:
    said = fairness.statement(table)
    if not said:
        return None
    rows = [[one.what, one.verdict, one.detail] for one in said]
    return Sheet("What was equal", "Checked from what the cells really used.", ["what", "", "how one knows"], rows, [])


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
    """Commits, hardware, versions, plugins: all that occur, so that cells which disagree are seen."""
    told = [cell.result.provenance for cell in table.cells if cell.result]
    if not told:
        return []
    found = {
        "Commit": {p["commit"] + (" with uncommitted changes" if p.get("dirty") else "") for p in told},
        "Hardware": {_hardware(p["hardware"]) for p in told},
        "Versions": {", ".join(f"{k} {v}" for k, v in p["versions"].items()) for p in told},
        "Data digest": {p["digests"]["data"] for p in told},
        "First weights of the backbone": {
            f"{p['digests']['initial_backbone_weights']} (seed {p['seeds']['train']})" for p in told
        },
        "Extractor": {p["measured"]["extractor"] for p in told},
        "Plugins": {_plugin(p.get("scheme", {})) for p in told},
    }
    found["Plugins"].discard("")
    first, last = min(p["started"] for p in told), max(p["ended"] for p in told)
    attempts = sum(p["attempts"] for p in told)
    measured = f"{_when(first)} to {_when(last)} UTC, {attempts} attempts for {len(told)} cells"
    return [(label, sorted(values)) for label, values in found.items() if values] + [("Measured", [measured])]


def _plugin(scheme: dict) -> str:
    """Which plugin a scheme came from: distribution and version or file, and the digest of its source."""
    origin = scheme.get("origin", {})
    if origin.get("kind", "built-in") == "built-in":
        return ""
    words = [origin["name"], origin.get("version", ""), f"sha256 {origin.get('sha256', 'unknown')[:16]}"]
    return f"{scheme['name']} of {' '.join(word for word in words if word)}"


def _hardware(machine: dict) -> str:
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    return f"{machine.get('gpu', 'CPU')}, {machine['cpu']}, {machine['cores']} cores, {memory}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
