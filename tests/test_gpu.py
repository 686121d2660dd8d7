"""What only a GPU shows: bf16, compilation, device events, peak memory, MFU, and that nothing waits for the device.

Run as `pytest -m gpu tests/test_gpu.py -n 8`; how far two arithmetics lie apart is kept as a property of each test
(`--junitxml`). The case that fills the memory of the card runs alone: `-k "not memory"` first, then `-k memory`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from kit import Launch, assert_same
from tiny import matrix_file, planned, run_all
from torch import Tensor, nn

import architectures
from architectures import BackboneConfig, Captions
from bench.config.load import load
from bench.config.matrix import expand
from bench.measure.cost import peak_flops
from bench.store.folders import CellFolder, Store
from bench.store.journal import digests, read_journal
from bench.studies.gpu import step as gpu
from bench.studies.loops import subject_of
from bench.training.checkpoints import load_checkpoint, newest_checkpoint
from bench.training.flow import Flow

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = "cuda"
Record = Callable[[str, object], None]


# --- cells ----------------------------------------------------------------------------------------------------------


def test_a_compiled_cell_in_bf16_measures_its_cost(tmp_path: Path) -> None:
    made, store = planned(
        tmp_path, train__device=DEVICE, train__steps=200, train__log_every=20, sample__grid_every=1000
    )
    train = made.cells[0].spec.config.train
    assert (train.precision, train.compile) == ("bf16", "on")
    assert run_all(made, store)[0].status == "done", store.cell(made.cells[0].row.cell).log.read_text()
    result = store.cell(made.cells[0].row.cell).result()
    assert result is not None
    assert {"train_peak_allocated_bytes", "train_peak_reserved_bytes", "train_images_per_second"} <= set(result.cost)
    assert "gpu" in result.provenance["hardware"]
    assert ("mfu" in result.cost) == (peak_flops(torch.cuda.get_device_name()) is not None)


def test_more_than_the_memory_is_a_row_and_not_a_crash(tmp_path: Path) -> None:
    large = {"name": "DiT-XS/4", "width": 1024, "depth": 12, "heads": 16}
    made, store = planned(tmp_path, backbone=large, train__device=DEVICE, train__batch=100_000, train__compile="off")
    assert run_all(made, store)[0].status == "oom"


def test_exact_mode_repeats_bit_by_bit(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made, store = planned(tmp_path / name, train__device=DEVICE, train__exact=True, train__compile="off")
        assert run_all(made, store)[0].status == "done", store.cell(made.cells[0].row.cell).log.read_text()
        path = store.cell(made.cells[0].row.cell).checkpoints / "step-000000012.ckpt"
        weights.append(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def only_cell(root: Path) -> CellFolder:
    store = Store(root)
    return store.cell(store.rows("tiny")[0].cell)


def launch(file: Path, root: Path) -> Launch:
    return Launch("run", file.name, "--root", str(root), "--no-track", cwd=file.parent)


@pytest.mark.parametrize("how", ["exact", "compiled"])
def test_a_cell_that_is_killed_resumes(tmp_path: Path, how: str, record_property: Record) -> None:
    """In exact mode to the same bits as an unbroken one; compiled in bf16 to the same loss within its noise."""
    changes: dict[str, Any] = {"train__exact": True, "train__compile": "off"} if how == "exact" else {}
    file = matrix_file(
        tmp_path, train__device=DEVICE, train__steps=300, train__checkpoint_every=20, train__log_every=7, **changes
    )  # no line of the journal is of a checkpoint's step before 140: losses are restored
    launch(file, tmp_path / "calm").ended(0, seconds=280)
    broken = launch(file, tmp_path / "killed")
    folder = tmp_path / "killed" / "cells"
    broken.wait_for(lambda: list(folder.glob("*/checkpoints/step-*40.sha256")), seconds=200)
    broken.disturb(tree=True)
    broken.ended(-9)
    assert only_cell(tmp_path / "killed").result() is None
    launch(file, tmp_path / "killed").ended(0, seconds=280)
    cells = [only_cell(tmp_path / name) for name in ("killed", "calm")]
    assert any(entry.get("event") == "resumed" for entry in read_journal(cells[0].journal))
    states = [load_checkpoint(newest_checkpoint(cell.checkpoints) or Path()) for cell in cells]
    apart = max(distance(a, b) for a, b in zip(states[0]["ema"].values(), states[1]["ema"].values(), strict=True))
    losses = [cell.result().quality["heldout_loss"] for cell in cells]  # type: ignore[union-attr]
    record_property("ema_apart", apart)
    record_property("losses", losses)
    if how == "exact":
        assert apart == 0
        assert_same(*(cell.result() for cell in cells))
    else:
        assert math.isclose(*losses, rel_tol=0.05)


# --- arithmetic -----------------------------------------------------------------------------------------------------

SIDE, CHANNELS, WORDS, LENGTH = 16, 3, 11, 6


def model_of(scheme: str, **backbone: Any) -> nn.Module:
    """Small, of weights that hide nothing."""
    config = BackboneConfig(width=64, depth=3, heads=2, patch=2, **backbone)
    kind = Captions(WORDS, LENGTH, depth=1)
    return randomised(architectures.create(scheme, config, image_size=SIDE, in_channels=CHANNELS, prompt=kind, seed=0))


def given(batch: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, t and prompts, of which the last is padded."""
    words = torch.arange(batch * LENGTH).remainder(WORDS - 1).reshape(batch, LENGTH) + 1
    words[-1, LENGTH // 2 :] = 0
    x, t = gaussian(batch, CHANNELS, SIDE, SIDE), torch.linspace(0.1, 0.9, batch)
    return x.to(device), t.to(device), words.to(device)


def outcome(
    model: nn.Module, batch: int, device: str, *, bf16: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of each parameter of its product with fixed noise; on the CPU."""
    model.to(device).zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
        x, t, words = given(batch, device)
        v = model(x.to(dtype), t.to(dtype), words).to(dtype)
    torch.autograd.backward((v * gaussian(*v.shape, seed=3).to(device)).sum())
    grads = {name: p.grad.detach().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return v.detach().cpu(), grads


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double().cpu() - b.double().cpu()).norm() / b.double().cpu().norm().clamp_min(1e-30))


def apart(ours: tuple[Tensor, dict[str, Tensor]], truth: tuple[Tensor, dict[str, Tensor]]) -> tuple[float, float]:
    """How far outputs, and gradients, are apart; a parameter's against a hundredth of the largest gradient at least."""
    least = 0.01 * max(float(g.norm()) for g in truth[1].values())
    assert set(ours[1]) == set(truth[1])
    grads = max(
        float((ours[1][k].double() - g.double()).norm()) / max(float(g.norm()), least) for k, g in truth[1].items()
    )
    return distance(ours[0], truth[0]), grads


def held(name: str, found: tuple[float, float], record: Record, output: float, gradient: float) -> None:
    record(f"{name}_output", found[0])
    record(f"{name}_gradient", found[1])
    assert found[0] < output and found[1] < gradient, (name, found)


FLOAT32 = 2e-5
CAPTIONED = [scheme for scheme in architectures.schemes() if scheme != "oracle"]  # which needs a token a position


@pytest.mark.parametrize("scheme", CAPTIONED)
def test_a_scheme_computes_what_it_computes_on_a_cpu(scheme: str, record_property: Record) -> None:
    """In float32 within its rounding there, read against float64; under bf16 autocast within bf16's.

    A card's float32 attention sums in another order, 4e-6 to 1e-5 from float64; tf32 would be 1e-4 and more.
    """
    model = model_of(scheme)
    cpu, truth = outcome(model, 3, "cpu"), outcome(copy.deepcopy(model).double(), 3, "cpu", dtype=torch.float64)
    own = apart(cpu, truth)
    limits = max(10 * own[0], FLOAT32), max(10 * own[1], 10 * FLOAT32)
    held("float32", apart(outcome(model, 3, DEVICE), truth), record_property, *limits)
    found = apart(outcome(model, 3, DEVICE, bf16=True), cpu)
    held("bf16", found, record_property, *((0.05, 0.2) if own[1] < 1e-5 else (0.2, 2.0)))


def test_the_comparison_sees_a_fault() -> None:
    model = model_of("adaln-zero")
    truth = outcome(model, 3, "cpu")
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.op.up.bias").add_(1e-3)
    found = apart(outcome(model, 3, DEVICE), truth)
    assert found[0] > 1e-4 and found[1] > 1e-4


def test_the_comparison_sees_tf32(monkeypatch: pytest.MonkeyPatch, record_property: Record) -> None:
    model = model_of("adaln-zero")
    truth = outcome(model, 3, "cpu")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    found = apart(outcome(model, 3, DEVICE), truth)
    record_property("tf32", found)
    assert found[0] > FLOAT32 and found[1] > 10 * FLOAT32


@pytest.mark.parametrize("scheme", CAPTIONED)
def test_compiled_gradients_are_the_eager_ones(scheme: str, record_property: Record) -> None:
    """In one graph, at a batch of 1 and of 2: Inductor has given wrong ones for chunked scales in silence."""
    from torch._dynamo.utils import counters

    eager, compiled = model_of(scheme), model_of(scheme)
    torch._dynamo.reset()
    compiled.to(DEVICE).compile(dynamic=False, fullgraph=True)
    for batch in (1, 2):
        found = apart(outcome(compiled, batch, DEVICE), outcome(eager, batch, DEVICE))
        held(f"batch{batch}", found, record_property, 1e-4, 1e-3)
    assert not counters["graph_break"]


def test_noise_is_a_function_of_seed_and_step() -> None:
    """Of a card's own generator, so that it is not the noise of a CPU."""
    one, two, cpu = (Flow().chance(3, 7, (4, 3, 8, 8), drop=0.5, device=device) for device in (DEVICE, DEVICE, "cpu"))
    assert torch.equal(one.noise, two.noise) and torch.equal(one.t, two.t) and torch.equal(one.dropped, two.dropped)
    assert not torch.equal(one.noise.cpu(), cpu.noise)


def test_batches_are_taken_on_the_device(tmp_path: Path) -> None:
    made, store = planned(tmp_path, train__device=DEVICE, train__compile="off", run__images="device")
    (tmp_path / "host").mkdir()
    other, there = planned(tmp_path / "host", train__device=DEVICE, train__compile="off")
    assert run_all(made, store)[0].status == run_all(other, there)[0].status == "done"
    found = [one.cell(made.cells[0].row.cell).journal for one in (store, there)]
    assert digests(found[0]) == digests(found[1])


# --- the step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["adaln-zero", "cross-attention", "sd3"])
def test_no_step_waits_for_the_device(tmp_path: Path, scheme: str) -> None:
    """Between two lines of the journal, eager, in bf16."""
    file = matrix_file(tmp_path, train__device=DEVICE, variants=[scheme])
    subject = subject_of(expand(load(file))[0].config, tmp_path, compiled=False)
    assert gpu.waits(subject, tmp_path) == []
    found: list[str] = []
    with gpu.waits_listed(found) as modes:
        modes["on"]()
        torch.ones((), device=DEVICE).item()
        modes["off"]()
    assert len(found) == 1 and "test_no_step_waits" in found[0], "the check itself sees none"
