"""What modulates the prompt's side and what it attends to; and a prompt that is computed once, for all steps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_schemes import broken, described
from torch import Tensor

import architectures
from architectures import laws, sides
from architectures.laws import SchemeUnderTest
from bench.config.schema import Sample
from bench.measure.sampling import sample_exact

SIDED = [name for name in architectures.schemes() if "prompt_sees_image" in described(name).options]
LAYERWISE = [name for name in SIDED if "text_layers" in described(name).options]
PRODUCT: list[tuple[str, dict[str, str]]] = [
    (name, dict(prompt_time=time, prompt_sees_image=sees))
    for name in SIDED
    for time, sees in itertools.product(described(name).options["prompt_time"].choices, ("yes", "no"))
]
MORE: list[tuple[str, dict[str, str]]] = [
    ("sd3", {"head": "shared", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("sd3", {"context": "static", "prompt_time": "zero"}),
    ("sd3", {"text": "plain", "prompt_sees_image": "no"}),
    ("sd3", {"signals": "none", "prompt_sees_image": "no"}),
    ("sd3", {"time": "added", "prompt_sees_image": "no"}),
    ("flux", {"dual": "none", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("flux", {"dual": "all", "prompt_time": "none", "prompt_sees_image": "no"}),
    ("flux", {"head": "approximator(8, 1)", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("lumina2", {"context": "static", "prompt_time": "zero"}),
    ("lumina2", {"context": "static", "prompt_time": "none"}),
    ("lumina2", {"head": "shared", "norm": "layer", "post": "none", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("z-image", {"head": "shared", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("z-image", {"time": "token", "prompt_sees_image": "no"}),
    ("in-context", {"time": "added", "prompt_sees_image": "no"}),
    ("in-context", {"context": "static", "prompt_time": "none"}),
    ("in-context", {"time": "added", "prompt_time": "none"}),
    ("in-context", {"tokens": "2", "prompt_time": "none", "prompt_sees_image": "no"}),
    *((name, {"text_layers": "each", "prompt_time": "zero", "prompt_sees_image": "no"}) for name in LAYERWISE),
    ("flux", {"text_layers": "each", "time": "token"}),
    ("flux", {"parallel": "none", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("flux", {"parallel": "none", "prompt_time": "none", "prompt_sees_image": "no"}),
    ("z-image", {"activation": "silu", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("flux", {"parallel": "through", "registers": "2"}),
    ("flux", {"parallel": "through", "registers": "2", "prompt_time": "zero", "prompt_sees_image": "no"}),
    ("flux", {"registers": "2", "text_layers": "each"}),
    ("shared-modulation", {"registers": "1"}),
    ("adaln-zero-cross", {"registers": "2", "time": "token", "prompt_side": "c"}),
]
ALL = [*PRODUCT, *MORE]
with torch.device("meta"):
    ALONE = [(name, options) for name, options in ALL if SchemeUnderTest(name, options).build().scheme.prompt_alone]


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "options"), ALL, ids=str)
def test_every_side_obeys_the_laws(scheme: str, options: dict[str, str]) -> None:
    assert not broken(scheme, options)


def test_which_prompts_depend_on_neither_image_nor_t() -> None:
    alone = {str((name, options)) for name, options in PRODUCT if (name, options) in ALONE}
    due = [(n, o) for n, o in PRODUCT if o["prompt_sees_image"] == "no" and o["prompt_time"] != "t"]
    assert alone == {str(one) for one in due} and len(SIDED) == 6


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "options"), ALONE, ids=str)
@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_a_prompt_kept_for_all_steps_gives_what_it_gives_at_each(scheme: str, options: Any, positions: str) -> None:
    subject, config = SchemeUnderTest(scheme, options), laws.CONFIG.with_changes(positions=positions, qk_norm=True)
    for kind in (laws.FEATURES, laws.CAPTIONS):
        model, (x, t, prompt) = subject.random(kind, config=config), subject.inputs(kind)
        kept = model.encode(prompt)
        assert len(kept.kept) == len(model.blocks)
        for k in range(3):
            once, each = model(x + k, t * k / 2, kept), model(x + k, t * k / 2, prompt)
            assert torch.allclose(once, each, rtol=1e-6, atol=1e-6 * float(each.abs().max().clamp(min=1)))
        other = kept._replace(kept=tuple((k, v.roll(1, 0)) for k, v in kept.kept))
        assert not torch.allclose(model(x, t, other), model(x, t, prompt), atol=1e-3), "it is what is kept that is read"


@pytest.mark.parametrize(("scheme", "options"), [one for one in PRODUCT if one not in ALONE], ids=str)
def test_nothing_is_kept_of_a_prompt_that_changes(scheme: str, options: Any) -> None:
    model, (_, _, prompt) = SchemeUnderTest(scheme, options).random(), SchemeUnderTest(scheme, options).inputs()
    assert model.encode(prompt).kept == ()


def prompts_after(model: Any, x: Tensor, t: Tensor, prompt: Any) -> Tensor:
    """The prompt's tokens after the second block."""
    c = model.condition(t, prompt)
    h = model.scheme.enter(x, c)
    for index in range(2):
        h = model.step(index, h, c)
    return h[1] if isinstance(h, tuple) else h[:, -c.tokens.shape[1] :]


