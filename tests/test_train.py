"""Training: fair chance, exact resume, checkpoints one can believe, an average that is one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import warm_command
from tiny import planned, run_all

from architectures import laws
from bench.config.schema import Train
from bench.store.files import file_digest
from bench.store.folders import CellFolder
from bench.store.journal import Journal, curves, read_journal
from bench.training.batches import StepSampler
from bench.training.callback import CellCallback
from bench.training.checkpoints import AtomicCheckpoints, load_checkpoint, newest_checkpoint
from bench.training.ema import Ema
from bench.training.module import CellModule

# --- batches --------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 50), batch=st.integers(1, 20), start=st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_batch_k_is_a_function_of_seed_and_k(count: int, batch: int, start: int) -> None:
    whole = list(StepSampler(count, batch, 40, seed=3))
    resumed = StepSampler(count, batch, 40, seed=3)
    resumed.start = start
    assert list(resumed) == whole[start:] and len(resumed) == 40


@given(count=st.integers(1, 30), batch=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_every_epoch_sees_every_image_once(count: int, batch: int) -> None:
    steps = 3 * count
    places = np.concatenate([np.array(indices) for indices in StepSampler(count, batch, steps, seed=0)])
    for epoch in range(len(places) // count):
        assert sorted(places[epoch * count : (epoch + 1) * count]) == list(range(count))


# --- the average ----------------------------------------------------------------------------------------------------


def test_ema_is_the_average_it_says() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    ema, expected = Ema(model, 0.5), model.weight.item()
    for step, value in enumerate([1.0, 2.0, 3.0], start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert ema.mean[0].item() == pytest.approx(expected)


def test_swapped_weights_come_back_whatever_happens() -> None:
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1)
    live, mean = model.weight.detach().clone(), ema.mean[0].clone()
    with pytest.raises(RuntimeError), ema.swapped():
        assert torch.equal(model.weight, mean)
        raise RuntimeError
    assert torch.equal(model.weight, live) and torch.equal(ema.mean[0], mean)


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_losses_of_a_checkpoint_come_back_to_where_the_weights_are() -> None:
    """Lightning restores a module before it moves it: the device that it knows then is the CPU."""
    kind = laws.CAPTIONS
    module = CellModule(laws.SchemeUnderTest("adaln-zero").random(kind), Train(), seed=0)
    module.losses, module.level = [torch.tensor(float(k)) for k in range(3)], torch.tensor(1.0)
    module._trainer = SimpleNamespace(global_step=3)  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    there = CellModule(laws.SchemeUnderTest("adaln-zero").random(kind).to("meta"), Train(), seed=0)
    there.on_load_checkpoint(checkpoint)
    assert there.device.type == "cpu" and there.level is not None
    assert [one.device.type for one in (*there.losses, there.level)] == ["meta"] * 4


def save(folder: Path, step: int) -> Path:
    path = folder / f"step-{step:09d}.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": step, "weights": torch.full((1000,), float(step))}, path)
    return path


@pytest.mark.parametrize("damage", ["bit", "truncated", "no digest", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_this_is_said(tmp_path: Path, damage: str) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    assert newest_checkpoint(tmp_path) == second
    content = bytearray(second.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
        second.write_bytes(content)
    elif damage == "truncated":
        second.write_bytes(content[:-100])
    elif damage == "empty":
        second.write_bytes(b"")
    else:
        second.with_suffix(".sha256").unlink()
    said: list[str] = []
    assert newest_checkpoint(tmp_path, said.append) == first
    assert "step-000000002.ckpt is damaged" in said[0]
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(second)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "ran"),)

    path = tmp_path / "step-000000001.ckpt"
    AtomicCheckpoints().save_checkpoint({"evil": Evil()}, path)
    with pytest.raises(Exception, match="[Ww]eights"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever torch raises for what cannot be written)
        AtomicCheckpoints().save_checkpoint({"lambda": lambda: None}, tmp_path / "step-000000002.ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.name, first.with_suffix(".sha256").name]


def test_a_checkpoint_is_hashed_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not read back: at ten gigabytes that takes seconds in which nothing is trained."""
    monkeypatch.setattr("bench.training.checkpoints.file_digest", None)
    path = save(tmp_path, 1)
    monkeypatch.undo()
    assert path.with_suffix(".sha256").read_text().strip() == file_digest(path)
    assert load_checkpoint(path)["step"] == 1


@pytest.mark.parametrize(("every", "due"), [(4, [4, 8, 12]), (None, [5, 10])])
def test_checkpoints_come_by_minutes_unless_steps_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, due: list[int]
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    train = Train(checkpoint_every=every, checkpoint_minutes=2.5)
    callback, found = (
        CellCallback(train, Journal(tmp_path / "j"), tmp_path, grid_every=99, write_grid=lambda s: None),
        [],
    )
    for step in range(1, 13):
        now[0] += 30.0  # seconds a step
        if callback._due(step):
            found.append(step)
            callback.saved = now[0]
    assert found == due


# --- the journal ----------------------------------------------------------------------------------------------------


