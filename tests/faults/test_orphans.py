"""Nothing is left running: whatever ends a cell or its launch, what they started ends too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from kit import GuardedLaunch, Launch, also
from tiny import matrix_file

from bench.run.boot import environment
from bench.run.guard import Log
from bench.run.processes import MARK, PARENT, end_leftovers, marked
from bench.store.folders import CellFolder, Store
from bench.store.journal import curves

GUARD = """
import json, sys
from pathlib import Path
from bench.run.guard import Guard
from bench.run.processes import adopt_orphans, follow_parent
import bench.run.guard as guard
guard.GRACE = 1.0
follow_parent()
adopt_orphans()
print(json.dumps(Guard(Path(sys.argv[1]), [sys.executable, "-c", sys.argv[2]]).run()))
"""

# A child in a session of its own, and one that was forked twice and so has no parent.
FAMILY = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "500"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(500)
    os._exit(0)
print("ready", flush=True)
"""
POLITE = "import signal; signal.signal(15, lambda *_: (print('checkpoint', flush=True), sys.exit(130)))\n"
DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]\n"


def guarded(folder: Path, code: str, **env: str) -> subprocess.Popen[bytes]:
    """A guard over a cell that is only this code."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", GUARD, str(folder), code],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment(**env),
    )


def until(moment: Callable[[], object], seconds: float = 60, found: Callable[[], object] = str) -> None:
    """Waits for a moment; `found` says what there was instead."""
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end, f"the moment did not come: {found()}"
        time.sleep(0.02)


def ready(folder: Path) -> bool:
    return (folder / "log.txt").exists() and "ready" in (folder / "log.txt").read_text() and len(marked(folder)) >= 3


def report(guard: subprocess.Popen[bytes]) -> dict[str, object]:
    return json.loads(guard.communicate(timeout=120)[0])


def test_what_a_cell_started_ends_with_it(tmp_path: Path) -> None:
    """The cell is done; a process in another session, and one without a parent, still work."""
    guard = guarded(tmp_path / "cell", FAMILY + "time.sleep(0.5)")
    assert report(guard)["code"] == 0 and marked(tmp_path / "cell") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_cell_write_its_checkpoint(tmp_path: Path, number: int) -> None:
    guard = guarded(tmp_path / "cell", FAMILY + POLITE + "time.sleep(500)")
    until(lambda: ready(tmp_path / "cell"))
    time.sleep(0.2)
    guard.send_signal(number)
    assert report(guard) == {"code": 130, "tail": "ready\ncheckpoint\n"} and marked(tmp_path / "cell") == []


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_cell_that_ignores_signals_is_killed(tmp_path: Path, number: int) -> None:
    """A plugin ignores all signals: after its time of grace, or at once, it ends by force."""
    guard = guarded(tmp_path / "cell", DEAF + FAMILY + "while True: pass")
    until(lambda: ready(tmp_path / "cell"))
    time.sleep(0.2)
    guard.send_signal(number)
    assert report(guard)["code"] == -signal.SIGKILL and marked(tmp_path / "cell") == []


def test_when_the_launch_is_killed_everything_below_ends(tmp_path: Path) -> None:
    """kill -9 of the parent alone: the kernel signals the guard, the guard ends the rest."""
    start = f"subprocess.Popen({[sys.executable, '-c', GUARD]!r} + sys.argv[1:])"
    code = f"import os, subprocess, sys, time; os.environ[{PARENT!r}] = str(os.getpid()); {start}; time.sleep(99)"
    (tmp_path / "cell").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cell"), FAMILY + POLITE + "time.sleep(500)"])
    until(lambda: ready(tmp_path / "cell"))
    guards = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    until(lambda: not marked(tmp_path / "cell") and not any(one.is_running() for one in guards))
    assert "checkpoint" in (tmp_path / "cell" / "log.txt").read_text()


def test_what_a_killed_cell_and_guard_left_is_ended_by_the_next(tmp_path: Path) -> None:
    """Both are killed at once: a process in another session is nobody's child, and holds the cell's lock."""
    cell = tmp_path / "cell"
    guard = guarded(cell, FAMILY + "print(os.getpid(), flush=True); time.sleep(500)")
    until(lambda: ready(cell) and (cell / "log.txt").read_text().split()[1:])
    number = int((cell / "log.txt").read_text().split()[1])
    assert not end_leftovers(cell, number, time.time()), "its own process lives: it is no leftover"
    os.killpg(guard.pid, signal.SIGKILL)
    guard.communicate()
    until(lambda: number not in [one.pid for one in marked(cell)])
    assert marked(cell) and end_leftovers(cell, number, time.time())
    until(lambda: not marked(cell))


def test_a_log_is_capped_and_its_end_is_kept(tmp_path: Path) -> None:
    """A plugin prints a gigabyte: the disk and the launch must not notice."""
    log = Log(tmp_path / "log.txt", limit=10_000)
    for k in range(1000):
        log.write(f"line {k} {'x' * 90}\n".encode())
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2 and max(sizes) <= 10_000
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith("(more than 0.01 MB were printed") and "line 999" in text and b"line 999" in log.tail


def test_a_full_disk_stops_no_cell_for_its_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "no" / "such" / "log.txt")
    log.write(b"the last words")
    assert log.tail == b"the last words"


def test_all_processes_carry_the_mark(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(tmp_path)}, start_new_session=True)
    assert [one.pid for one in marked(tmp_path)] == [child.pid]
    child.kill()
    child.wait()


# --- whole launches -------------------------------------------------------------------------------------------------

LONG = {"train__steps": 100_000, "train__checkpoint_every": 100_000, "sample__grid_every": 100_000}


def launched(folder: Path) -> tuple[Launch, CellFolder]:
    """A launch whose one cell trains now."""
    path = matrix_file(folder, **LONG, train__probe_every=100_000)
    launch, store = (
        GuardedLaunch("run", str(path), "--no-track", cwd=folder, OMP_NUM_THREADS="1"),
        Store(folder / "runs"),
    )
    launch.wait_for(lambda: any(curves(one).get("loss") for one in (store.root / "cells").glob("*/journal.jsonl")))
    return launch, store.cell(store.rows("tiny")[0].cell)


def stopped_with_checkpoint(cell: CellFolder) -> bool:
    return cell.status()[0] == "killed" and any(cell.checkpoints.glob("*.ckpt")) and not marked(cell.path)


@pytest.mark.faults
@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGHUP],
        [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT],
        [signal.SIGKILL],
        *also([signal.SIGINT, signal.SIGINT], [signal.SIGQUIT]),
    ],
    ids=lambda numbers: "+".join(number.name for number in numbers),
)
def test_no_signal_leaves_a_cell_behind(tmp_path: Path, numbers: list[signal.Signals]) -> None:
    """Ctrl-C twice, a closed terminal, several signals at once, kill -9: once the cell trained on in each case."""
    launch, cell = launched(tmp_path)
    first, *later = numbers
    launch.disturb(first)
    for number in later:
        time.sleep(0.2)
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by now
            launch.disturb(number)
    launch.child.wait(90)
    until(lambda: not cell.is_locked() and not marked(cell.path), 90)
    assert cell.status()[0] == "killed"
    if numbers != [signal.SIGINT, signal.SIGINT]:
        assert stopped_with_checkpoint(cell)


@pytest.mark.faults
def test_a_rerun_waits_for_the_orphan_and_says_so(tmp_path: Path) -> None:
    """The parent alone is killed while its cell is stopped: a rerun must not time a second cell beside it."""
    launch, cell = launched(tmp_path)
    process = psutil.Process(cell.state()["pid"])
    process.suspend()
    launch.disturb(signal.SIGKILL)
    launch.child.wait(60)
    again = GuardedLaunch("run", "tiny.yaml", "--no-track", cwd=tmp_path, OMP_NUM_THREADS="1")
    again.wait_for(lambda: "waiting" in again.text)
    time.sleep(2)
    assert f"(process {process.pid})" in again.text and cell.state()["attempt"] == 1
    assert len([one for one in again.below() if "bench.run.cell" in " ".join(one.cmdline())]) == 0
    process.resume()
    again.wait_for(lambda: cell.state().get("attempt") == 2 and "resumes" in again.text)
    assert again.text.count("is being run by another launch") + again.text.count("waiting for the cores") <= 2
    again.disturb(signal.SIGTERM)
    again.ended(1)
    until(lambda: stopped_with_checkpoint(cell), found=lambda: (cell.status(), again.text))


@pytest.mark.faults
def test_two_launches_never_run_a_cell_twice_and_both_end_well(tmp_path: Path) -> None:
    """The other launch takes the cell while this one plans: it waits for the result instead of ending with none."""
    path = str(matrix_file(tmp_path, train__steps=2, train__warmup=1, variants=["adaln", "adaln-zero"]))
    launches = [GuardedLaunch("run", path, "--no-track", cwd=tmp_path, OMP_NUM_THREADS="1") for _ in range(2)]
    texts = [launch.ended(0, seconds=280) for launch in launches]
    store = Store(tmp_path / "runs")
    for row in store.rows("tiny"):
        assert store.cell(row.cell).status()[0] == "done" and store.cell(row.cell).state()["attempt"] == 1
    assert sum(text.count(": starts (") for text in texts) == 2
    assert any("another launch" in text for text in texts)