@pytest.mark.parametrize(("scheme", "options"), PRODUCT, ids=str)
def test_a_prompt_depends_on_the_image_that_it_sees_and_on_the_t_that_it_is_given(scheme: str, options: Any) -> None:
    subject = SchemeUnderTest(scheme, options)
    model, (_, t, prompt) = subject.random(laws.CAPTIONS), subject.inputs(laws.CAPTIONS)
    x, other = (torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(k)) for k in range(2))
    y = prompts_after(model, x, t, prompt)
    sees = not torch.equal(prompts_after(model, other, t, prompt), y)
    timed = not torch.equal(prompts_after(model, x, t * 0.5, prompt), y)
    assert sees == (options["prompt_sees_image"] == "yes")
    assert timed == (sees or options["prompt_time"] == "t")


@pytest.mark.parametrize("scheme", [name for name in SIDED if name != "in-context"])
def test_at_t_zero_the_prompt_s_time_is_the_image_s(scheme: str) -> None:
    """E(0) on the prompt's side is E(t) at t = 0, and no other."""
    zero = SchemeUnderTest(scheme, {"prompt_time": "zero"}).random()
    both = SchemeUnderTest(scheme).build()
    both.load_state_dict(zero.state_dict())
    x, t, prompt = SchemeUnderTest(scheme).inputs()
    assert torch.allclose(zero(x, t * 0, prompt), both(x, t * 0, prompt), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(zero(x, t, prompt), both(x, t, prompt), atol=1e-3)


def masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sides by one dense attention over the sequence, with a mask (B, N + L, N + L), in place of two."""

    def joint(x: Tensor, y: Tensor, image: Any, text: Any, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n, count = x.shape[1], x.shape[1] + y.shape[1]
        q, k, v = (torch.cat(pair, 2) for pair in zip(image.split(x), text.split(y, turned=False), strict=True))
        seen = (
            torch.ones(len(x), count, count, dtype=torch.bool) if mask is None else mask[:, None].expand(-1, count, -1)
        )
        seen = seen.clone()
        seen[:, n:, :n] = False
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None]).transpose(1, 2).flatten(-2)
        return image.out(a[:, :n]), text.out(a[:, n:])

    def both(block: Any, x: Tensor, y: Tensor, c: Any) -> Any:
        return block.both(x, y, c)

    monkeypatch.setattr(sides, "attend_jointly", joint)
    monkeypatch.setattr("architectures.streams.attend_jointly", joint)
    monkeypatch.setattr(sides.Sided, "sides", both)


@pytest.mark.parametrize("scheme", SIDED)
def test_a_prompt_that_does_not_see_the_image_is_a_mask_over_both(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attentions, of the prompt alone and of the image to both, are one with its rows masked."""
    subject = SchemeUnderTest(scheme, {"prompt_sees_image": "no"} | ({"dual": "none"} if scheme == "flux" else {}))
    if scheme in ("sd3", "qwen-image"):  # their last block reads y alone
        config = laws.CONFIG.with_changes(depth=4)
    else:
        config = laws.CONFIG.with_changes(positions="rope")
    model, (x, t, prompt) = subject.random(laws.FEATURES, config=config), subject.inputs(laws.FEATURES)
    if scheme in ("sd3", "qwen-image"):
        model.blocks = model.blocks[:3]
    mine = model(x, t, prompt)
    seeing = SchemeUnderTest(scheme, subject.options | {"prompt_sees_image": "yes"}).build(laws.FEATURES, config=config)
    state = {k: v for k, v in model.state_dict().items() if k in seeing.state_dict()}
    seeing.load_state_dict(state, strict=False)
    if scheme in ("sd3", "qwen-image"):
        seeing.blocks = seeing.blocks[:3]
    assert not torch.allclose(seeing(x, t, prompt), mine, atol=1e-3)
    masked(monkeypatch)
    assert torch.allclose(model(x, t, prompt), mine, atol=1e-4)


@pytest.mark.parametrize(
    ("scheme", "options", "said"),
    [
        ("sd3", {"text": "plain", "prompt_time": "zero"}, "leave one of the two out"),
        ("sd3", {"context": "static", "prompt_sees_image": "no"}, "none sees the image: leave"),
        ("lumina2", {"context": "static", "prompt_sees_image": "no"}, "none sees the image: leave"),
        (
            "flux",
            {"signals": "none", "prompt_time": "zero"},
            "no timestep modulates here .*: choose prompt_time t or",
        ),
        ("z-image", {"time": "token", "prompt_time": "zero"}, "no timestep modulates here"),
        ("in-context", {"prompt_time": "zero"}, "prompt_time 'zero': choose t, none"),
        ("adaln-zero", {"prompt_sees_image": "no"}, "unknown option 'prompt_sees_image'"),
        ("cross-attention", {"prompt_time": "zero"}, "unknown option 'prompt_time'"),
    ],
)
def test_sides_that_contradict_one_another_are_refused(scheme: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SchemeUnderTest(scheme, options).build()


def test_a_block_of_two_sides_prints_its_equations() -> None:
    def lines(scheme: str, **options: str) -> list[str]:
        return SchemeUnderTest(scheme, options).build().blocks[-1].equations()

    assert lines("lumina2", prompt_time="zero", post="none", gate="zero") == [
        "a_x, a_y = Attention([RMS(x) (1 + s1) ; RMS(y) (1 + s1')])",
        "x <- x + g1 a_x",
        "y <- y + g1' a_y",
        "x <- x + g2 MLP(RMS(x) (1 + s2))",
        "y <- y + g2' MLP(RMS(y) (1 + s2'))",
    ]
    assert lines("flux", prompt_time="none", prompt_sees_image="no") == [
        "u = LN(x) (1 + s) + b",
        "w = LN(y)",
        "a_x, _ = Attention([u ; w])",
        "a_y = Attention(w)",
        "x <- x + g (a_x + MLP(u))",
        "y <- y + (a_y + MLP(w))",
    ]


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_a_sampler_computes_such_a_prompt_once(guidance: float) -> None:
    """Each block once a sampling, not once a step, and the same samples as without; else at every step."""
    noise, how = torch.randn(4, 3, 16, 16), Sample(sampler="euler", steps=3, guidance=guidance)
    for sees, due in (("no", 3), ("yes", 0)):
        options = {"prompt_time": "zero", "prompt_sees_image": sees}
        model, calls = SchemeUnderTest("lumina2", options).random(scale=0.05), []
        for block in model.blocks:
            block.keep = lambda *args, of=block.keep, to=calls: to.append(1) or of(*args)
        once = sample_exact(model, laws.LABELS, torch.arange(4), noise, how)
        assert len(calls) == due
        each = sample_exact(lambda x, t, p, of=model: of(x, t, p), laws.LABELS, torch.arange(4), noise, how)
        assert torch.allclose(once, each, rtol=1e-6, atol=1e-6 * float(each.abs().max().clamp(min=1)))
