"""The loop of `run`: what it reads, how long it waits, and what it makes of cells that end in odd ways."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cells import DONE, cells_do, planned
from kit import counted

from bench.run import executor as executor_module
from bench.run import loop
from bench.run.executor import Ended
from bench.run.executors import Local, Process, cores
from bench.run.loop import CellState, run
from bench.run.others import Others
from bench.run.plan import Plan
from bench.run.processes import MARK, marked
from bench.run.slots import Slots
from bench.run.states import States, shortened
from bench.store.files import write_json
from bench.store.folders import CellFolder, Store
from bench.store.journal import Journal
from bench.store.result import Result

__all__ = ["cells_do"]  # a fixture


def go(plan: Plan, store: Store, jobs: int = 1, lines: list[str] | None = None) -> list[CellState]:
    return run(plan, store, executor=Local(jobs), say=(lines if lines is not None else []).append, poll=0.05)


# --- scale ----------------------------------------------------------------------------------------------------------


class Busy(Local):
    """An executor whose cells always run."""

    def __init__(self, folders: list[CellFolder]) -> None:
        super().__init__(len(folders))
        child = SimpleNamespace(poll=lambda: None, pid=os.getpid())
        self.running = [Process(one, child, started=0.0) for one in folders]  # type: ignore[arg-type]

    def stop(self) -> None:
        self.running = []


_opened: list[str] | None = None  # the paths that are opened, while a test asks for them
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" and _opened is not None else None)


def test_a_tick_reads_only_what_runs(tmp_path: Path) -> None:
    """Every journal was read again each half second: 2.7 CPU seconds a tick with 2,000 cells."""
    plan, store = planned(tmp_path, 300)
    for cell in plan.cells[:200]:
        store.cell(cell.row.cell).write_state("failed", "no reason")
    folder = store.cell(plan.cells[250].row.cell)
    folder.write_state("running", attempt=1)
    journal = Journal(folder.journal)
    for step in range(1, 50):
        journal.metrics(step, {"loss": 1.0 / step, "train_images_per_second": 10.0})
    global _opened
    states, live = States(plan, store), frozenset({folder.id})
    with folder.locked():
        assert len(states.read(live)) == 300
        _opened = opened = []
        for _ in range(10):
            states.read(live)
        _opened = None
        assert opened and not [path for path in opened if folder.id not in path] and len(opened) <= 40
        assert not [path for path in opened if "journal" in path], "nothing was appended"
        journal.metrics(50, {"loss": 0.5})
        (state,) = [one for one in states.read(live) if one.id == folder.id]
    assert (state.status, state.step, state.loss, state.rate) == ("running", 50, 0.5, 10.0)


def calls_of_ticks(tmp_path: Path, cells: int, ticks: int = 20) -> list[int]:
    """The functions that each tick of a launch calls, two of whose cells run and write a line before it."""
    plan, store = planned(tmp_path, cells, silence=1800.0)
    folders = [store.cell(cell.row.cell) for cell in plan.cells[:2]]
    for folder in folders:
        folder.write_state("running", attempt=1)
    journals, counts = [Journal(folder.journal) for folder in folders], [0]

    def show(states: list[CellState]) -> None:
        counts.append(made[0])
        for journal in journals:
            journal.metrics(len(counts), {"loss": 1.0})
        if len(counts) > ticks:
            os.kill(os.getpid(), signal.SIGTERM)

    with folders[0].locked(), folders[1].locked(), counted() as made:
        run(plan, store, executor=Busy(folders), say=lambda text: None, show=show, poll=0)
    return [now - before for before, now in itertools.pairwise(counts[1:])]  # the first has read every cell


def test_a_tick_costs_what_runs_whatever_is_planned(tmp_path: Path) -> None:
    """Counted, not timed, for a time says how busy a machine is: a cell that does not run costs two calls at most."""
    few, many = (max(calls_of_ticks(tmp_path / str(cells), cells)) for cells in (200, 2000))
    assert 0 < few < 3000 and many - few <= 2 * (2000 - 200)


def test_the_table_of_many_cells_shows_what_runs_and_a_count(tmp_path: Path) -> None:
    """2,000 rows twice a second cost more than the loop, and fit no terminal."""
    plan, store = planned(tmp_path, 100)
    states = States(plan, store).read(frozenset())
    short = shortened(states, {states[70].id, states[90].id}, most=10)
    assert [one.label for one in short] == [*(f"cell {k}" for k in (*range(8), 70, 90)), "and 90 more"]
    assert short[-1].stage == "90 planned" and shortened(states[:10], set(), most=10) == states[:10]


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("os._exit(0)", "failed", "scheme 'adaln' of plugin added.py: its process ended with exit code 0, no message"),
        ("print('boo'); sys.exit(3)", "failed", "exit code 3, no message; the last line of its log: boo"),
        ("os.kill(os.getpid(), 11)", "failed", "its process crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), 9)", "killed", "ended by SIGKILL (perhaps out of memory) without a message"),
        ("folder.write_state('running'); os._exit(0)", "failed", "exit code 0"),
        ("print('ditbench: result.json: no space left for x'); sys.exit(1)", "failed", "result.json: no space left"),
        ("os.kill(os.getppid(), 9); time.sleep(60)", "killed", "ended by SIGKILL"),
    ],
)
def test_a_cell_that_does_not_say_how_it_ended(
    tmp_path: Path, cells_do: Callable[[str], None], code: str, status: str, reason: str
) -> None:
    """It was `killed` or, of a plugin's `sys.exit(0)`, nothing: each names what is known, and the next cell is run."""
    cells_do(f"if folder.id.endswith('0'):\n    {code.replace('; ', chr(10) + '    ')}\n{DONE}")
    plan, store = planned(tmp_path, 2, plugin=True)
    first, second = go(plan, store)
    assert (first.status, second.status) == (status, "done") and reason in first.reason
    assert store.cell(first.id).status() == (first.status, first.reason), "it is on the disk as well"


