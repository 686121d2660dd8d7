"""Every law over every registered scheme, and the identities that tie schemes to each other."""

from __future__ import annotations

import functools
import itertools
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import architectures
from architectures import BackboneConfig, Captions, DiT, laws
from architectures.laws import SchemeUnderTest, inputs, randomised
from architectures.modulation import Placement
from architectures.placement import parse_placement
from architectures.sublayer import Adaptive, parse_gate

SCHEMES = architectures.schemes()
LAWS = [pytest.param(one, marks=pytest.mark.thorough) if one.name == "compiles" else one for one in laws.LAWS]
described = functools.cache(architectures.describe)  # of one that a test registers, `describe` itself


def build(scheme: str, kind: Any = laws.LABELS, **more: Any) -> DiT:
    return SchemeUnderTest(scheme).build(kind, **more)


def run(model: torch.nn.Module) -> torch.Tensor:
    return model(*inputs())


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_law(law: laws.Law, scheme: str) -> None:
    assert law.assert_holds(scheme)


STATIC = [(name, {"context": "static"}) for name in SCHEMES if "context" in described(name).options]
PLACED = [("adaln-zero", {"head": head}) for head in ("shared", "shared+table", "bottleneck(8)", "low-rank(4)")]
PLACED += [("adaln-zero", {"head": head}) for head in ("shared+affine", "approximator(16, 2)")]
PLACED += [("z-image", {"head": "shared"}), ("z-image", {"head": "low-rank(4)"})]


@pytest.mark.parametrize(("scheme", "options"), [*STATIC, *PLACED], ids=str)
def test_options_keep_the_precision_of_the_stream(scheme: str, options: dict[str, str]) -> None:
    next(law for law in laws.LAWS if law.name == "precision of the stream").assert_holds(scheme, **options)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if described(name).facts.length == "any"])
def test_a_caption_is_the_same_in_a_longer_table(scheme: str) -> None:
    captions, longer = laws.CAPTIONS, SchemeUnderTest(scheme).random(Captions(20, 9, depth=1))
    short = build(scheme, captions)
    short.load_state_dict({k: v[:7] if k == "prompt.positions" else v for k, v in longer.state_dict().items()})
    x, t, ids = inputs(captions)
    assert torch.allclose(short(x, t, ids), longer(x, t, torch.nn.functional.pad(ids, (0, 2))), rtol=1e-4, atol=1e-4)


# --- options --------------------------------------------------------------------------------------------------------


