"""A polite end: SIGTERM and SIGINT are remembered until a step is over and its checkpoint written."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(RuntimeError):
    """A signal stopped the cell; a checkpoint was written."""


class StopSignal:
    """The last of SIGTERM and SIGINT that came since `listen`, or None."""

    def __init__(self) -> None:
        self.number: int | None = None

    def listen(self) -> None:
        """Takes both signals over from Python and Lightning."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
