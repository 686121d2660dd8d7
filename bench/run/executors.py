"""The executor of this machine: each cell in a session of its own, below its guard."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from bench.run import executor
from bench.run.boot import environment
from bench.run.processes import PARENT, Child, is_stopped
from bench.run.slots import FILE, Slots, named, usable
from bench.run.warm import Server, Stale
from bench.store.disk import writing
from bench.store.folders import CellFolder, Store


@dataclass
class Process(executor.Process):
    """A cell's guard, and the cell below it.

    Attributes:
        folder: the cell's.
        child: the guard.
        gpu: what it has to itself, as `CUDA_VISIBLE_DEVICES` names them, or empty.
        before: the cell's state before it was started.
        started: on the monotonic clock.
    """

    folder: CellFolder
    child: Child
    gpu: str = ""
    before: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        """Whether its guard lives."""
        return self.child.poll() is None

    def paused(self) -> bool:
        """Whether its guard or something below is stopped."""
        return is_stopped(self.child.pid)

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

    def ended(self) -> executor.Ended:
        """How the cell ended; call it when the guard has."""
        return executor.reported(self.child)


class Local(executor.Executor[Process]):
    """This machine: `jobs` cells at a time, each with its share of the cores, and a GPU of its own where it needs one.

    Args:
        jobs: cells at a time.
        gpus: that cells are shared out over, as `visible` lists them; none if they train on processors.
        devices: GPUs of a cell.
        warm: forks the cells from a process that has imported everything, where that can be done; or that process.
    """

    def __init__(self, jobs: int, gpus: Sequence[str] = (), *, devices: int = 1, warm: bool | Server = False) -> None:
        self.jobs, self.gpus, self.devices = jobs, list(gpus), devices
        self.running: list[Process] = []
        self.server = warm if isinstance(warm, Server) else Server(executor.threads(cores(jobs))) if warm else None

    @staticmethod
    def early(name: str, jobs: int, store: Store) -> Server | None:
        """The process that cells will be forked from, which imports while they are planned.

        None where a matrix of this name has run to its end: it may have nothing left to run.
        """
        with suppress(OSError, ValueError):
            rows = store.rows(name)
            if rows and all(store.cell(row.cell).result() is not None for row in rows):
                return None
        return Server(executor.threads(cores(jobs)))

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
        executor.open_log(folder)
        with writing(folder.path.parents[1] / "slots", "the share of the machine"):
            share, gpu = self._claim(folder)
        if share is None:
            return None
        try:
            process = self._start(folder, share, gpu)
        except Stale:  # it is started again; so is this cell, a little later
            return None
        finally:
            os.close(share)
        self.running.append(process)
        return process

    def _claim(self, folder: CellFolder) -> tuple[int | None, str]:
        """A share of the machine, and GPUs that no cell of this or another launch uses; no share if there are none."""
        slots, part = Slots(folder.path.parents[1]), 1 / self.jobs
        if not self.gpus:
            return slots.claim(folder.id, part), ""
        used = {gpu for process in self.running for gpu in named(process.gpu)} | slots.gpus()
        free = [gpu for gpu in self.gpus if gpu not in used][: self.devices]
        if len(free) < self.devices:
            return None, ""
        return slots.claim(folder.id, part, gpu=",".join(free)), ",".join(free)

    def _start(self, folder: CellFolder, share: int, gpu: str) -> Process:
        before = folder.state()
        own = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        variables = environment(
            **executor.threads(cores(self.jobs)), **own, **{PARENT: str(os.getpid()), FILE: str(share)}
        )
        child: Child | None = None
        if self.server is not None and self.server.usable and not self.server.starting():
            child = self.server.fork(folder.path, share, variables)
        child = child or executor.start_guard(folder.path, variables, share)
        return Process(folder, child, gpu, before)


def cores(jobs: int) -> int:
    """The cores of a cell where `jobs` cells share those that this launch may use."""
    return max(1, usable() // jobs)


def visible(gpus: int) -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        gpus: how many torch sees.
    """
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return named[:gpus] if named else [str(k) for k in range(gpus)]
