"""How far each cell of a plan is, read from the disk: once each, and again only what runs."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bench.run.executor import log_tail
from bench.run.plan import Plan, PlannedCell
from bench.store.folders import CellFolder, Status, Store
from bench.store.journal import Tail

IN_TRAINING = ("started", "resumed", "checkpoint")  # events after which no stage has begun


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Attributes:
        label: what distinguishes it from the others of its matrix.
        id: the cell's.
        status: see `CellFolder.status`.
        reason: why it ended badly, or empty.
        step: the last one in the journal.
        steps: of the whole training.
        loss: at that step.
        rate: training images/s, or None.
        left: seconds of training left, or None.
        stage: what it does after training, or empty.
    """

    label: str
    id: str
    status: Status
    reason: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    rate: float | None = None
    left: float | None = None
    stage: str = ""


@dataclass
class _Progress:
    """What a cell's journal says so far; each call reads only what was appended."""

    tail: Tail
    losses: dict[int, float] = field(default_factory=dict)
    rate: float | None = None
    events: list[str] = field(default_factory=list)

    def read(self) -> None:
        for entry in self.tail.entries():
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        metrics = entry.get("metrics", {})
        if "loss" in metrics:
            self.losses[entry["step"]] = metrics["loss"]
        self.rate = metrics.get("train_images_per_second", self.rate)
        if entry.get("event"):
            self.events.append(entry["event"])

    def stage(self, folder: CellFolder) -> str:
        """What a cell does after training, as its log says."""
        evaluating = "stage" in self.events and self.events[-1] not in IN_TRAINING
        return log_tail(folder.log, lines=1) if evaluating else ""


class States:
    """The states of a plan's cells.

    A cell that no process works on does not change: it is read once, when it starts and when it ends.

    Attributes:
        notes: cell -> how it ended, where its own folder could not take it (a full disk).
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.notes: dict[str, tuple[Status, str]] = {}
        self._places: dict[str, list[int]] = {}  # a cell that cannot be run may be there more than once
        for place, cell in enumerate(plan.cells):
            self._places.setdefault(cell.row.cell, []).append(place)
        self._cells = plan.cells
        self._states: list[CellState] = []
        self._progress: dict[str, _Progress] = {}
        self._live: frozenset[str] = frozenset()

    def read(self, live: frozenset[str]) -> list[CellState]:
        """The states now, in the order of the plan.

        Args:
            live: cells that processes work on; only these and those of the last call are read again.
        """
        if not self._states:
            self._states = [self._read(cell) for cell in self._cells]
        for id in live | self._live:
            for place in self._places[id]:
                self._states[place] = self._read(self._cells[place])
        self._live = live
        return self._states.copy()

    def places(self, ids: Iterable[str]) -> Iterator[int]:
        """Where in the list cells are."""
        for id in ids:
            yield from self._places[id]

    def _read(self, cell: PlannedCell) -> CellState:
        folder, train = self.store.cell(cell.row.cell), cell.spec.config.train
        status, reason = folder.status()
        if status != "done":
            status, reason = self.notes.get(folder.id, (status, reason))
        progress = self._progress.setdefault(folder.id, _Progress(Tail(folder.journal)))
        progress.read()
        if status != "running":
            self._progress.pop(folder.id, None)
        step, rate = max(progress.losses, default=0), progress.rate
        return CellState(
            label=cell.label,
            id=folder.id,
            status=status,
            reason=reason,
            step=step,
            steps=train.steps,
            loss=progress.losses.get(step),
            rate=rate,
            left=(train.steps - step) * train.batch / rate if rate and status == "running" else None,
            stage=progress.stage(folder) if status == "running" else "",
        )


def shortened(states: list[CellState], live: Container[str], most: int = 40) -> list[CellState]:
    """What fits a table: all cells, or of many those that run, the first others that are not done, and a count."""
    if len(states) <= most:
        return states
    running = [one for one in states if one.id in live]
    others = [one for one in states if one.id not in live]
    first = [one for one in others if one.status != "done"][: max(0, most - len(running))]
    kept = {one.id for one in (*running, *first)}
    counts = Counter(one.status for one in others if one.id not in kept)
    text = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
    rest = CellState(f"and {counts.total():,} more", "", "planned", stage=text)
    return [one for one in states if one.id in kept] + [rest]


class Life:
    """Signs of life of a cell: its state, journal and log change."""

    def __init__(self, folder: CellFolder) -> None:
        self.files = (folder.state_file, folder.journal, folder.log)
        self.seen: list[tuple[int, int]] = []
        self.renew()

    def renew(self) -> None:
        """Counts from now."""
        self.since = time.monotonic()

    def silent(self) -> float:
        """Seconds since the last sign."""
        seen = []
        for file in self.files:
            with suppress(OSError):
                known = os.stat(file)
                seen.append((known.st_mtime_ns, known.st_size))
        if seen != self.seen:
            self.seen = seen
            self.renew()
        return time.monotonic() - self.since
