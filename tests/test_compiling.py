"""A compiled model is whole: what fits no graph is an error, and a cell has few kinds of call, a graph each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gaussians import gaussian
from tiny import planned, run_all
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported

import architectures
from architectures import DiT, laws
from bench.config.schema import Sample, Train
from bench.measure.sampling import sample_exact
from bench.store.journal import curves
from bench.training.compiling import compile_whole, compiled
from bench.training.flow import Flow
from bench.training.model import encoded, places


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Graphs and the limit are of a process; a test leaves none behind."""
    before = torch._dynamo.config.fail_on_recompile_limit_hit
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = before


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x + 1


def test_a_graph_break_is_an_error() -> None:
    model = Breaks()
    compile_whole(model, backend="eager")
    with pytest.raises(Unsupported):
        model(torch.ones(2))


def test_a_graph_beyond_the_limit_is_an_error_and_not_eager_in_silence() -> None:
    model = nn.Linear(3, 3)
    compile_whole(model, backend="eager")
    with torch._dynamo.config.patch(recompile_limit=2):
        model(torch.ones(1, 3))
        model(torch.ones(2, 3))
        with pytest.raises(FailOnRecompileLimitHit):
            model(torch.ones(3, 3))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scheme", "guidance"),
    [
        ("adaln-zero", 1.0),
        ("sd3", 2.0),
        pytest.param("adaln-zero", 2.0, marks=pytest.mark.slow),
        pytest.param("sd3", 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_cell_calls_its_model_in_two_ways(scheme: str, guidance: float) -> None:
    """With gradients, and in one shape without: every step of the sampler, other samples, the validation loss."""
    subject, before = laws.SchemeUnderTest(scheme), compiled()["compile_graphs"]
    model: DiT = subject.random(laws.CAPTIONS)
    compile_whole(model, backend="eager")
    how, size = Sample(sampler="heun", steps=2, guidance=guidance), 4 if guidance == 1 else 8
    x, t, prompt = subject.inputs(laws.CAPTIONS, batch=size)
    for _ in range(2):
        Flow().loss(model, x, x, t, prompt).mean().backward()
    for seed in (0, 1):
        sample_exact(model, model.prompt_kind, prompt[:4], gaussian(4, 3, 16, 16, seed=seed), how)
    with torch.inference_mode():
        Flow().loss(model, x * 1, x * 2, t * 1, encoded(model, prompt * 1))
    assert compiled()["compile_graphs"] - before == 2


@pytest.mark.slow  # half a minute of Inductor's C++ each
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", [scheme for scheme in architectures.schemes() if scheme != "oracle"])
def test_gradients_that_inductor_compiles_for_a_cpu_are_the_eager_ones(scheme: str) -> None:
    """At a batch of 1 and of 2, as on a GPU (`tests/test_gpu.py`): it has given wrong ones in silence."""
    subject = laws.SchemeUnderTest(scheme)
    eager, whole = subject.random(laws.CAPTIONS), subject.random(laws.CAPTIONS)
    whole.compile(dynamic=False, fullgraph=True)
    for batch in (1, 2):
        x, t, prompt = subject.inputs(laws.CAPTIONS, batch=batch)
        truth, found = (_gradients(model, x, t, prompt) for model in (eager, whole))
        off = _apart(found, truth)
        assert max(off.values()) < 1e-5, max(off.items(), key=lambda one: one[1])
        assert max(_apart(_gradients(eager, x * 1.001, t, prompt), truth).values()) > 1e-5  # a fault is seen


def _apart(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    assert found.keys() == truth.keys()
    scale = max(float(one.abs().max()) for one in truth.values())
    return {name: float((found[name] - one).abs().max()) / scale for name, one in truth.items()}


def _gradients(model: DiT, x: Tensor, t: Tensor, prompt: Any) -> dict[str, Tensor]:
    model.zero_grad()
    Flow().loss(model, x, x.flip(0) * 0.5, t, prompt).mean().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("own", ["", "mine"])
def test_what_is_compiled_is_kept_below_the_root_or_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    """Imported, torch sets the variable itself: every root's cells compiled into one folder of the system's."""
    import torch._dynamo.package
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / own) if own else default_cache_dir())
    compile_whole(torch.nn.Linear(1, 1), tmp_path / "root", backend="eager")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / (own or "root"))


@pytest.mark.parametrize(("compile", "last"), [("on", [8, 9, 9, 9]), ("off", [8, 9])])
def test_the_last_batch_of_a_compiled_model_is_filled_up(compile: Any, last: list[int]) -> None:
    batches = list(places(10, 4, Train(compile=compile)))
    assert [kept for _, kept in batches] == [4, 4, 2] and batches[-1][0].tolist() == last
    assert np.concatenate([index[:kept] for index, kept in batches]).tolist() == list(range(10))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_compiled_cell_is_few_graphs_and_measures_what_an_eager_one_does(tmp_path: Path) -> None:
    results = {}
    for how in ("on", "off"):
        (tmp_path / how).mkdir()
        made, store = planned(tmp_path / how, train__compile=how)
        cell = store.cell(made.cells[0].row.cell)
        assert run_all(made, store)[0].status == "done", cell.log.read_text()
        results[how], history = cell.result(), curves(cell.journal)
        assert ("compile_graphs" in history) == (how == "on")
        assert any((store.root / "cache" / "inductor").rglob("*.cpp")) == (how == "on")
        if how == "on":
            assert max(history["compile_graphs"].values()) == 2 and max(history["compile_seconds"].values()) > 1
    on, off = (results[how].quality["heldout_loss"] for how in ("on", "off"))
    assert math.isclose(on, off, rel_tol=1e-3)
