"""From a matrix to cells on disk: data and prompts made ready, everything checked, each cell under its id."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import architectures
from architectures import PromptKind, nearest
from bench.config.claim import check
from bench.config.identity import code_digest, identity
from bench.config.load import to_yaml
from bench.config.matrix import MatrixCell, expand, row, variants
from bench.config.schema import ConfigError, Matrix, as_dict
from bench.config.spec import CellConfig, CellSpec
from bench.data import datasets, prompts
from bench.data.datasets import Progress
from bench.measure import metrics
from bench.measure.cost import count
from bench.run import budget
from bench.store.files import write_json
from bench.store.folders import Row, Store, name_of

Warn = Callable[[str], None]


class PlanChanged(ConfigError):
    """The matrix of this name was planned with another config or other code; the message shows the difference."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its id, or with the reason why it cannot be run.

    Attributes:
        cost: `parameters_*`, `macs_forward`, `flops_train_per_image`; empty if it cannot be built.
        reason: why it cannot be run (a plugin that fails to import), or empty.
        budget: how it meets the budget, in words, or empty.
    """

    row: Row
    spec: CellSpec
    cost: dict[str, float]
    label: str
    reason: str = ""
    budget: str = ""


@dataclass(frozen=True)
class Plan:
    """All cells of a matrix, and what the manifest will say of it."""

    matrix: Matrix
    cells: list[PlannedCell]
    command: str
    warnings: list[str] = field(default_factory=list)

    def manifest(self, launch: str) -> dict[str, Any]:
        """What is written to `manifest.json`."""
        digests = [cell.spec.digests for cell in self.cells]
        return {
            "schema": 1,
            "name": self.matrix.name,
            "config": as_dict(self.matrix),
            "command": self.command,
            "created": time.time(),
            "launch": launch,
            "code": sorted({d["code"] for d in digests} - {""}),
            "data": sorted({d["data"] for d in digests}),
            "cells": [asdict(cell.row) for cell in self.cells],
            "reasons": {cell.row.cell: cell.reason for cell in self.cells if cell.reason},
        }


def plan(matrix: Matrix, store: Store, *, command: str, progress: Progress) -> Plan:
    """Makes data and prompts ready, resolves what is `auto`, and checks that every cell can be built.

    Raises:
        ConfigError, DataError, PromptError, ValueError: for what the user has to change, before anything is trained.
    """
    cells = expand(matrix)
    warnings, broken = _load_plugins(matrix.plugins)
    extractor = metrics.resolve(matrix.evaluate.extractor, warn=warnings.append).name
    matrix = replace(matrix, evaluate=replace(matrix.evaluate, extractor=extractor))
    cells = [replace(cell, config=cell.config.changed({"evaluate.extractor": extractor})) for cell in cells]
    check(matrix.claim, dict.fromkeys(name_of(row(cell, "")) for cell in cells), matrix.seeds)
    matches: dict[str, budget.Match] = {}
    made = [_planned(cell, matrix, store, command, progress, broken, matches) for cell in cells]
    _refuse_twins(made)
    return Plan(matrix, made, command, warnings)


def _load_plugins(files: list[str]) -> tuple[list[str], bool]:
    """What went wrong with plugin files, in sentences, and whether anything did."""
    warnings = []
    for file in files:
        try:
            architectures.load_plugin(file)
        except architectures.PluginError as error:
            warnings.append(str(error))
    return warnings, bool(warnings)


def _planned(
    cell: MatrixCell,
    matrix: Matrix,
    store: Store,
    command: str,
    progress: Progress,
    broken: bool,
    matches: dict[str, budget.Match],
) -> PlannedCell:
    config, met = _resolved(cell.config), ""
    folder = datasets.prepare(config.data, store.cache, progress)
    told = prompts.prepare(datasets.load(folder), config.prompt, store.cache, progress)
    digests = {"data": folder.name, "prompts": told.digest}
    reason, cost = "", {}
    try:
        config = replace(config, options=architectures.resolve_options(config.scheme, config.options))
        origin = architectures.origin(config.scheme)
        digests |= {"code": code_digest(origin["name"] if origin["kind"] == "built-in" else None)}
        digests |= {"plugin": origin.get("sha256", "") if origin["kind"] != "built-in" else ""}
        reason = architectures.sound(config.scheme, config.options)
        if matrix.budget.match and not reason:
            match = _matched(config, cell, matrix, told.kind, matches)
            config, met = config.changed(match.changes), match.words
        cost = count(config, told.kind) if not reason else {}
    except architectures.UnknownScheme:
        if not broken:
            raise
        reason = f"scheme {config.scheme!r} is not there: a plugin could not be imported"
    except architectures.PluginError as error:
        reason = str(error)
    except ValueError as error:
        raise ConfigError(f"variant {cell.variant!r}: {error}") from error
    digests = {"code": "", "plugin": ""} | digests
    _check_cell(config, cell.label)
    id = identity(config, data=digests["data"], code=digests["code"], plugin=digests["plugin"])
    plugins = [str(Path(file).resolve()) for file in matrix.plugins]
    spec = CellSpec(config, digests, plugins, matrix.run.workers, command)
    return PlannedCell(row(MatrixCell(cell.variant, cell.axes, config), id), spec, cost, cell.label, reason, met)


def _matched(
    config: CellConfig, cell: MatrixCell, matrix: Matrix, prompt: PromptKind, matches: dict[str, budget.Match]
) -> budget.Match:
    """How a cell meets the matrix's budget, worked out once for all its seeds."""
    own = variants(matrix)
    name = matrix.budget.to or own[0].name
    target = next((variant for variant in own if variant.name == name), None)
    if target is None:
        known = [variant.name for variant in own]
        hint = nearest(name, known, f" (variants: {', '.join(known)})")
        raise ConfigError(f"budget.to {name!r} is no variant of this matrix{hint}")
    key = json.dumps([cell.variant, cell.axes], sort_keys=True)
    if key not in matches:
        options = architectures.resolve_options(target.scheme, target.options)
        theirs = replace(config, scheme=target.scheme, options=options)
        assert matrix.budget.match is not None
        matches[key] = budget.solve(config, theirs, matrix.budget.match, prompt)
    return matches[key]


