"""Cells that are forked with the imports done: the same numbers, limits and names as those that start cold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from kit import also, assert_same
from tiny import PLUGIN, matrix_file, planned

from bench.cli import run as cli_run
from bench.run import executors, server
from bench.run.boot import environment
from bench.run.executors import Local, Process
from bench.run.loop import run
from bench.run.processes import PARENT, Forked, marked
from bench.run.warm import Server, Stale
from bench.store import provenance

SHORT = dict(train__steps=4, train__warmup=1, train__checkpoint_every=4, evaluate__samples=10, evaluate__reference=12)


def until(moment: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end, "the moment did not come"
        time.sleep(0.02)


ABSENT = ("mlflow", "datasets", "typer", "pydantic", "pandas", "pyarrow")  # what a cell needs none of
ODD = f"""
import os, signal, sys
sys.modules |= dict.fromkeys({ABSENT})
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
"""  # as asyncio does in every child from Python 3.12 on, once it is imported


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without what cells do not need, where a library unsets the wakeup file of what is forked."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "sitecustomize.py").write_text(ODD)
    made = Server({"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(folder)})
    until(lambda: not made.starting(), 120)
    assert made.usable, made.trouble
    yield made
    made.close()


def forked(warm: Server, folder: Path, **more: str) -> Process:
    """A cell's guard and cell, as the executor starts them."""
    folder.mkdir(parents=True, exist_ok=True)
    share = os.open(os.devnull, os.O_RDONLY)
    try:
        child = warm.fork(folder, share, environment(**{PARENT: str(os.getpid())}, **more))
    finally:
        os.close(share)
    assert isinstance(child, Forked)
    return Process(executors.CellFolder(folder), child)


def test_a_server_has_one_thread_when_it_forks(warm: Server) -> None:
    """A lock that another thread held at that moment would never be released in the cell."""
    assert len(os.listdir(f"/proc/{warm._child.pid}/task")) == 1


PROBE = """
import os, sys, time
if sys.argv[0].endswith("bench.run.cell"):
    import torch
    print("absent", *(name for name, module in sys.modules.items() if module is None))
    print("threads", torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.is_initialized())
    print("argv", *sys.argv, os.getcwd(), os.getpgrp() == os.getppid() == os.getsid(0), len(sys.stdin.read()))
    print("ready")
    time.sleep(500)
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a planned cell whose plugin holds it while it is imported."""
    root = tmp_path_factory.mktemp("held")
    own = PLUGIN.replace('register("added")', 'register("held")')  # which no other test of this process registers
    (root / "held.py").write_text(own)
    made, store = planned(root, variants=["held"], plugins=[str(root / "held.py")], **SHORT)
    (root / "held.py").write_text(own + PROBE)
    return store.cell(made.cells[0].row.cell).path


@pytest.fixture
def probe(warm: Server, held: Path) -> Iterator[Process]:
    """That cell, forked."""
    (held / "log.txt").write_text("")
    process = forked(warm, held, CUDA_VISIBLE_DEVICES="7")
    until(lambda: "ready" in process.folder.log.read_text())
    yield process
    process.end()
    assert marked(process.folder.path) == []


def test_a_forked_cell_is_what_a_cold_one_is(probe: Process) -> None:
    """Environment, session, name, mark, output: others find it, and its plugin is imported in it alone."""
    text = probe.folder.log.read_text()
    assert "threads 1 7 False\n" in text
    assert f"argv bench.run.cell {probe.folder.path} {os.getcwd()} True 0\n" in text
    (cell,) = marked(probe.folder.path)
    assert " ".join(cell.cmdline()).split()[-2:] == ["bench.run.cell", str(probe.folder.path)]
    assert cell.environ()["DITBENCH_CELL"] == str(probe.folder.path) and cell.ppid() == probe.child.pid
    above = psutil.Process(probe.child.pid)
    assert above.ppid() == os.getpid() and "bench.run.guard" in above.cmdline()


def test_cells_are_forked_where_a_library_unsets_the_wakeup_file(warm: Server, tmp_path: Path) -> None:
    process = forked(warm, tmp_path / "cells" / "none-000000000000")
    until(lambda: not process.alive())
    assert "No such file" in (ended := process.ended()).tail and "descriptor" not in ended.tail, ended


def test_a_cell_needs_neither_mlflow_nor_hugging_face(probe: Process) -> None:
    """All that it imports is imported, for its plugin is."""
    absent = next(line for line in probe.folder.log.read_text().splitlines() if line.startswith("absent"))
    assert {*absent.split()} >= {*ABSENT}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGSEGV, -signal.SIGSEGV), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)]
)
def test_how_a_forked_cell_ended_is_known(probe: Process, number: int, code: int) -> None:
    (cell,) = marked(probe.folder.path)
    cell.send_signal(number)
    probe.child.wait(60)
    assert probe.ended().code == code and marked(probe.folder.path) == []