def test_the_old_reason_is_not_taken_for_the_new(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    cells_do("os._exit(0)")
    plan, store = planned(tmp_path, 1)
    store.cell(plan.cells[0].row.cell).write_state("oom", "of yesterday")
    assert go(plan, store)[0].status == "failed"


def test_a_cell_that_cannot_be_started_is_a_row_and_the_next_is_tried(
    tmp_path: Path, cells_do: Callable[[str], None]
) -> None:
    """A file is where the first cell's folder must be; this ended the launch with a traceback."""
    cells_do(DONE)
    plan, store = planned(tmp_path, 2)
    first = store.cell(plan.cells[0].row.cell).path
    first.rmdir()
    first.write_text("a file")
    lines: list[str] = []
    states = go(plan, store, lines=lines)
    assert [one.status for one in states] == ["failed", "done"]
    assert "a file is where a folder must be" in states[0].reason and states[0].reason in "\n".join(lines)


def test_a_disk_that_is_full_in_the_parent_is_a_row(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells_do(DONE)
    plan, store = planned(tmp_path, 2)
    real = Slots.claim

    def claim(self: Slots, cell: str, share: float, **how: Any) -> int | None:
        if cell.endswith("0"):
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "x.json"))
        return real(self, cell, share, **how)

    monkeypatch.setattr(Slots, "claim", claim)
    first, second = go(plan, store)
    assert first.status == "failed" and "no space left for" in first.reason and "free)" in first.reason
    assert second.status == "done"


def test_a_root_that_became_read_only_is_a_row_for_each_cell(tmp_path: Path) -> None:
    plan, store = planned(tmp_path / "runs", 2)
    if subprocess.run(["mount", "--bind", store.root, store.root], capture_output=True).returncode:
        pytest.skip("a folder can be mounted by root only")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store.root], check=True)
        states = go(plan, store)
    finally:
        subprocess.run(["umount", "-l", store.root], check=True)
    assert [one.status for one in states] == ["failed", "failed"]
    assert all("the file system is read-only" in one.reason and one.id in one.reason for one in states)


