"""The fixed backbone: its published sizes to the parameter, its positions, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import architectures
from architectures import BackboneConfig, Captions, Labels, laws
from architectures.layers import (
    SelfAttention,
    attend,
    fixed_positions,
    patchify,
    random_positions,
    sincos_positions,
    unpatchify,
)
from architectures.rotary import RoPE


def counted(scheme: str, backbone: str) -> tuple[int, float]:
    """Trainable parameters and GMAC of one 32 x 32 x 4 latent with 1000 classes, on `meta`."""
    with torch.device("meta"):
        model = architectures.create(
            scheme, backbone, image_size=32, in_channels=4, out_channels=8, prompt=Labels(1000)
        )
    return model.parameter_split()["total"], architectures.multiply_adds(model, 4, 32, Labels(1000)) / 1e9


@pytest.mark.parametrize("scheme", ["adaln-zero", "cross-attention", "sd3", "flux", "ltx2", "hdm", "oracle"])
def test_multiply_adds_are_those_of_torchs_own_counter(scheme: str) -> None:
    prompt = architectures.fitting(scheme, Captions(40, 6, depth=1), 16)
    with torch.device("meta"):
        model = architectures.create(scheme, "DiT-XS/4", image_size=16, in_channels=3, prompt=prompt)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 16, 16), torch.empty(1), prompt.null(1, "meta"))
    assert architectures.multiply_adds(model, 3, 16, prompt) == counter.get_total_flops() / 2 > 0


@pytest.mark.parametrize(
    ("scheme", "parameters", "gmac"),
    [
        ("in-context", 449_031_200, 119.3539),
        ("cross-attention", 597_795_872, 137.6028),
        ("adaln", 600_452_384, 118.5471),
        ("adaln-zero", 674_834_720, 118.6214),
    ],
)
def test_block_designs_of_dit_xl_2(scheme: str, parameters: int, gmac: float) -> None:
    """Table 4 of the DiT paper: 449, 598, 600, 675 M and 119.37, 137.62, 118.56, 118.64 G, without norms' adds."""
    total, macs = counted(scheme, "DiT-XL/2")
    assert total == parameters and macs == pytest.approx(gmac, abs=5e-5)


@pytest.mark.parametrize(
    ("size", "parameters", "gmac"),
    [
        ("S/2", 32_865_056, 6.0557),
        ("B/2", 130_315_808, 23.0051),
        ("L/2", 457_840_672, 80.6976),
        ("S/4", 32_920_000, 1.4126),
        ("B/4", 130_430_000, 5.5652),
        ("L/4", 457_990_000, 19.6957),
        ("XL/4", 675_000_000, 29.0437),
        ("S/8", 33_140_000, 0.3580),
        ("B/8", 130_870_000, 1.4175),
        ("L/8", 458_580_000, 5.0114),
        ("XL/8", 675_660_000, 7.3924),
    ],
)
def test_sizes(size: str, parameters: int, gmac: float) -> None:
    """Appendix A of the DiT paper; a figure that ends in four zeros is rounded to 0.01 M."""
    total, macs = counted("adaln-zero", f"DiT-{size}")
    assert macs == pytest.approx(gmac, abs=6e-5)
    assert total == parameters if parameters % 10_000 else abs(total - parameters) <= 5_000


def test_the_smallest_size_and_any_patch() -> None:
    assert counted("adaln-zero", "DiT-XS/2")[0] < counted("adaln-zero", "DiT-S/2")[0]
    assert BackboneConfig.named("DiT-XS/16").patch == 16


def test_a_step_s_multiply_adds_do_not_depend_on_sharing() -> None:
    """Modulation is a third of the parameters and a five-hundredth of the compute."""
    (_, zero), (_, shared) = counted("adaln-zero-cross", "DiT-B/2"), counted("shared-modulation", "DiT-B/2")
    assert 0 < zero - shared < 0.003 * zero


