"""How schemes begin, exactly; and what is watched while they learn."""

from __future__ import annotations

import pytest
import torch

import architectures
from architectures import laws
from architectures.placement import HEAD
from bench.training import dynamics

GATED = ["adaln-zero", "sd3", "qwen-image", "flux", "shared-modulation", "shift-free", "lumina2"]


# --- before training, in float64 --------------------------------------------------------------------------------------


def test_as_adaln_zero_was_analysed() -> None:
    """Alone, a block's branches get nothing at step 0 and its gates do; from step 1 both do. In the whole network the
    output layer is initialised to zero too, and all of it comes one step later."""
    alone, whole = (architectures.initial_steps("adaln-zero", live=live) for live in (True, False))
    assert [(one.gates != 0, one.branches != 0) for one in alone] == [(True, False), (True, True), (True, True)]
    assert [(one.gates != 0, one.branches != 0) for one in whole] == [(False, False), (True, False), (True, True)]
    assert [one.identity for one in alone] == [True, False, False]
    assert [one.identity for one in whole] == [True, True, False]


@pytest.mark.parametrize("scheme", architectures.schemes())
def test_every_scheme_begins_as_it_says(scheme: str) -> None:
    facts = architectures.describe(scheme).facts
    alone, whole = (architectures.initial_steps(scheme, live=live) for live in (True, False))
    assert alone[0].identity == whole[0].identity == facts.identity_at_init
    assert whole[0].gates in (0, None) and whole[0].branches in (0, None)  # behind an output layer of zeros
    if facts.identity_at_init:
        assert alone[0].branches == 0 and alone[0].gates > 0 and alone[1].branches > 0


@pytest.mark.parametrize(("gate", "identity", "branches"), [("zero", True, False), ("gaussian(1e-3)", False, True)])
def test_what_a_gate_begins_as_decides(gate: str, identity: bool, branches: bool) -> None:
    first = architectures.initial_steps("adaln-zero", live=True, gate=gate)[0]
    assert first.identity == identity and (first.branches != 0) == branches
    ungated = architectures.initial_steps("adaln-zero", live=True, gate="one")[0]
    assert ungated.gates is None and not ungated.identity


# --- watching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", architectures.schemes())
def test_watching_changes_nothing_and_sees_every_block(scheme: str) -> None:
    subject = laws.SchemeUnderTest(scheme)
    model, given = subject.random(), subject.inputs()
    before = model(*given)
    with architectures.observe(model) as seen:
        assert torch.equal(model(*given), before)
    assert torch.equal(model(*given), before)
    assert sorted(seen.blocks) == list(range(len(model.blocks)))
    assert not any("after" in vars(part) for part in model.modules())
    values = dynamics.curves_of(seen)
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())


def test_what_is_seen_is_what_was_computed() -> None:
    model, given = laws.SchemeUnderTest("adaln-zero").random(), laws.inputs()
    kept = {}
    model.blocks[1].register_forward_hook(lambda block, x, out: kept.update(before=x[0], after=out))
    model.blocks[1].head.register_forward_hook(lambda block, x, out: kept.update(modulation=out))
    with architectures.observe(model) as seen:
        model(*given)
    moved = (kept["after"] - kept["before"]).flatten(1).norm(dim=1) / kept["before"].flatten(1).norm(dim=1)
    assert torch.allclose(seen.blocks[1], moved)
    assert torch.equal(seen.branches[1, "mlp"].gate, kept["modulation"][1].gate)
    values = dynamics.curves_of(seen)
    gate = kept["modulation"][1].gate.abs()
    assert values["dynamics/gate/block01.mlp"] == pytest.approx(gate.mean().item())
    assert values["dynamics/gate_saturation/block01.mlp"] == pytest.approx((gate > 0.97).float().mean().item())


@pytest.mark.parametrize("head", HEAD.choices)
def test_what_a_block_hands_on_as_it_was_is_not_counted(head: str) -> None:
    """DDT's blocks hand on the vectors that modulate, or x, beside the stream that they change."""
    model, given = laws.SchemeUnderTest("ddt", {"head": head}).random(), laws.inputs()
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for index, block in enumerate(model.blocks):
        place = 0 if index < model.scheme.encoder else -1
        block.register_forward_hook(lambda _, h, out, i=index, k=place: kept.update({i: (h[0][k], out[k])}))
    with architectures.observe(model) as seen:
        model(*given)
    for index, (before, after) in kept.items():
        moved = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
        assert torch.allclose(seen.blocks[index], moved)
    assert sorted(seen.blocks) == sorted(kept)


def test_gradients_are_those_of_each_block() -> None:
    model, (x, t, prompt) = laws.SchemeUnderTest("adaln-zero").random(), laws.inputs()
    model(x, t, prompt).square().mean().backward()
    norms = dynamics.gradient_norms(model)
    for index, block in enumerate(model.blocks):
        whole = torch.cat([p.grad.flatten() for p in block.parameters()])
        assert norms[index].item() == pytest.approx(whole.norm().item(), rel=1e-5)


def test_observations_are_close_at_first_and_then_even() -> None:
    assert [step for step in range(1, 301) if dynamics.due(step, 100)] == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300]


# --- numbers of a whole training --------------------------------------------------------------------------------------


def test_summary_says_when_and_in_which_order_blocks_open() -> None:
    steps = [0, 25, 50, 75, 100]
    curves = {
        f"dynamics/open/block{k:02d}": dict(zip(steps, values, strict=True))
        for k, values in enumerate(([0, 1, 1, 1, 1], [0, 0, 2, 2, 2], [0, 0, 0, 3, 3]))
    }
    curves |= {"dynamics/gate/block00.mlp": {0: 0.0, 100: 0.25}, "spikes": {50: 1.0, 100: 2.0}}
    values = dynamics.summary(curves, 100)
    assert values["open_first"] == 0 and values["open_last"] == 2
    assert values["opening_order"] == values["opening_depth"] == pytest.approx(1)
    assert values["opening_step"] == pytest.approx((12.5 + 37.5 + 62.5) / 300)
    assert (values["gate_first"], values["gate_last"], values["spikes"]) == (0, 0.25, 3)
    assert dynamics.heat_maps(curves)["open"]["values"][1] == [0, 0, 2, 2, 2]
    assert dynamics.summary({}, 100) == {}
