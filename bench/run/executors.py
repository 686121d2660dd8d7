"""Where cells run. A cell is one command below a guard, in a session of its own; an executor decides only where."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.run.boot import command, environment
from bench.run.processes import GRACE, PARENT, Child
from bench.run.slots import FILE, Slots
from bench.run.warm import Server, Stale
from bench.store.disk import writing
from bench.store.files import make_folder
from bench.store.folders import CellFolder, Store


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), and the last that it printed."""

    code: int
    tail: str = ""


@dataclass
class Process:
    """A cell's guard, and the cell below it.

    Attributes:
        folder: the cell's.
        child: the guard.
        slot: which of the cells at a time.
        before: the cell's state before it was started.
        started: on the monotonic clock.
    """

    folder: CellFolder
    child: Child
    slot: int
    before: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def stop(self) -> None:
        """Has the cell write its checkpoint and end."""
        self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Has the guard end the cell, and all that it started, at once."""
        self.child.send_signal(signal.SIGQUIT)

    def end(self, seconds: float = 10.0) -> None:
        """Kills the cell and waits for it; a guard that does not answer is killed with its group."""
        self.kill()
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def ended(self) -> Ended:
        """How the cell ended; call it when the guard has."""
        report = b""
        if self.child.stdout is not None:
            with self.child.stdout as output:
                report = output.read()
        with suppress(ValueError, TypeError):
            return Ended(**json.loads(report))
        with suppress(ProcessLookupError):  # the guard was killed, or failed: nothing of the cell may live on
            os.killpg(self.child.pid, signal.SIGKILL)
        return Ended(self.child.wait(), report.decode(errors="replace"))


class Local:
    """This machine: `jobs` cells at a time, each with its share of the cores, and its own GPU where there are any.

    Args:
        jobs: cells at a time.
        gpus: of this machine.
        warm: forks the cells from a process that has imported everything, where that can be done; or that process.
    """

    def __init__(self, jobs: int, gpus: int = 0, *, warm: bool | Server = False) -> None:
        self.jobs, self.gpus = jobs, gpus
        self.running: list[Process] = []
        self.server = warm if isinstance(warm, Server) else Server(threads(jobs)) if warm else None

    @staticmethod
    def early(name: str, jobs: int, store: Store) -> Server | None:
        """The process that cells will be forked from, which imports while they are planned.

        None where a matrix of this name has run to its end: it may have nothing left to run.
        """
        with suppress(OSError, ValueError):
            rows = store.rows(name)
            if rows and all(store.cell(row.cell).result() is not None for row in rows):
                return None
        return Server(threads(jobs))

    def wait(self, seconds: float) -> None:
        """Waits until a cell ends or cells can be forked, at most `seconds`."""
        if not hasattr(os, "pidfd_open"):
            time.sleep(seconds)
            return
        files = [] if self.server is None else self.server.awaited()
        with ExitStack() as stack:
            for process in self.running:
                try:
                    file = os.pidfd_open(process.child.pid)
                except OSError:  # it was waited for already, or the kernel has none: look again soon
                    seconds = min(seconds, 0.05)
                    continue
                stack.callback(os.close, file)
                files.append(file)
            select.select(files, [], [], seconds)

    @property
    def free(self) -> int:
        """Cells that could start now, if no other launch uses the machine."""
        if self.server is not None and self.server.starting():
            return 0
        return self.jobs - len(self.running)

    def trouble(self) -> str:
        """Why cells start cold although they were to start warm: once, and then empty."""
        if self.server is None or self.server.usable:
            return ""
        why, self.server = self.server.trouble, None
        return f"each cell imports its libraries itself, about 9 s of a core: {why}"

    def close(self) -> None:
        """Ends the process that cells are forked from."""
        if self.server is not None:
            self.server.close()
            self.server = None

    def start(self, folder: CellFolder) -> Process | None:
        """Starts a cell, whose output goes to its `log.txt`; None if other launches use the cores meanwhile.

        Raises:
            DiskError: if its folder cannot be written.
            OSError: if no process can be started.
        """
        make_folder(folder.path)
        with writing(folder.log, "the log"), open(folder.log, "ab"):
            pass
        with writing(folder.path.parents[1] / "slots", "the share of the machine"):
            share = Slots(folder.path.parents[1]).claim(folder.id, 1 / self.jobs)
        if share is None:
            return None
        try:
            process = self._start(folder, share)
        except Stale:  # it is started again; so is this cell, a little later
            return None
        finally:
            os.close(share)
        self.running.append(process)
        return process

    def _start(self, folder: CellFolder, share: int) -> Process:
        slot = min(set(range(self.jobs)) - {process.slot for process in self.running})
        before = folder.state()
        variables = environment(**self._share(slot), **{PARENT: str(os.getpid()), FILE: str(share)})
        child: Child | None = None
        if self.server is not None and self.server.usable and not self.server.starting():
            child = self.server.fork(folder.path, share, variables)
        child = child or subprocess.Popen(
            command("bench.run.guard", str(folder.path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[share],
            env=variables,
        )
        return Process(folder, child, slot, before)

    def _share(self, slot: int) -> dict[str, str]:
        share = threads(self.jobs)
        if self.gpus and "CUDA_VISIBLE_DEVICES" not in os.environ:
            share["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        return share

    def ended(self) -> list[Process]:
        """Processes that ended since the last call."""
        over = [process for process in self.running if process.child.poll() is not None]
        self.running = [process for process in self.running if process not in over]
        return over

    def stop(self) -> None:
        """Has every cell write its checkpoint and end."""
        for process in self.running:
            process.stop()

    def kill(self) -> None:
        """Has every cell end at once."""
        for process in self.running:
            process.kill()

    def stop_all(self, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops every cell and waits; kills those that have not ended after `grace` seconds, or once `hurry()`."""
        self.stop()
        end = time.monotonic() + grace + 5  # the guards end their cells after `GRACE` themselves
        while any(process.child.poll() is None for process in self.running) and time.monotonic() < end:
            if hurry():
                break
            time.sleep(0.1)
        self.kill()
        for process in self.running:
            process.end()


def threads(jobs: int) -> dict[str, str]:
    """What libraries read when they are loaded, where `jobs` cells run at a time."""
    share = {"PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return share


def log_tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log, of which only the end is read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
            return last_lines(file.read(4000).decode(errors="replace"), lines)
    except OSError:
        return ""


def last_lines(text: str, lines: int = 1) -> str:
    """The last lines of a text that are not empty."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
