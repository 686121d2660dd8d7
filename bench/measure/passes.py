"""How fast samples are made: passes of the sampler, timed evaluation by evaluation of the model.

A set may be one pass, which a moment in which the machine did something else would decide. So each window is a part of
a pass, and its rate that of a whole pass at its speed.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.training.flow import Velocity
from bench.training.stopwatch import Stopwatch

WINDOWS = 5  # of a pass, or more: none is longer than a fifth of its evaluations


def timed(velocity: Velocity, watch: Stopwatch) -> Velocity:
    """The same velocity; each evaluation is a window of the watch, which runs, and so is what comes before the first.

    What a solver does between two evaluations is in the window of the second.
    """
    calls = itertools.count()

    def evaluated(x: Tensor, t: Tensor, prompt: Any) -> Tensor:
        if next(calls) == 0:
            watch.lap()
        found = velocity(x, t, prompt)
        watch.lap()
        return found

    return evaluated


@dataclass(frozen=True)
class Pass:
    """How long a pass of the sampler took.

    Attributes:
        computed: samples, also those that only fill up its batch.
        once: seconds of what is done once: the encoding of prompts, the copy of the samples.
        evaluations: seconds of each evaluation of the model.
    """

    computed: int
    once: float
    evaluations: list[float]

    @classmethod
    def of(cls, computed: int, seconds: Sequence[float]) -> Pass:
        """Of the windows of a watch that `timed` one: before, each evaluation, after."""
        return cls(computed, seconds[0] + seconds[-1], list(seconds[1:-1]))

    def windows(self) -> list[float]:
        """Seconds of an evaluation, a mean over each window; evaluations that fill no window are left out."""
        size = max(1, len(self.evaluations) // WINDOWS)
        starts = range(0, len(self.evaluations) - size + 1, size)
        return [statistics.fmean(self.evaluations[start : start + size]) for start in starts]


def rates(passes: Sequence[Pass]) -> list[float]:
    """Images/s of each window of the passes, those of smaller batches than the largest left out.

    What is done once a pass counts as its median over passes.
    """
    most = max((one.computed for one in passes), default=0)
    full = [one for one in passes if one.computed == most]
    once = statistics.median(one.once for one in full) if full else 0.0
    return [most / (once + len(one.evaluations) * seconds) for one in full for seconds in one.windows()]
