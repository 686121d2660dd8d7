"""Processes that end with their parent, and the ends of those that a cell started. Linux and macOS."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import psutil

GRACE = 60.0  # seconds a cell has to write its checkpoint after SIGTERM
PARENT = "DITBENCH_PARENT"  # environment: the process that this one ends with
MARK = "DITBENCH_CELL"  # environment: the folder of the cell that started a process, directly or not
GUARD = "bench.run.guard"  # the module of a guard, in its command
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS)
_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl


def follow_parent(*, watch: bool = True) -> int:
    """Has this process stop when the parent named in its environment ends, also by SIGKILL.

    It receives SIGTERM, from the kernel on Linux and from a thread elsewhere; GRACE seconds later its group is killed.

    Args:
        watch: starts the thread; False where this process forks and must have one thread alone.

    Returns:
        The parent, or 0 if none is named.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if not parent:
        return 0
    _prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(128 + signal.SIGTERM)
    if watch:
        watch_parent(parent)
    return parent


def end_with_parent() -> None:
    """Has this process, which `multiprocessing` forked, be killed when its parent ends: it has nothing to write."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    _prctl(_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_kill_after, args=(parent.pid,), daemon=True, name="ditbench-parent").start()


def _kill_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 for one that is gone."""
    import psutil

    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0


def watch_parent(parent: int) -> None:
    """Starts the thread that ends this process, and its group, some time after its parent."""
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="ditbench-parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    if not sys.platform.startswith("linux"):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE + 15)  # a guard ends its cell within GRACE by itself
    if os.getpgrp() in (os.getpid(), parent):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> bool:
    """Makes this process the parent of whatever its descendants leave behind, in any session (Linux alone can)."""
    return _prctl(_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            return ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0
    return False


class Child(Protocol):
    """What is asked of a child process, of whichever kind."""

    pid: int
    stdout: IO[bytes] | None

    @property
    def returncode(self) -> int | None: ...  # noqa: D102
    def poll(self) -> int | None: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> int: ...  # noqa: D102
    def send_signal(self, sig: int) -> None: ...  # noqa: D102
    def terminate(self) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102


class Forked:
    """A child process that was forked, with the methods of `subprocess.Popen`.

    Args:
        pid: of the child.
        stdout: where what it prints can be read.
    """

    def __init__(self, pid: int, stdout: IO[bytes] | None = None) -> None:
        self.pid, self.stdout = pid, stdout
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        """Its exit code (negative: the signal) once it was seen to have ended."""
        return self._code

    def poll(self) -> int | None:
        """Its exit code, or None while it lives."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # something else waited for it: how it ended is not known
                self._code = 1
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: if it has not after `timeout` seconds.
        """
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, sig: int) -> None:
        """Sends a signal, if it lives."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)


def end_below(seconds: float = 2.0) -> None:
    """Ends all descendants of this process: politely, and after some seconds by force."""
    import psutil

    me = psutil.Process()
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            _reap()
            below = me.children(recursive=True)
            if not below:
                return
            _send(below, number)
            time.sleep(0.05)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _send(processes: Iterable[psutil.Process], number: int) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def marked(folder: Path) -> list[psutil.Process]:
    """Living processes that a cell is or started, in whatever session: all inherit its mark."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_strays(folder: Path) -> int:
    """Kills what an earlier process of a cell left behind; call it in the cell's process, under its lock."""
    import psutil

    me = psutil.Process()
    ours = {me, *me.parents(), *me.children(recursive=True)}
    strays = [process for process in marked(folder) if process not in ours]
    _send(strays, signal.SIGKILL)
    return len(strays)


def end_leftovers(folder: Path, cell: int, changed: float) -> bool:
    """Kills what a cell left behind when its own process is gone; False, and nothing, while that lives.

    Args:
        folder: the cell's.
        cell: the number of its process.
        changed: when that wrote its state; a process that began later has only its number.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(cell)
        if process.create_time() <= changed and process.status() != psutil.STATUS_ZOMBIE:
            return False
    alive = [process for process in marked(folder) if not _guarded(process)]
    _send(alive, signal.SIGKILL)
    return bool(alive)


def _guarded(process: psutil.Process) -> bool:
    """Whether a guard above it lives: it is of an attempt that has not written its state yet."""
    import psutil

    with suppress(psutil.Error):
        return any(GUARD in " ".join(one.cmdline()) for one in process.parents())
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process or one below it is stopped (SIGSTOP, a debugger): it is silent for a reason."""
    import psutil

    with suppress(psutil.Error):
        top = psutil.Process(pid)
        return any(one.status() == psutil.STATUS_STOPPED for one in (top, *top.children(recursive=True)))
    return False
