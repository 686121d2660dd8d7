"""One cell, from its folder to its result: `python -m bench.run.cell DIR`. It resumes, and records how it ended.

Needs torch, lightning and torch-fidelity alone: no MLflow, no Hugging Face, no pydantic, no command-line library.
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from filelock import Timeout

from bench.config.spec import CellSpec
from bench.measure import control, curves, evaluate
from bench.measure.sampling import write_sample_grid
from bench.run.endings import classified
from bench.run.outcome import result
from bench.run.processes import end_strays
from bench.run.ranks import together
from bench.run.slots import machine_share
from bench.run.work import CellAtWork, prepared, say, train
from bench.store import provenance
from bench.store.disk import DiskError, explained
from bench.store.folders import CellFolder, Status
from bench.store.journal import Journal, Unwritten
from bench.training import dynamics
from bench.training.callback import Diverged
from bench.training.checkpoints import remove_older
from bench.training.compiling import compiled
from bench.training.ranks import Ranks
from bench.training.signals import stopping

EXITS: dict[Status, int] = {"done": 0, "failed": 1, "oom": 1, "diverged": 1, "killed": 130}


def run(path: Path) -> Status:
    """Runs a cell to its end, whatever that is, and returns how it ended; the reason is in its `status.json`.

    Raises:
        DiskError: if not even that can be written.
    """
    provenance.imported()  # of a process that `bench.run.boot` did not start
    folder = CellFolder(path.resolve())
    try:
        with folder.locked(), machine_share(folder):
            return _run_locked(folder)
    except Timeout:
        print(f"cell {folder.id} is being run by another process")
        return "running"


def _run_locked(folder: CellFolder) -> Status:
    if folder.result() is not None:
        return "done"
    folder.sweep()
    end_strays(folder.path)
    attempt = int(folder.state().get("attempt", 0)) + 1
    folder.write_state("running", attempt=attempt, started=time.time())
    with stopping(folder.state_file) as stop:
        journal = Journal(folder.journal, attempt)

        def work() -> None:
            with stop.ending():
                _work(folder, journal, attempt)

        status, reason = classified(work, folder)
        _ended(folder, journal, status, reason)
    return status


def _ended(folder: CellFolder, journal: Journal, status: Status, reason: str) -> None:
    with suppress(DiskError):
        journal.event(0, status, reason)
    journal.close()
    folder.write_state(status, reason, attempt=journal.attempt, ended=time.time())


def _work(folder: CellFolder, journal: Journal, attempt: int) -> None:
    cache, spec = folder.path.parent.parent / "cache", CellSpec.read(folder)

    def follow(ranks: Ranks) -> None:
        cell = prepared(folder, Unwritten(), attempt, cache, ranks)
        train(cell)
        with cell.module.averaged():
            ranks.follow(cell.loaded)
        cell.module.join()

    def hung(status: Status, reason: str) -> NoReturn:
        _ended(folder, journal, status, reason)
        os._exit(EXITS[status])

    with together(folder, spec.devices, spec.config.train.device, follow, hung) as ranks:
        cell = prepared(folder, journal, attempt, cache, ranks)
        train(cell)
        _measured(cell)


def _measured(cell: CellAtWork) -> None:
    """Writes the result of a cell that is trained."""
    folder, journal, cache = cell.folder, cell.journal, cell.cache
    journal.event(cell.train.steps, "stage", "evaluate")
    start = time.perf_counter()
    with cell.module.averaged(), cell.loaded.ranks.led():
        journal.image(cell.train.steps, "samples", write_sample_grid(cell.loaded, folder.path, "grid"))
        measured = evaluate.measure(cell.loaded, folder.path, cache, say=say, warn=cell.warn)
        measured |= control.measure(cell.loaded, folder.path, cache, say, cell.warn)
        if cell.loaded.data.task is not None:
            measured |= curves.measure(cell.loaded, folder.path, cache, say, cell.warn)
    graphs = compiled() if cell.train.compile == "on" else {}
    journal.metrics(cell.train.steps, {"evaluate_seconds": time.perf_counter() - start} | graphs)
    bad = [name for name, value in measured.quality.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(f"{', '.join(bad)}: not a number")
    with cell.module.as_trained():
        observed = dynamics.Probe(cell.loaded).observe()
    result(cell, measured, observed).write(folder.result_file)
    with suppress(OSError):  # the one before it, with the optimizer's states, served if the last was damaged
        remove_older(folder.checkpoints, keep=1)


def main() -> None:
    """`python -m bench.run.cell DIR`."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    faulthandler.enable()
    if len(sys.argv) != 2:
        print("usage: python -m bench.run.cell DIR", file=sys.stderr)
        sys.exit(2)
    code = 1
    try:
        code = EXITS.get(run(Path(sys.argv[1])), 1)
    except Exception as error:
        sentence = explained(error, Path(sys.argv[1])) or f"{type(error).__name__}: {error}"
        print(f"ditbench: {sentence}", flush=True)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)  # threads that a plugin left do not hold the process


if __name__ == "__main__":
    main()