def refused(chosen: dict[str, str]) -> str:
    """Why parts do not fit one another; empty where they do."""
    if chosen["gate"] in ("one", "static-zero") and chosen["modulation"] == "none":
        return "leaves the blocks unmodulated"
    if chosen["head"].startswith("approximator") and chosen["gate"].startswith("gaussian"):
        return "an approximator has one map for all vectors, .*: choose gate zero"
    if chosen["head"].startswith("approximator") and chosen["modulation"].startswith("rotate"):
        return "an approximator gives vectors of D channels, and an angle has half as many"
    return ""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scheme", "signals"), [("adaln-zero-cross", "timestep+pooled"), ("shared-modulation", "timestep")]
)
def test_the_whole_product_of_parts_can_be_built(scheme: str, signals: str) -> None:
    """Every gate x modulation x norm x head, but for those that the way from c to the blocks cannot have."""
    parts = architectures.describe(scheme).options
    names = ("gate", "modulation", "norm", "head")
    one = laws.CONFIG.with_changes(depth=1)  # the parts meet in each block alike
    with torch.device("meta"):
        for values in itertools.product(*(parts[name].choices for name in names)):
            chosen = dict(zip(names, values, strict=True))
            if reason := refused(chosen):
                with pytest.raises(ValueError, match=reason):
                    build(scheme, config=one, signals=signals, **chosen)
            else:
                model = build(scheme, config=one, signals=signals, **chosen)
                assert ("pooled" in model.scheme.facts.reads) == (signals == "timestep+pooled")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gate": "tnah"}, "gate 'tnah': choose zero.*did you mean 'tanh'"),
        ({"gate": "gaussian(x)"}, "gate 'gaussian.x.': choose"),
        ({"gate": "gaussian(-1)"}, "choose"),
        ({"head": "bottleneck(1.5)"}, "choose per-block"),
        ({"head": "bottleneck"}, r"did you mean 'bottleneck\(D/4\)'"),
        ({"head": "approximator(64)"}, r"did you mean 'approximator\(D, 2\)'"),
        ({"head": "approximator(64, 2, 3)"}, "choose per-block"),
        ({"head": "approximator(64, 0)"}, "choose per-block"),
        ({"head": "approximator(64, D)"}, "choose per-block"),
        ({"head": "low-rank(D/0)"}, "choose per-block"),
        ({"head": "low-rank(0)"}, "choose per-block"),
        ({"head": "bottleneck(0)"}, "choose per-block.*did you mean 'bottleneck"),
        ({"head": "approximator(0, 2)"}, "choose per-block"),
        ({"gate": "gaussian(D/8)"}, "choose zero"),
        ({"head": "approximator(64, 2)", "gate": "gaussian(1e-3)"}, "one map for all vectors"),
        ({"gate": 1}, "gate 1: choose"),
        ({"modulation": "none", "gate": "one"}, "leaves the blocks unmodulated"),
    ],
)
def test_a_wrong_value_names_its_choices(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build("adaln-zero", **options)


def test_channels_are_a_number_or_a_share_of_the_width() -> None:
    def rank(head: str) -> int:
        return build("adaln-zero", head=head).blocks[0].head.affine.down.out_features

    width = build("adaln-zero").scheme.backbone.width
    assert rank("low-rank(D/8)") == width // 8 and rank("low-rank(D)") == width and rank("low-rank(5)") == 5
    assert rank("low-rank(3D/100)") == max(1, round(0.03 * width)) and rank("low-rank(D/999)") == 1


def test_the_vector_of_z_image_is_no_wider_than_the_stream() -> None:
    """As in its released code: min(dim, 256)."""
    sizes = (BackboneConfig(width=width, depth=1, heads=4, patch=4) for width in (32, 512))
    narrow, wide = (build("z-image", config=one).scheme.trunk.out_features for one in sizes)
    assert (narrow, wide) == (32, 256)


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
    specs = [Adaptive("scale+shift", parse_gate("zero"))] * 2
    c = torch.randn(3, 8, generator=g)
    made = {name: parse_placement(name, 8, specs) for name in ("shared", "shared+table", "low-rank(2)", "per-block")}
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


def test_a_table_with_factors_is_a_table_where_they_are_zero() -> None:
    """S_i = E_i + P (1 + F_i): with F = 0 it is shared+table, with E = F = 0 shared, and F scales each vector of P."""
    g, specs = torch.Generator().manual_seed(0), [Adaptive("scale+shift", parse_gate("zero"))] * 2
    affine, c = parse_placement("shared+affine", 8, specs).affine(), torch.randn(3, 48, generator=g)
    table, factor = torch.randn(48, generator=g), torch.randn(48, generator=g)
    with torch.no_grad():
        affine.table.copy_(table)
        affine.factor.zero_()
        assert torch.equal(affine(c), c + table)
        affine.factor.copy_(factor)
        assert torch.allclose(affine(c) - affine(0 * c), c + c * factor, atol=1e-5)
        assert not torch.allclose(affine(c), c + table, atol=1e-2)


PLACES = ("per-block", "shared", "shared+table", "shared+affine", "bottleneck(4)", "low-rank(2)", "approximator(6, 1)")


@pytest.mark.parametrize("name", PLACES)
def test_a_placement_gives_each_token_the_vectors_of_its_own_c(name: str) -> None:
    """c (B, N, D) gives what each of its vectors gives alone; (B, 1, D) what (B, D) gives."""
    g, placement = torch.Generator().manual_seed(0), parse_placement(name, 8, [BRANCH, BRANCH], depth=2)
    trunk, head, c = placement.trunk(), placement.head(1), torch.randn(3, 5, 8, generator=g)
    for parameter in [*trunk.parameters(), *head.parameters()]:
        torch.nn.init.normal_(parameter, generator=g)
    whole = vectors(placement, [head], trunk, c)[0]
    for n in range(5):
        assert torch.allclose(whole[:, n], vectors(placement, [head], trunk, c[:, n])[0], atol=1e-4)
    assert not torch.allclose(whole[:, 0], whole[:, 1], atol=1e-2)


BRANCH = Adaptive("scale+shift", parse_gate("zero"))


def test_an_approximator_needs_to_know_its_blocks() -> None:
    with pytest.raises(ValueError, match="give parse_placement their depth"):
        parse_placement("approximator(6, 1)", 8, [BRANCH])
    with pytest.raises(ValueError, match=r"heads.head\(index\)"):
        parse_placement("approximator(6, 1)", 8, [BRANCH], depth=2).head()


@given(value=st.floats(-1e-2, 1e-2))
def test_tanh_and_linear_gates_agree_near_zero(value: float) -> None:
    g = torch.tensor(value, dtype=torch.float64)
    linear, tanh = parse_gate("zero").function, parse_gate("tanh").function
    assert linear is not None and tanh is not None
    assert abs(tanh(g) - linear(g)) <= abs(value) ** 3


# --- the equations that blocks compute --------------------------------------------------------------------------------

COMPUTED = {
    "adaln-zero": ["x <- x + g1 SA(LN(x) (1 + s1) + b1)", "x <- x + g2 MLP(LN(x) (1 + s2) + b2)"],
    "cross-attention": ["x <- x + SA(LN(x))", "x <- x + CA(LN(x), y)", "x <- x + MLP(LN(x))"],
    "shift-free": ["x <- x + tanh(g1) RMS(SA(RMS(x) (1 + s1)))", "x <- x + tanh(g2) RMS(MLP(RMS(x) (1 + s2)))"],
    "hdm": [
        "u = RMS(x) (1 + s1) + b1",
        "x <- u + (1 + g1) SA(u)",
        "u = RMS(x) (1 + s2) + b2",
        "x <- u + (1 + g2) MLP(u)",
    ],
    "sd3": [
        "a_x, a_y = Attention([LN(x) (1 + s1) + b1 ; LN(y) (1 + s1') + b1'])",
        "x <- x + g1 a_x",
        "y <- y + g1' a_y",
        "x <- x + g2 MLP(LN(x) (1 + s2) + b2)",
        "y <- y + g2' MLP(LN(y) (1 + s2') + b2')",
    ],
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_block_prints_the_equations_it_computes(name: str) -> None:
    description = architectures.describe(name)
    assert description.computed[0].splitlines() == COMPUTED[name]
    model = architectures.create(name, "DiT-XS/4", image_size=16, in_channels=3, prompt=architectures.Labels(3))
    assert repr(model.blocks[0]).splitlines()[1:] == [f"  {line}" for line in COMPUTED[name]]


def test_every_scheme_has_its_equations_and_options_change_them() -> None:
    for name in architectures.schemes():
        assert architectures.describe(name).computed, name
    make = partial(architectures.create, image_size=16, in_channels=3, prompt=architectures.Labels(3))
    open_gates = repr(make("adaln-zero", "DiT-XS/4", gate="one", modulation="scale", norm="rms").blocks[0])
    assert "x <- x + SA(RMS(x) (1 + s1))" in open_gates and "g1" not in open_gates


def test_blank_tokens_carry_nothing_and_count_as_the_schemes() -> None:
    """The control is adaLN-Zero but for k tokens of its own, equal for every image, time and prompt."""
    blank, plain = SchemeUnderTest("registers", {"tokens": 5}).build(), SchemeUnderTest("adaln-zero").build()
    added = {role: blank.parameter_split()[role] - plain.parameter_split()[role] for role in ("scheme", "total")}
    assert added == {"scheme": 5 * 32, "total": 5 * 32}
    _, t, prompt = inputs()
    c = blank.scheme.embed(blank.time(t), blank.prompt(prompt))
    entered = blank.scheme.enter(torch.zeros(4, 16, 32), c)
    assert entered.shape == (4, 21, 32) and torch.equal(entered[:, 16:], blank.scheme.blanks.expand(4, -1, -1))
    assert "registers" in architectures.CONTROLS
    with pytest.raises(ValueError, match="tokens 0: at least 1"):
        SchemeUnderTest("registers", {"tokens": 0}).build()


def test_the_oracle_gives_each_image_token_its_own_prompt_token() -> None:
    """Before the blocks, prompt token i moves image token i alone; a prompt of another length is refused."""
    model = SchemeUnderTest("oracle").build(laws.SLOTS)
    x, t, prompt = SchemeUnderTest("oracle").inputs(laws.SLOTS)
    other = prompt.clone()
    other[:, 5] = prompt[:, 5] % 8 + 1

    def entered(ids: torch.Tensor) -> torch.Tensor:
        c = model.scheme.embed(model.time(t), model.prompt(ids))
        return model.scheme.enter(torch.zeros(4, 16, 32), c)

    moved = (entered(other) - entered(prompt)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [5]
    assert model(x, t, prompt).shape == x.shape
    assert "oracle" in architectures.CONTROLS
    with pytest.raises(ValueError, match="'oracle': it needs a prompt token for each of the image's 16, and this .* 5"):
        architectures.create("oracle", laws.CONFIG, image_size=16, in_channels=3, prompt=laws.SLOTS)


def test_laws_change_the_prompts_length_for_no_scheme_that_takes_any() -> None:
    for name in SCHEMES:
        subject = SchemeUnderTest(name)
        kinds = [subject.kind(kind) for kind in laws.PROMPTS.values()]
        assert (kinds == list(laws.PROMPTS.values())) == (name != "oracle"), name


# --- signals, and where time enters -----------------------------------------------------------------------------------

OF_PARTS = (
    "builds",
    "shapes",
    "image and time",
    "prompt",
    "padding",
    "batch",
    "gradients",
    "beginning",
    "what feeds c",
    "what it reads",
    "fair beginning",
)


def broken(scheme: str, options: dict[str, Any]) -> list[laws.Verdict]:
    """The laws of structure that a scheme with these options breaks."""
    return [one for one in laws.check(scheme, options, only=OF_PARTS) if one.outcome != "holds"]


RECENT: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ("flux3", "e-mmdit", "glm-image", "ltx2", "chroma")]
RECENT += [("adaln-zero", {"modulation": "rotate"}), ("lumina2", {"modulation": "rotate+scale", "trunk": "side"})]
RECENT += [("ddt", {"head": "shared+table", "time": "added"}), ("ltx2", {"prompt_side": "static"})]
RECENT += [("flux", {"parallel": "all", "head": "shared", "trunk": "one"})]


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "options"), RECENT, ids=str)
def test_the_options_of_2026_obey_the_laws(scheme: str, options: dict[str, Any]) -> None:
    assert not [
        one
        for one in laws.check(scheme, options, only=(*OF_PARTS, "encoded prompt", "roles"))
        if one.outcome != "holds"
    ]


