"""Where cells run. A cell is one command in a process group of its own; an executor decides only where."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.store.folders import CellFolder

GRACE = 60.0  # seconds a cell has to write its checkpoint after SIGTERM


@dataclass
class Process:
    """A cell's process group."""

    folder: CellFolder
    child: subprocess.Popen[bytes]
    slot: int
    started: float = field(default_factory=time.monotonic)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal to the whole group, if it still lives."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, number)


class Local:
    """This machine: `jobs` cells at a time, each with its share of the cores, and its own GPU where there are any."""

    def __init__(self, jobs: int, gpus: int = 0) -> None:
        self.jobs, self.gpus = jobs, gpus
        self.running: list[Process] = []

    @property
    def free(self) -> int:
        """Cells that could start now."""
        return self.jobs - len(self.running)

    def start(self, folder: CellFolder) -> Process:
        """Starts a cell; what it prints goes to its `log.txt`."""
        slot = min(set(range(self.jobs)) - {process.slot for process in self.running})
        folder.path.mkdir(parents=True, exist_ok=True)
        with open(folder.log, "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.run.cell", str(folder.path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | self._share(slot),
            )
        process = Process(folder, child, slot)
        self.running.append(process)
        return process

    def _share(self, slot: int) -> dict[str, str]:
        share = {"PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        if "OMP_NUM_THREADS" not in os.environ:
            share["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.jobs))
        if self.gpus and "CUDA_VISIBLE_DEVICES" not in os.environ:
            share["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        return share

    def ended(self) -> list[Process]:
        """Processes that ended since the last call."""
        over = [process for process in self.running if process.child.poll() is not None]
        self.running = [process for process in self.running if process not in over]
        return over

    def stop_all(self, grace: float = GRACE) -> None:
        """Has every cell write its checkpoint and end; kills those that do not."""
        for process in self.running:
            process.stop()
        end = time.monotonic() + grace
        while any(process.child.poll() is None for process in self.running) and time.monotonic() < end:
            time.sleep(0.1)
        for process in self.running:
            process.stop(signal.SIGKILL)
            process.child.wait()


def log_tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log."""
    try:
        text = path.read_bytes()[-4000:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
