"""What other launches do in the same results directory: their cells are waited for, and so are their cores."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from bench.run.processes import end_leftovers
from bench.run.slots import Slots
from bench.store.folders import Store

LEFTOVERS_AFTER = 5.0  # seconds that a cell's lock outlives its process before what holds it is ended


class Others:
    """Cells of a plan that other processes hold.

    Args:
        store: the results directory.
        labels: of the plan's cells, by id.
        say: prints a line.

    Attributes:
        cells: their ids.
        waits: whether it was said that other launches use the cores.
    """

    def __init__(self, store: Store, labels: Mapping[str, str], say: Callable[[str], None]) -> None:
        self.store, self.labels, self.say = store, labels, say
        self.cells: set[str] = set()
        self.waits = False
        self._said: set[str] = set()
        self._since: dict[str, float] = {}

    def meet(self, id: str) -> None:
        """A cell of the plan was found to be held."""
        self.cells.add(id)
        self._since.setdefault(id, time.monotonic())
        if id not in self._said:
            self._said.add(id)
            self.say(f"{self._about(id)} is being run by another launch; waiting for its end")

    def cores_taken(self) -> None:
        """There is no share of the machine left: says whose cells use it."""
        ours = os.getpid()
        living = [one for one in Slots(self.store.root).living() if one.pid != ours]
        for one in living:
            if one.cell in self.labels:
                self.meet(one.cell)
            self._end_leftovers(one.cell)
        if living and not self.waits:
            self.waits = True
            names = ", ".join(sorted(self._about(one.cell) for one in living))
            self.say(f"waiting for the cores that another launch of this results directory uses: {names}")

    def forget(self) -> None:
        """Forgets the cells that nobody holds any more: they may be started here."""
        if not self.cells:
            return
        held = {one.cell for one in Slots(self.store.root).living()}
        free = {id for id in self.cells if id not in held and not self.store.cell(id).is_locked()}
        for id in self.cells - free:
            self._end_leftovers(id)
        self.cells -= free

    def _about(self, id: str) -> str:
        state = self.store.cell(id).state()
        return f"{self.labels.get(id, id)} (process {state['pid']})" if "pid" in state else self.labels.get(id, id)

    def _end_leftovers(self, id: str) -> None:
        """Ends what holds a cell's lock although its own process is gone for some seconds: nobody else would."""
        now = time.monotonic()
        if now - self._since.setdefault(id, now) < LEFTOVERS_AFTER:
            return
        self._since[id] = now
        folder, state = self.store.cell(id), self.store.cell(id).state()
        changed = float(state.get("changed", 0))
        here = state.get("host") == socket.gethostname() and type(state.get("pid")) is int
        if here and changed < time.time() - LEFTOVERS_AFTER:
            end_leftovers(folder.path, state["pid"], changed)
