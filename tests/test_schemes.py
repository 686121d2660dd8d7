"""Every law over every registered scheme, and the identities that tie schemes to each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import architectures
from architectures import BackboneConfig, Captions, FeatureBatch, Features, Labels
from architectures.modulation import Placement, parse_placement
from architectures.sublayer import Adaptive, parse_gate

SCHEMES = architectures.schemes()
CONFIG = BackboneConfig(width=32, depth=3, heads=2, patch=4)
PROMPTS: dict[str, Any] = {"labels": Labels(5), "captions": Captions(20, 7, depth=1), "features": Features(12, 10, 6)}


def build(scheme: str, kind: Any = PROMPTS["labels"], *, size: int = 16, seed: int = 0, config=CONFIG, **options: Any):
    return architectures.create(scheme, config, image_size=size, in_channels=3, prompt=kind, seed=seed, **options)


def randomised(model: torch.nn.Module, seed: int = 0, scale: float = 0.2) -> torch.nn.Module:
    """Every parameter drawn anew, norm weights around 1: zeros would hide what is wrong."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=scale, generator=g)
            if "norm" in name.rpartition(".")[0].rpartition(".")[2] and name.endswith("weight") and parameter.ndim == 1:
                parameter.add_(1)
            if ".post." in name:
                parameter.add_(1)
    return model


def inputs(kind: Any, batch: int = 4, size: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Any]:
    g = torch.Generator().manual_seed(seed)
    x, t = torch.randn(batch, 3, size, size, generator=g), torch.rand(batch, generator=g)
    if isinstance(kind, Labels):
        return x, t, torch.arange(batch) % kind.classes
    if isinstance(kind, Captions):
        ids = torch.randint(1, kind.vocabulary, (batch, kind.length), generator=g)
        ids[1:, -3:] = 0
        return x, t, ids
    mask = torch.ones(batch, kind.length, dtype=torch.bool)
    mask[1:, -2:] = False
    tokens = torch.randn(batch, kind.length, kind.width, generator=g)
    return x, t, FeatureBatch(tokens, mask, torch.randn(batch, kind.pooled_width, generator=g))


def rows(prompt: Any, order: torch.Tensor) -> Any:
    return architectures.index_prompt(prompt, order)


each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
each_prompt = pytest.mark.parametrize("kind", PROMPTS.values(), ids=PROMPTS)

# --- laws -----------------------------------------------------------------------------------------------------------


@each_scheme
@pytest.mark.parametrize(("size", "patch"), [(16, 4), (8, 2), (24, 8)])
def test_shapes(scheme: str, size: int, patch: int) -> None:
    config = CONFIG.with_changes(patch=patch)
    model = architectures.create(
        scheme, config, image_size=size, in_channels=3, out_channels=6, prompt=Labels(5), seed=0
    )
    x, t, prompt = inputs(Labels(5), size=size)
    assert model(x, t, prompt).shape == (4, 6, size, size)


@each_scheme
@each_prompt
def test_depends_on_image_time_and_prompt_row_by_row(scheme: str, kind: Any) -> None:
    model = randomised(build(scheme, kind))
    x, t, prompt = inputs(kind)
    out = model(x, t, prompt)
    for changed in (
        model(x + 0.1, t, prompt),
        model(x, t * 0.5, prompt),
        model(x, t, rows(prompt, torch.tensor([1, 2, 3, 0]))),
    ):
        assert (changed - out).flatten(1).abs().amax(1).min() > 1e-4
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(model(x[order], t[order], rows(prompt, order)), out[order], atol=1e-5)


@each_scheme
@each_prompt
def test_null_is_another_prompt_and_dropping_is_null(scheme: str, kind: Any) -> None:
    model = randomised(build(scheme, kind))
    x, t, prompt = inputs(kind)
    null = model(x, t, kind.null(4))
    assert (null - model(x, t, prompt)).flatten(1).abs().amax(1).min() > 1e-4
    dropped = model(x, t, kind.drop(prompt, torch.tensor([True, False, True, False])))
    assert torch.allclose(dropped[[0, 2]], null[[0, 2]], atol=1e-5)
    assert torch.allclose(dropped[[1, 3]], model(x, t, prompt)[[1, 3]], atol=1e-5)


@each_scheme
def test_padding_is_not_seen(scheme: str) -> None:
    kind = PROMPTS["features"]
    model = randomised(build(scheme, kind))
    x, t, prompt = inputs(kind)
    other = prompt._replace(tokens=torch.where(prompt.mask[..., None], prompt.tokens, 9.0))
    assert torch.allclose(model(x, t, other), model(x, t, prompt), atol=1e-6)
    captions = PROMPTS["captions"]
    short = build(scheme, captions)
    longer = randomised(build(scheme, Captions(20, 9, depth=1)))
    state = {k: v[:7] if k == "prompt.positions" else v for k, v in longer.state_dict().items()}
    short.load_state_dict(state)
    ids = inputs(captions)[2]
    padded = torch.nn.functional.pad(ids, (0, 2))
    assert torch.allclose(short(x, t, ids), longer(x, t, padded), atol=1e-5)


