"""A polite end: in training a signal is remembered until the step's checkpoint is written; otherwise it raises."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
BEAT = 5.0  # seconds between signs of life


class Stopped(RuntimeError):
    """A signal stopped the cell; a checkpoint was written."""


class StoppedNow(KeyboardInterrupt):
    """A signal stopped the cell outside its training; what was finished is on the disk."""


class StopSignal:
    """The signal that asked this process to stop, or None."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.at_once = False
        self.process = os.getpid()

    def listen(self) -> None:
        """Takes the signals over from Python, Lightning and plugins, and remembers them; one that came before stays."""
        self._take(at_once=False)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Around the work of a cell: a signal raises within it, and none does after it or before.

        Raises:
            StoppedNow: if one came, in the work or before it.
        """
        try:
            self.end()
            yield
        finally:
            self.at_once = False

    def end(self) -> None:
        """Lets a signal end the cell at once: the training is over, or has not begun.

        Raises:
            StoppedNow: if one came meanwhile.
        """
        self._take(at_once=True)
        if self.number is not None:
            raise StoppedNow(sentence(self.number))

    def _take(self, *, at_once: bool) -> None:
        self.at_once, self.process = at_once, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a process that the cell forked: it just ends
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        first, self.number = self.number is None, number
        if self.at_once and first:
            raise StoppedNow(sentence(number))


def sentence(number: int) -> str:
    """What to do after a signal ended a cell."""
    return f"stopped by {signal.Signals(number).name}; run again to resume"


def ignore_stops() -> None:
    """Leaves all of them to another process, which ends this one."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


STOP = StopSignal()  # of this process
_life: list[Path | float] = []  # the file whose time is the sign of life, and when it was last given


@contextmanager
def stopping(life: Path) -> Iterator[StopSignal]:
    """While a cell runs: signals are remembered, and `beat` shows in the time of the file `life` that it lives."""
    before = {number: signal.getsignal(number) for number in STOPS}
    STOP.number, _life[:] = None, [life, 0.0]
    try:
        STOP.listen()
        yield STOP
    finally:
        STOP.number = None
        _life.clear()
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def beat() -> None:
    """A sign of life, every few seconds at most: a step was made, or a batch of samples."""
    if not _life:
        return
    life, last = _life
    now = time.monotonic()
    if isinstance(life, Path) and isinstance(last, float) and now - last > BEAT:
        _life[1] = now
        with suppress(OSError):
            os.utime(life)
