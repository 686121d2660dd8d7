"""The other ranks of a cell on several devices: forked from its process before it touches a device, and ended with it.

They are in the cell's process group, write nothing and heed no signal: what ends the cell ends them. One that dies ends
the cell, which says how it died.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, NoReturn

import torch
from torch._C._distributed_c10d import TCPStore

from bench.run.endings import RankLost, classified
from bench.run.processes import CRASHES, end_with_parent
from bench.store.folders import CellFolder, Status
from bench.training.callback import Diverged
from bench.training.ranks import ALONE, PATIENCE, Ranks
from bench.training.signals import Stopped, ignore_stops

HOST = "127.0.0.1"
SOON = 3.0  # seconds in which a rank's death is seen after the error that it made here
HUNG = 15.0  # seconds after it in which rank 0 must have seen that error itself
Ending = tuple[float, Status, str]  # when, how and why
Work = Callable[[Ranks], None]


@contextmanager
def together(
    folder: CellFolder, count: int, device: str, work: Work, hung: Callable[[Status, str], NoReturn]
) -> Iterator[Ranks]:
    """Has `count - 1` other processes do `work` meanwhile, each as its rank; rank 0 is this one.

    Args:
        folder: the cell's.
        count: of ranks; 1: nothing is started.
        device: `cpu` or `cuda`.
        work: what each of them does, until rank 0 has no more for it.
        hung: called in a thread if a rank died and this process waits for it all the same; it must end the process.

    Raises:
        RankLost: if one died.
    """
    if count == 1:
        yield ALONE
        return
    others = _Others(folder, count, device, work)
    try:
        yield others.meet(hung)
    except (Stopped, Diverged, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if lost := others.lost(SOON):
            raise lost from error
        raise
    finally:
        others.end()


@dataclass
class _Other:
    """A rank: its process, and the pipe on which it says how it ended."""

    rank: int
    process: ForkProcess
    words: Connection
    said: Ending | None = None

    def ending(self) -> Ending:
        """How it says that it died, or what its exit code says."""
        with suppress(EOFError, OSError):
            if self.said is None and self.words.poll():
                self.said = self.words.recv()
        return self.said or (0.0, *_of_code(self.process.exitcode or 0))


class _Others:
    """All ranks but this one."""

    def __init__(self, folder: CellFolder, count: int, device: str, work: Work) -> None:
        self.count, self.device, self.over = count, device, threading.Event()
        self.asked = threading.Lock()
        context, self.all = multiprocessing.get_context("fork"), list[_Other]()
        for rank in range(1, count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(Ranks(rank, count), device, theirs, work, folder))
            process.start()
            theirs.close()
            self.all.append(_Other(rank, process, ours))

    def meet(self, hung: Callable[[Status, str], NoReturn]) -> Ranks:
        """This process as rank 0, once all are there."""
        threading.Thread(target=self._watch, args=(hung,), daemon=True, name="ditbench-ranks").start()
        store = TCPStore(HOST, 0, self.count, is_master=True, wait_for_workers=False, timeout=PATIENCE)
        for one in self.all:
            with suppress(OSError):  # it died: that is seen
                one.words.send(store.port)
        ranks = Ranks(0, self.count)
        ranks.join(store, self.device)
        return ranks

    def lost(self, seconds: float = 0.0) -> RankLost | None:
        """How the first rank died that did, waiting so long for one; a signal's victim before those that missed it."""
        end = time.monotonic() + seconds
        while not (dead := [one for one in self.all if one.process.exitcode not in (None, 0)]):
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
        with self.asked:
            rank, (_, status, reason) = min(((one.rank, one.ending()) for one in dead), key=lambda one: one[1][0])
        return RankLost(status, f"rank {rank} of {self.count}: {reason}")

    def end(self) -> None:
        """Ends those that live; after the last work they end by themselves."""
        self.over.set()
        for one in self.all:
            one.process.kill()
            one.process.join()

    def _watch(self, hung: Callable[[Status, str], NoReturn]) -> None:
        """Ends this process where it waits for a rank that died, as NCCL does, without an error."""
        living: dict[Any, ForkProcess] = {one.process.sentinel: one.process for one in self.all}
        while living:
            for ended in [living.pop(sentinel) for sentinel in wait(living)]:
                while ended.exitcode is None:  # its files are closed before it has an exit code
                    time.sleep(0.01)
            if self.over.is_set():
                return
            if self.lost() is not None:
                break
        else:
            return
        if not self.over.wait(HUNG) and (lost := self.lost()):
            for one in self.all:
                one.process.kill()
            hung(lost.status, str(lost))


def _of_code(code: int) -> tuple[Status, str]:
    if -code in CRASHES:
        return "failed", f"its process crashed ({signal.Signals(-code).name}); the log shows where"
    if code < 0:
        name = signal.Signals(-code).name + (" (perhaps out of memory)" if -code == signal.SIGKILL else "")
        return "killed", f"ended by {name} without a message; run again to resume"
    return "failed", f"its process ended with exit code {code}, no message"


def _rank(ranks: Ranks, device: str, words: Connection, work: Work, folder: CellFolder) -> NoReturn:
    """The process of a rank."""
    code = 1
    try:
        ignore_stops()
        end_with_parent()

        def joined() -> None:
            port = words.recv()
            ranks.join(TCPStore(HOST, port, ranks.count, is_master=False, timeout=PATIENCE), device)
            work(ranks)

        status, reason = classified(joined, folder)
        code = 0 if status == "done" else 1
        if code:
            words.send((time.time(), status, reason))
    finally:
        os._exit(code)