@each_scheme
@each_prompt
def test_every_parameter_learns(scheme: str, kind: Any) -> None:
    model = randomised(build(scheme, kind))
    x, t, prompt = inputs(kind)
    prompt = kind.drop(prompt, torch.tensor([False, False, False, True]))
    model(x, t, prompt).square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@each_scheme
def test_it_begins_as_it_says(scheme: str) -> None:
    model, facts = build(scheme), architectures.describe(scheme).facts
    x, t, prompt = inputs(Labels(5))
    assert model(x, t, prompt).abs().max() == 0, "the output Linear begins at zero"
    c = model.scheme.embed(model.time(t), model.prompt(prompt))
    h = model.scheme.enter(torch.randn(4, 16, 32), c)
    still = [torch.equal(block(h, c), h) for block in model.blocks]
    assert all(still) if facts.identity_at_init else not any(still)


@each_scheme
@pytest.mark.parametrize(("width", "depth"), [(32, 3), (48, 5)])
def test_its_modulation_has_the_declared_parameters(scheme: str, width: int, depth: int) -> None:
    model = build(scheme, config=CONFIG.with_changes(width=width, depth=depth))
    formula = architectures.describe(scheme).facts.modulation_parameters
    assert eval(formula, {"__builtins__": {}}, {"d": width, "n": depth}) == model.parameter_split()["modulation"]
    assert model.parameter_split()["total"] == sum(p.numel() for p in model.parameters())


@each_scheme
def test_it_reads_what_it_says(scheme: str) -> None:
    """A scheme that reads the pooled prompt alone does not see the tokens, and the other way round."""
    kind, facts = PROMPTS["features"], architectures.describe(scheme).facts
    model = randomised(build(scheme, kind))
    x, t, prompt = inputs(kind)
    out = model(x, t, prompt)
    assert ("tokens" in facts.reads) != torch.allclose(
        model(x, t, prompt._replace(tokens=prompt.tokens + 1 * prompt.tokens.roll(1))), out, atol=1e-6
    )
    assert ("pooled" in facts.reads) != torch.allclose(
        model(x, t, prompt._replace(pooled=prompt.pooled.roll(1, 0))), out, atol=1e-6
    )


@each_scheme
def test_same_backbone_from_the_same_seed(scheme: str) -> None:
    """Whatever a scheme adds, what all have begins alike; and another seed is another."""
    model, other = build(scheme), build("adaln-zero")
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    common = [n for n in theirs if n.startswith(("patches.", "time.", "head.", "prompt.")) or ".op." in n]
    assert set(common) <= set(mine) and all(torch.equal(mine[n], theirs[n]) for n in common)
    torch.manual_seed(123)
    assert all(torch.equal(p, dict(build(scheme).named_parameters())[n]) for n, p in mine.items())
    assert not torch.equal(mine["patches.weight"], build(scheme, seed=1).patches.weight)


@each_scheme
def test_saves_loads_and_keeps_no_state(scheme: str) -> None:
    model, again = randomised(build(scheme)), build(scheme, seed=5)
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    x, t, prompt = inputs(Labels(5))
    first = model(x, t, prompt)
    model(x * 2, t, prompt)
    assert torch.equal(model(x, t, prompt), first) and torch.equal(again(x, t, prompt), first)


@each_scheme
def test_low_precision_agrees(scheme: str) -> None:
    model = randomised(build(scheme), scale=0.1)
    x, t, prompt = inputs(Labels(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x, t, prompt).float()
    high = model(x, t, prompt)
    assert (low - high).norm() / high.norm() < 0.05


@each_scheme
def test_compiles_whole(scheme: str) -> None:
    model = randomised(build(scheme, PROMPTS["captions"]))
    x, t, prompt = inputs(PROMPTS["captions"])
    torch._dynamo.reset()
    whole = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(whole(x, t, prompt), model(x, t, prompt), atol=1e-6)


# --- options --------------------------------------------------------------------------------------------------------

CHOICES = {
    "gate": ["zero", "gaussian(1e-3)", "tanh", "random", "one"],
    "modulation": ["none", "scale", "scale+shift"],
    "norm": ["layer", "rms"],
    "head": ["per-block", "shared", "shared+table", "bottleneck(8)", "low-rank(4)"],
}


@each_scheme
def test_every_option_builds_runs_and_differs(scheme: str) -> None:
    x, t, prompt = inputs(Labels(5))
    for option in set(architectures.describe(scheme).options) & set(CHOICES):
        for choice in CHOICES[option]:
            model = randomised(build(scheme, **{option: choice}))
            assert model(x, t, prompt).isfinite().all()
        with pytest.raises(ValueError, match="choose"):
            build(scheme, **{option: "nonsense"})


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="'gat' .*did you mean 'gate'"):
        build("adaln-zero", gat="one")


