"""Running a plan: finished cells are skipped, half-done ones resume, one that fails stops no other.

Several launches may work in one results directory: no cell is run twice at once, the cores of one are never used by
another, and a launch ends when all its cells have ended, whoever ran them.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.config.spec import subject
from bench.run.executor import Ended, Executor, Process, last_lines
from bench.run.interrupts import Interrupts, interrupts
from bench.run.launches import launched
from bench.run.others import Others
from bench.run.plan import Plan, PlannedCell
from bench.run.processes import CRASHES
from bench.run.states import CellState, Life, States, shortened
from bench.store.disk import explained
from bench.store.folders import CellFolder, Status, Store

SYNC_EVERY = 60.0  # seconds
MOST_LOST = 5  # times that a cell is started again after its place was lost
PATIENCE = 1.0  # seconds until a share of the machine is asked for again

__all__ = ["CellState", "in_turn", "run"]


def run(
    plan: Plan,
    store: Store,
    *,
    executor: Executor[Any],
    say: Callable[[str], None],
    show: Callable[[list[CellState]], None] = lambda states: None,
    sync: Callable[[], None] = lambda: None,
    poll: float = 0.5,
) -> list[CellState]:
    """Runs every cell of a plan that is not done, and returns the state of each in the end.

    Args:
        plan: the cells.
        store: where they are.
        executor: where cells run.
        say: prints a line.
        show: updates the live table; of many cells it is given those that run, the next ones and a count.
        sync: writes to the dashboard; must not raise.
        poll: seconds between checks; the end of a cell does not wait for one.
    """
    launch = _Launch(plan, store, executor, say, show, sync)
    with launched(), interrupts(executor) as interrupted:
        try:
            launch.work(interrupted, poll)
            if interrupted:
                launch.stop(interrupted)
        finally:
            executor.stop_all(hurry=interrupted.hurry)  # nothing is left running, whatever happened
            executor.close()
    sync()
    return launch.states.read(frozenset(launch.labels))


def in_turn(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Cells in the order of their start: seed by seed, from another variant each time.

    So with several jobs a variant does not always share the machine with the same neighbour.
    """
    seeds: dict[int, list[PlannedCell]] = {}
    for cell in cells:
        seeds.setdefault(cell.row.seed, []).append(cell)
    turns = ((k % len(group), group) for k, group in enumerate(seeds.values()))
    return [cell for k, group in turns for cell in (*group[k:], *group[:k])]


