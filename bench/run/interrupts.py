"""Signals to `run`: cells are asked to stop at once, from whatever the program is doing; it ends in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.run.executor import Executor

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupts:
    """Signals since the start of a run: none, one that stops it, or a second Ctrl-C that ends it at once.

    No handler raises, but for the second Ctrl-C while something outside of the loop is waited for (`outside`).
    """

    def __init__(self, executor: Executor[Any]) -> None:
        self.executor = executor
        self.caught: list[int] = []
        self.waiting = False

    def __bool__(self) -> bool:
        """Whether the run must stop."""
        return bool(self.caught)

    def hurry(self) -> bool:
        """Whether Ctrl-C was pressed again."""
        return self.caught.count(signal.SIGINT) > 1

    def remember(self, number: int, frame: object) -> None:
        """The handler."""
        self.caught.append(number)
        if not self.hurry():
            self.executor.stop()
            return
        self.executor.kill()
        if self.waiting:
            raise KeyboardInterrupt

    @contextmanager
    def outside(self) -> Iterator[None]:
        """While MLflow or a terminal is written to, which may take long: a second Ctrl-C does not wait for it."""
        self.waiting = True
        try:
            yield
        except KeyboardInterrupt:
            if not self.caught:  # no signal of ours
                raise
        finally:
            self.waiting = False


@contextmanager
def interrupts(executor: Executor[Any]) -> Iterator[Interrupts]:
    """Takes SIGINT, SIGTERM, SIGQUIT and, unless it is ignored (nohup), SIGHUP over from Python."""
    given = Interrupts(executor)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, given.remember)
    try:
        yield given
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