SIGNALLED = [
    (name, {"signals": signals, "time": time})
    for name in SCHEMES
    if "time" in (options := described(name).options)
    for signals, time in itertools.product(options["signals"].choices, options["time"].choices)
    if "timestep" in signals or time == options["time"].default  # other ways of a time that is none are refused
]


def usual(scheme: str, options: dict[str, str]) -> bool:
    """Whether all but one of the options are the scheme's defaults."""
    listed = described(scheme).options
    return sum(value != listed[name].default for name, value in options.items()) <= 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scheme", "options"),
    [one if usual(*one) else pytest.param(*one, marks=pytest.mark.slow) for one in SIGNALLED],
    ids=str,
)
def test_signals_and_the_way_of_time_obey_the_laws(scheme: str, options: dict[str, str]) -> None:
    assert not broken(scheme, options)


def test_every_scheme_but_the_controls_can_be_time_free() -> None:
    """Without a timestep nothing of the model depends on t, and there is no embedding of it."""
    free = {name for name, options in SIGNALLED if "timestep" not in options["signals"]}
    assert free == set(SCHEMES) - architectures.CONTROLS
    model = SchemeUnderTest("sd3", {"signals": "none"}).random()
    assert not any(name.startswith("time.") for name, _ in model.named_parameters())
    assert "time.up.weight" in dict(SchemeUnderTest("sd3", {"time": "added"}).build().named_parameters())