class _Launch:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor[Any],
        say: Callable[[str], None],
        show: Callable[[list[CellState]], None],
        sync: Callable[[], None],
    ) -> None:
        self.plan, self.store, self.executor = plan, store, executor
        self._say, self._show, self._sync = say, show, sync
        self.states = States(plan, store)
        self.cells = {cell.row.cell: cell for cell in plan.cells}
        self.labels = {id: cell.label for id, cell in self.cells.items()}
        ready = [cell for cell in in_turn(plan.cells) if not cell.reason]
        self.waiting = {cell.row.cell: cell for cell in ready if store.cell(cell.row.cell).result() is None}
        self.others = Others(store, self.labels, self.say)
        self.watched: dict[str, Life] = {}
        self.lost: Counter[str] = Counter()  # cell -> how often its place was lost
        self.stopping = False
        self.synced, self.begun, self.patience = time.monotonic(), time.time(), 0.0
        if len(ready) > len(self.waiting):
            self.say(f"{len(ready) - len(self.waiting)} of {len(plan.cells)} cells are done already")

    def say(self, text: str) -> None:
        """Prints a line; a terminal that was closed stops nothing."""
        with suppress(OSError):
            self._say(text)

    def work(self, interrupted: Interrupts, poll: float) -> None:
        """Starts, watches and awaits cells until none is left, or a signal came."""
        while (self.waiting or self.executor.running) and not interrupted:
            ended = self.executor.ended()
            for process in ended:
                self._ended(process)
            self.others.forget()
            if trouble := self.executor.trouble():
                self.say(trouble)
            while self.waiting and self.executor.free > 0 and not interrupted and self._start_next():
                pass
            for process in self.executor.running:
                self._watch(process)
            with interrupted.outside():
                self._views(now=bool(ended))
            if not interrupted:
                self.executor.wait(poll)

    def stop(self, interrupted: Interrupts) -> None:
        """Stops every cell, in the time that it needs for its checkpoint."""
        self.stopping = True
        if self.executor.running:
            self.say("stopping: each running cell writes its checkpoint (press Ctrl-C again to end at once)")
        self.executor.stop_all(hurry=interrupted.hurry)
        for process in self.executor.ended():
            self._ended(process)
        self.say("stopped; the same command resumes from here")

    def _views(self, *, now: bool) -> None:
        """Brings the live table and, every minute or after an end, MLflow up to date."""
        with suppress(OSError):
            running = {process.folder.id for process in self.executor.running if not process.place}
            live = frozenset(running | self.others.cells)
            states = self.states.read(live)
            for place in self.states.places(live):
                states[place] = self._shown(states[place], running)
            self._show(shortened(states, live))
        if now or time.monotonic() - self.synced > SYNC_EVERY:
            self._sync()
            self.synced = time.monotonic()

    def _shown(self, one: CellState, running: set[str]) -> CellState:
        """A process that is up but has written nothing yet is starting; what others run is marked."""
        if one.id in running and one.status != "running":
            return replace(one, status="running", reason="", stage="starting")
        if one.status == "running" and one.id not in running and not one.stage:
            return replace(one, stage=f"{one.step:,}/{one.steps:,} in another launch")
        return one

    # --- start and end ---

    def _start_next(self) -> bool:
        """Starts the first cell that no other process works on; False if there is none, or no core, now."""
        if time.monotonic() < self.patience:
            return False
        for id, cell in list(self.waiting.items()):
            folder = self.store.cell(id)
            if id in self.others.cells:
                continue
            if folder.result() is not None or self._ended_elsewhere(folder):
                self._finished_elsewhere(id)
            elif self._held(folder, tries=3):
                self.others.meet(id)
            else:
                return self._start(cell, folder)
        return False

    def _start(self, cell: PlannedCell, folder: CellFolder) -> bool:
        resumes = any(folder.checkpoints.glob("*.ckpt"))
        try:
            process = self.executor.start(folder)
        except OSError as error:  # the disk, or the system, refuses; the next cell may do better
            del self.waiting[folder.id]
            self._note(folder, "failed", explained(error, folder.path) or f"the cell could not be started: {error}")
            self._say_end(folder, 0.0)
            return True
        if process is None:
            self.others.cores_taken()
            self.patience = time.monotonic() + PATIENCE
            return False
        del self.waiting[folder.id]
        self.states.notes.pop(folder.id, None)
        self.others.waits = False
        self.say(f"{cell.label}: {'resumes' if resumes else 'starts'} ({folder.id})")
        return True

    def _ended_elsewhere(self, folder: CellFolder) -> bool:
        """Whether another launch ran a cell to a bad end since this one began: it is not tried again here."""
        state = folder.state()
        ended = state.get("status") in ("failed", "oom", "diverged", "timeout") and not folder.is_locked()
        return ended and float(state.get("changed", 0)) > self.begun

    def _finished_elsewhere(self, id: str) -> None:
        del self.waiting[id]
        status, reason = self.store.cell(id).status()
        self.say(f"{self.labels[id]}: {status} in another launch" + (f": {reason}" if reason else ""))

    def _ended(self, process: Process) -> None:
        """One line on how a cell ended; a process that died without a message gets its note written here."""
        folder = process.folder
        self.watched.pop(folder.id, None)
        if process.place:  # it was given up before it was started, and has no end that could be asked for
            self.waiting[folder.id] = self.cells[folder.id]
            return
        ended = process.ended()
        if self._moves(process, ended):
            return
        if self._silent(process):
            if self._held(folder):  # by another launch, whose state that is
                self.waiting[folder.id] = self.cells[folder.id]
                self.others.meet(folder.id)
                return
            if self._silent(process):  # and the other launch did not end it meanwhile
                self._note(folder, *self._unspoken(folder, ended))
        self._say_end(folder, time.monotonic() - process.started)

    def _silent(self, process: Process) -> bool:
        """Whether nothing on the disk says how a process's cell ended."""
        state = process.folder.state()
        return process.folder.result() is None and (state in (process.before, {}) or state["status"] == "running")

    def _moves(self, process: Process, ended: Ended) -> bool:
        """Whether a cell that ended through no doing of its own is started again elsewhere, and it was said."""
        folder = process.folder
        if self.stopping or folder.result() is not None:
            return False
        why = ended.lost
        if not why and self.executor.moves and folder.status()[0] == "killed" and folder.state() != process.before:
            why = "it was stopped where it ran"
        if not why:
            return False
        self.lost[folder.id] += 1
        if self.lost[folder.id] > MOST_LOST:
            self._note(folder, "killed", f"{why}, {self.lost[folder.id]} times; run again to resume")
            self._say_end(folder, time.monotonic() - process.started)
            return True
        self.waiting = {folder.id: self.cells[folder.id], **self.waiting}
        self.say(f"{self.labels[folder.id]}: {why}; it resumes elsewhere")
        return True

    def _held(self, folder: CellFolder, tries: int = 20) -> bool:
        """Whether another process holds the cell, for longer than it takes to ask (`is_locked`) or to end."""
        for _ in range(tries):
            if not folder.is_locked():
                return False
            time.sleep(0.05)
        return True

    def _unspoken(self, folder: CellFolder, ended: Ended) -> tuple[Status, str]:
        """How a cell ended that did not say so itself."""
        last = last_lines(ended.tail)[:300]
        if -ended.code in CRASHES:
            return "failed", f"{self._who(folder)}: its process crashed ({_name(-ended.code)}); the log shows where"
        if ended.code < 0:
            return "killed", f"ended by {_name(-ended.code)} without a message; run again to resume"
        if last.startswith("ditbench: "):
            return "failed", last.removeprefix("ditbench: ")
        printed = f"; the last line of its log: {last}" if last else ""
        return "failed", f"{self._who(folder)}: its process ended with exit code {ended.code}, no message{printed}"

    def _who(self, folder: CellFolder) -> str:
        spec = self.cells[folder.id].spec
        plugins = ", ".join(Path(file).name for file in spec.plugins)
        return subject(spec.config) + (f" of plugin {plugins}" if plugins else "")

    def _note(self, folder: CellFolder, status: Status, reason: str) -> None:
        """Records how a cell ended; in memory at least, if its folder cannot be written."""
        self.states.notes[folder.id] = (status, reason)
        with suppress(OSError):
            folder.write_state(status, reason)

    def _say_end(self, folder: CellFolder, seconds: float) -> None:
        status, reason = folder.status()
        if status != "done":
            status, reason = self.states.notes.get(folder.id, (status, reason))
        label = self.labels.get(folder.id, folder.id)
        self.say(f"{label}: {status} after {seconds:.0f} s" + (f": {reason}" if reason else ""))

    # --- limits of time ---

    def _watch(self, process: Process) -> None:
        """Ends a cell that takes longer than `run.timeout`, or gave no sign of life for `run.silence`."""
        folder, limits = process.folder, self.plan.matrix.run
        if process.place or not process.alive():
            return
        life = self.watched.setdefault(folder.id, Life(folder))
        if limits.timeout is not None and time.monotonic() - process.started > limits.timeout:
            process.end()
            self._note(folder, "timeout", f"longer than run.timeout, {limits.timeout:g} s; run again to resume")
        elif limits.silence is not None and life.silent() > limits.silence:
            if process.paused():
                life.renew()
                return
            process.end()
            self._note(
                folder,
                "timeout",
                f"{self._who(folder)}: no step, sample or line of its log for run.silence, {limits.silence:g} s; "
                "run again to resume",
            )


def _name(number: int) -> str:
    return signal.Signals(number).name + (" (perhaps out of memory)" if number == signal.SIGKILL else "")