def test_gates_begin_as_their_names_say() -> None:
    def gates(choice: str) -> torch.Tensor:
        weight = build("adaln-zero", gate=choice).blocks[0].head.affine.weight
        return torch.cat([weight.chunk(6)[2], weight.chunk(6)[5]])

    assert gates("zero").abs().max() == 0 and gates("tanh").abs().max() == 0
    assert gates("gaussian(1e-3)").std().item() == pytest.approx(1e-3, rel=0.1)
    assert build("adaln-zero", gate="one").blocks[0].head.affine.weight.shape[0] == 4 * 32


# --- identities -----------------------------------------------------------------------------------------------------


def run(model: torch.nn.Module) -> torch.Tensor:
    return model(*inputs(Labels(5)))


def test_adaln_is_adaln_zero_with_gates_pinned_to_one() -> None:
    zero, plain = randomised(build("adaln-zero")), build("adaln")
    state = dict(zero.state_dict())
    for name in [n for n in state if ".head.affine." in n and n.startswith("blocks.")]:
        chunks = state[name].clone().chunk(6)
        for k in (2, 5):
            chunks[k].fill_(1.0 if name.endswith("bias") else 0.0)
        plain_chunks = torch.cat([chunks[k] for k in (0, 1, 3, 4)])
        state[name] = torch.cat(chunks)
        plain.state_dict()[name].copy_(plain_chunks)
    zero.load_state_dict(state)
    for name, value in plain.state_dict().items():
        if not (".head.affine." in name and name.startswith("blocks.")):
            value.copy_(state[name])
    assert torch.allclose(run(zero), run(plain), atol=1e-6)
    with torch.no_grad():
        zero.blocks[1].head.affine.bias[-1] += 0.5
    assert not torch.allclose(run(zero), run(plain), atol=1e-4)


def test_scale_is_scale_and_shift_with_shift_rows_zero() -> None:
    both, scale = randomised(build("adaln-zero")), build("adaln-zero", modulation="scale")
    for name, value in scale.state_dict().items():
        source = both.state_dict()[name]
        if source.shape != value.shape:
            chunks = list(source.chunk(source.shape[0] // 32))
            keep = [1, 2, 4, 5] if len(chunks) == 6 else [1]
            for k in set(range(len(chunks))) - set(keep):
                chunks[k].zero_()
            source = torch.cat([chunks[k] for k in keep])
        value.copy_(source)
    assert torch.allclose(run(both), run(scale), atol=1e-6)
    with torch.no_grad():
        both.blocks[0].head.affine.bias[0] += 0.5
    assert not torch.allclose(run(both), run(scale), atol=1e-4)


def vectors(placement: Placement, heads: list, trunk, c: torch.Tensor) -> list[torch.Tensor]:
    return [torch.cat([v for m in head(trunk(c)) for v in m if v is not None], dim=-1) for head in heads]


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_placements_contain_each_other(seed: int) -> None:
    """shared = shared+table with E = 0; low-rank with B = 0 = shared; shared+table = per-block, weights tied."""
    g = torch.Generator().manual_seed(seed)
    told = [Adaptive("scale+shift", parse_gate("zero"))] * 2
    c = torch.randn(3, 8, generator=g)
    made = {name: parse_placement(name, 8, told) for name in ("shared", "shared+table", "low-rank(2)", "per-block")}
    trunks = {name: placement.trunk() for name, placement in made.items()}
    heads = {name: [placement.head() for _ in range(2)] for name, placement in made.items()}
    weight, bias = torch.randn(48, 8, generator=g), torch.randn(48, generator=g)
    tables = torch.randn(2, 48, generator=g)
    with torch.no_grad():
        for name in ("shared", "shared+table", "low-rank(2)"):
            trunks[name].weight.copy_(weight)
            trunks[name].bias.copy_(bias)
        for k in range(2):
            heads["shared+table"][k].affine.table.zero_()
            heads["low-rank(2)"][k].affine.up.weight.zero_()
            heads["per-block"][k].affine.weight.copy_(weight)
            heads["per-block"][k].affine.bias.copy_(bias + tables[k])
        out = {name: vectors(made[name], heads[name], trunks[name], c) for name in made}
        for name in ("shared+table", "low-rank(2)"):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(out[name], out["shared"], strict=True))
        for k in range(2):
            heads["shared+table"][k].affine.table.copy_(tables[k])
        tabled = vectors(made["shared+table"], heads["shared+table"], trunks["shared+table"], c)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(tabled, out["per-block"], strict=True))
        assert not torch.allclose(tabled[0], out["shared"][0], atol=1e-3)
        heads["low-rank(2)"][0].affine.up.weight.normal_(generator=g)
        moved = vectors(made["low-rank(2)"], heads["low-rank(2)"], trunks["low-rank(2)"], c)
        assert not torch.allclose(moved[0], out["shared"][0], atol=1e-3)


@given(value=st.floats(-1e-2, 1e-2))
def test_tanh_and_linear_gates_agree_near_zero(value: float) -> None:
    g = torch.tensor(value, dtype=torch.float64)
    linear, tanh = parse_gate("zero").function, parse_gate("tanh").function
    assert linear is not None and tanh is not None
    assert abs(tanh(g) - linear(g)) <= abs(value) ** 3