@pytest.mark.parametrize(
    ("scheme", "head"), [("sd3", "per-block"), ("sd3", "shared"), ("shared-modulation", "shared+table")]
)
def test_gates_are_static_where_c_sums_nothing(scheme: str, head: str) -> None:
    """They are what the head's constant would be: learned, the same for every image, t and prompt."""
    model = SchemeUnderTest(scheme, {"signals": "none", "head": head}).random()
    with architectures.observe(model) as first:
        run(model)
    x, t, prompt = inputs(seed=1)
    with architectures.observe(model) as second:
        model(x, t, prompt)
    gates = [(a.gate, b.gate) for a, b in zip(first.branches.values(), second.branches.values(), strict=True)]
    gates = [(a, b) for a, b in gates if a is not None and b is not None]
    assert gates and all(a.shape == (1, 32) and torch.equal(a, b) and a.abs().max() > 0 for a, b in gates)
    same = torch.equal(first.branches[0, "mlp"].gate, first.branches[1, "mlp"].gate)
    assert same == (head == "shared")
    timed = SchemeUnderTest(scheme, {"signals": "timestep", "head": head}).random()
    with architectures.observe(timed) as third:
        run(timed)
    assert third.branches[0, "mlp"].gate.std(0).max() > 0


def test_a_head_that_reads_c_is_refused_where_there_is_none() -> None:
    for head in ("bottleneck(8)", "low-rank(4)", "approximator(8, 1)", "shared+affine"):
        with pytest.raises(ValueError, match="with these signals there is none: choose per-block, shared"):
            build("sd3", signals="none", head=head)
    with pytest.raises(ValueError, match="signals 'none': choose pooled, timestep.pooled"):
        build("adaln-zero", signals="none")  # its prompt has no other way in
    assert not broken("lumina2", {"signals": "timestep", "time": "token", "modulation": "none", "gate": "one"})


