"""Equal budgets are met within one per cent, or refused."""

from __future__ import annotations

import bisect
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from architectures import Labels
from bench.config import load as config
from bench.config.schema import Backbone, ConfigError, Data, Train
from bench.config.spec import CellConfig
from bench.data import datasets, prompts
from bench.measure import cost
from bench.run import budget as budgets
from bench.run import plan as planning
from bench.run.plan import plan
from bench.store.folders import Store
from bench.training import arithmetic
from bench.training.compiling import compile_whole

BACKBONE = {"name": "DiT-XS/4", "width": 64, "depth": 6, "heads": 2}


def cells(folder: Path, match: str, **changes):
    made, _ = tiny.planned(
        folder, variants=["adaln-zero", "cross-attention"], backbone=BACKBONE, budget={"match": match}, **changes
    )
    return {cell.row.variant: cell for cell in made.cells}


@pytest.mark.thorough
@pytest.mark.parametrize(("match", "key"), [("params", "parameters_total"), ("macs", "macs_forward")])
def test_size_is_matched_within_one_per_cent(tmp_path: Path, match: str, key: str) -> None:
    found = cells(tmp_path, match)
    ours, theirs = found["cross-attention"], found["adaln-zero"]
    assert abs(ours.cost[key] / theirs.cost[key] - 1) <= 0.01
    assert theirs.spec.config.backbone.width == 64 and theirs.budget == "as it is (+0.00%)"
    sizes = ours.spec.config.backbone
    assert (sizes.width, sizes.depth) != (64, 6) and ("width" in ours.budget or "depth" in ours.budget)


def test_flops_are_matched_by_steps_and_the_schedule_with_them(tmp_path: Path) -> None:
    found = cells(tmp_path, "train_flops", train__steps=1000, train__warmup=100, train__cooldown=200)
    spent = {name: cell.cost["flops_train_per_image"] * cell.spec.config.train.steps for name, cell in found.items()}
    assert abs(spent["cross-attention"] / spent["adaln-zero"] - 1) <= 0.01
    train = found["cross-attention"].spec.config.train
    assert train.steps != 1000 and train.warmup == round(100 * train.steps / 1000)


def test_wall_clock_is_matched_by_measured_steps(tmp_path: Path) -> None:
    found = cells(tmp_path, "wall_clock", train__steps=1000)
    assert found["adaln-zero"].spec.config.train.steps == 1000
    assert 100 < found["cross-attention"].spec.config.train.steps < 10_000


def test_wall_clock_is_measured_once_so_that_the_matrix_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured again at each run, the steps were others, and so the ids: every cell was trained again."""

    def made(seconds: float, **more: int) -> tuple[str, int]:
        monkeypatch.setattr(budgets, "_seconds_a_step", lambda *given: (1.0, seconds))
        cell = cells(tmp_path, "wall_clock", train__steps=1000, **more)["cross-attention"]
        return cell.row.cell, cell.spec.config.train.steps

    first = made(2.0)
    assert first[1] == 500 and made(2.5) == first
    assert made(2.5, sample__steps=3)[1] == 500, "a step takes as long"
    assert made(2.5, train__batch=4)[1] == 400, "of another batch"
    monkeypatch.setattr(budgets, "hardware", lambda device: {"cpu": "another"})
    assert made(4.0)[1] == 250, "on another machine"


def test_two_first_launches_measure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measured beside the other, and both had cells of their own."""
    asked: list[CellConfig] = []

    def slow(ours: CellConfig, *unused: Any) -> budgets.Match:
        asked.append(ours)
        time.sleep(0.5)
        return budgets.Match({"train.steps": len(asked)}, 0.0)

    monkeypatch.setattr(budgets, "solve", slow)
    given = CellConfig("cross-attention"), CellConfig("adaln-zero"), Labels(3), ["a"], tmp_path, print
    with ThreadPoolExecutor(2) as launches:
        first, second = (one.result() for one in [launches.submit(budgets.measured, *given) for _ in range(2)])
    assert first == second == budgets.Match({"train.steps": 1}, 0.0) and len(asked) == 1


