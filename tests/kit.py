"""What the cases of `faults/` and `field/` share: start, wait for a moment, disturb, run again, compare."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.store.folders import CellFolder
from bench.store.result import Result

MAIN = "from bench.cli import main; main()"
MEASURED = ("_per_second", "_seconds", "_bytes", "_joules", "mfu", "cpu", "memory")  # times and peaks: no two are equal


class Launch:
    """A process in a session of its own, as a terminal would start it; what it prints goes to a file.

    Args:
        words: of `ditbench`, such as `"run", "tiny.yaml"`.
        cwd: where it runs.
        command: of another program instead.
        env: variables beside this process's own.
    """

    def __init__(self, *words: str, cwd: Path, command: list[str] | None = None, **env: str) -> None:
        self.output = Path(tempfile.mkstemp(dir=cwd, prefix=".output-")[1])
        with open(self.output, "wb") as file:
            self.child = subprocess.Popen(
                command or [sys.executable, "-c", MAIN, *words],
                cwd=cwd,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | env,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(errors="replace")

    def wait_for(self, moment: Callable[[], Any], seconds: float = 120) -> None:
        """Waits until `moment()` is true; fails if the process ends first, or time does."""
        end = time.monotonic() + seconds
        while not moment():
            assert self.child.poll() is None, f"ended with {self.child.returncode} before the moment:\n{self.text}"
            assert time.monotonic() < end, f"the moment did not come in {seconds:g} s:\n{self.text}"
            time.sleep(0.005)

    def disturb(self, number: int = signal.SIGKILL, *, tree: bool = False) -> None:
        """Sends a signal to the process, or to it and everything below it."""
        for process in [*(self.below() if tree else []), psutil.Process(self.child.pid)]:
            process.send_signal(number)

    def below(self) -> list[psutil.Process]:
        """Its living descendants."""
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ended(self, code: int | None = None, seconds: float = 120) -> str:
        """What it printed, once it has ended; `code` is the exit code that is expected."""
        self.child.wait(seconds)
        assert code is None or self.child.returncode == code, f"exit {self.child.returncode}\n{self.text}"
        return self.text


def cell_launch(folder: CellFolder, **env: str) -> Launch:
    """The process of one cell, as an executor would start it."""
    command = [sys.executable, "-m", "bench.run.cell", str(folder.path)]
    return Launch(cwd=folder.path.parent, command=command, **env)


def numbers(result: Result) -> dict[str, Any]:
    """Every number of a result that chance of the machine does not make, by its place in the file."""
    parts = {name: getattr(result, name) for name in ("quality", "dynamics", "sampling", "probes", "config")}
    parts["cost"] = {key: value for key, value in result.cost.items() if not any(word in key for word in MEASURED)}
    parts["digests"] = result.provenance["digests"]
    parts["artifacts"] = {"grid": result.artifacts["grid"]["sha256"]}
    return dict(_flat(parts))


def _flat(tree: Any, place: str = "") -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree


def assert_same(disturbed: Result | None, calm: Result | None) -> None:
    """Every number of both is equal bit for bit, and neither lacks a cost that the other has."""
    assert disturbed is not None and calm is not None
    ours, theirs = numbers(disturbed), numbers(calm)
    different = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
    assert not different, (
        f"{len(different)} of {len(theirs)} numbers differ, such as {dict(list(different.items())[:5])}"
    )
    assert set(disturbed.cost) == set(calm.cost)


# --- cells in processes whose imports are done ----------------------------------------------------------------------


@functools.cache
def _imported() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.run.cell", "torchvision.utils", "scipy.stats", "efficientnet_lite_pytorch"])
    return context


def _run_cell(path: Path) -> None:
    from bench.run.cell import EXITS, run

    with open(path / "log.txt", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(EXITS.get(run(path), 1))


def warm_cell(folder: CellFolder) -> multiprocessing.context.ForkServerProcess:
    """A started process that runs a cell, forked from one that has imported everything: it starts in no time."""
    process = _imported().Process(target=_run_cell, args=(folder.path,))
    process.start()
    return process
