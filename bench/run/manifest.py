"""A plan on disk: the matrix's manifest, and each cell's folder with what defines it."""

from __future__ import annotations

import difflib
import json
import time
from dataclasses import asdict
from typing import Any

import architectures
from bench.config.identity import code_table
from bench.config.load import to_yaml
from bench.config.schema import ConfigError, as_dict
from bench.run.plan import Plan
from bench.store.files import write_json
from bench.store.folders import Store


class PlanChanged(ConfigError):
    """The matrix of this name was planned with another config or other code; the message shows the difference."""


def manifest(plan: Plan, launch: str) -> dict[str, Any]:
    """What is written to `manifest.json`."""
    digests = [cell.spec.digests for cell in plan.cells]
    return {
        "schema": 1,
        "name": plan.matrix.name,
        "config": as_dict(plan.matrix),
        "command": plan.command,
        "created": time.time(),
        "launch": launch,
        "code": sorted({d["code"] for d in digests} - {""}),
        "data": sorted({d["data"] for d in digests}),
        "cells": [asdict(cell.row) for cell in plan.cells],
        "reasons": {cell.row.cell: cell.reason for cell in plan.cells if cell.reason},
    }


def commit(plan: Plan, store: Store, *, fresh: bool = False) -> None:
    """Writes the manifest and what defines every cell; nothing of a finished or half-done cell is touched.

    Raises:
        PlanChanged: if this matrix was planned before with other config, code or data, unless `fresh`.
    """
    folder = store.matrix_folder(plan.matrix.name)
    now = manifest(plan, launch=time.strftime("%Y%m%d-%H%M%S"))
    if (folder / "manifest.json").exists() and not fresh:
        before = store.manifest(plan.matrix.name)
        difference = _difference(before, now)
        if difference:
            raise PlanChanged(
                f"matrix {plan.matrix.name!r} was planned differently before:\n{difference}\n"
                "Finished cells stay. Run with --fresh to take the new plan (what changed is trained again),\n"
                "or give it another name (name=...)."
            )
        now["created"] = before["created"]
    write_json(folder / "manifest.json", now)
    _write_code_tables(plan, store)
    for cell in plan.cells:
        target = store.cell(cell.row.cell)
        target.path.mkdir(parents=True, exist_ok=True)
        cell.spec.write(target)
        if cell.reason:
            target.write_state("failed", cell.reason)


def _write_code_tables(plan: Plan, store: Store) -> None:
    """The digest of each file of code by its name, so that a cell can name the one that was changed."""
    for code, scheme in {cell.spec.digests["code"]: cell.row.scheme for cell in plan.cells}.items():
        file = store.cache / "code" / f"{code}.json"
        if code and not file.exists():
            origin = architectures.origin(scheme)
            module = origin["name"] if origin["kind"] == "built-in" else None
            write_json(file, code_table(module))


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """A diff of what defines the cells, or nothing if that is the same."""
    old, new = _defining(before["config"]), _defining(now["config"])
    lines = list(difflib.unified_diff(old, new, "config before", "config now", lineterm="", n=1))
    broken = before["reasons"] or now["reasons"]  # a plugin that could not be imported, then or now
    for key in ("code", "data"):
        if before[key] != now[key] and not (broken and key == "code"):
            lines.append(f"{key}: {', '.join(before[key])} before, {', '.join(now[key])} now")
    ids = [{c["cell"] for c in m["cells"]} - set(m["reasons"]) for m in (before, now)]
    if not lines and not broken and ids[0] != ids[1]:
        lines.append("the cells' ids differ: a plugin or the machine's device changed")
    return "\n".join(lines)


def _defining(config: dict[str, Any]) -> list[str]:
    kept = {key: value for key, value in config.items() if key not in ("run", "plugins")}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "path"}
    return to_yaml(json.loads(json.dumps(kept, sort_keys=True))).splitlines()
