"""A place on a machine of a cluster, where one cell after another runs below its guard; knows no engine."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from bench.run.boot import environment
from bench.run.executor import Ended, reported, start_guard, threads
from bench.run.processes import PARENT, is_stopped
from bench.run.slots import FILE, Slots, usable

PAUSE = 0.1  # seconds between looks at whether the guard lives


class Seat:
    """One place.

    Args:
        cores: that its cells have.
        variables: of their environment, beside the machine's own.
    """

    def __init__(self, cores: int, variables: dict[str, str]) -> None:
        self.cores, self.variables = cores, variables
        self._guard: subprocess.Popen[bytes] | None = None
        self._report: Ended | None = None
        self._asked: list[int] = []  # signals that came before the guard was there

    async def where(self) -> str:
        """The name of this machine: the seat is there."""
        return socket.gethostname()

    async def run(self, folder: str) -> dict[str, str | int]:
        """Runs a cell, and returns how it ended. One that is being run elsewhere says so itself and ends.

        Raises:
            OSError: if no process can be started.
        """
        self.start(folder)
        return await self.wait()

    def start(self, folder: str) -> None:
        """Starts a cell.

        Raises:
            OSError: if no process can be started.
        """
        self._folder, self._report = Path(folder), None
        self._guard = self._started(folder)
        for number in self._asked:
            self._guard.send_signal(number)

    def alive(self) -> bool:
        """Whether the cell that was started runs."""
        return self._guard is not None and self._guard.poll() is None

    def report(self) -> dict[str, str | int]:
        """How the cell ended, once it is not alive."""
        assert self._guard is not None  # a cell was started
        if self._report is None:
            self._report = reported(self._guard)
        return asdict(self._report)

    def send(self, number: int) -> None:
        """Sends a signal to the guard, if it lives: SIGTERM has the cell write its checkpoint, SIGQUIT ends it."""
        if self._guard is None:
            self._asked.append(number)
        else:
            self._guard.send_signal(number)

    def _started(self, folder: str) -> subprocess.Popen[bytes]:
        share = Slots(self._folder.parents[1]).claim(self._folder.name, self._part(), force=True)
        variables = threads(self.cores) | self.variables | {PARENT: str(os.getpid())}
        if share is not None:  # the lock of all shares may be held by a process that was stopped
            variables[FILE] = str(share)
        try:
            return start_guard(Path(folder), environment(**variables), share)
        finally:
            if share is not None:
                os.close(share)

    async def wait(self) -> dict[str, str | int]:
        """How the cell ended, once it has; may be asked again."""
        while self.alive():
            await asyncio.sleep(PAUSE)
        return self.report()

    async def signal(self, number: int) -> None:
        """The same as `send`, from elsewhere."""
        self.send(number)

    async def paused(self) -> bool:
        """Whether the cell or its guard is stopped (SIGSTOP, a debugger)."""
        return self._guard is not None and is_stopped(self._guard.pid)

    def _part(self) -> float:
        return min(1.0, self.cores / usable())


# --- whether a machine has the results directory that the launch has -------------------------------------------------


class Token:
    """A file in the results directory that the machines of a cluster must find there, and a lock that they must meet.

    Args:
        root: the results directory.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, f".token-{secrets.token_hex(8)}"
        self._lock = FileLock(root / f"{self.name}.lock")

    def __enter__(self) -> Token:
        """Writes the file and takes the lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / self.name).write_text(self.name)
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        """Removes both."""
        self._lock.release()
        for path in self.root.glob(f"{self.name}*"):
            path.unlink(missing_ok=True)

    def missed(self, host: str, found: str) -> str:
        """What is wrong with a machine that answered, or empty; its answer must be a file here too.

        Args:
            host: the machine.
            found: what `shared` returned there.
        """
        if found:
            return f"{host}: {found}"
        if not (self.root / f"{self.name}-{host}").exists():
            return f"{host}: what it wrote into {self.root} is not seen here"
        return ""


def shared(root: str, token: str) -> tuple[str, str]:
    """The name of this machine, and what its results directory lacks to be that of the launch, or empty."""
    host, folder = socket.gethostname(), Path(root)
    try:
        if (folder / token).read_text() != token:
            return host, f"{folder / token} has another text there"
        (folder / f"{token}-{host}").write_text(host)
        with FileLock(folder / f"{token}.lock", timeout=0):
            return host, f"{folder} is shared, but a lock that is held here is free there (mount it with locks)"
    except Timeout:
        return host, ""
    except OSError as error:
        return host, f"{folder} is not the launch's there ({error.strerror or error})"
