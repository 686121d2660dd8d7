"""Results that nobody measured, to try table, report and dashboard at any size: `python tests/synthetic.py DIR 40 5`.

They say so wherever a real result says where it came from, and `ditbench record` refuses them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.findings.analysis import analyse
from bench.measure.images import save_grid
from bench.store.files import write_json
from bench.store.folders import Store
from bench.store.journal import Journal
from bench.store.result import Result
from bench.store.table import collect
from bench.views.report import write_files

NOTE = "synthetic: nobody measured this"
COSTS = {"train_images_per_second": 200.0, "sample_images_per_second": 20.0, "train_peak_resident_bytes": 1.3e9}


def write_page(store: Store, name: str) -> Path:
    """Writes the report of a matrix where `ditbench report` does; its page."""
    return write_files(analyse(collect(store, name)), store.matrix_folder(name) / "report")


def generate(root: Path, *, variants: int, seeds: int, steps: int = 2000, name: str = "synthetic") -> Store:
    """A results directory with `variants` x `seeds` finished cells but for the last, which diverged."""
    store, rows = Store(root), []
    for variant in range(variants):
        for seed in range(seeds):
            failed = variants > 1 and (variant, seed) == (variants - 1, seeds - 1)
            rows.append(
                _cell(store, f"variant-{variant:02d}", seed, steps, np.random.default_rng([variant, seed]), failed)
            )
    manifest = manifest_of(name, rows, seeds=seeds, steps=steps)
    write_json(store.matrix_folder(name) / "manifest.json", manifest)
    return store


SCHEMES = ("adaln-zero", "cross-attention", "in-context", "sd3", "shared-modulation")
TASKS = ("scene", "bind", "labels", "grain")


def generate_tasks(
    root: Path, *, schemes: Sequence[str] = SCHEMES, tasks: Sequence[str] = TASKS, seeds: int = 3,
    levels: Sequence[str] = (), void: str = "", name: str = "tasks",
) -> Store:  # fmt: skip
    """A results directory of a matrix over tasks, with the arms `blind` and `oracle`; task `void` fails its rule."""
    store, rows = Store(root), []
    for i, scheme in enumerate((*schemes, "blind", "oracle")):
        for j, (task, level) in enumerate((task, level) for task in tasks for level in levels or ("",)):
            level_of = 0.2 + 0.75 * abs(((i + 1) * (j + 2) * 0.37) % 1)
            score = {"blind": 0.3 if task == void else -0.01, "oracle": 0.97}.get(scheme, level_of)
            for seed in range(seeds):
                rows.append(_task_cell(store, scheme, task, level, seed, score, np.random.default_rng([i, j, seed])))
    manifest = manifest_of(name, rows, seeds=seeds, steps=2000)
    manifest["config"]["data"] = {"source": "task", "task": tasks[0], "image_size": 12, "path": None}
    write_json(store.matrix_folder(name) / "manifest.json", manifest)
    return store


def _task_cell(store: Store, scheme: str, task: str, level: str, seed: int, score: float, rng: Any) -> dict[str, Any]:
    folder = store.cell(f"{scheme}-{task}{level}-{seed:08x}")
    arm = scheme if scheme in ("blind", "oracle") else "none"
    config = {"scheme": scheme, "options": {}, "seed": seed, "train": {"steps": 2000, "batch": 64}}
    config |= {"data": {"source": "task", "task": task, "path": None}, "prompt": {"arm": arm}}
    write_json(folder.config, config)
    score += 0.02 * rng.standard_normal() if arm == "none" else 0.0
    right = float(np.clip(1.1 * score, 0, 1))
    journal = Journal(folder.journal)
    journal._append = _fast(journal)  # type: ignore[method-assign]
    for step in range(100, 2001, 100):
        risen = 1 / (1 + np.exp(-(step - 400 - 900 * (1 - score)) / 90))
        journal.metrics(step, {"loss": 0.4 + 50 / step, "excess_error": 0.1 * (1 - score * risen)})
        journal.metrics(step, {"score": score * risen, "right": right * risen, "local": right * risen})
    journal.close()
    for file in ("grid", "true"):
        images = rng.integers(0, 6, (6, 3, 3, 3)).repeat(4, 1).repeat(4, 2) * 51
        prompts = [f"tone {k}, place {k}, colour red, glyph cross" for k in range(6)]
        if seed == 0:  # of which they are shown; a file takes as long as all else of a cell
            save_grid(folder.samples / f"{file}.png", images.astype(np.uint8), prompts, guidance=1.0, seed=0)
    folder.log.write_text(f"{NOTE}\n")
    folder.write_state("done", "", started=1.7e9)
    quality = {"score": score, "excess_error": 0.1 * (1 - score), "heldout_loss": 0.4, "images_to_90": 64e3}
    quality |= {f"{kind}_template_512": right for kind in ("right", "local", "global", "unseen_local")}
    quality |= {"fid_efficientnet_lite0_400": 50 * (1.2 - score), "kid_efficientnet_lite0_400": 1.2 - score}
    cost = {key: value * (0.95 + 0.1 * rng.random()) for key, value in COSTS.items()}
    cost |= {"train_images_per_second": (5200 - 150 * len(scheme)) * (0.98 + 0.04 * rng.random())}
    cost |= {"sample_images_per_second": 9000 - 300 * len(scheme)}
    cost |= {"parameters_total": 1e4 * len(scheme), "parameters_backbone": 9e3 * len(scheme)}
    cost |= {"parameters_modulation": 1e3 * len(scheme), "parameters_prompt": 0.0}
    artifacts = {"checkpoint": {"path": "none", "sha256": "0" * 64, "bytes": 0}}
    Result(folder.id, quality, cost, config, provenance_of(scheme, seed), artifacts).write(folder.result_file)
    axes = {"data.task": task} | ({"data.level": level} if level else {})
    row = {"cell": folder.id, "variant": scheme, "scheme": scheme, "seed": seed, "options": {}, "axes": axes}
    return row | {"backbone": "task-48x3", "data": f"task {task}"}


def manifest_of(name: str, rows: list[dict[str, Any]], *, seeds: int, steps: int) -> dict[str, Any]:
    """What a plan of these rows would have written."""
    config = {
        "name": name,
        "variants": sorted({row["variant"] for row in rows}),
        "seeds": list(range(seeds)),
        "backbone": {"name": "DiT-S/2"},
        "data": {"source": "scenes", "image_size": 32, "path": None},
        "train": {"steps": steps, "batch": 64, "lr": 1e-4, "ema": 0.999},
        "sample": {"sampler": "euler", "steps": 20, "guidance": 2.0},
    }
    planned = {"schema": 1, "name": name, "config": config, "command": NOTE, "created": 1.7e9, "launch": "synthetic"}
    return planned | {"code": [], "data": [], "reasons": {}, "cells": rows}


def provenance_of(scheme: str, seed: int) -> dict[str, Any]:
    """Where a result comes from that comes from nowhere."""
    return {
        "commit": NOTE,
        "dirty": True,
        "command": NOTE,
        "hardware": {"device": "cpu", "cpu": NOTE, "cores": 2, "memory_bytes": 2**34},
        "versions": {},
        "seeds": {"train": seed},
        "digests": {"data": NOTE, "initial_backbone_weights": NOTE},
        "measured": {"extractor": NOTE},
        "scheme": {"name": scheme, "origin": {"kind": "built-in"}},
        "attempts": 1,
        "started": 1.7e9,
        "ended": 1.7e9 + 60,
    }


def _cell(store: Store, variant: str, seed: int, steps: int, rng: Any, failed: bool) -> dict[str, Any]:
    folder = store.cell(f"{variant}-{seed:012x}")
    config = {"scheme": variant, "options": {}, "seed": seed, "train": {"steps": steps}, "data": {"path": None}}
    write_json(folder.config, config)
    level = 0.4 + 0.1 * rng.random()
    journal = Journal(folder.journal)
    journal._append = _fast(journal)  # type: ignore[method-assign]
    for step in range(50, steps + 1, 50):
        values = {"loss": level + 50 / step, "grad_norm": 1 + rng.random(), "lr": 1e-4}
        journal.metrics(step, values | {"train_images_per_second": 200.0, "system/cpu_utilization_percentage": 150.0})
    for step in (steps // 2, steps):
        name = "grid" if step == steps else f"step-{step:09d}"
        images = (255 * rng.random((4, 16, 16, 3))).astype(np.uint8)
        save_grid(folder.samples / f"{name}.png", images, ["a small red ring"] * 4, guidance=2.0, seed=0)
        journal.image(step, "samples", f"samples/{name}.png")
    journal.close()
    folder.log.write_text(f"{NOTE}\n")
    reason = f"the loss is nan at step {steps} ({NOTE})" if failed else ""
    folder.write_state("diverged" if failed else "done", reason, started=1.7e9)
    if not failed:
        _result(folder.id, seed, level, rng, config).write(folder.result_file)
    row = {"cell": folder.id, "variant": variant, "scheme": variant, "seed": seed, "options": {}, "axes": {}}
    return row | {"backbone": "DiT-S/2", "data": "scenes"}


def _fast(journal: Journal) -> Any:
    """Writing without waiting for the disk at every line: nothing here could be lost."""

    def append(step: int, **content: Any) -> None:
        journal._file.write(json.dumps({"time": 1.7e9 + step, "attempt": 1, "step": step, **content}) + "\n")

    return append


def _result(id: str, seed: int, level: float, rng: Any, config: dict[str, Any]) -> Result:
    quality = {"kid_efficientnet_lite0_400": level + 0.01 * rng.standard_normal(), "heldout_loss": level}
    quality |= {"fid_efficientnet_lite0_400": 1000 * level} | {
        f"heldout_loss_bin{k}": level + k / 10 for k in range(10)
    }
    parts = {"parameters_backbone": 3e7, "parameters_modulation": 1e7 * level, "parameters_prompt": 1e6}
    cost = {key: value * (0.9 + 0.2 * rng.random()) for key, value in COSTS.items()} | parts
    provenance = provenance_of(id.rpartition("-")[0], seed)
    artifacts = {"checkpoint": {"path": "none", "sha256": "0" * 64, "bytes": 0}}
    return Result(id, quality, cost | {"parameters_total": sum(parts.values())}, config, provenance, artifacts)


if __name__ == "__main__":
    store = generate(Path(sys.argv[1]), variants=int(sys.argv[2]), seeds=int(sys.argv[3]))
    print(f"{len(store.rows('synthetic'))} cells in {sys.argv[1]}")
