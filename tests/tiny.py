"""A benchmark small enough to run whole in seconds, and the pieces that tests make of it."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from kit import Warm, warm_command

from bench.config import load as config
from bench.run.loop import CellState, run
from bench.run.manifest import commit
from bench.run.plan import Plan, plan
from bench.store.folders import Store

MATRIX: dict[str, Any] = {
    "name": "tiny",
    "variants": ["adaln-zero"],
    "backbone": {"name": "DiT-XS/4", "width": 32, "depth": 2, "heads": 2},
    "data": {"image_size": 16, "train_count": 96, "heldout_count": 40},
    "train": {
        "steps": 12,
        "batch": 8,
        "lr": 1.0e-3,
        "warmup": 2,
        "ema": 0.9,
        "log_every": 2,
        "checkpoint_every": 4,
        "device": "cpu",
    },
    "sample": {"sampler": "euler", "steps": 2, "batch": 8, "grid": 4, "grid_every": 6},
    "evaluate": {
        "samples": 20,
        "reference": 40,
        "heldout": 20,
        "extractor": "efficientnet-lite0",
        "unseen": 8,
        "swaps": 2,
    },
}

PLUGIN = '''
from architectures import Facts, Scheme, register
from architectures.layers import LayerNorm
from architectures.sublayer import Block, Condition, SubLayer


@register("added")
class Added(Scheme):
    """x <- x + e_t + prompt, once, before the first block."""

    facts = Facts("a test", "none", "added", frozenset({"pooled"}), False)

    def embed(self, e_t, prompt):
        return Condition(vector=e_t + prompt.pooled)

    def enter(self, x, c):
        return x + c.vector[:, None]

    def block(self, index):
        d = self.backbone.width
        return Block(
            attention=SubLayer(self.self_attention(), LayerNorm(d)),
            mlp=SubLayer(self.mlp(), LayerNorm(d)),
        )
'''


def matrix_file(folder: Path, **changes: Any) -> Path:
    """A YAML file of the tiny matrix; `train__steps=3` changes a nested key."""
    content = copy.deepcopy(MATRIX)
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            content.setdefault(group, {})[name] = value
        else:
            content[group] = value
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def planned(folder: Path, **changes: Any) -> tuple[Plan, Store]:
    """The tiny matrix planned and committed in `folder/runs`."""
    store = Store(folder / "runs")
    made = plan(config.load(matrix_file(folder, **changes)), store, command="test", progress=lambda *_: None)
    commit(made, store, fresh=True)
    return made, store


def run_all(made: Plan, store: Store, lines: list[str] | None = None) -> list[CellState]:
    """Runs a plan here, cell by cell, each in a process that is forked with the imports done."""
    return run(made, store, executor=Warm(1), say=(lines if lines is not None else []).append, poll=0.1)


def ditbench(*words: str, cwd: Path, code: int | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line; `code` is the exit code that is expected.

    In a forked process, unless Python itself is to start otherwise.
    """
    if any(name.startswith("PYTHON") for name in env):
        done = subprocess.run(
            [sys.executable, "-c", "from bench.cli import main; main()", *words],
            cwd=cwd,
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=280,
        )
    else:
        done = warm_command(*words, cwd=cwd, seconds=280, **env)
    assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
