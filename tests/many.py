"""Thousands of finished cells that nobody measured, made in seconds: `many_cells(root, 2000)`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from synthetic import NOTE, manifest_of, provenance_of

from bench.store.files import digest
from bench.store.folders import Store
from bench.store.result import Result

POINTS = 10  # of each curve
PARTS = {"parameters_backbone": 3e7, "parameters_modulation": 1e7, "parameters_prompt": 1e6, "parameters_total": 4.1e7}


def many_cells(root: Path, n: int, *, seeds: int = 5, name: str = "many") -> Store:
    """`n` finished cells with a small journal each, all of one matrix; nothing waits for the disk."""
    store = Store(root)
    rows = [_cell(store, f"variant-{k // seeds:04d}", k % seeds) for k in range(n)]
    _write(store.matrix_folder(name) / "manifest.json", manifest_of(name, rows, seeds=seeds, steps=100 * POINTS))
    return store


def _cell(store: Store, variant: str, seed: int) -> dict[str, Any]:
    folder = store.cell(f"{variant}-{seed:012x}")
    config = {"scheme": variant, "options": {}, "seed": seed, "train": {"steps": 100 * POINTS}, "data": {"path": None}}
    _write(folder.config, config)
    _write(folder.state_file, {"status": "done", "reason": "", "attempt": 1, "started": 1.7e9, "changed": 1.7e9 + 60})
    folder.log.write_text(f"{NOTE}\n")
    level = 0.4 + sum(map(ord, variant)) % 97 / 1000 + seed / 500
    folder.journal.write_text("".join(map(_line, range(100, 100 * POINTS + 1, 100), [level] * POINTS)))
    quality = {"kid_efficientnet_lite0_400": level, "fid_efficientnet_lite0_400": 1000 * level, "heldout_loss": level}
    cost = {"train_images_per_second": 200.0, "sample_images_per_second": 20.0, "train_peak_resident_bytes": 1.3e9}
    artifacts = {"checkpoint": {"path": "none", "sha256": "0" * 64, "bytes": 0}}
    result = Result(folder.id, quality, cost | PARTS, config, provenance_of(variant, seed), artifacts)
    content = {key: getattr(result, key) for key in result.__dataclass_fields__}
    _write(folder.result_file, content | {"checksum": digest(content)})
    row = {"cell": folder.id, "variant": variant, "scheme": variant, "seed": seed, "options": {}, "axes": {}}
    return row | {"backbone": "DiT-S/2", "data": "scenes"}


def _line(step: int, level: float) -> str:
    metrics = {"loss": level + 50 / step, "grad_norm": 1.0, "train_images_per_second": 200.0}
    return json.dumps({"time": 1.7e9 + step, "attempt": 1, "step": step, "metrics": metrics}) + "\n"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    print(f"{len(many_cells(Path(sys.argv[1]), int(sys.argv[2])).rows('many'))} cells in {sys.argv[1]}")
