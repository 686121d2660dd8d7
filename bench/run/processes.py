"""Processes that end with their parent, and the ends of those that a cell started. Linux and macOS."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

GRACE = 60.0  # seconds a cell has to write its checkpoint after SIGTERM
PARENT = "DITBENCH_PARENT"  # environment: the process that this one ends with
MARK = "DITBENCH_CELL"  # environment: the folder of the cell that started a process, directly or not
_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl


def follow_parent() -> None:
    """Has this process stop when the parent named in its environment ends, also by SIGKILL.

    It receives SIGTERM, from the kernel on Linux and from a thread elsewhere; GRACE seconds later its group is killed.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if not parent:
        return
    _prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(128 + signal.SIGTERM)
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


def adopt_orphans() -> None:
    """Makes this process the parent of whatever its descendants leave behind, in any session (Linux)."""
    _prctl(_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


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
    alive = marked(folder)
    _send(alive, signal.SIGKILL)
    return bool(alive)


def is_stopped(pid: int) -> bool:
    """Whether a process or one below it is stopped (SIGSTOP, a debugger): it is silent for a reason."""
    import psutil

    with suppress(psutil.Error):
        top = psutil.Process(pid)
        return any(one.status() == psutil.STATUS_STOPPED for one in (top, *top.children(recursive=True)))
    return False