def test_the_last_word_of_a_step_counts_and_torn_lines_do_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.metrics(2, {"loss": 1.0, "bad": float("nan")})
    journal.close()
    with open(path, "a") as file:
        file.write('{"step": 4, "metr')  # killed in mid-write
    journal = Journal(path, attempt=2)
    journal.metrics(2, {"loss": 0.5})
    journal.metrics(4, {"loss": 0.25})
    assert curves(path) == {"loss": {2: 0.5, 4: 0.25}}
    assert [entry["attempt"] for entry in read_journal(path)] == [1, 2, 2]


def test_the_learning_rate_of_a_line_is_that_of_its_step(tmp_path: Path) -> None:
    """It was that of the step to come: nothing on the last line without a cooldown."""
    made, store = planned(tmp_path, train__steps=6, train__log_every=1, train__cooldown=0, train__warmup=3)
    assert run_all(made, store)[0].status == "done"
    found = curves(store.cell(made.cells[0].row.cell).journal)["lr"]
    assert found == pytest.approx({1: 1e-3 / 3, 2: 2e-3 / 3, 3: 1e-3, 4: 1e-3, 5: 1e-3, 6: 1e-3})


# --- a whole cell, killed -------------------------------------------------------------------------------------------


def start(folder: CellFolder) -> subprocess.Popen:
    with open(folder.log, "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "bench.run.cell", str(folder.path)], stdout=log, stderr=log)


def wait_for_step(folder: CellFolder, step: int) -> None:
    end = time.monotonic() + 120
    while max(curves(folder.journal).get("loss", {}), default=0) < step:
        assert time.monotonic() < end, folder.log.read_text()
        time.sleep(0.02)


@pytest.mark.slow  # faults/test_interruptions.py kills in less time
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_cell_goes_on_as_if_nothing_had_happened(tmp_path: Path, number: signal.Signals) -> None:
    """kill -9 (or a polite stop) in mid-training, then the same command: the curves and weights of an unbroken run."""
    changes = dict(train__steps=400, train__log_every=5, train__checkpoint_every=20, sample__grid_every=1000)
    (tmp_path / "broken").mkdir()
    (tmp_path / "whole").mkdir()
    made, store = planned(tmp_path / "broken", **changes)
    folder = store.cell(made.cells[0].row.cell)
    child = start(folder)
    wait_for_step(folder, 100)
    child.send_signal(number)
    child.wait(timeout=60)
    stopped_at = max(curves(folder.journal)["loss"])
    assert stopped_at < 400, "the machine was faster than the signal"
    assert folder.status()[0] == "killed"
    assert run_all(made, store)[0].status == "done"
    events = [entry.get("event") for entry in read_journal(folder.journal)]
    assert "resumed" in events and folder.state()["attempt"] == 2

    whole_plan, whole_store = planned(tmp_path / "whole", **changes)
    assert run_all(whole_plan, whole_store)[0].status == "done"
    whole = whole_store.cell(whole_plan.cells[0].row.cell)
    for name in ("loss", "grad_norm", "lr"):
        assert curves(folder.journal)[name] == curves(whole.journal)[name], name
    ours, theirs = folder.result(), whole.result()
    assert ours is not None and theirs is not None and ours.quality == theirs.quality
    last = [load_checkpoint(place.checkpoints / "step-000000400.ckpt") for place in (folder, whole)]
    for key in ("state_dict", "ema"):
        assert all(torch.equal(a, last[1][key][name]) for name, a in last[0][key].items()), key


def test_schemes_see_the_same_and_begin_alike(tmp_path: Path) -> None:
    """The fairness promise, read from the results: equal data and backbone weights for every variant."""
    made, store = planned(tmp_path, variants=["adaln", "cross-attention"], train__steps=4)
    assert [state.status for state in run_all(made, store)] == ["done", "done"]
    results = [store.cell(cell.row.cell).result() for cell in made.cells]
    digests = [result.provenance["digests"] for result in results if result]
    assert len(digests) == 2
    for equal in ("data", "prompts", "initial_backbone_weights"):
        assert digests[0][equal] == digests[1][equal], equal
    assert digests[0]["initial_weights"] != digests[1]["initial_weights"]
    grids = [json.loads((store.cell(c.row.cell).samples / "grid.json").read_text()) for c in made.cells]
    assert all(grids[0][key] == grids[1][key] for key in ("prompts", "guidance", "seed"))


def test_a_signal_while_a_step_is_logged_waits_for_a_checkpoint(tmp_path: Path) -> None:
    """It once ended the cell between the decision to write a checkpoint and the stop."""
    made, store = planned(tmp_path, train__steps=6, train__warmup=1, train__checkpoint_every=6)
    cell = store.cell(made.cells[0].row.cell)
    code = "import os, signal, sys, pathlib\nfrom bench.run import cell\n"
    code += "from bench.training.callback import CellCallback\nlog = CellCallback._log\n"
    code += "def logs(self, module, step):\n    log(self, module, step)\n"
    code += "    if step == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
    code += "CellCallback._log = logs\nprint(cell.run(pathlib.Path(sys.argv[1])))"
    done = warm_command(str(cell.path), cwd=tmp_path, code=code, seconds=200)
    assert cell.status()[0] == "killed", done.stderr
    assert done.returncode == 0 and [p.name for p in cell.checkpoints.glob("*.ckpt")] == ["step-000000003.ckpt"]
