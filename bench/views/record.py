"""A matrix as something to commit: `results/<matrix>/<date>-<hardware>-<commit>/`. It names no user, host or folder."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.findings import coverage
from bench.findings.analysis import analyse
from bench.findings.bands import sigmas
from bench.findings.origins import same_code
from bench.store import provenance
from bench.store.files import digest, whole_folder, write_atomic, write_json
from bench.store.folders import Store
from bench.store.result import Result
from bench.store.table import Table, collect
from bench.views.report import write_record_files


def record(
    store: Store,
    name: str,
    *,
    repository: Path,
    destination: Path,
    allow_dirty: bool = False,
    allow_partial: bool = False,
    whole_seeds: bool = False,
) -> Path:
    """Writes the record of a matrix and returns its folder, which is named by the cell that ended last.

    Cells of several commits are one record where their ids show that they are of the same code.

    Args:
        store: the results directory.
        name: of the matrix.
        repository: whose tree must be committed.
        destination: where records are kept.
        allow_dirty: record although changes are uncommitted.
        allow_partial: record although cells lack a result.
        whole_seeds: leave out the seeds of which a cell lacks a result.

    Raises:
        ValueError: if cells have not ended (unless `allow_partial`; one that diverged has) or no seed is whole, were
            measured by different code, with uncommitted changes or in a tree that has them now (unless `allow_dirty`),
            or the record is there already.
    """
    table = collect(store, name)
    table = coverage.whole_seeds(table) if whole_seeds else table
    _check(table, repository, allow_dirty, allow_partial)
    folder = destination / name / _name(table)
    if folder.exists():
        raise ValueError(f"record {folder} is there already; delete it to write it again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as temporary:
        _write(_without_places(table), temporary)
    return folder


def _check(table: Table, repository: Path, allow_dirty: bool, allow_partial: bool) -> None:
    if not table.done:
        raise ValueError(f"matrix {table.name!r} has no finished cell to record")
    missing = len(coverage.missing(table))
    if missing and not allow_partial:
        raise ValueError(
            f"{missing} of {len(table.cells)} cells of {table.name!r} lack a result; finish them, or record what is "
            "there: --whole-seeds, --allow-partial"
        )
    if allow_dirty:
        return
    provenances = [result.provenance for result in _in_time(table)]
    commits = list(dict.fromkeys(p["commit"] for p in provenances))
    if len(commits) > 1 and not same_code(table):
        short = ", ".join(commit[:8] for commit in commits)
        raise ValueError(
            f"cells of {table.name!r} were measured at different commits ({short}), and their ids do not show that the "
            "code was the same; run it --fresh or --allow-dirty"
        )
    if any(p.get("dirty") for p in provenances):
        raise ValueError(
            f"cells of {table.name!r} were measured with uncommitted changes; commit, run --fresh, or --allow-dirty"
        )
    if provenance.git_state(repository).get("dirty"):
        raise ValueError("the tree has uncommitted changes; commit them first, or --allow-dirty")


def _in_time(table: Table) -> list[Result]:
    """The results, the last to end last."""
    results = [cell.result for cell in table.done if cell.result]
    return sorted(results, key=lambda result: float(result.provenance["ended"]))


def _name(table: Table) -> str:
    """`<date>-<hardware>-<commit>` of the cell that ended last; numbered where its own cells are of that record."""
    last = _in_time(table)[-1].provenance
    date = time.strftime("%Y%m%d", time.gmtime(last["ended"]))
    name = f"{date}-{hardware_slug(last['hardware'])}-{last['commit'][:8]}"
    taken = {str(result.provenance.get("restored", "")).rpartition("/")[2] for result in _in_time(table)}
    numbered = (f"{name}-{k}" for k in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def hardware_slug(machine: dict[str, Any]) -> str:
    """`h200`, `a100`, or `cpu2-epyc`."""
    if machine.get("gpu"):
        words = [
            word for word in re.findall(r"[a-z0-9]+", machine["gpu"].lower()) if word not in ("nvidia", "amd", "tesla")
        ]
        return words[0] if words else "gpu"
    words = re.findall(r"[a-z]+", machine["cpu"].lower())
    known = [word for word in words if word in ("epyc", "xeon", "ryzen", "core", "apple", "neoverse")]
    return f"cpu{machine['cores']}-{(known or words or ['unknown'])[0]}"


def _without_places(table: Table) -> Table:
    """The same table without folders of this machine."""
    config = _scrub(table.manifest["config"])
    return Table(
        table.name, table.cells, table.manifest | {"config": config, "command": _scrub(table.manifest["command"])}
    )


def _scrub(value: Any) -> Any:
    """Absolute paths become their last part, everywhere in a value."""
    if isinstance(value, dict):
        return {key: _scrub(inner) for key, inner in value.items() if key not in ("host", "pid")}
    if isinstance(value, list):
        return [_scrub(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(?<![\w.:])(?:/[\w.@+-]+){2,}/?", lambda m: m[0].rstrip("/").rpartition("/")[2], value)
    return value


CURVES = ("loss", "grad_norm", "right", "local", "global", "score")  # that figures of a record are made of
LARGE = 1_500_000  # characters; from there on a file is committed packed


def _write_large(file: Path, text: str) -> None:
    """Writes a file, or from `LARGE` on the same packed, with `.gz` behind its name and the same bytes each time."""
    if len(text) < LARGE:
        write_atomic(file, text)
    else:
        write_atomic(file.with_name(f"{file.name}.gz"), gzip.compress(text.encode(), mtime=0))


def _write(table: Table, folder: Path) -> None:
    write_record_files(analyse(table), folder)
    if (folder / "cells.csv").stat().st_size >= LARGE:
        _write_large(folder / "cells.csv", (folder / "cells.csv").read_text(encoding="utf-8"))
        (folder / "cells.csv").unlink()
    write_atomic(folder / "config.yaml", yaml.safe_dump(table.manifest["config"], sort_keys=False, width=100))
    cells = [
        {
            "row": asdict(cell.row),
            "status": cell.status,
            "reason": _scrub(cell.reason),
            "result": _scrub(asdict(cell.result)) if cell.result else None,
            "curves": {name: cell.curves[name] for name in CURVES if name in cell.curves},
        }
        for cell in table.cells
    ]
    head = json.dumps({"name": table.name, "manifest": table.manifest}, indent=1).removesuffix("\n}")
    lines = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in cells)  # a line a cell
    _write_large(folder / "cells.json", f'{head},\n "cells": [\n{lines}\n ]\n}}\n')
    spread = {row: {key: asdict(one) for key, one in own.items()} for row, own in sigmas(table).items()}
    write_json(folder / "sigma.json", spread)
    write_json(folder / "environment.json", _environment(table) | {"command": table.manifest["command"]})


def _environment(table: Table) -> dict[str, Any]:
    """Where the cell that ended last was measured, and all commits and machines that occur, in order of time."""
    every = [_scrub(result.provenance) for result in _in_time(table)]
    place_of = ("commit", "hardware", "devices", "sharded", "threads", "versions", "restored")
    kept = ("commit", "dirty", "hardware", "devices", "sharded", "threads", "versions", "digests", "measured")
    commits = list(dict.fromkeys(one["commit"] for one in every))
    machines: dict[str, dict[str, Any]] = {}
    for one in every:
        place = {key: one[key] for key in place_of if key in one}
        machines.setdefault(digest(place), place | {"cells": 0})["cells"] += 1
    last = {key: every[-1][key] for key in kept if key in every[-1]}
    return last | {"commits": commits, "machines": list(machines.values())}