def test_added_time_is_the_plain_sum_at_the_entrance() -> None:
    """x <- x + e_t, then the blocks of a model without t."""
    added, free = (SchemeUnderTest("in-context", options) for options in ({"time": "added"}, {"signals": "none"}))
    one, other = added.random(), free.build()
    other.load_state_dict({k: v for k, v in one.state_dict().items() if not k.startswith("time.")})
    x, t, prompt = inputs()
    e_t = one.time(t)
    entering = other.scheme.enter
    other.scheme.enter = lambda x, c: entering(x + e_t[:, None], c)
    assert torch.equal(one(x, t, prompt), other(x, t, prompt))
    other.scheme.enter = entering
    assert not torch.allclose(one(x, t, prompt), other(x, t, prompt), atol=1e-3)


def test_time_as_a_token_is_one_more_token_of_the_sequence() -> None:
    for name, count in (("adaln-zero", 17), ("lumina2", 16 + 2)):
        model, seen = SchemeUnderTest(name, {"time": "token"}).random(), []
        model.blocks[0].register_forward_hook(lambda _, args, out, to=seen: to.append(out))
        assert run(model).shape == (4, 3, 16, 16) and seen[0].shape == (4, count, 32)


# --- tokens beside the image, and gates that no head gives ------------------------------------------------------------


