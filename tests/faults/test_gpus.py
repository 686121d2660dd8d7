"""GPUs are shared out within `CUDA_VISIBLE_DEVICES`: each cell has its own, also beside another launch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cells import DONE, cells_do, planned

from bench.config.schema import ConfigError
from bench.run import placement
from bench.run.executors import Local, visible
from bench.run.loop import run
from bench.run.slots import Slots

__all__ = ["cells_do"]  # a fixture
NOTE = "(folder.path / 'gpu').write_text(os.environ.get('CUDA_VISIBLE_DEVICES', 'none'))\n"


def test_the_visible_gpus_are_those_that_a_scheduler_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of SLURM has CUDA_VISIBLE_DEVICES set: nothing was assigned, and all cells ran on its first GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-1a2b,7")
    assert visible(3) == ["5", "GPU-1a2b", "7"] and visible(2) == ["5", "GPU-1a2b"] and visible(0) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible(0) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible(2) == ["0", "1"]


def test_each_cell_has_a_gpu_of_its_own(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells at a time on two GPUs of a scheduler's: both are used, and each cell sees one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    cells_do(f"{NOTE}time.sleep(0.5)\n{DONE}")
    plan, store = planned(tmp_path, 3, device="cuda")
    states = run(plan, store, executor=Local(2, visible(2)), say=lambda text: None, poll=0.05)
    assert [one.status for one in states] == ["done"] * 3
    assert {(store.cell(one.id).path / "gpu").read_text() for one in states} == {"5", "7"}


def test_two_launches_do_not_take_the_same_gpu(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counted its own cells from GPU 0, so that two launches of a cell each shared it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cells_do(f"{NOTE}{DONE}")
    plan, store = planned(tmp_path, 1, device="cuda")
    theirs = Slots(tmp_path).claim("theirs", 0.5, gpu="0")
    assert theirs is not None and Slots(tmp_path).claim("more", 0.1, gpu="0") is None
    (state,) = run(plan, store, executor=Local(2, ["0", "1"]), say=lambda text: None, poll=0.05)
    assert state.status == "done" and (store.cell(state.id).path / "gpu").read_text() == "1"
    os.close(theirs)


def test_launches_whose_gpus_overlap_share_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    file = slots.claim("a", 1.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    other = slots.claim("b", 1.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,4")
    assert file is not None and other is not None and slots.claim("c", 0.5) is None
    os.close(file)
    os.close(other)


def test_more_jobs_than_gpus_are_one_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They shared a GPU silently, and their rates were wrong. Without `jobs` there is a cell for each GPU."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    plan, store = planned(tmp_path, 3, device="cuda", jobs=4)
    here = placement.Here(plan.matrix, store)
    assert here.check(plan) == ("run.jobs 4: with 2 GPUs, 5, 7, 2 at a time; cells that share one have wrong rates")
    assert here.executor(plan).jobs == 2
    free, _ = planned(tmp_path, 3, device="cuda")
    assert here.check(free) is None
    assert here.executor(free).jobs == 2 and here.executor(free).gpus == ["5", "7"]
    on_processors, _ = planned(tmp_path, 3, jobs=4)
    assert here.check(on_processors) is None
    assert here.executor(on_processors).gpus == [] and here.executor(on_processors).jobs == 4


def test_a_cell_on_two_gpus_has_two_of_its_own(
    tmp_path: Path, cells_do: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five another launch has one: there are two for each of two cells at a time, and a third waits."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")
    cells_do(f"{NOTE}time.sleep(0.5)\n{DONE}")
    plan, store = planned(tmp_path, 3, device="cuda")
    theirs = Slots(tmp_path).claim("theirs", 0.1, gpu="4")
    states = run(plan, store, executor=Local(3, visible(5), devices=2), say=lambda text: None, poll=0.05)
    assert [one.status for one in states] == ["done"] * 3
    assert {(store.cell(one.id).path / "gpu").read_text() for one in states} == {"3,5", "6,7"}
    assert theirs is not None and Slots(tmp_path).claim("more", 0.1, gpu="7,4") is None
    os.close(theirs)


def test_cells_on_several_gpus_are_as_many_as_there_are_gpus_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")
    plan, store = planned(tmp_path, 3, device="cuda", devices=2)
    here = placement.Here(plan.matrix, store)
    assert here.check(plan) is None
    assert (here.executor(plan).jobs, here.executor(plan).devices) == (2, 2)
    many, _ = planned(tmp_path, 3, device="cuda", devices=2, jobs=4)
    assert "with 5 GPUs, 3, 4, 5, 6, 7, 2 at a time" in str(here.check(many))
    large, _ = planned(tmp_path, 1, device="cuda", devices=8)
    with pytest.raises(ConfigError, match="run.devices 8: this machine has 5 GPUs, 3, 4, 5, 6, 7; choose at most 5"):
        here.check(large)