# --- patches and positions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "patch", "channels"), [(8, 2, 3), (12, 4, 1), (9, 3, 4)])
def test_patches_are_undone(size: int, patch: int, channels: int) -> None:
    """patchify orders a patch (C, p, q), as a convolution does; unpatchify (p, q, C), as DiT does."""
    image = torch.randn(2, channels, size, size)
    tokens = patchify(image, patch)
    reordered = tokens.unflatten(-1, (channels, patch, patch)).permute(0, 1, 3, 4, 2).flatten(2)
    assert torch.equal(unpatchify(reordered, patch, channels), image)


def test_patchify_and_linear_are_the_convolution() -> None:
    image, convolution = torch.randn(2, 3, 8, 8), torch.nn.Conv2d(3, 5, 2, stride=2)
    tokens = patchify(image, 2) @ convolution.weight.flatten(1).T + convolution.bias
    assert torch.allclose(tokens, convolution(image).flatten(2).transpose(1, 2), atol=1e-6)


def test_sincos_is_dits() -> None:
    positions = sincos_positions(8, 3)
    row, column = 1, 2
    expected = [
        f(p * w) for p in (column, row) for f in (torch.sin, torch.cos) for w in (torch.tensor(1.0), torch.tensor(0.01))
    ]
    assert torch.allclose(
        positions[row * 3 + column],
        torch.stack([f if isinstance(f, torch.Tensor) else torch.tensor(f) for f in expected]),
    )


def nearness(positions: str, grid: int = 3, width: int = 48) -> float:
    """Squared distance of a token's position from its nearest neighbour's, over the table's mean squared norm."""
    table = fixed_positions(positions, width, grid)
    apart = torch.cdist(table, table).square().fill_diagonal_(float("inf"))
    return (apart.min(1).values.mean() / table.square().sum(1).mean()).item()


def test_why_a_small_grid_needs_another_table() -> None:
    """DiT's sin-cos hardly separates neighbours on a grid of 3; a small base does in part, a random table wholly."""
    dits, small, random = map(nearness, ("sincos", "sincos(16)", "random"))
    assert dits < 0.1 < 0.2 < small < 0.5 < 1 < random, (dits, small, random)


def test_random_positions_are_a_function_of_width_and_grid_alone() -> None:
    def table(scheme: str, seed: int) -> torch.Tensor:
        config = BackboneConfig(width=32, depth=1, heads=2, patch=4, positions="random")
        made = architectures.create(scheme, config, image_size=16, in_channels=3, prompt=Labels(3), seed=seed)
        assert "positions" not in made.state_dict()
        return made.positions

    torch.manual_seed(3)
    assert torch.equal(table("adaln", 0), table("cross-attention", 5))
    assert torch.equal(table("adaln", 0), random_positions(32, 4))
    assert random_positions(48, 64).mean().abs() < 0.02 and abs(random_positions(48, 64).std() - 1) < 0.02


def test_learned_positions_are_parameters_of_the_backbone() -> None:
    def split(positions: str) -> dict[str, int]:
        config = BackboneConfig(width=32, depth=1, heads=2, patch=4, positions=positions)
        made = architectures.create("adaln", config, image_size=16, in_channels=3, prompt=Labels(3), seed=0)
        return made.parameter_split()

    assert split("learned")["backbone"] == split("sincos")["backbone"] + 16 * 32
    config = BackboneConfig(width=48, depth=1, heads=2, patch=2, positions="learned")
    made = architectures.create("adaln", config, image_size=64, in_channels=3, prompt=Labels(3), seed=0)
    assert abs(made.positions.std() - 0.02) < 0.001 and made.positions.requires_grad


def test_rope_sees_differences_alone_and_leaves_what_is_not_image() -> None:
    rope = RoPE(8, 4)
    q, k = torch.randn(1, 1, 1, 8).expand(1, 1, 18, 8), torch.randn(1, 1, 1, 8).expand(1, 1, 18, 8)
    products = (rope(q) @ rope(k).transpose(-1, -2))[0, 0]
    assert products[0, 5] == pytest.approx(products[5, 10].item(), abs=1e-5), "one down and one right, from anywhere"
    assert not torch.allclose(products[0, 5], products[0, 1])
    assert torch.equal(rope(q)[:, :, 16:], q[:, :, 16:])