def test_what_was_timed_in_another_way_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The match of an eager step of a whole batch stayed that of compiled cells in parts."""
    given = CellConfig("cross-attention"), CellConfig("adaln-zero"), Labels(3), ["a"], tmp_path, print

    def made(steps: int) -> int:
        monkeypatch.setattr(budgets, "solve", lambda *unused: budgets.Match({"train.steps": steps}, 0.0))
        return budgets.measured(*given).changes["train.steps"]

    with monkeypatch.context() as before:
        before.setattr(budgets, "TIMING", 1)
        assert made(5) == made(6) == 5
    assert made(7) == made(8) == 7


# --- the step that is timed -------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that would be compiled; they note the images of each pass in `sizes`, and cuDNN's mode in `tuned`."""
    models: list[nn.Module] = []

    def note(model: Any) -> None:
        model.sizes, model.tuned = [], torch.backends.cudnn.benchmark
        model.register_forward_pre_hook(lambda model, given: model.sizes.append(len(given[0])))
        models.append(model)

    monkeypatch.setattr(budgets, "compile_whole", note)
    return models


def timed(scheme: str, width: int = 32, **train: Any) -> CellConfig:
    sizes = Backbone("DiT-XS/4", width=width, depth=1, heads=2)
    given = Train(batch=8, device="cpu", precision="32", **train)
    return CellConfig(scheme, backbone=sizes, data=Data(image_size=16), train=given)


def both(width: int = 32, **train: Any) -> tuple[float, float]:
    schemes = ("adaln-zero", "cross-attention")
    return budgets._seconds_a_step(*(timed(scheme, width, **train) for scheme in schemes), Labels(3))


def test_a_step_is_timed_as_cells_make_it(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled and in parts; it was the eager model on the whole batch, whatever cells do."""
    both(compile="on", microbatch=2)
    assert [set(model.sizes) for model in compiled] == [{2}, {2}]
    assert {len(model.sizes) for model in compiled} == {4 * (5 + 7 * 3)}, "parts of five steps of warm-up, and of 21"
    both(compile="off", microbatch=2)
    assert len(compiled) == 2


@pytest.mark.parametrize("exact", [False, True])
def test_a_step_is_timed_in_the_arithmetic_of_cells(compiled: list[Any], exact: bool) -> None:
    """Cells on CUDA have TF32 in float32, and the step that was timed had not. What comes after has its own again."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = exact
    try:
        both(compile="on", exact=exact)
        assert [model.tuned for model in compiled] == [not exact] * 2
        assert torch.backends.cudnn.benchmark is exact
    finally:
        torch.backends.cudnn.benchmark = before


def test_cells_on_cuda_and_the_step_that_is_timed_are_pinned_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.device, bool, str]] = []

    def note(device: torch.device, *, exact: bool) -> None:
        torch.set_float32_matmul_precision("high")
        asked.append((device, exact))

    monkeypatch.setattr(arithmetic, "pin", note)
    with budgets._as_in_a_cell(Train(exact=True), torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert asked == [(torch.device("cuda"), True)] and torch.get_float32_matmul_precision() == "highest"


def test_parts_have_the_gradients_of_the_whole_batch(compiled: list[Any]) -> None:
    for microbatch in (None, 2):
        torch.manual_seed(0)
        budgets._noise_step(timed("adaln-zero", compile="on", microbatch=microbatch), Labels(3))()
    whole, parts = ([parameter.grad for parameter in model.parameters()] for model in compiled)
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_variants_are_timed_compiled_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo's limit is of a process: the ninth model of a launch was an error."""
    monkeypatch.setattr(budgets, "compile_whole", functools.partial(compile_whole, backend="eager"))
    monkeypatch.setattr(budgets, "_seconds", lambda step, *unused: step() or 1.0)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=False):
        for width in (32, 64):
            assert both(width, compile="on") == (1.0, 1.0)


