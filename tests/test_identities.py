"""What ties schemes to each other, for random weights: each identity, and a change that must break it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from architectures.layers import MLP, LayerNorm, SelfAttention
from architectures.modulation import Bottleneck, ModulationLinear, PerBlock, zeros
from architectures.streams import DualBlock, JoinedBlock
from architectures.sublayer import (
    LINEAR,
    PLAIN,
    Adaptive,
    Block,
    Condition,
    Context,
    SubLayer,
    Vectors,
    joint_mask,
    no_context,
    parse_gate,
)

D, H = 16, 2
BRANCH = Adaptive("scale+shift", LINEAR)
seeds = given(seed=st.integers(0, 10_000))
few = settings(max_examples=10, deadline=None)


def randomised(module: nn.Module, g: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2, generator=g)
    return module


def gaussian(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def sublayer(op: nn.Module, adaptive: Adaptive, context: Context = no_context) -> SubLayer:
    return SubLayer(op=op, norm=LayerNorm(D), modulation=adaptive.modulation, gate=adaptive.gate, context=context)


def block(adaptive: Adaptive = BRANCH, *, head: bool = True) -> Block:
    return Block(
        PerBlock(D, [adaptive, adaptive]).head() if head else None,
        attention=sublayer(SelfAttention(D, H), adaptive if head else PLAIN, joint_mask),
        mlp=sublayer(MLP(D), adaptive if head else PLAIN),
    )


def copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


class Projected(Bottleneck):
    """W_i (V c + v) + b_i, V: D -> r: a bottleneck without an activation."""

    def trunk(self):
        return ModulationLinear(self.channels, self.rank)


@seeds
@few
def test_in_context_is_adaln_zero_without_its_head_on_a_longer_sequence(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    modulated, plain = block(), block(head=False)
    randomised(plain, g)
    copy(plain.attention, modulated.attention)
    copy(plain.mlp, modulated.mlp)
    affine = modulated.head.affine  # type: ignore[union-attr]
    with torch.no_grad():
        affine.weight.zero_()
        affine.bias.copy_(torch.tensor([0.0, 0.0, 1.0] * 2)[:, None].expand(-1, D).flatten())
    z, c = gaussian(g, 2, 7, D), Condition(modulation=gaussian(g, 2, D))
    assert same(modulated(z, c), plain(z, c))
    with torch.no_grad():
        affine.bias[:D] += 0.5  # a shift
    assert not same(modulated(z, c), plain(z, c))


@seeds
@few
def test_two_streams_with_tied_weights_are_one_sequence(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    one = randomised(block(), g)
    two = DualBlock(
        PerBlock(D, [BRANCH, BRANCH]).head(),
        PerBlock(D, [BRANCH, BRANCH]).head(),
        attention=sublayer(SelfAttention(D, H), BRANCH, joint_mask),
        mlp=sublayer(MLP(D), BRANCH),
        text_attention=sublayer(SelfAttention(D, H), BRANCH),
        text_mlp=sublayer(MLP(D), BRANCH),
    )
    for mine, theirs in (("head", "head"), ("attention", "attention"), ("mlp", "mlp")):
        copy(getattr(one, mine), getattr(two, theirs))
        copy(getattr(one, mine), getattr(two, f"text_{theirs}"))
    x, y, m = gaussian(g, 2, 5, D), gaussian(g, 2, 3, D), gaussian(g, 2, D)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 6:] = False
    joined = one(torch.cat([x, y], 1), Condition(modulation=m, mask=mask))
    streams = two((x, y), Condition(modulation=m, text=m, mask=mask))
    assert same(torch.cat(streams, 1), joined)
    with torch.no_grad():
        two.text_mlp.op.down.bias += 0.5  # untied
    assert not same(torch.cat(two((x, y), Condition(modulation=m, text=m, mask=mask)), 1), joined)


@seeds
@few
def test_flux_s_single_block_is_attention_beside_the_mlp_with_one_triple(seed: int) -> None:
    """One branch at a time it is adaLN-Zero's sub-layer; both together are the sum of both branches."""
    g = torch.Generator().manual_seed(seed)
    made = JoinedBlock(
        PerBlock(D, [BRANCH]).head(),
        attention=sublayer(SelfAttention(D, H), BRANCH, joint_mask),
        mlp=SubLayer(MLP(D)),
    )
    randomised(made, g)
    z, vector = gaussian(g, 2, 7, D), gaussian(g, 2, D)
    c = Condition(joint=vector)
    (m,) = made.head(vector)
    attention = made.attention(z, c, m) - z
    alone = sublayer(made.mlp.op, BRANCH)
    mlp = alone(z, c, m) - z
    assert same(made(z, c), z + attention + mlp)
    in_turn = alone(z + attention, c, m)  # serial, as in adaLN-Zero, it is another network
    assert not same(made(z, c), in_turn)


@seeds
@few
def test_z_image_s_head_is_a_per_block_head_on_a_narrow_vector(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    narrow = Projected(D, [BRANCH, BRANCH], zeros, 4)
    trunk, head = randomised(narrow.trunk(), g), randomised(narrow.head(), g)
    c = gaussian(g, 3, D)
    wanted = nn.functional.linear(trunk(c), head.affine.weight, head.affine.bias)  # type: ignore[union-attr, arg-type]
    got = torch.cat([v for m in head(trunk(c)) for v in m if v is not None], -1)
    assert same(got, wanted)
    silu = nn.functional.linear(nn.functional.silu(trunk(c)), head.affine.weight, head.affine.bias)  # type: ignore
    assert not same(got, silu)  # the activation that Lumina 2.0 has


@seeds
@few
def test_one_plus_g_is_g_with_a_bias_of_one(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    plus, plain = block(Adaptive("scale+shift", parse_gate("one+zero"))), block()
    randomised(plus, g)
    copy(plus, plain)
    z, c = gaussian(g, 2, 7, D), Condition(modulation=gaussian(g, 2, D))
    assert not same(plus(z, c), plain(z, c))
    with torch.no_grad():
        bias = plain.head.affine.bias.view(6, D)  # type: ignore[union-attr]
        bias[2] += 1
        bias[5] += 1
    assert same(plus(z, c), plain(z, c))


@seeds
@few
def test_hdm_s_stack_and_one_norm_are_a_post_norm_stack(seed: int) -> None:
    """z = RMS(x) obeys z <- RMS(z + F(z)), with u carried; with x carried it does not."""
    g = torch.Generator().manual_seed(seed)
    ops = [randomised(MLP(D), g) for _ in range(3)]
    norm = nn.RMSNorm(D, eps=1e-6)

    def stack(carry_u: bool) -> Tensor:
        keep = (lambda x, u: u) if carry_u else (lambda x, u: x)
        x = start
        for op in ops:
            x = SubLayer(op=op, norm=norm, carry=keep)(x, Condition(), Vectors())
        return norm(x)

    start = gaussian(g, 2, 7, D)
    post = norm(start)
    for op in ops:
        post = norm(post + op(post))
    assert same(stack(True), post)
    assert not same(stack(False), post)