@pytest.mark.parametrize("layout", ["of one Linear", "apart"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_turn_as_complex_numbers_with_the_bits_of_the_products(layout, dtype, monkeypatch) -> None:
    """Compiled models have the products written out."""
    torch.manual_seed(0)
    q = torch.randn(2, 18, 3, 5, 8, dtype=dtype).unbind(2)[1].transpose(1, 2)
    q = (q if layout == "of one Linear" else q.contiguous()).requires_grad_()
    rope, upstream = RoPE(8, 4), torch.randn(2, 5, 18, 8, dtype=dtype)

    def turned() -> tuple[torch.Tensor, torch.Tensor]:
        out = rope(q)
        return out, torch.autograd.grad(out, q, upstream)[0]

    eager = turned()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        patch.delattr(torch, "view_as_complex")
        assert all(torch.equal(*both) for both in zip(eager, turned(), strict=True))
    along = torch.eye(8)[4].expand(1, 1, 18, 8)
    angle = torch.tensor(1.0)  # of the second token: one column on, at the first frequency
    assert torch.allclose(rope(along)[0, 0, 1, 4:6], torch.stack([angle.cos(), angle.sin()]))


# --- options and what does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp": "swiglu"},
        {"mlp": "geglu"},
        {"qk_norm": True},
        *({"positions": positions} for positions in ("sincos(16)", "random", "learned", "rope")),
    ],
)
def test_options_build_and_change_something(changes) -> None:
    def out(**more):
        config = BackboneConfig(width=32, depth=2, heads=2, patch=4, **more)
        model = architectures.create("adaln", config, image_size=16, in_channels=3, prompt=Labels(3), seed=0)
        torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
        g = torch.Generator().manual_seed(1)
        return model(torch.randn(2, 3, 16, 16, generator=g), torch.tensor([0.2, 0.7]), torch.tensor([0, 1]))

    assert out(**changes).shape == (2, 3, 16, 16) and not torch.allclose(out(**changes), out())


