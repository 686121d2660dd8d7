"""Timing windows of work without making the device wait; peaks of memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


def peak_memory(device: torch.device) -> dict[str, float]:
    """Bytes at most so far: allocated and reserved on a GPU, resident (the whole process) on a CPU."""
    if device.type == "cuda":
        return {
            "peak_allocated_bytes": float(torch.cuda.max_memory_allocated(device)),
            "peak_reserved_bytes": float(torch.cuda.max_memory_reserved(device)),
        }
    return {"peak_resident_bytes": float(_peak_resident())}


class StepMemory:
    """Peaks of training steps alone, on a GPU: neither of the first steps nor of what is done between steps.

    Attributes:
        peaks: as `peak_memory` names them; of the first steps until there are warm ones, on a CPU of all it did.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peaks: dict[str, float] = {}
        self._warm = False

    def restart(self) -> None:
        """Peaks count from here on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def keep(self, *, warm: bool) -> None:
        """Takes in the peaks since the last restart; the first warm ones take the place of what was before."""
        before = self.peaks if self._warm == warm else {}
        found = peak_memory(self.device)
        self.peaks, self._warm = {name: max(value, before.get(name, 0.0)) for name, value in found.items()}, warm

    def named(self) -> dict[str, float]:
        """The peaks as the journal names them: `train_...`, but `warm_up_...` where a GPU made no warm step yet.

        A maximum over attempts is taken of them: compilation in one of the first steps must never be in it.
        """
        kind = "train" if self._warm or self.device.type != "cuda" else "warm_up"
        return {f"{kind}_{name}": value for name, value in self.peaks.items()}

    def steady(self) -> dict[str, float]:
        """On a GPU what stays allocated between steps, and how often an allocation was tried again: a slow step."""
        if self.device.type != "cuda":
            return {}
        stats = torch.cuda.memory_stats(self.device)
        retries = float(stats.get("num_alloc_retries", 0))
        return {
            "train_steady_allocated_bytes": float(torch.cuda.memory_allocated(self.device)),
            "train_allocation_retries": retries,
        }


def _peak_resident() -> int:
    """This process's own peak: Linux's `ru_maxrss` would keep that of the parent process."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass
class Stopwatch:
    """Times windows of work without making the device wait: device events on a GPU, the clock on a CPU.

    `start` and `stop` enclose a window; `seconds` waits for the device once and gives the windows since the last call.
    """

    device: torch.device
    _open: Any = None
    _closed: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether a window is open."""
        return self._open is not None

    def start(self) -> None:
        """Opens a window."""
        self._open = self._mark()

    def stop(self) -> None:
        """Closes the window, if one is open."""
        if self._open is not None:
            self._closed.append((self._open, self._mark()))
            self._open = None

    def lap(self) -> None:
        """Closes the window that is open and opens the next, with nothing between them."""
        mark = self._mark()
        self._closed.append((self._open, mark))
        self._open = mark

    def seconds(self) -> list[float]:
        """Seconds of each window since the last call."""
        closed, self._closed = self._closed, []
        if self.device.type == "cuda" and closed:
            torch.cuda.synchronize(self.device)
            return [first.elapsed_time(last) / 1000 for first, last in closed]
        return [last - first for first, last in closed]

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        timed: Any = torch.cuda.Event  # which torch does not type
        event = timed(enable_timing=True)
        event.record()
        return event


class Throughput:
    """Images per second over windows of training steps.

    The clock runs from `resume` to `pause`. The first steps of an attempt hold compilation and warm-up: their seconds
    count, their rate does not.
    """

    WARM_UP = 5  # steps

    def __init__(self, device: torch.device, batch: int) -> None:
        self.watch, self.batch = Stopwatch(device), batch
        self.cold = self.WARM_UP  # steps of warm-up that are left
        self._cold_parts = 0  # of the windows that the watch closed since the last pause
        self._seconds, self._steps = 0.0, 0  # of this window, warm ones alone

    def resume(self) -> None:
        """Lets the clock run, if it does not."""
        if not self.watch.running:
            self.watch.start()

    def count(self) -> None:
        """Counts a step that is over; does not wait for the device."""
        if not self.cold:
            self._steps += 1
            return
        self.cold -= 1
        if not self.cold:
            self.watch.stop()
            self.watch.start()
            self._cold_parts = 1

    def pause(self) -> float:
        """Stops the clock; seconds since the last pause."""
        self.watch.stop()
        parts = self.watch.seconds()
        self._seconds += 0.0 if self.cold else sum(parts[self._cold_parts :])
        self._cold_parts = 0
        return sum(parts)

    def window(self) -> float | None:
        """Images per second since the last window; None while warming up."""
        rate = self._steps * self.batch / self._seconds if self._steps and self._seconds > 0 else None
        self._seconds, self._steps = 0.0, 0
        return rate


def median_iqr(rates: list[float], name: str) -> dict[str, float]:
    """Median and interquartile range of rates: `name` and `name_iqr`; one rate has no range, no rate has neither."""
    found = {name: statistics.median(rates)} if rates else {}
    if len(rates) > 1:
        low, _, high = statistics.quantiles(rates, n=4, method="inclusive")
        found[f"{name}_iqr"] = high - low
    return found
