"""A matrix from the command line to its report: skipped, resumed, failed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import PLUGIN, ditbench, matrix_file, planned, run_all

from bench.run import launches
from bench.run.loop import in_turn
from bench.store.folders import Store
from bench.store.journal import curves


def test_neighbours_change_from_seed_to_seed(tmp_path: Path) -> None:
    made, _ = planned(tmp_path, variants=["adaln", "adaln-zero", "cross-attention", "in-context"], seeds=[3, 4, 5])
    order = [(cell.row.seed, cell.row.variant) for cell in in_turn(made.cells)]
    assert len(set(order)) == 12 and [seed for seed, _ in order] == [3] * 4 + [4] * 4 + [5] * 4
    pairs = [{order[k][1], order[k + 1][1]} for k in range(0, 12, 2)]
    assert {"adaln", "adaln-zero"} in pairs[:2] and {"adaln-zero", "cross-attention"} in pairs[2:4]


def test_a_matrix_end_to_end_with_a_plugin_and_a_failure(tmp_path: Path) -> None:
    """Two cells that run and one whose loss is no number: a row each; run again, and only the failed one is tried."""
    (tmp_path / "added.py").write_text(PLUGIN)
    variants = ["adaln-zero", "added"]
    path = matrix_file(tmp_path, variants=variants, plugins=["added.py"], axes={"train.lr": [1e-3, 1e30]})
    done = ditbench("run", str(path), "--no-track", cwd=tmp_path, code=1)
    store = Store(tmp_path / "runs")
    states = {(r.variant, r.axes["train.lr"]): store.cell(r.cell).status() for r in store.rows("tiny")}
    assert states["adaln-zero", 1e-3][0] == states["added", 1e-3][0] == "done", done.stdout
    assert states["adaln-zero", 1e30][0] == "diverged" and "the loss is" in states["adaln-zero", 1e30][1]
    result = store.cell(store.rows("tiny")[1].cell).result()
    assert result is not None and result.provenance["scheme"]["origin"]["kind"] == "file"
    assert (store.matrix_folder("tiny") / "report" / "report.md").exists()

    again = ditbench("run", str(path), "--no-track", cwd=tmp_path, code=1)
    assert "2 of 4 cells are done already" in again.stdout
    listed = json.loads(ditbench("status", "--json", cwd=tmp_path, code=0).stdout)
    assert sorted(cell["status"] for cell in listed["cells"]) == ["diverged", "diverged", "done", "done"]
    assert [cell["row"] for cell in listed["cells"]] == [row.name for row in store.rows("tiny")]
    assert len({(cell["row"], cell["seed"]) for cell in listed["cells"]}) == 4, "variant and seed alone name two cells"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.stepz=3"], "did you mean 'steps'"),
        (["variants=[adalnzero]"], "did you mean 'adaln-zero'"),
        (["variants=[{scheme: adaln-zero, gat: one}]"], "did you mean 'gate'"),
        (["variants=[{scheme: adaln-zero, gate: two}]"], "'two': choose zero"),
        (["variants=[adaln, adaln]"], "is there twice"),
        (["variants=[adaln, {scheme: adaln, name: b}]"], "the same cell"),
        (["variants=[]"], "no variants"),
        (["data.image_size=18"], "18 is not divisible by the patch 4"),
        (["backbone.heads=3"], "32 is not divisible by 3 heads"),
        (["backbone.name=DiT-M/2"], "'DiT-M/2'"),
        (["data.source=huggingface", "data.path=/nowhere/at/all"], "no such file"),
        (["train.warmup=100"], "train.warmup 100 is longer"),
        (["evaluate.extractor=resnet"], "resnet"),
    ],
)
def test_mistakes_are_refused_before_anything_starts(tmp_path: Path, words: list[str], said: str) -> None:
    from bench.cli.app import main

    path = matrix_file(tmp_path)
    sys.argv = ["ditbench", "run", str(path), *words, "--root", str(tmp_path / "runs"), "--dry-run"]
    with pytest.raises(SystemExit) as caught, pytest.MonkeyPatch.context() as patch:
        errors: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: errors.append(" ".join(map(str, text))))
        main()
    assert caught.value.code == 2 and said in errors[-1]
    assert not (tmp_path / "runs" / "cells").exists() and not (tmp_path / "runs" / "matrices").exists()


def test_a_changed_plan_is_refused_with_a_diff_unless_fresh(tmp_path: Path) -> None:
    from bench.config.load import load
    from bench.run.manifest import PlanChanged, commit
    from bench.run.plan import plan

    made, store = planned(tmp_path)
    changed = plan(load(matrix_file(tmp_path, train__lr=0.5)), store, command="test", progress=lambda *_: None)
    with pytest.raises(PlanChanged) as caught:
        commit(changed, store)
    assert "+  lr: 0.5" in str(caught.value) and "--fresh" in str(caught.value)
    assert store.rows("tiny")[0].cell == made.cells[0].row.cell, "the refused plan changed nothing"
    commit(changed, store, fresh=True)
    assert store.rows("tiny")[0].cell == changed.cells[0].row.cell


@pytest.mark.thorough
def test_a_cell_of_two_matrices_is_trained_once(tmp_path: Path) -> None:
    made, store = planned(tmp_path, train__steps=2, train__warmup=1)
    assert run_all(made, store)[0].status == "done"
    other, _ = planned(tmp_path, name="other", variants=["adaln-zero", "adaln"], train__steps=2, train__warmup=1)
    lines: list[str] = []
    assert [state.status for state in run_all(other, store, lines)] == ["done", "done"]
    assert lines[0] == "1 of 2 cells are done already" and store.cell(made.cells[0].row.cell).state()["attempt"] == 1


@pytest.mark.thorough
def test_a_command_that_is_typed_again_is_another_launch(tmp_path: Path) -> None:
    """Cells of one launch share its id; of a cell that a later one resumed both are said, for both timed it."""

    def launches() -> dict[int, str]:
        rows = {row.seed: store.cell(row.cell).result() for row in store.rows("tiny")}
        return {seed: result.provenance["launch"] for seed, result in rows.items() if result}

    short = dict(train__steps=2, train__warmup=1, train__checkpoint_every=2)
    made, store = planned(tmp_path, seeds=[0, 1], **short)
    run_all(made, store)
    first = launches()
    assert len(set(first.values())) == 1 and len(first[0]) == 16
    store.cell(made.cells[1].row.cell).result_file.unlink()
    made, _ = planned(tmp_path, seeds=[0, 1, 2], **short)
    run_all(made, store)
    found = launches()
    assert found[0] == first[0] != found[2] and found[1] == f"{first[0]} + {found[2]}"


def test_a_launch_within_a_launch_has_its_own_id_and_leaves_the_outer_one() -> None:
    """As of a plugin that runs a matrix. Outside any, a cell that is run by hand has an id of its process."""
    by_hand = launches.launch()
    assert launches.variables() == {} and launches.launch() == by_hand
    with launches.launched():
        outer = launches.launch()
        with launches.launched():
            assert launches.variables() == {launches.VARIABLE: launches.launch()} and launches.launch() != outer
        assert launches.launch() == outer != by_hand
    assert launches.variables() == {} and launches.launch() == by_hand


@pytest.mark.faults
def test_ctrl_c_writes_checkpoints_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = matrix_file(tmp_path, train__steps=100_000, train__checkpoint_every=100_000, sample__grid_every=100_000)
    child = subprocess.Popen(
        [sys.executable, "-c", "from bench.cli import main; main()", "run", str(path), "--no-track"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    store, end = Store(tmp_path / "runs"), time.monotonic() + 120
    while not any(curves(p).get("loss") for p in (store.root / "cells").glob("*/journal.jsonl")):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 1 and "the same command resumes from here" in out
    cell = store.cell(store.rows("tiny")[0].cell)
    assert cell.status()[0] == "killed" and list(cell.checkpoints.glob("*.ckpt"))
    assert not cell.is_locked()


def test_a_cell_that_takes_too_long_is_a_row(tmp_path: Path) -> None:
    made, store = planned(tmp_path, run__timeout=1.0)
    (state,) = run_all(made, store)
    assert state.status == "timeout" and "run.timeout, 1 s" in state.reason


@pytest.mark.slow  # faults/test_orphans.py has two launches in less time
def test_two_launches_share_the_work_and_a_result_tampered_with_is_made_again(tmp_path: Path) -> None:
    """A cell that another process holds is waited for, not trained twice."""
    made, store = planned(tmp_path, train__steps=2, train__warmup=1)
    cell = store.cell(made.cells[0].row.cell)
    with cell.locked():
        assert cell.status()[0] == "running"
        child = subprocess.run([sys.executable, "-m", "bench.run.cell", str(cell.path)], capture_output=True, text=True)
        assert child.returncode == 1 and "another process" in child.stdout
    assert run_all(made, store)[0].status == "done"
    content = json.loads(cell.result_file.read_text())
    content["quality"]["heldout_loss"] = 0.0
    cell.result_file.write_text(json.dumps(content))
    assert cell.result() is None and cell.status()[0] == "damaged"
    assert run_all(made, store)[0].status == "done", "only the evaluation is made again"
