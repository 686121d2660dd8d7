"""Cells that train nothing: a plan whose folders are there, and lines of Python in place of each cell's process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config.schema import Matrix, Run, Train
from bench.config.spec import CellConfig, CellSpec
from bench.run.plan import Plan, PlannedCell
from bench.store.folders import Row, Store


def planned(root: Path, count: int, **how: Any) -> tuple[Plan, Store]:
    """A plan of cells whose folders are there, without anything to train."""
    store, cells = Store(root), []
    config = CellConfig("adaln", train=Train(steps=100, device=how.get("device", "cpu")))
    for k in range(count):
        row = Row(f"adaln-{k:012x}", "adaln", "adaln", k, {}, {}, "DiT-XS/4", "scenes")
        spec = CellSpec(config, {}, ["/somewhere/added.py"] if how.get("plugin") else [], 0, "test")
        store.cell(row.cell).path.mkdir(parents=True, exist_ok=True)
        cells.append(PlannedCell(row, spec, {}, f"cell {k}"))
    matrix = Matrix("fake", run=Run(**{key: how.get(key) for key in ("jobs", "timeout", "silence", "devices")}))
    return Plan(matrix, cells, "test"), store


@pytest.fixture
def cells_do(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has every cell's process, below its real guard, run these lines instead; `folder` is its folder."""

    def do(code: str) -> None:
        cell = f"import os, sys, time\nfrom pathlib import Path\nfrom bench.store.folders import CellFolder\n{code}\n"
        script = (
            "import json, sys\nfrom pathlib import Path\nfrom bench.run.guard import Guard\n"
            "from bench.run.processes import adopt_orphans, follow_parent\nfollow_parent()\nadopt_orphans()\n"
            f"head = 'from bench.store.folders import CellFolder; folder = CellFolder(__import__(\"pathlib\").Path(' "
            f"+ repr(sys.argv[1]) + '))\\n'\n"
            f"guard = Guard(Path(sys.argv[1]), [sys.executable, '-c', head + {cell!r}])\nprint(json.dumps(guard.run()))"
        )
        words = lambda module, *words: [sys.executable, "-c", script, *words]  # noqa: E731
        monkeypatch.setattr("bench.run.executor.command", words)

    return do


DONE = """
from bench.store.result import Result
with folder.locked():
    folder.write_state("running", attempt=1)
    Result(folder.id, {}, {}, {}, {}).write(folder.result_file)
    folder.write_state("done")
"""
