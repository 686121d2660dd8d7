"""What a launch asks of whoever starts its cells. A cell is one command below a guard; executors decide only where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.run.boot import command
from bench.run.processes import GRACE, Child
from bench.store.disk import writing
from bench.store.files import make_folder
from bench.store.folders import CellFolder


@dataclass(frozen=True)
class Ended:
    """How a cell's process ended.

    Attributes:
        code: its exit code (negative: the signal).
        tail: the last that it printed.
        lost: why it ended through no doing of its own (its node was lost): it is started again elsewhere; or empty.
    """

    code: int
    tail: str = ""
    lost: str = ""


def reported(guard: Child) -> Ended:
    """How the cell of a guard that has ended came to its end, as it says on its output.

    What a library printed in the guard's own name comes before. Of a guard that says nothing, because it was killed or
    failed, the process group is ended: nothing of the cell may live on.
    """
    report = b""
    if guard.stdout is not None:
        with guard.stdout as output:
            report = output.read()
    words, _, last = report.rstrip().rpartition(b"\n")
    with suppress(ValueError, TypeError):
        ended = Ended(**json.loads(last))
        return replace(ended, tail=ended.tail or words.decode(errors="replace"))
    with suppress(ProcessLookupError):
        os.killpg(guard.pid, signal.SIGKILL)
    return Ended(guard.wait(), report.decode(errors="replace"))


class Process(ABC):
    """A cell that was given to an executor.

    Attributes:
        folder: the cell's.
        before: the cell's state before it was started.
        started: on the monotonic clock.
        place: what it waits for before it starts, in words; empty once it was started.
    """

    folder: CellFolder
    before: dict[str, Any]
    started: float
    place: str = ""

    @abstractmethod
    def alive(self) -> bool:
        """Whether it has not ended; one that waits for its place has not."""

    @abstractmethod
    def paused(self) -> bool:
        """Whether it is silent because somebody stopped it (SIGSTOP, a debugger)."""

    @abstractmethod
    def stop(self) -> None:
        """Has the cell write its checkpoint and end."""

    @abstractmethod
    def kill(self) -> None:
        """Has the guard end the cell, and all that it started, at once."""

    @abstractmethod
    def end(self, seconds: float = 10.0) -> None:
        """Kills the cell and waits for it; what does not answer is ended with all that belongs to it."""

    @abstractmethod
    def ended(self) -> Ended:
        """How the cell ended; call it when it is not alive."""


P = TypeVar("P", bound=Process)


class Executor(ABC, Generic[P]):
    """Starts cells, watches them and ends them.

    Attributes:
        running: what it was given and has not reported as ended.
        moves: whether a cell that was stopped where it ran (a node that is taken back) is started again elsewhere.
    """

    running: list[P]
    moves: bool = False

    @property
    @abstractmethod
    def free(self) -> int:
        """Cells that could start now, if no other launch uses the same machines."""

    @abstractmethod
    def start(self, folder: CellFolder) -> P | None:
        """Starts a cell, whose output goes to its `log.txt`; None if it must wait for other launches.

        Raises:
            DiskError: if its folder cannot be written.
            OSError: if no process can be started.
        """

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Waits until something ends or can be started, at most `seconds`."""

    def trouble(self) -> str:
        """What the user should know of the executor itself: once, and then empty."""
        return ""

    def close(self) -> None:
        """Gives back what belongs to no cell."""
        return

    def ended(self) -> list[P]:
        """What ended since the last call."""
        over = [process for process in self.running if not process.alive()]
        self.running = [process for process in self.running if process not in over]
        return over

    def stop(self) -> None:
        """Has every cell write its checkpoint and end. Called by a signal's handler: it must not wait."""
        for process in self.running:
            process.stop()

    def kill(self) -> None:
        """Has every cell end at once. Called by a signal's handler."""
        for process in self.running:
            process.kill()

    def stop_all(self, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops every cell and waits; kills those that have not ended after `grace` seconds, or once `hurry()`."""
        self.stop()
        end = time.monotonic() + grace + 5  # the guards end their cells after `GRACE` themselves
        while any(process.alive() for process in self.running) and time.monotonic() < end:
            if hurry():
                break
            time.sleep(0.1)
        self.kill()
        for process in self.running:
            process.end()


class Elsewhere(Executor[P]):
    """Starts cells on other machines.

    Attributes:
        stopping: whether cells are being stopped. A signal's handler only notes it, in the middle of whatever a
            cluster's library does; `stop_all` has them stop.
    """

    stopping: bool = False

    def stop(self) -> None:
        """Only notes it."""
        self.stopping = True

    def kill(self) -> None:
        """The same; `stop_all` asks `hurry`."""
        self.stopping = True

    def stop_all(self, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops every cell, and waits at most `grace` seconds or until `hurry()`."""
        self.stopping = True
        for process in self.running:
            process.stop()
        end = time.monotonic() + grace + 5
        while any(self.stops(process) for process in self.running) and time.monotonic() < end and not hurry():
            time.sleep(0.1)

    def stops(self, process: P) -> bool:
        """Whether a cell that was stopped is still to end."""
        return process.alive()


def open_log(folder: CellFolder) -> None:
    """Makes a cell's folder, with the log that its output goes to.

    Raises:
        DiskError: if it cannot be written.
    """
    make_folder(folder.path)
    with writing(folder.log, "the log"), open(folder.log, "ab"):
        pass


def start_guard(folder: Path, variables: dict[str, str], share: int | None) -> subprocess.Popen[bytes]:
    """A cell's guard as a process of its own session, which reports on its standard output.

    Args:
        folder: the cell's.
        variables: its environment.
        share: descriptor of its share of the machine, which it inherits.

    Raises:
        OSError: if no process can be started.
    """
    return subprocess.Popen(
        command("bench.run.guard", str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[share] if share is not None else [],
        env=variables,
    )


def threads(cores: int) -> dict[str, str]:
    """What libraries read when they are loaded, for a cell on so many cores; who set a number of threads keeps it."""
    share = {"PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, cores))
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