BESIDE: list[tuple[str, dict[str, Any]]] = [
    ("adaln-zero", {"bank": "tokens(5, 1)"}),
    ("adaln-zero", {"bank": "registers(5, 2)"}),
    ("adaln-zero", {"bank": "registers(5, 0)", "time": "token"}),
    ("adaln-zero", {"gate": "static-zero"}),
    ("adaln-zero", {"gate": "static-zero", "head": "shared"}),
    ("adaln-zero", {"gate": "static-zero", "head": "approximator(8, 1)"}),
    ("sd3", {"gate": "static-zero"}),
    ("flux", {"gate": "static-zero", "signals": "none"}),
    ("in-context", {"gate": "static-zero", "tokens": 3, "norm": "rms"}),
    ("in-context", {"gate": "tanh", "prompt_sees_image": "no"}),
    ("static-text", {"signals": "none"}),
    ("static-text", {"modulation": "scale", "gate": "tanh", "head": "shared"}),
    ("static-text", {"time": "token"}),
    ("adaln-zero-cross", {"cross": "gated"}),
    ("adaln-zero-cross", {"cross": "modulated", "head": "shared+table"}),
    ("adaln-zero-cross", {"cross": "modulated", "signals": "none"}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "options"), BESIDE, ids=str)
def test_banks_gates_and_branches_obey_the_laws(scheme: str, options: dict[str, Any]) -> None:
    assert not broken(scheme, options)


def test_tokens_of_a_bank_enter_before_their_block_and_leave_after_the_last() -> None:
    """Before it the sequence is the image's; what enters is the pooled prompt and a learned P_j, or P_j alone."""
    for name in ("tokens", "registers"):
        model, counts = SchemeUnderTest("adaln-zero", {"bank": f"{name}(5, 2)"}).random(), []
        for block in model.blocks:
            block.register_forward_hook(lambda _, args, out, to=counts: to.append(args[0].shape[1]))
        x, t, prompt = inputs()
        assert model(x, t, prompt).shape == x.shape and counts == [16, 16, 21]
        beside, bank = model.condition(t, prompt).beside, model.scheme.bank.tokens
        assert beside is not None
        due = bank + (model.prompt(prompt).pooled[:, None] if name == "tokens" else torch.zeros(4, 1, 32))
        assert torch.equal(beside, due)
        assert model.parameter_split()["scheme"] == 5 * 32
    with pytest.raises(ValueError, match="enters before block 3, and the last is 2"):
        build("adaln-zero", bank="tokens(5, 3)")
    with pytest.raises(ValueError, match=r"bank 'tokens\(0, 1\)': choose none"):
        build("adaln-zero", bank="tokens(0, 1)")


def test_registers_from_the_first_block_on_are_the_control() -> None:
    bank, control = build("adaln-zero", bank="registers(8, 0)"), SchemeUnderTest("registers").random()
    state = control.state_dict()
    state["scheme.bank.tokens"] = state.pop("scheme.blanks")
    bank.load_state_dict(state)
    assert torch.equal(run(bank), run(control))
    bank.scheme.start = 1
    assert not torch.allclose(run(bank), run(control), atol=1e-3)


def test_a_static_gate_is_a_gate_whose_map_has_a_bias_alone() -> None:
    static, usual = SchemeUnderTest("adaln-zero", {"gate": "static-zero"}).random(), build("adaln-zero")
    state = usual.state_dict()
    for name, value in static.state_dict().items():
        if ".head.affine." not in name or not name.startswith("blocks."):
            if name in state:
                state[name] = value
            continue
        gates = [static.state_dict()[name.rpartition(".affine")[0] + f".own.{k}.table"] for k in range(2)]
        gates = gates if name.endswith("bias") else [torch.zeros(32, 32)] * 2
        b1, s1, b2, s2 = value.chunk(4)
        state[name] = torch.cat([b1, s1, gates[0], b2, s2, gates[1]])
    usual.load_state_dict(state)
    assert torch.allclose(run(static), run(usual), atol=1e-5)
    with torch.no_grad():
        static.blocks[0].head.own[0].table.add_(0.5)
    assert not torch.allclose(run(static), run(usual), atol=1e-3)


def test_a_gate_at_zero_does_not_meet_a_map_at_zero() -> None:
    """Or neither of the cross-attention's would ever learn."""
    for cross, gate, zero in (("plain", "zero", True), ("gated", "zero", False), ("gated", "gaussian(1e-3)", True)):
        block = build("adaln-zero-cross", cross=cross, gate=gate).blocks[0]
        assert (block.cross.op.out.weight.abs().max() == 0) == zero, (cross, gate)
    with pytest.raises(ValueError, match="cross 'gatde': .*did you mean 'gated'"):
        build("adaln-zero-cross", cross="gatde")


