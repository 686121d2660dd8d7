"""What a signal does to a cell's own process: before, in and after its training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kit import cell_launch
from tiny import planned

from bench.run import cell
from bench.run.endings import classified
from bench.store.folders import CellFolder
from bench.store.journal import read_journal
from bench.training.signals import STOP, STOPS, Stopped, StoppedNow, beat, stopping


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "status.json"
    file.write_text("{}")
    yield file
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler, "the handlers are given back"


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_outside_of_training_ends_the_cell_at_once(life: Path, number: int) -> None:
    """While samples are taken it was remembered only, and the cell worked on for minutes."""
    stopped = pytest.raises(StoppedNow, match=f"stopped by {signal.Signals(number).name}; run again")
    with stopping(life) as stop, stopped, stop.ending():
        os.kill(os.getpid(), number)
        time.sleep(1)


def test_a_signal_in_training_waits_for_its_checkpoint(life: Path) -> None:
    with stopping(life) as stop:
        stop.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP
        with pytest.raises(StoppedNow, match="SIGHUP"):
            stop.end()


def test_only_the_first_signal_raises_and_none_while_the_end_is_written(life: Path) -> None:
    with stopping(life) as stop:
        with pytest.raises(StoppedNow), stop.ending():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    with stopping(life) as stop:
        with stop.ending():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_a_signal_before_the_work_ends_it_when_it_begins(life: Path) -> None:
    with stopping(life) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedNow, match="SIGTERM"), stop.ending():
            raise AssertionError("the work began")


def test_a_signal_that_a_library_swallowed_stops_the_training(life: Path) -> None:
    """Raised in a callback of C, an exception is printed and forgotten: the cell would train on until it is killed."""
    with stopping(life) as stop:
        with suppress(StoppedNow), stop.ending():
            os.kill(os.getpid(), signal.SIGTERM)
        stop.listen()
        assert stop.number == signal.SIGTERM


@pytest.mark.parametrize("moment", ["Journal", "_ended"])
def test_a_signal_at_the_edges_of_a_cells_work_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """While the journal was opened it ended the process with code 1, and the cell was said to have failed."""
    made, store = planned(tmp_path, train__steps=2, train__warmup=1)
    folder, kept = store.cell(made.cells[0].row.cell), getattr(cell, moment)

    def signalled(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return kept(*given)

    monkeypatch.setattr(cell, moment, signalled)
    monkeypatch.setattr(cell, "_work", lambda *_: None)
    assert cell.run(folder.path) == ("killed" if moment == "Journal" else "done")
    assert folder.state()["reason"] == ("stopped by SIGTERM; run again to resume" if moment == "Journal" else "")


def test_a_plugin_that_took_the_signals_loses_them_when_training_begins(life: Path) -> None:
    with stopping(life) as stop:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        stop.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_hangup_stays_ignored(life: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping(life) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_the_cell_forked_just_ends(life: Path) -> None:
    """A data loader's worker or a plugin's child inherits the handlers; it must not write the cell's end."""
    with stopping(life):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM


def test_signs_of_life_are_rare_and_harmless(life: Path) -> None:
    os.utime(life, (1, 1))
    beat()  # no cell runs: nothing
    assert life.stat().st_mtime == 1
    with stopping(life):
        beat()
        assert life.stat().st_mtime > 1
        os.utime(life, (1, 1))
        beat()
        assert life.stat().st_mtime == 1, "not again within seconds"
    life.unlink()
    with stopping(life):
        beat()  # a file that is gone stops no step


def stop_now() -> None:
    STOP.number = signal.SIGTERM
    raise SystemExit(1)  # what Lightning makes of an interrupt


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (Stopped("stopped by SIGTERM after step 4"), ("killed", "stopped by SIGTERM after step 4")),
        (KeyboardInterrupt(), ("killed", "interrupted; run again to resume")),
        (SystemExit(0), ("failed", "its code ended the process by SystemExit(0)")),
        (GeneratorExit("x"), ("failed", "its code ended the process by GeneratorExit(x)")),
        (MemoryError(), ("failed", "MemoryError: ")),
        (OSError(28, "No space left on device", "/x/part.npy"), ("failed", "part.npy: no space left for /x/part.npy")),
        (RuntimeError("unexpected pos 64 vs 0"), ("failed", "no space left for")),
        (OSError(30, "Read-only file system", "/x/y"), ("failed", "y: the file system is read-only: /x/y;")),
        (ValueError("a\n  b"), ("failed", "ValueError: a b")),
    ],
)
def test_every_end_is_a_status_and_a_sentence(tmp_path: Path, error: BaseException, ended: tuple[str, str]) -> None:
    def work() -> None:
        raise error

    STOP.number = None
    status, reason = classified(work, CellFolder(tmp_path))
    assert status == ended[0] and ended[1] in reason and "\n" not in reason


def test_what_a_library_makes_of_a_signal_is_still_a_stop(tmp_path: Path) -> None:
    try:
        assert classified(stop_now, CellFolder(tmp_path)) == ("killed", "stopped by SIGTERM; run again to resume")
    finally:
        STOP.number = None


@pytest.mark.faults
def test_a_cell_that_samples_stops_at_once_and_resumes(tmp_path: Path) -> None:
    """SIGTERM while samples are taken: they took hours more, and were killed without a message."""
    made, store = planned(
        tmp_path, train__steps=2, train__warmup=1, evaluate__samples=40, sample__steps=400, sample__batch=8
    )
    folder = store.cell(made.cells[0].row.cell)
    launch = cell_launch(folder, OMP_NUM_THREADS="1")
    launch.wait_for(lambda: "sampling heldout 8 " in launch.text)
    launch.disturb(signal.SIGTERM)
    assert "sampling heldout 40 " not in launch.ended(130)
    assert folder.status() == ("killed", "stopped by SIGTERM; run again to resume")
    events = [entry["event"] for entry in read_journal(folder.journal) if "event" in entry]
    assert events[-1] == "killed" and list(folder.checkpoints.glob("*.ckpt"))