def test_the_target_has_the_options_that_it_is_written_with(tmp_path: Path) -> None:
    """Those with a dot, and those of an axis, were left out: the target was brought to the size of another variant."""
    dotted = {"scheme": "adaln-zero", "name": "open", "options.gate": "one"}
    to_open, _ = tiny.planned(
        tmp_path, variants=["adaln-zero", dotted], backbone=BACKBONE, budget={"match": "params", "to": "open"}
    )
    axis, _ = tiny.planned(
        tmp_path, axes={"options.gate": ["one", "zero"]}, backbone=BACKBONE, budget={"match": "params"}
    )
    assert [cell.budget for cell in (to_open.cells[1], *axis.cells)] == ["as it is (+0.00%)"] * 3


def test_what_cannot_be_matched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no number of steps comes within 1%"):
        cells(tmp_path, "train_flops", train__steps=3, train__warmup=0)
    with pytest.raises(
        ConfigError, match="budget.to 'adaln-zer' is no variant of this matrix; did you mean 'adaln-zero'"
    ):
        tiny.planned(tmp_path, budget={"match": "params", "to": "adaln-zer"})


def test_the_width_is_found_as_bisection_finds_it_with_fewer_counts() -> None:
    """Whatever the cost, if it grows with the width; a count takes seconds where the model is deep."""
    allowed, asked, halved = range(24, 1537, 24), 0, 0
    square: tuple[Callable[[int], float], ...] = (lambda w: 12 * w * w + 900 * w + 5e5, lambda w: w**2)
    for spent in (*square, lambda w: w, lambda w: 1e9 - 1e9 / w, lambda w: 2.0 ** (w / 10)):
        for budget in (*(spent(w) + d for w in (24, 400, 408, 800, 1000) for d in (-1e-9, 0, 1e-9)), 1e-9, 1e300):
            counted = functools.cache(spent)
            found = budgets._first_above(allowed, budget, counted, 384)
            assert found == bisect.bisect_right(allowed, budget, key=spent)
            count = counted.cache_info().misses
            assert count <= 11
            if spent in square and 0 < found < len(allowed):
                asked, halved = asked + count, halved + 6
    assert asked < 0.7 * halved


def test_seeds_of_a_variant_get_the_same_size(tmp_path: Path) -> None:
    path = tiny.matrix_file(
        tmp_path, variants=["adaln-zero", "in-context"], seeds=[0, 1], backbone=BACKBONE, budget={"match": "params"}
    )
    made = plan(config.load(path), Store(tmp_path / "runs"), command="test", progress=lambda *_: None)
    widths = {(c.row.variant, c.spec.config.backbone.width, c.spec.config.backbone.depth) for c in made.cells}
    assert len(widths) == 2


def test_a_model_is_counted_once_and_not_once_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What seeds share is worked out once: else 2,000 cells would take a quarter of an hour to plan."""
    calls: dict[str, int] = {}

    def counting(where: object, name: str) -> None:
        function = getattr(where, name)

        def counted(*args, **more):
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **more)

        monkeypatch.setattr(where, name, counted)

    counting(cost, "build")
    counting(datasets, "prepare")
    counting(prompts, "prepare")
    counting(planning, "code_digest")
    variants = ["adaln-zero", {"scheme": "adaln-zero", "name": "open", "gate": "one"}, "in-context"]
    path = tiny.matrix_file(tmp_path, variants=variants, seeds=list(range(20)), axes={"train.lr": [0.1, 0.2]})
    made = plan(config.load(path), Store(tmp_path / "runs"), command="test", progress=lambda *_: None)
    assert len(made.cells) == 120
    assert calls == {"build": 3, "prepare": 2, "code_digest": 2}


def test_changes_are_made_in_a_copy() -> None:
    before = CellConfig("a-scheme", {"gate": "one"}, train=Train(steps=10))
    after = before.changed({"train.steps": 5, "options.gate": "zero"})
    assert (after.train.steps, after.options) == (5, {"gate": "zero"})
    assert (before.train.steps, before.options) == (10, {"gate": "one"})