def _resolved(config: CellConfig) -> CellConfig:
    """The config with no `auto` left that depends on the machine."""
    train = config.train
    device = train.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError("train.device cuda: no CUDA device is to be seen here; choose cpu or auto")
    precision, compiled = ("bf16", "on") if on_gpu else ("32", "off")
    changes: dict[str, Any] = {"train.device": device}
    changes |= {"train.precision": precision} if train.precision == "auto" else {}
    changes |= {"train.compile": compiled} if train.compile == "auto" else {}
    if config.data.path is not None:
        path = Path(config.data.path).expanduser()
        changes |= {"data.path": str(path.resolve())} if path.exists() else {}
    return config.changed(changes)


def _check_cell(config: CellConfig, label: str) -> None:
    train = config.train
    for name in ("warmup", "cooldown"):
        length: int = getattr(train, name)
        if length > train.steps:
            raise ConfigError(f"{label}: train.{name} {length} is longer than train.steps {train.steps}")


def _refuse_twins(cells: list[PlannedCell]) -> None:
    """Two variants that are the same cell would be one row counted twice."""
    seen: dict[str, str] = {}
    for cell in cells:
        if cell.row.cell in seen and not cell.reason:
            raise ConfigError(f"{cell.label!r} and {seen[cell.row.cell]!r} are the same cell: their options are equal")
        seen[cell.row.cell] = cell.label


def commit(plan: Plan, store: Store, *, fresh: bool = False) -> None:
    """Writes the manifest and every cell's spec; nothing of a finished or half-done cell is touched.

    Raises:
        PlanChanged: if this matrix was planned before with other config, code or data, unless `fresh`.
    """
    folder = store.matrix_folder(plan.matrix.name)
    manifest = plan.manifest(launch=time.strftime("%Y%m%d-%H%M%S"))
    if (folder / "manifest.json").exists() and not fresh:
        before = store.manifest(plan.matrix.name)
        difference = _difference(before, manifest)
        if difference:
            raise PlanChanged(
                f"matrix {plan.matrix.name!r} was planned differently before:\n{difference}\n"
                "Finished cells stay. Run with --fresh to take the new plan (what changed is trained anew),\n"
                "or give it another name (name=...)."
            )
        manifest["created"] = before["created"]
    (folder / "manifest.yaml").parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / "manifest.json", manifest)
    for cell in plan.cells:
        target = store.cell(cell.row.cell)
        target.path.mkdir(parents=True, exist_ok=True)
        cell.spec.write(target)
        if cell.reason:
            target.write_note("failed", cell.reason)


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
