"""One process of several at a time: while it measures, the others and all that they started are stopped (SIGSTOP).

A lock alone is not enough: on the first H200 rows that compiled beside a timed one ran their own first steps on the
same GPU, and doubled its time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from typing import Any


class Turns:
    """Shared by processes that each call `join` once, and `alone` around what must not be disturbed.

    Args:
        context: that the processes are started with.
        count: of the processes at most.
    """

    def __init__(self, context: BaseContext, count: int) -> None:
        self._lock: Any = context.Lock()
        self._groups: Any = context.Array("i", count)

    def join(self) -> None:
        """Makes this process, and what it will start, a group that can be stopped."""
        os.setpgid(0, 0)
        with self._groups.get_lock():
            self._groups[list(self._groups).index(0)] = os.getpgrp()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits for its turn, and stops all others meanwhile."""
        with self._lock:
            self._signal(signal.SIGSTOP)
            try:
                yield
            finally:
                self.wake()

    def wake(self) -> None:
        """Lets all continue."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Kills what is left of all that have joined, and of what they started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for group in list(self._groups):
            if group not in (0, os.getpgrp()):
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