def test_too_many_open_files_is_a_row(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, 2)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        states = go(plan, store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert all(one.status == "failed" and "too many open files" in one.reason for one in states)


# --- limits of time -------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_cell_that_hangs_is_ended_and_named(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    """A plugin that hangs, hung for ever."""
    cells_do(f"if folder.id.endswith('0'):\n    while True: time.sleep(1)\n{DONE}")
    plan, store = planned(tmp_path, 2, silence=5, plugin=True)  # a loaded machine starts no process in 1.5 s
    first, second = go(plan, store)
    assert first.status == "timeout" and second.status == "done"
    assert first.reason.startswith(
        "scheme 'adaln' of plugin added.py: no step, sample or line of its log for run.silen"
    )


def test_signs_of_life_keep_a_cell(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    """It writes a line each half second, its log alone; another is stopped (SIGSTOP) for longer than the limit."""
    loud = "for _ in range(8):\n    print('.', flush=True)\n    time.sleep(0.3)"
    stop = "import subprocess, signal\nsubprocess.Popen(['sh', '-c', f'sleep 3; kill -CONT {os.getpid()}'])\n"
    stop += "os.kill(os.getpid(), signal.SIGSTOP)"
    indented = (loud.replace("\n", "\n    "), stop.replace("\n", "\n    "))
    cells_do(f"if folder.id.endswith('0'):\n    {indented[0]}\nelse:\n    {indented[1]}\n{DONE}")
    plan, store = planned(tmp_path, 2, silence=1.5)
    assert [one.status for one in go(plan, store, jobs=2)] == ["done", "done"]


# --- other launches -------------------------------------------------------------------------------------------------


@pytest.fixture
def held() -> Iterator[Callable[[CellFolder], threading.Thread]]:
    """Holds a cell's lock for a second, or `until` an event, as another launch does, then ends it as asked."""
    threads: list[threading.Thread] = []

    def hold(
        folder: CellFolder, end: Callable[[], None] = lambda: None, until: threading.Event | None = None
    ) -> threading.Thread:
        taken = threading.Event()

        def work() -> None:
            with folder.locked():
                folder.write_state("running", attempt=7)
                taken.set()
                (until or threading.Event()).wait(60 if until else 1)
                end()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        taken.wait()
        return threads[-1]

    yield hold
    for thread in threads:
        thread.join()


def test_what_another_launch_runs_is_waited_for_and_its_end_is_taken(
    tmp_path: Path, cells_do: Callable[[str], None], held: Callable[..., threading.Thread]
) -> None:
    """It was dropped: `No cell has a result yet`, and code 1. One is done there, one fails there, one is given up."""
    cells_do(DONE)
    plan, store = planned(tmp_path, 3)
    folders = [store.cell(cell.row.cell) for cell in plan.cells]
    held(folders[0], lambda: Result(folders[0].id, {}, {}, {}, {}).write(folders[0].result_file))
    held(folders[1], lambda: folders[1].write_state("diverged", "the loss is nan"))
    held(folders[2], lambda: folders[2].write_state("killed", "stopped"))
    lines: list[str] = []
    states = go(plan, store, lines=lines)
    assert [one.status for one in states] == ["done", "diverged", "done"]
    text = "\n".join(lines)
    assert f"cell 0 (process {os.getpid()}) is being run by another launch" in text
    assert "cell 0: done in another launch" in text and "cell 1: diverged in another launch: the loss is nan" in text
    assert "cell 2: starts" in text and text.count("waiting for its end") == 3


def test_two_launches_never_use_the_same_cores(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another launch of the root, of one cell at a time, runs: this one starts nothing beside it, and says so once."""
    cells_do(DONE)
    plan, store = planned(tmp_path, 1)
    monkeypatch.setattr(loop, "PATIENCE", 0.05)
    script = (
        "import sys\nfrom pathlib import Path\nfrom bench.run.slots import Slots\n"
        f"print(Slots(Path({str(tmp_path)!r})).claim('theirs', 1.0), flush=True)\nsys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline().strip() != b"None"
    claimed, claim = [], Slots.claim

    def claims(self: Slots, *args: Any, **more: Any) -> int | None:
        if len(claimed) == 3:
            other.communicate()  # it ends
        claimed.append(claim(self, *args, **more))
        return claimed[-1]

    monkeypatch.setattr(Slots, "claim", claims)
    lines: list[str] = []
    assert go(plan, store, lines=lines)[0].status == "done" and claimed[:3] == [None] * 3 and len(claimed) == 4
    assert len([line for line in lines if "waiting for the cores" in line and "theirs" in line]) == 1


def test_shares_add_up_to_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(tmp_path)
    files = [slots.claim("a", 0.5), slots.claim("b", 0.25)]
    assert None not in files and slots.claim("c", 0.5) is None and slots.claim("a", 0.1) is None
    third = slots.claim("c", 0.25)
    assert third is not None and slots.claim("d", 0.01) is None and len(slots.living()) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert slots.claim("d", 1.0) is None, "the others named no GPU of theirs"
    forced = slots.claim("e", 1.0, force=True)
    assert forced is not None
    for file in (*files, third, forced):
        os.close(file)  # type: ignore[arg-type]
    assert slots.living() == [] and slots.claim("d", 1.0) is not None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no processors")
def test_cells_share_the_processors_that_the_launch_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 cores a scheduler gave four: each of two cells computed with 32 threads."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {8, 9, 10, 11})
    assert [cores(jobs) for jobs in (1, 2, 8)] == [4, 2, 1]


def test_a_share_file_that_is_junk_or_locked_away_stops_nothing(tmp_path: Path) -> None:
    import fcntl

    slots = Slots(tmp_path)
    slots.folder.mkdir()
    (slots.folder / "junk.json").write_bytes(b"\xff\x00{")
    with open(slots.folder / "other.json", "w") as file:
        file.write('{"cell": 3')
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert slots.living() == [] and slots.claim("a", 1.0) is not None


# --- signals --------------------------------------------------------------------------------------------------------


def test_a_terminal_that_is_gone_stops_nothing(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    """A closed terminal: each line that is printed is an OSError, in the midst of stopping the cells."""
    cells_do(DONE)
    plan, store = planned(tmp_path, 1)

    def gone(text: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (state,) = run(plan, store, executor=Local(1), say=gone, show=gone, poll=0.05)
    assert state.status == "done"


def test_a_second_ctrl_c_kills_and_waits_for_the_end(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell ignores the first; the second raised before the cells were stopped, and they trained on."""
    cells_do(
        "import signal\nsignal.signal(15, signal.SIG_IGN)\nfolder.write_state('running')\n"
        "(folder.path / 'up').write_text('')\ntime.sleep(60)"
    )
    plan, store = planned(tmp_path, 1)
    up = store.cell(plan.cells[0].row.cell).path / "up"

    def press() -> None:
        while not up.exists():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    threading.Thread(target=press).start()
    executor, lines, lived, kill = Local(1), [], [], Local.kill
    monkeypatch.setattr(Local, "kill", lambda self: (lived.extend(one.alive() for one in self.running), kill(self)))
    (state,) = run(plan, store, executor=executor, say=lines.append, poll=0.05)
    assert state.status == "killed" and executor.running == [] and lived[0], "it was ended by its guard's patience"
    assert lines[-1] == "stopped; the same command resumes from here"


def test_a_second_ctrl_c_does_not_wait_for_mlflow(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    """MLflow stalls for minutes while Ctrl-C is pressed: the cells are asked to stop by the first already."""
    cells_do("folder.write_state('running')\ntime.sleep(60)")
    plan, store = planned(tmp_path, 2)
    stalled, waited = itertools.count(), []

    def sync() -> None:
        if next(stalled) == 0:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)
            time.sleep(30)
            waited.append("for MLflow")

    loop_every, loop.SYNC_EVERY = loop.SYNC_EVERY, 0.2
    try:
        states = run(plan, store, executor=Local(1), say=lambda text: None, sync=sync, poll=0.05)
    finally:
        loop.SYNC_EVERY = loop_every
    assert not waited and [one.status for one in states] == ["killed", "planned"]


def test_an_error_of_the_loop_leaves_no_cell(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    cells_do("folder.write_state('running')\ntime.sleep(60)")
    plan, store = planned(tmp_path, 1)
    executor = Local(1)

    def show(states: list[CellState]) -> None:
        if executor.running and (store.cell(states[0].id).path / "status.json").exists():
            raise RuntimeError("a bug of the table")

    with pytest.raises(RuntimeError, match="a bug of the table"):
        run(plan, store, executor=executor, say=lambda text: None, show=show, poll=0.05)
    assert all(process.child.poll() is not None for process in executor.running)


def test_hangup_that_is_ignored_stays_so(tmp_path: Path, cells_do: Callable[[str], None]) -> None:
    """`nohup ditbench run ... &`: the terminal is closed, and the run continues."""
    cells_do(DONE)
    plan, store = planned(tmp_path, 2)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        states = run(
            plan,
            store,
            executor=Local(1),
            say=lambda text: os.kill(os.getpid(), signal.SIGHUP),
            poll=0.05,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [one.status for one in states] == ["done", "done"]


def test_others_are_named_by_label_or_id(tmp_path: Path) -> None:
    lines: list[str] = []
    others = Others(Store(tmp_path), {"adaln-1": "adaln seed=1"}, lines.append)
    others.meet("adaln-1")
    others.meet("adaln-1")
    assert lines == ["adaln seed=1 is being run by another launch; waiting for its end"]
    others.forget()
    assert others.cells == set(), "nobody holds it: it may be started here"


def test_what_outlived_a_kill_of_everything_is_ended_not_waited_for(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of launch, guard and cell at once: a process that a plugin forked holds the cell's lock for ever."""
    cells_do(DONE)
    monkeypatch.setattr("bench.run.others.LEFTOVERS_AFTER", 0.5)
    plan, store = planned(tmp_path, 1)
    folder = store.cell(plan.cells[0].row.cell)
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom bench.store.folders import CellFolder\n"
        "import fcntl\nfolder = CellFolder(Path(sys.argv[1]))\n"
        "file = os.open(folder.path / 'lock', os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nfolder.write_state('running', attempt=1)\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\nos._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder.path)], env=os.environ | {MARK: str(folder.path)})
    time.sleep(0.6)
    assert folder.is_locked() and len(marked(folder.path)) == 1
    (state,) = go(plan, store)
    assert state.status == "done" and marked(folder.path) == []


def test_a_cell_that_resumes_in_another_launch_is_no_leftover_of_its_last_attempt(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it imports, its state is that of the process that was killed: a launch beside it ended it."""
    cells_do("time.sleep(2)\n" + DONE)
    monkeypatch.setattr("bench.run.others.LEFTOVERS_AFTER", 0.2)
    plan, store = planned(tmp_path, 1)
    folder = store.cell(plan.cells[0].row.cell)
    folder.write_state("running", attempt=1)
    write_json(folder.state_file, folder.state() | {"pid": 2**22 - 1, "changed": time.time() - 3600})
    others, over = Others(store, {}, lambda text: None), threading.Event()

    def wait() -> None:
        while not over.wait(0.05):
            others.cells.add(folder.id)
            others.forget()

    beside = threading.Thread(target=wait)
    beside.start()
    (state,) = go(plan, store)
    over.set()
    beside.join()
    assert (state.status, state.reason) == ("done", "")


# --- launches on a cluster ------------------------------------------------------------------------------------------


class Refused(executor_module.Executor[Any]):
    """A node on which another launch has the cell already: the first attempt there writes nothing and ends."""

    def __init__(self, meanwhile: Callable[[CellFolder], object]) -> None:
        self.running, self.meanwhile, self.starts = [], meanwhile, 0

    @property
    def free(self) -> int:
        return 1 - len(self.running)

    def start(self, folder: CellFolder) -> Any:
        self.starts += 1
        one = SimpleNamespace(folder=folder, before=folder.state(), started=0.0, place="", alive=lambda: False)
        one.ended = lambda: Ended(1, "ditbench: another process runs this cell")
        self.meanwhile(folder)
        self.running.append(one)
        return one

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def test_a_cell_that_another_launch_began_first_is_met_and_not_marked(
    tmp_path: Path, held: Callable[..., threading.Thread]
) -> None:
    """On Ray and SLURM no share of a machine keeps two launches apart: each marked the other's running cell failed."""
    plan, store = planned(tmp_path, 1)
    seen: list[str] = []
    lines: list[str] = []
    met = threading.Event()

    def theirs(folder: CellFolder) -> None:
        def end() -> None:
            seen.append(folder.state()["status"])
            Result(folder.id, {}, {}, {}, {}).write(folder.result_file)

        held(folder, end, met)

    def say(text: str) -> None:
        lines.append(text)
        if text.endswith("is being run by another launch; waiting for its end"):
            met.set()

    executor = Refused(theirs)
    (state,) = run(plan, store, executor=executor, say=say, poll=0.02)
    assert (state.status, seen, executor.starts) == ("done", ["running"], 1), lines
    assert met.is_set() and lines[-1] == "cell 0: done in another launch"


def test_a_cell_that_another_launch_ends_meanwhile_is_not_marked(
    tmp_path: Path, held: Callable[..., threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was over before the launch had asked often enough who holds it: its result is there, and was `failed` here."""
    plan, store = planned(tmp_path, 1)
    ended, threads, asked = threading.Event(), [], loop._Launch._held

    def theirs(folder: CellFolder) -> None:
        threads.append(held(folder, lambda: Result(folder.id, {}, {}, {}, {}).write(folder.result_file), ended))

    def ends_meanwhile(self: loop._Launch, folder: CellFolder, tries: int = 20) -> bool:
        ended.set()
        for thread in threads:
            thread.join()
        return asked(self, folder, tries)

    monkeypatch.setattr(loop._Launch, "_held", ends_meanwhile)
    lines: list[str] = []
    run(plan, store, executor=Refused(theirs), say=lines.append, poll=0.02)
    assert lines[-1].startswith("cell 0: done after")
    assert store.cell(plan.cells[0].row.cell).state()["status"] == "running", "no failure was written over it"


# --- places that are lost ---------------------------------------------------------------------------------------------


class Losing(executor_module.Executor[Any]):
    """Another machine, which ends each cell in turn as `ends` says; at last it is done."""

    moves = True

    def __init__(self, *ends: Any) -> None:
        self.running, self.ends = [], list(ends)

    @property
    def free(self) -> int:
        return 1 - len(self.running)

    def start(self, folder: CellFolder) -> Any:
        end = self.ends.pop(0) if self.ends else "done"
        before = folder.state()
        folder.write_state("running", attempt=1)
        if end == "done":
            Result(folder.id, {}, {}, {}, {}).write(folder.result_file)
        elif end != "lost":
            folder.write_state(end, "stopped by SIGTERM")
        ended = Ended(-9, lost="its node a was lost") if end == "lost" else Ended(0)
        one = SimpleNamespace(
            folder=folder, before=before, started=0.0, place="", alive=lambda: False, ended=lambda: ended
        )
        self.running.append(one)
        return one

    def wait(self, seconds: float) -> None:
        pass


def test_a_cell_that_lost_its_place_is_started_again_elsewhere(tmp_path: Path) -> None:
    """Its node was lost, or was asked to end and stopped it; that is no end of the cell."""
    plan, store = planned(tmp_path, 1)
    lines: list[str] = []
    (state,) = run(plan, store, executor=Losing("lost", "killed", "lost"), say=lines.append, poll=0)
    assert state.status == "done"
    assert lines.count("cell 0: its node a was lost; it resumes elsewhere") == 2
    assert lines.count("cell 0: it was stopped where it ran; it resumes elsewhere") == 1


def test_a_cell_that_loses_every_place_is_killed_with_the_reason(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, 1)
    (state,) = run(plan, store, executor=Losing(*["lost"] * 9), say=lambda text: None, poll=0)
    assert state.status == "killed" and state.reason == "its node a was lost, 6 times; run again to resume"


def test_a_cell_that_failed_elsewhere_is_not_tried_again(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, 1)
    (state,) = run(plan, store, executor=Losing("failed"), say=lambda text: None, poll=0)
    assert state.status == "failed"