def test_a_vector_for_each_token_is_one_for_all_where_they_are_equal() -> None:
    """c (B, N, D) modulates, gates and normalises token by token (DDT); repeated it is c (B, D)."""
    for name in ("adaln-zero", "adaln-zero-cross", "shared-modulation", "static-text", "shift-free"):
        model, (x, t, prompt) = SchemeUnderTest(name).random(), inputs()
        due, vector = model(x, t, prompt), model.scheme.conditioning_vector
        repeated = lambda e_t, p, of=vector: of(e_t, p)[:, None].expand(-1, 16, -1)  # noqa: E731
        model.scheme.conditioning_vector = repeated
        assert torch.allclose(model(x, t, prompt), due, rtol=1e-4, atol=1e-4), name
        other = torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(0))
        model.scheme.conditioning_vector = lambda e_t, p, of=repeated, more=other: of(e_t, p) + more
        assert not torch.allclose(model(x, t, prompt), due, atol=1e-3), name


# --- parts ------------------------------------------------------------------------------------------------------------

STATIC = [("sd3", {}), ("sd3", {"text": "plain"}), ("lumina2", {}), ("z-image", {}), ("hdm", {}), ("in-context", {})]
PARTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"context": "static", **more}) for name, more in STATIC),
    ("sd3", {"modulation": "scale"}),
    ("flux", {"modulation": "scale"}),
    ("lumina2", {"post": "none"}),
    ("lumina2", {"modulation": "scale+shift"}),
    ("z-image", {"post": "none"}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "options"), PARTS, ids=str)
def test_a_scheme_without_one_of_its_parts_obeys_the_laws(scheme: str, options: dict[str, Any]) -> None:
    assert not broken(scheme, options)


@pytest.mark.parametrize(("scheme", "options"), STATIC, ids=str)
def test_static_tokens_are_the_encoders_in_every_block(scheme: str, options: dict[str, Any]) -> None:
    """Every block receives the same tokens beside the image; where they are updated, the second receives others."""
    for context in ("static", "updated"):
        subject = SchemeUnderTest(scheme, options | {"context": context})
        model, (x, t, prompt) = subject.random(laws.SLOTS), subject.inputs(laws.SLOTS)
        seen: list[Any] = []
        for block in model.blocks:
            block.register_forward_hook(lambda _, args, out, to=seen: to.append((args, out)))
        model(x, t, prompt)
        (first, c), (second, _) = seen[0][0], seen[1][0]
        entered, later = ((h[1] if isinstance(h, tuple) else h[:, 16:]) for h in (first, second))
        if context == "updated":
            assert torch.equal(entered, c.tokens) and not torch.equal(later, entered)
        else:
            assert all(args[1].tokens is c.tokens for args, _ in seen)
            kept = [h for h in (entered, later) if h.shape[1]]  # a sequence of x alone passes nothing on
            assert all(torch.equal(h, c.tokens) for h in kept) and len(kept) == 2 * isinstance(first, tuple)


def test_a_static_block_is_the_block_with_its_prompts_output_discarded() -> None:
    """With the same weights, one block updates x alike in both; a second differs, for its tokens do."""
    one = laws.CONFIG.with_changes(depth=1)
    for config, same in ((one, True), (laws.CONFIG, False)):
        models = [SchemeUnderTest("lumina2", {"context": c}).random(config=config) for c in ("static", "updated")]
        models[1].load_state_dict(models[0].state_dict())
        a, b = (model(*inputs()) for model in models)
        assert torch.allclose(a, b, atol=1e-5) == same


def test_a_static_block_prints_its_equations() -> None:
    make = partial(architectures.create, image_size=16, in_channels=3, prompt=architectures.Labels(3))
    plain, carried = (make(name, "DiT-XS/4", context="static").blocks[0].equations() for name in ("in-context", "hdm"))
    assert plain == ["a_x, _ = Attention([LN(x) ; LN(y)])", "x <- x + a_x", "x <- x + MLP(LN(x))"]
    assert carried[:2] == ["u = RMS(x) (1 + s1) + b1", "a_x, _ = Attention([u ; RMS(y) (1 + s1') + b1'])"]
    assert carried[2] == "x <- u + (1 + g1) a_x"


