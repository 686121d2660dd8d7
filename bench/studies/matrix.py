"""What a matrix of short cells costs beyond its training: wall time over training time, and where the rest is.

    python -m bench.studies.matrix [MATRIX] [KEY=VALUE ...]

Runs a matrix, the quickstart if none is named, with two jobs, as `ditbench run` does, in a new results directory, and
reads its journals. `factor` is wall time / (sum of train_seconds / jobs), with the plan and MLflow in it;
`factor_to_report` is the same of the time until the report is there, after which the command waits for MLflow alone.
The parts are shares of wall time times jobs: `load` up to the first line of training, `train`, `beside` (journal,
observations, grids, checkpoints), `evaluate` (sampling and metrics); of no cell are `plan`, until the first one is at
work, `between` (starts, results, and a job that has no cell left), `report`, from the last cell's end until it is
there, and `mlflow`, until the command has ended.
A benchmark, not a test: other work on the machine is in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store import provenance
from bench.store.folders import CellFolder, Store
from bench.store.journal import read_journal
from bench.studies import DITBENCH

JOBS = 2


@dataclass(frozen=True)
class Launch:
    """When a launch had come how far, in seconds since 1970: begun, first cell, last cell's end, report, end."""

    begun: float
    first: float
    last: float
    report: float
    ended: float

    def idle(self, cells: float, jobs: int) -> dict[str, float]:
        """Seconds of its jobs that are of no cell.

        Args:
            cells: seconds that are of one, all together.
            jobs: at a time.
        """
        return {
            "plan": jobs * (self.first - self.begun),
            "between": jobs * (self.last - self.first) - cells,
            "report": jobs * (self.report - self.last),
            "mlflow": jobs * (self.ended - self.report),
        }


def parts(folder: CellFolder) -> dict[str, float]:
    """Seconds of each part of a cell that ran without a break.

    Raises:
        ValueError: if the cell is not done.
    """
    state, entries = folder.state(), list(read_journal(folder.journal))
    if folder.result() is None:
        raise ValueError(f"cell {folder.id} is {folder.status()[0]}, not done: {folder.status()[1]}")
    begun = min(entry["time"] for entry in entries if entry.get("event") == "started")
    trained = max(entry["time"] for entry in entries if entry.get("event") == "checkpoint")
    seconds = max(entry["metrics"].get("train_seconds", 0.0) for entry in entries if "metrics" in entry)
    return {
        "load": begun - float(state["started"]) if "started" in state else 0.0,
        "train": seconds,
        "beside": trained - begun - seconds,
        "evaluate": entries[-1]["time"] - trained,
    }


def summary(cells: list[dict[str, float]], launch: Launch, jobs: int) -> dict[str, Any]:
    """The factor, to the end and to the report, and each part as a share of the wall time of all jobs."""
    sums = {name: sum(cell[name] for cell in cells) for name in cells[0]}
    wall = launch.ended - launch.begun
    everything = sums | launch.idle(sum(sums.values()), jobs)
    return {
        "factor": round(wall / (sums["train"] / jobs), 3),
        "factor_to_report": round((launch.report - launch.begun) / (sums["train"] / jobs), 3),
        "wall_seconds": round(wall, 1),
        "cells": len(cells),
        "shares": {name: round(value / (wall * jobs), 3) for name, value in everything.items()},
    }


def main() -> None:
    """`python -m bench.studies.matrix`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", nargs="?", default="configs/quickstart.yaml")
    parser.add_argument("changes", nargs="*")
    given = parser.parse_args()
    provenance.imported()  # now: a run takes minutes
    with tempfile.TemporaryDirectory() as name:
        words = ["run", given.matrix, *given.changes, f"run.jobs={JOBS}", "name=matrix", "--root", name, "--quiet"]
        begun = time.time()
        subprocess.run([sys.executable, *DITBENCH, *words], check=True, stdout=sys.stderr)
        ended, store = time.time(), Store(Path(name))
        folders = [store.cell(row.cell) for row in store.rows("matrix")]
        first = min(float(folder.state()["started"]) for folder in folders)
        last = max(folder.result_file.stat().st_mtime for folder in folders)
        report = (store.matrix_folder("matrix") / "report/report.html").stat().st_mtime
        found = summary([parts(folder) for folder in folders], Launch(begun, first, last, report, ended), JOBS)
    about = {"command": provenance.command(), **provenance.about("cpu")}
    print(json.dumps(found | about, indent=2))


if __name__ == "__main__":
    main()
