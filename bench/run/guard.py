"""The small process above each cell: it keeps the cell's log, and leaves nothing running when the cell or `run` ends.

`run` starts a guard for each cell and sends it signals; the guard starts the cell. When `run` ends in whatever way, the
kernel signals the guard; when the cell ends in whatever way, the guard ends all that the cell started.

    SIGTERM, SIGINT, SIGHUP    the cell writes its checkpoint and ends; after GRACE seconds it is killed
    SIGQUIT                    the cell is killed
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from bench.run.boot import command, environment
from bench.run.processes import GRACE, MARK, PARENT, Child, adopt_orphans, end_below
from bench.run.slots import FILE as SLOT

POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOG_LIMIT = 25_000_000  # bytes of log.txt; as many before them are kept in log.1.txt
TAIL = 2000  # bytes of output that are reported
Start = Callable[[dict[str, str]], Child]


class Log:
    """What a cell prints: its last 25 MB, and the 25 MB before. A disk that is full stops no cell for its log."""

    def __init__(self, path: Path, limit: int = LOG_LIMIT) -> None:
        self.path, self.limit = path, limit
        self.tail = b""
        self.size = path.stat().st_size if path.exists() else 0

    def write(self, data: bytes) -> None:
        """Appends."""
        self.tail = (self.tail + data)[-TAIL:]
        with suppress(OSError):
            if self.size + len(data) > self.limit:
                self._rotate()
            with open(self.path, "ab", buffering=0) as file:
                self.size += file.write(data) or 0

    def _rotate(self) -> None:
        os.replace(self.path, self.path.with_name("log.1.txt"))
        note = f"(more than {self.limit / 1e6:g} MB were printed: what came before is in log.1.txt)\n".encode()
        self.path.write_bytes(note)
        self.size = len(note)


class Guard:
    """One cell's guard.

    Args:
        folder: the cell's.
        words: the command of the cell.
        start: starts it in another way: with what its environment has besides this process's own.
    """

    def __init__(self, folder: Path, words: list[str], start: Start | None = None) -> None:
        self.log = Log(folder / "log.txt")
        self.end: float | None = None  # when a cell that was asked to stop is killed
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (*POLITE, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)
        more = {MARK: str(folder), PARENT: str(os.getpid())}
        self.child = start(more) if start else _started(words, more)
        assert self.child.stdout is not None
        self._output = self.child.stdout.fileno()
        os.set_blocking(self._output, False)

    def run(self) -> dict[str, str | int]:
        """Waits for the cell's end, ends what it left, and returns its exit code and its last output."""
        sources = [self._output, self._woken]
        while self.child.poll() is None:
            ready, _, _ = select.select(sources, [], [], 1.0)
            if self._output in ready and not self._copy():
                sources = [self._woken]  # the cell closed its output
            if self._woken in ready:
                self._obey(os.read(self._woken, 512))
            if self.end is not None and time.monotonic() > self.end:
                self.child.kill()
        end_below()
        last = time.monotonic() + 5
        while self._copy() and time.monotonic() < last:
            pass
        return {"code": self.child.wait(), "tail": self.log.tail.decode(errors="replace")}

    def _obey(self, numbers: bytes) -> None:
        if signal.SIGQUIT in numbers:
            self.child.kill()
        elif self.end is None and set(numbers) & set(POLITE):
            self.end = time.monotonic() + GRACE
            self.child.terminate()

    def _copy(self) -> bool:
        """Copies what the cell printed into its log; False when there is no more."""
        with suppress(BlockingIOError):
            data = os.read(self._output, 65536)
            self.log.write(data)
            return bool(data)
        return self.child.poll() is None


def _started(words: list[str], more: dict[str, str]) -> Child:
    slot = os.environ.get(SLOT)
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        pass_fds=[int(slot)] if slot else [],
        env=environment(**more),
    )


def main() -> None:
    """`boot.py bench.run.guard DIR`, as `bench.run.executors` starts it."""
    adopt_orphans()
    finish(Guard(Path(sys.argv[1]), command("bench.run.cell", sys.argv[1])))


def finish(guard: Guard) -> NoReturn:
    """Waits for the cell's end, reports it to `run` and ends this process."""
    report = guard.run()
    with suppress(OSError):  # `run` is gone
        sys.stdout.write(json.dumps(report))
        sys.stdout.flush()
    os._exit(0)
