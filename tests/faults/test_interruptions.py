"""A number does not depend on interruptions: killed at random moments and run again, all are equal bit for bit."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from kit import assert_same, warm_cell
from many import many_cells
from tiny import planned

from bench.findings.analysis import analyse
from bench.run.manifest import commit
from bench.store.folders import CellFolder, Store
from bench.store.journal import curves, read_journal
from bench.store.table import collect

LONG_AVERAGE = dict(  # the average is far from the weights, so that an update too few shows in every number
    train__ema=0.999,
    train__steps=60,
    train__log_every=5,
    train__checkpoint_every=7,
    train__probe_every=10,
    sample__grid_every=21,
    sample__batch=4,
    evaluate__samples=10,
    evaluate__reference=12,
    evaluate__unseen=4,
    evaluate__sweep=[3.0],
    evaluate__sweep_samples=5,
    evaluate__swaps=1,
)


def moment(folder: CellFolder) -> str:
    """What a cell was at, by the last it wrote."""
    events = [entry for entry in read_journal(folder.journal) if "event" in entry]
    if not events or events[-1]["event"] != "stage":
        return "training" if curves(folder.journal).get("loss") else "start"
    said = folder.log.read_text(errors="replace").splitlines()
    return " ".join(said[-1].split()[:2]) if said else "a stage of which it had said nothing"


def killed_until_done(folder: CellFolder, chance: random.Random, seconds: float) -> list[str]:
    """Runs a cell, killed at random moments of its `seconds`, until it is done; what it was at each time."""
    moments: list[str] = []
    for _ in range(100):
        child = warm_cell(folder)
        child.join(chance.uniform(0, seconds))
        if child.exitcode is None:
            moments.append(moment(folder))
            assert child.pid is not None
            os.kill(child.pid, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        child.join(60)
        assert child.exitcode is not None, "a signal did not end the cell"
        if folder.result() is not None:
            return moments
        assert folder.status()[0] in ("planned", "killed"), folder.status()  # planned: killed before its first word
    raise AssertionError("a cell that was killed 100 times is not done")


def calm_cell(tmp_path: Path) -> tuple[CellFolder, float]:
    """A cell that nothing disturbed, and how many seconds it took."""
    (tmp_path / "calm").mkdir()
    made, store = planned(tmp_path / "calm", **LONG_AVERAGE)
    folder = store.cell(made.cells[0].row.cell)
    child = warm_cell(folder)
    child.join()
    assert child.exitcode == 0, folder.log.read_text()
    times = [entry["time"] for entry in read_journal(folder.journal)]
    return folder, times[-1] - times[0] + 0.5  # without the imports of the first process, with what comes before


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(6, marks=pytest.mark.faults),
        pytest.param(20, marks=[pytest.mark.faults, pytest.mark.also]),
        pytest.param(200, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(3600)
def test_no_number_depends_on_where_a_cell_was_killed(tmp_path: Path, kills: int) -> None:
    """Every resume lost one update of the average: killed at step 100 of 200, FID and validation loss were others."""
    calm, seconds = calm_cell(tmp_path)
    (tmp_path / "killed").mkdir()
    made, store = planned(tmp_path / "killed", **LONG_AVERAGE)
    folder, chance, moments = store.cell(made.cells[0].row.cell), random.Random(0), collections.Counter[str]()
    while moments.total() < kills:
        started_over(made, store, folder)
        moments.update(killed_until_done(folder, chance, seconds))
        assert_same(folder.result(), calm.result())
        print(f"{moments.total()} kills: " + ", ".join(f"{name} {count}" for name, count in moments.most_common()))


def started_over(made, store: Store, folder: CellFolder) -> None:
    """The cell as if it had never run, with no features computed."""
    shutil.rmtree(folder.path, ignore_errors=True)
    shutil.rmtree(store.cache / "features", ignore_errors=True)
    commit(made, store, fresh=True)


def test_a_cell_trained_on_two_machines_is_named_below_the_table(tmp_path: Path) -> None:
    """Another number of threads gives other last digits: such a cell need not repeat."""
    table = collect(many_cells(tmp_path, 2, seeds=2), "many")
    result = table.cells[0].result
    assert result is not None
    assert not any("was trained on" in note for note in analyse(table).notes)
    result.provenance["trained_on"] = ["1 threads, torch 2.11, one", "2 threads, torch 2.11, other"]
    assert any("seed 0, was trained on 1 threads, torch 2.11, one and then 2" in note for note in analyse(table).notes)
