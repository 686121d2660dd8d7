"""A plan on disk: the matrix's manifest, and each cell's folder with what defines it."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import architectures
from bench.config.identity import code_table
from bench.config.load import to_stderr, to_yaml
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


def commit(plan: Plan, store: Store, *, fresh: bool = False, say: Callable[[str], None] = to_stderr) -> None:
    """Writes the manifest and what defines every cell; nothing of a finished or half-done cell is touched.

    A plan whose cells are the same, and only what is made of them differs (a baseline, the name of a row), is taken.

    Raises:
        PlanChanged: if this matrix was planned before with other config, code or data, unless `fresh`; or with another
            claim, if a cell of it was trained since.
    """
    now = manifest(plan, launch=time.strftime("%Y%m%d-%H%M%S"))
    before = _before(store, plan.matrix.name, say)
    if before is not None and not fresh:
        difference = _difference(before, now)
        if difference:
            _refuse_other_cells(before, now, difference, store)
            say(f"matrix {plan.matrix.name!r}: its table changes, no cell is trained again:\n{difference}")
            now["revised"] = [*before.get("revised", []), {"time": time.time(), "difference": difference}]
        now["created"] = before["created"]
    store.write_manifest(plan.matrix.name, now)
    _write_code_tables(plan, store)
    for cell in plan.cells:
        target = store.cell(cell.row.cell)
        target.path.mkdir(parents=True, exist_ok=True)
        cell.spec.write(target)
        if cell.reason:
            target.write_state("failed", cell.reason)


def _before(store: Store, name: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The manifest of an earlier plan; None if there is none, or it is damaged."""
    if not (store.matrix_folder(name) / "manifest.json").exists():
        return None
    try:
        before = store.manifest(name)
        _difference(before, before)
        return before | {"created": float(before["created"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        say(f"the manifest of matrix {name!r} is damaged; it is written again")
        return None


def _refuse_other_cells(before: dict[str, Any], now: dict[str, Any], difference: str, store: Store) -> None:
    """Refuses a plan with other cells, and another claim on cells that were trained.

    Raises:
        PlanChanged: with the difference and the way out.
    """
    name, ids = now["name"], [{cell["cell"] for cell in one["cells"]} for one in (before, now)]
    if ids[0] != ids[1] or before["reasons"] or now["reasons"]:
        raise PlanChanged(
            f"matrix {name!r} was planned differently before:\n{difference}\n"
            "Finished cells stay. Run with --fresh to take the new plan (what changed is trained again),\n"
            "or give it another name (name=...)."
        )
    if before["config"].get("claim") != _plain(now["config"]).get("claim"):
        trained = [id for id in sorted(ids[1]) if store.cell(id).result_file.exists()]
        if trained:
            raise PlanChanged(
                f"matrix {name!r} has another claim than before, and {len(trained)} of its cells are trained:\n"
                f"{difference}\nA claim is written before its run. Run with --fresh to take it all the same\n"
                "(no cell is trained again), or give it another name (name=...)."
            )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


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
