"""Shares of the machine: cells of all launches of one results directory together never use more than there is.

A launch of `jobs` cells at a time promises each a share of 1/jobs. Each cell that runs holds the kernel lock of a file
in `slots/`, which says its share; guard and cell hold it, and it dies with the last of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.store.folders import CellFolder

FILE = "DITBENCH_SLOT"  # environment: the open file that holds the share, inherited from `run` to guard to cell
_number = count()


def processors() -> list[int]:
    """Those that this process may use (`taskset`, a scheduler, a container); none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def usable() -> int:
    """How many those are; of the machine where the system does not say."""
    return len(processors()) or os.cpu_count() or 1


@dataclass(frozen=True)
class Share:
    """What a running cell uses.

    Attributes:
        cell: its id.
        share: of the machine.
        pid: of the launch.
        host: where it runs.
        processors: that it may use; none listed: all.
        gpus: `CUDA_VISIBLE_DEVICES` of its launch, or empty.
        gpu: those that the cell has to itself, named likewise, or empty.
    """

    cell: str
    share: float
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    processors: list[int] = field(default_factory=processors)
    gpus: str = field(default_factory=lambda: os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    gpu: str = ""

    def shares_with(self, other: Share) -> bool:
        """Whether both need the same processors or GPUs."""
        if self.host != other.host or (self.gpus and other.gpus and not named(self.gpus) & named(other.gpus)):
            return False
        ours, theirs = set(self.processors), set(other.processors)
        return not ours or not theirs or bool(ours & theirs)

    def same_gpu(self, other: Share) -> bool:
        """Whether both have a GPU to themselves that is the same."""
        return self.host == other.host and bool(named(self.gpu) & named(other.gpu))


class Slots:
    """The shares of a results directory.

    Args:
        root: the results directory.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "slots"

    def claim(self, cell: str, share: float, *, gpu: str = "", force: bool = False) -> int | None:
        """An open file that holds a share for a cell as long as it is open, or None if there is not enough.

        Args:
            cell: its id.
            share: of the machine, up to 1.
            gpu: those that it needs to itself, as `CUDA_VISIBLE_DEVICES` names them; empty: none.
            force: takes it even so: for a cell that was started by hand.

        Raises:
            OSError: if the folder cannot be written.
        """
        wanted = Share(cell, share, gpu=gpu)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=5):
                living = self._living()
                used = [one for one in living if one.shares_with(wanted)]
                full = sum(one.share for one in used) + share > 1 + 1e-6 or any(wanted.same_gpu(one) for one in living)
                if not force and (full or any(one.cell == cell for one in living)):
                    return None
                return self._hold(wanted)
        except Timeout:  # a process was stopped while it held the lock
            return None

    def living(self) -> list[Share]:
        """The shares of all cells that run, of this launch and of others."""
        if not self.folder.is_dir():
            return []
        with suppress(OSError, Timeout), FileLock(self.folder / "lock", timeout=1):
            return self._living()
        return []

    def gpus(self) -> set[str]:
        """The GPUs of this machine that cells have to themselves."""
        return {gpu for one in self.living() if one.host == socket.gethostname() for gpu in named(one.gpu)}

    def _hold(self, wanted: Share) -> int:
        path = self.folder / f"{wanted.host}-{wanted.pid}-{next(_number)}.json"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            with suppress(OSError):  # a file system without locks: nothing is promised there
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(file, json.dumps(asdict(wanted)).encode())
        except BaseException:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        return file

    def _living(self) -> list[Share]:
        """Reads every share whose lock is held; the files of others are removed."""
        shares = []
        for path in self.folder.glob("*.json"):
            with suppress(OSError), open(path, "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if path.name.startswith(f"{socket.gethostname()}-"):
                        path.unlink()
                except BlockingIOError:
                    shares += _read(file.read())
        return shares


@contextmanager
def machine_share(folder: CellFolder) -> Iterator[None]:
    """Holds a share while a cell runs: the one that its guard handed on, or the machine, if it was started by hand."""
    file = os.environ.pop(FILE, "")
    share = int(file) if file else None
    if share is None and folder.path.parent.name == "cells":
        with suppress(OSError):
            share = Slots(folder.path.parents[1]).claim(folder.id, 1.0, force=True)
    if share is not None:
        with suppress(OSError):
            os.set_inheritable(share, False)
    try:
        yield
    finally:
        if share is not None:
            with suppress(OSError):
                os.close(share)


def named(gpus: str) -> set[str]:
    """The GPUs that a list like `CUDA_VISIBLE_DEVICES` names."""
    return {one.strip() for one in gpus.split(",")} - {""}


def _read(content: bytes) -> list[Share]:
    with suppress(ValueError, TypeError):
        known: dict[str, Any] = json.loads(content)
        return [Share(**known)]
    return []