def test_gated_mlps_have_as_many_parameters() -> None:
    plain, gated = (BackboneConfig(width=96, depth=1, heads=2, mlp=kind) for kind in ("gelu", "swiglu"))
    count = [
        architectures.create("adaln", c, image_size=8, in_channels=3, prompt=Labels(3)).parameter_split()["backbone"]
        for c in (plain, gated)
    ]
    assert abs(count[0] - count[1]) < 0.005 * count[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 33}, "33 is not divisible by 4 heads"),
        ({"width": 18, "heads": 2}, "width divisible by 4, got 18"),
        ({"width": 24, "heads": 4, "positions": "rope"}, "head width divisible by 4, got 6"),
        ({"mlp": "relu"}, "'relu': choose gelu, swiglu, geglu"),
        ({"positions": "none"}, r"'none': choose sincos, sincos\(16\), random, learned, rope"),
        ({"positions": "sincos(x)"}, "choose sincos.*did you mean 'sincos'"),
        ({"positions": "sincos(1)"}, "the base is above 1"),
        ({"width": 18, "heads": 2, "positions": "sincos(16)"}, "width divisible by 4, got 18"),
        ({"depth": 0}, "depth must be at least 1"),
    ],
)
def test_refused(changes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BackboneConfig(**changes)


def test_names_and_images_that_do_not_fit() -> None:
    for name in ("DiT-M/2", "S/2", "DiT-M", "DiT-S/", "DiT-S/x"):
        with pytest.raises(ValueError, match="XS, S, B, L, XL"):
            BackboneConfig.named(name)
    with pytest.raises(ValueError, match="'DiT-S' has no patch, which only a task gives: choose DiT-S/2 or another"):
        BackboneConfig.named("DiT-S")
    assert BackboneConfig.named("DiT-S", patch=1) == BackboneConfig.named("DiT-S/1")
    with pytest.raises(ValueError, match="image size 30 is not divisible by the patch 4"):
        architectures.create("adaln", "DiT-XS/4", image_size=30, in_channels=3, prompt=Labels(3))


PUBLISHED_GMAC = {  # Table 4 of the DiT paper, whose "Gflops" are multiply-adds: patch 8, 4, 2
    "S": (0.36, 1.41, 6.06),
    "B": (1.42, 5.56, 23.01),
    "L": (5.01, 19.70, 80.71),
    "XL": (7.39, 29.05, 118.64),
}


@pytest.mark.thorough
@pytest.mark.parametrize("size", PUBLISHED_GMAC)
def test_macs_are_the_published_ones(size: str) -> None:
    """Within 0.1 %, or half a unit of the last printed digit and what the norms add."""
    for patch, published in zip((8, 4, 2), PUBLISHED_GMAC[size], strict=True):
        found = counted("adaln-zero", f"DiT-{size}/{patch}")[1]
        assert abs(found - published) <= max(0.001 * published, 0.0055), (patch, found, published)


VARIED: list[dict[str, Any]] = [
    {"bias": False},
    {"kv_heads": 1},
    {"attention_gate": True},
    {"parallel": True},
    {"bias": False, "kv_heads": 1, "attention_gate": True, "mlp": "swiglu", "positions": "rope"},
]


@pytest.mark.parametrize("changes", VARIED, ids=str)
@pytest.mark.parametrize("scheme", architectures.schemes())
def test_every_scheme_is_built_on_every_backbone(scheme: str, changes: dict[str, Any]) -> None:
    """Outputs are finite, every parameter learns, padding is hidden, and what differs is the backbone's."""
    config, subject = laws.CONFIG.with_changes(**changes), laws.SchemeUnderTest(scheme)
    if changes == {"parallel": True} and scheme == "hdm":
        with pytest.raises(ValueError, match="'hdm': backbone parallel: blocks that carry what they modulate"):
            subject.build(laws.FEATURES, config=config)
        return
    model, (x, t, prompt) = subject.random(laws.FEATURES, config=config), subject.inputs(laws.FEATURES)
    out = model(x, t, prompt)
    out.square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    silent = [n for n in silent if not n.startswith("prompt.null")]
    assert out.isfinite().all() and not silent
    hidden = prompt._replace(tokens=torch.where(prompt.mask[..., None], prompt.tokens, 9.0))
    assert torch.allclose(model(x, t, hidden), out, atol=1e-4 * float(out.abs().max().clamp(min=1)))
    usual, own = subject.build(laws.FEATURES).parameter_split(), model.parameter_split()
    assert own["modulation"] == usual["modulation"] and own["scheme"] == usual["scheme"]
    assert (own["backbone"] == usual["backbone"]) == (changes == {"parallel": True})
    if not changes.get("bias", True):
        names = [
            n for n, _ in model.named_parameters() if n.startswith("blocks.") and ".op." in n and n.endswith("bias")
        ]
        assert not names


@pytest.mark.parametrize("scheme", ["adaln-zero", "cross-attention", "sd3", "static-text", "lumina2"])
def test_an_mlp_in_parallel_reads_what_the_attention_reads(scheme: str) -> None:
    """Without its attention (and cross-attention) a block is the same in parallel and in turn; with it, it is not."""
    subject, kind = laws.SchemeUnderTest(scheme), laws.FEATURES
    beside, after = (subject.random(kind, config=laws.CONFIG.with_changes(parallel=p)) for p in (True, False))
    after.load_state_dict(beside.state_dict())
    x, t, prompt = subject.inputs(kind)
    assert not torch.allclose(beside(x, t, prompt), after(x, t, prompt), atol=1e-3)
    assert any("_0)" in line for line in beside.blocks[0].equations()) and "_0" not in repr(after.blocks[0])
    for model in (beside, after):
        for name, parameter in model.named_parameters():
            if ".op.out." in name:
                torch.nn.init.zeros_(parameter)
    assert torch.allclose(beside(x, t, prompt), after(x, t, prompt), atol=1e-5)


def test_a_block_in_parallel_is_the_sum_of_both_branches() -> None:
    """x + g1 SA(u1) + g2 MLP(u2), each of its own vectors, written out (ViT-22B's form with adaLN-Zero's vectors)."""
    subject, config = laws.SchemeUnderTest("adaln-zero"), laws.CONFIG.with_changes(parallel=True)
    model, (x, t, prompt) = subject.random(laws.LABELS, config=config), subject.inputs(laws.LABELS)
    h, c = model.patches(architectures.layers.patchify(x, model.patch)), model.condition(t, prompt)
    block = model.blocks[0]
    b1, s1, g1, b2, s2, g2 = (v[:, None] for v in block.head.affine(c.modulation).chunk(6, dim=-1))
    u = F.layer_norm(h, h.shape[-1:], eps=1e-6)
    due = h + g1 * block.attention.op(u * (1 + s1) + b1) + g2 * block.mlp.op(u * (1 + s2) + b2)
    assert torch.allclose(block(h, c), due, atol=1e-5)


def test_grouped_queries_are_queries_whose_keys_are_repeated() -> None:
    grouped, full = SelfAttention(8, 4, kv_heads=2), SelfAttention(8, 4)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("weight", "bias"):
            q, k, v = getattr(grouped.qkv, name).split([8, 4, 4])
            k, v = (u.unflatten(0, (2, 2)).repeat_interleave(2, dim=0).flatten(0, 1) for u in (k, v))
            getattr(full.qkv, name).copy_(torch.cat([q, k, v]))
        full.out.load_state_dict(grouped.out.state_dict())
        assert torch.allclose(grouped(x), full(x), atol=1e-6)
        full.qkv.bias[-8:].add_(1)
        assert not torch.allclose(grouped(x), full(x), atol=1e-3)
    with pytest.raises(ValueError, match="backbone kv_heads 3: choose a divisor of its 4 heads"):
        BackboneConfig(width=32, heads=4, kv_heads=3)


def test_a_gated_attention_with_a_gate_of_a_half_is_half_of_it() -> None:
    gated, plain = SelfAttention(8, 2, gated=True), SelfAttention(8, 2)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gate.")})
        gated.gate.weight.zero_()  # sigmoid 0 = 1 / 2
        assert torch.allclose(gated(x) - gated.out.bias, (plain(x) - plain.out.bias) / 2, atol=1e-6)
        gated.gate.weight.normal_(generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(gated(x) - gated.out.bias, (plain(x) - plain.out.bias) / 2, atol=1e-3)


@pytest.mark.parametrize("positions", ["rope", "sincos"])
def test_a_timestep_that_is_added_is_not_rounded_with_the_tokens(positions: str) -> None:
    """Without positions to add, both came in bf16 and so did their sum, of a stream that is stated to be fp32."""
    config = laws.CONFIG.with_changes(positions=positions)
    subject = laws.SchemeUnderTest("adaln-zero", {"time": "added"})
    model, (x, t, prompt) = subject.random(config=config), subject.inputs()
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, h: entered.append(h[0]))
    with torch.autocast("cpu", torch.bfloat16):
        model(x, t, prompt)
        tokens, e_t = model.patches(patchify(x, model.patch)), model.time(t)
    whole = tokens.float() + getattr(model, "positions", torch.zeros(())) + e_t.float()[:, None]
    assert entered[0].dtype == torch.float32
    assert torch.allclose(entered[0], whole, rtol=0, atol=1e-6)
    assert not torch.allclose(entered[0].bfloat16().float(), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_in_float32_under_its_autocast(masked: bool) -> None:
    """In bf16 its backward pass takes five times as long there; what it reads was rounded by the layers before."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g).bfloat16().requires_grad_() for n in (5, 7, 7))
    mask = (torch.arange(7) < torch.tensor([[4], [7]])) if masked else None
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v, mask)
    assert found.dtype == torch.float32
    found.sum().backward()
    whole = [one.detach().float().requires_grad_() for one in (q, k, v)]
    expected = attend(*whole, mask)
    expected.sum().backward()
    assert torch.equal(found, expected)
    for one, other in zip((q, k, v), whole, strict=True):
        assert other.grad is not None and one.grad is not None
        assert torch.equal(one.grad, other.grad.bfloat16())