def test_a_guard_that_is_killed_takes_its_forked_cell_along(probe: Process) -> None:
    os.kill(probe.child.pid, signal.SIGKILL)
    probe.child.wait(60)
    assert probe.ended().code == -signal.SIGKILL
    until(lambda: not marked(probe.folder.path))


def test_code_that_changed_since_the_import_is_imported_again(
    warm: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's import counts, not the fork: a file that was edited in between is not believed."""
    sources = [tmp_path / "flow.py"]
    sources[0].write_text("")
    monkeypatch.setattr(provenance, "started", lambda: time.time() - 100)
    assert server._outdated(sources)
    monkeypatch.setattr(provenance, "started", lambda: time.time() + 100)
    assert not server._outdated(sources)
    assert server._outdated([tmp_path / "deleted.py"])
    monkeypatch.setattr(warm, "_ask", lambda *arguments: {"stale": True})
    monkeypatch.setattr(warm, "close", lambda: None)
    monkeypatch.setattr(warm, "_start", lambda: None)
    with pytest.raises(Stale):
        warm.fork(tmp_path, 0, {})


@pytest.mark.faults
def test_a_forked_cell_gives_the_numbers_of_a_cold_one_bit_for_bit(tmp_path: Path) -> None:
    """Of two cells in turn from one server: what the first leaves in memory must not reach the second."""
    results, lines = {}, []
    for name, warm in (("forked", True), ("cold", False)):
        (tmp_path / name).mkdir()
        made, store = planned(tmp_path / name, variants=["adaln-zero", "cross-attention"], **SHORT)
        states = run(made, store, executor=Local(1, warm=warm), say=lines.append, poll=0.1)
        assert [one.status for one in states] == ["done", "done"], lines
        results[name] = [store.cell(cell.row.cell).result() for cell in made.cells]
    assert not any("imports its libraries itself" in line for line in lines), lines
    for ours, theirs in zip(results["forked"], results["cold"], strict=True):
        assert_same(ours, theirs)


@pytest.mark.faults
@pytest.mark.parametrize("when", ["while it imports", *also("later")])
def test_without_a_server_cells_start_cold_and_it_is_said(tmp_path: Path, when: str) -> None:
    made, store = planned(tmp_path, **SHORT)
    executor, lines = Local(1, warm=True), []
    assert executor.server is not None
    if when == "later":
        until(lambda: executor.free, 120)
    executor.server._child.kill()
    executor.server._child.wait()
    (state,) = run(made, store, executor=executor, say=lines.append, poll=0.1)
    assert state.status == "done" and sum("imports its libraries itself" in line for line in lines) == 1


class _Noted:
    """In the place of the server: whether it was started and closed, without a process."""

    made: ClassVar[list[_Noted]] = []

    def __init__(self, variables: dict[str, str]) -> None:
        self.closed = False
        self.made.append(self)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("words", "started"),
    [(["--dry-run"], False), (["train.steps=none"], False), (["data.image_size=15"], True)],
    ids=["dry run", "an error in the file", "an error in the plan"],
)
def test_the_server_starts_before_the_plan_if_cells_may_run_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], started: bool
) -> None:
    monkeypatch.setattr(_Noted, "made", [])
    monkeypatch.setattr(executors, "Server", _Noted)
    with suppress(ValueError, SystemExit):
        cli_run.run(matrix_file(tmp_path), [w for w in words if "=" in w], tmp_path, dry_run="--dry-run" in words)
    assert [one.closed for one in _Noted.made] == [True] * started


def test_a_matrix_that_has_run_to_its_end_starts_no_server_before_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = planned(tmp_path, **SHORT)
    monkeypatch.setattr(executors, "Server", _Noted)
    assert Local.early("tiny", 1, store) is not None and Local.early("other", 1, store) is not None
    monkeypatch.setattr(executors.CellFolder, "result", lambda self: object())
    assert Local.early("tiny", 1, store) is None


@pytest.mark.timeout(120)
def test_the_end_of_a_cell_is_seen_at_once() -> None:
    """One that is only seen when the wait is over is never seen here."""
    executor = Local(1)
    child: Any = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    executor.running = [Process(executors.CellFolder(Path("none")), child)]
    executor.wait(1e6)
    assert child.wait() == 0
    executor.running = []
    executor.wait(0.01)