@pytest.mark.parametrize(
    ("scheme", "options", "times"),
    [
        ("chroma", {}, 1),  # one network gives the vectors of all kinds of tokens
        ("chroma", {"prompt_time": "zero"}, 2),  # of c, and of c at t = 0
        ("e-mmdit", {}, 1),
        ("flux", {}, 3),  # two streams, and both joined
        ("qwen-image", {"head": "shared", "trunk": "one"}, 1),
    ],
)
def test_a_trunk_is_computed_once_for_one_c(scheme: str, options: dict[str, Any], times: int) -> None:
    under_test = SchemeUnderTest(scheme, options)
    model, calls = under_test.random(laws.FEATURES), []  # type: ignore[var-annotated]
    for trunk in model.scheme.trunks:
        trunk.register_forward_hook(lambda *call: calls.append(call))
    model(*under_test.inputs(laws.FEATURES))
    assert len(calls) == times


def test_tokens_that_no_block_updates_cost_their_keys_and_values_alone() -> None:
    with torch.device("meta"):
        made = [SchemeUnderTest(name, {"context": "static"}).build(laws.FEATURES) for name in ("lumina2", "hdm")]
        updated = [SchemeUnderTest(name, {}).build(laws.FEATURES) for name in ("lumina2", "hdm")]
    for static, other in zip(made, updated, strict=True):
        assert architectures.multiply_adds(static, 3, 16, laws.FEATURES) < architectures.multiply_adds(
            other, 3, 16, laws.FEATURES
        )


@pytest.mark.parametrize("scheme", ["sd3", "qwen-image"])
def test_learned_gates_at_zero_close_the_prompt_s_stream_too(scheme: str) -> None:
    under_test = SchemeUnderTest(scheme, {"signals": "none", "modulation": "none", "gate": "static-zero"})
    model = under_test.build(laws.FEATURES)
    x, y = torch.randn(2, 16, laws.CONFIG.width), torch.randn(2, 6, laws.CONFIG.width)
    c = model.condition(torch.rand(2), under_test.inputs(laws.FEATURES, batch=2)[2])
    after = model.blocks[0]((x, y), c._replace(mask=None))
    assert torch.equal(after[0], x) and torch.equal(after[1], y)


@pytest.mark.parametrize(
    ("scheme", "options", "said"),
    [
        ("hdm", {"gate": "gaussian(0.5)"}, "gate 'gaussian.*choose zero, tanh, one.zero, one"),
        ("adaln-zero", {"time": "token", "bank": "registers(4, 2)"}, "blocks before it would have no timestep"),
        ("adaln-zero", {"signals": "pooled", "time": "added"}, "a way in for the timestep, which is none"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(scheme: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SchemeUnderTest(scheme, options).build()


def test_a_decoder_needs_an_encoder() -> None:
    one = BackboneConfig(width=16, depth=1, heads=2, patch=4)
    with pytest.raises(ValueError, match="choose a depth of 2 or more"):
        architectures.create("ddt", one, image_size=16, in_channels=3, prompt=architectures.Labels(3))


def test_a_narrow_vector_that_is_none_passes_no_activation() -> None:
    under_test = SchemeUnderTest("z-image", {"signals": "none", "activation": "silu"})
    assert under_test.random(laws.FEATURES)(*under_test.inputs(laws.FEATURES)).isfinite().all()


@pytest.mark.parametrize("width", [200, 224, 320])
def test_captions_are_encoded_at_every_width(width: int) -> None:
    config = BackboneConfig(width=width, depth=1, heads=4, patch=4)
    kind = architectures.Captions(vocabulary=9, length=4)
    model = architectures.create("cross-attention", config, image_size=8, in_channels=3, prompt=kind)
    assert model(torch.zeros(2, 3, 8, 8), torch.rand(2), torch.ones(2, 4, dtype=torch.long)).shape == (2, 3, 8, 8)
