"""Running a plan: finished cells are skipped, half-done ones resume, one that fails stops no other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.run.executors import Local, Process, log_tail
from bench.run.plan import Plan, PlannedCell
from bench.store.folders import CellFolder, Status, Store
from bench.store.journal import curves, read_journal

SYNC_EVERY = 60.0  # seconds


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


def cell_state(cell: PlannedCell, store: Store) -> CellState:
    """Reads a cell's state from the disk."""
    folder = store.cell(cell.row.cell)
    status, reason = folder.status()
    train = cell.spec.config.train
    history = curves(folder.journal)
    losses, rates = history.get("loss", {}), history.get("train_images_per_second", {})
    step = max(losses, default=0)
    rate = list(rates.values())[-1] if rates else None
    left = (train.steps - step) * train.batch / rate if rate and status == "running" else None
    return CellState(
        label=cell.label,
        id=cell.row.cell,
        status=status,
        reason=reason,
        step=step,
        steps=train.steps,
        loss=losses.get(step),
        rate=rate,
        left=left,
        stage=_stage(folder) if status == "running" else "",
    )


class _States:
    """The states of a plan's cells. One that is done stays so, and is read once: results are large."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.done: dict[str, CellState] = {}

    def read(self) -> list[CellState]:
        """The states now, in the order of the plan."""
        states = [self.done.get(cell.row.cell) or cell_state(cell, self.store) for cell in self.plan.cells]
        self.done |= {one.id: one for one in states if one.status == "done"}
        return states


def _stage(folder: CellFolder) -> str:
    events = [entry.get("event") for entry in read_journal(folder.journal) if entry.get("event")]
    if "stage" in events and events[-1] not in ("started", "resumed", "checkpoint"):
        return log_tail(folder.log, lines=1)
    return ""


def run(
    plan: Plan,
    store: Store,
    *,
    executor: Local,
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
        show: updates the live table.
        sync: writes to the dashboard; must not raise.
        poll: seconds between checks.
    """
    waiting = [cell for cell in in_turn(plan.cells) if not cell.reason and store.cell(cell.row.cell).result() is None]
    done = len(plan.cells) - len(waiting) - sum(bool(cell.reason) for cell in plan.cells)
    if done:
        say(f"{done} of {len(plan.cells)} cells are done already")
    labels, states = {cell.row.cell: cell.label for cell in plan.cells}, _States(plan, store)
    last_sync, timeout = time.monotonic(), plan.matrix.run.timeout
    with _interruptible() as interrupted:
        while (waiting or executor.running) and not interrupted():
            for process in executor.ended():
                _say_end(process, labels, say)
                sync()
                last_sync = time.monotonic()
            while waiting and executor.free:
                if not _start_next(waiting, store, executor, say):
                    break
            _stop_late(executor, timeout)
            if time.monotonic() - last_sync > SYNC_EVERY:
                sync()
                last_sync = time.monotonic()
            show([_starting(one, executor) for one in states.read()])
            time.sleep(poll)
        if interrupted():
            say("stopping: each running cell writes its checkpoint (press Ctrl-C again to end at once)")
            executor.stop_all()
            for process in executor.ended():
                _say_end(process, labels, say)
            say("stopped; the same command resumes from here")
    sync()
    return states.read()


def in_turn(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Cells in the order of their start: seed by seed, from another variant each time.

    So with several jobs a variant does not always share the machine with the same neighbour.
    """
    seeds: dict[int, list[PlannedCell]] = {}
    for cell in cells:
        seeds.setdefault(cell.row.seed, []).append(cell)
    turns = ((k % len(group), group) for k, group in enumerate(seeds.values()))
    return [cell for k, group in turns for cell in (*group[k:], *group[:k])]


def _starting(one: CellState, executor: Local) -> CellState:
    """A cell whose process is up but has written nothing yet is starting, not planned or killed."""
    up = any(process.folder.id == one.id for process in executor.running)
    silent = one.status in ("planned", "killed")
    return replace(one, status="running", reason="", stage="starting") if up and silent else one


def _start_next(waiting: list[PlannedCell], store: Store, executor: Local, say: Callable[[str], None]) -> bool:
    """Starts the first cell that no other process works on; False if there is none now."""
    for cell in list(waiting):
        folder = store.cell(cell.row.cell)
        if folder.result() is not None:  # finished by another launch in the meantime
            waiting.remove(cell)
        elif not folder.is_locked():
            waiting.remove(cell)
            say(f"{cell.label}: {'resumes' if any(folder.checkpoints.glob('*.ckpt')) else 'starts'} ({cell.row.cell})")
            executor.start(folder)
            return True
    return False


def _stop_late(executor: Local, timeout: float | None) -> None:
    for process in executor.running:
        if timeout is not None and time.monotonic() - process.started > timeout and process.child.poll() is None:
            process.stop(signal.SIGKILL)
            process.child.wait()
            process.folder.write_state("timeout", f"longer than run.timeout, {timeout:g} s; run again to resume")


def _say_end(process: Process, labels: dict[str, str], say: Callable[[str], None]) -> None:
    """One line on how a cell ended; a process that died without a message gets its note written here."""
    folder, code = process.folder, process.child.returncode
    if folder.result() is None and folder.state().get("status") in (None, "running"):
        folder.write_state("killed", f"ended by {_name(code)} without a message; run again to resume")
    status, reason = folder.status()
    seconds = time.monotonic() - process.started
    say(f"{labels.get(folder.id, folder.id)}: {status} after {seconds:.0f} s" + (f": {reason}" if reason else ""))


def _name(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"{signal.Signals(-code).name}" + (" (perhaps out of memory)" if -code == signal.SIGKILL else "")


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are remembered the first time; the second Ctrl-C is an exception as usual."""
    caught: list[int] = []

    def remember(number: int, frame: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
