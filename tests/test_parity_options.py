"""Options against diffusers' own modules, in float32, outputs and gradients, with every parameter random.

Each comparison has a twin that must fail.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from test_parity import CONFIG, D, H, Ours, compare, put, put_streams
from torch import Tensor, nn

import architectures
from architectures import BackboneConfig, Labels
from architectures.placement import Approximate
from architectures.prompt import Encoded

pytest.importorskip("diffusers")

GATED = CONFIG.with_changes(mlp="swiglu", mlp_ratio=4.5, qk_norm=True)  # three times D hidden channels


def made(scheme: str, config: BackboneConfig = GATED, **options: Any) -> Any:
    model = architectures.create(scheme, config, image_size=8, in_channels=4, prompt=Labels(7), seed=0, **options)
    return randomised(model)


def streams() -> tuple[Tensor, Tensor, Tensor]:
    """x (3, 16, D), y (3, 5, D), c (3, 1, D), which take gradients."""
    x, y, c = (gaussian(3, n, D, seed=s).requires_grad_() for n, s in ((16, 3), (5, 4), (1, 5)))
    return x, y, c


def passed(model: Any, x: Tensor, y: Tensor, c: Tensor, mask: Tensor | None = None, zero: Tensor | None = None) -> Any:
    """What the blocks make of x, of the prompt's tokens y and of the embedded timestep c, and t = 0."""
    condition = model.scheme.embed(c[:, 0], Encoded(y, mask, torch.zeros(len(x), D), zero))
    h = model.scheme.enter(x, condition)
    for block in model.blocks:
        h = block(h, condition)
    return h


# --- a head for all blocks: FLUX.2 ------------------------------------------------------------------------------------


class Flux2(nn.Module):
    """diffusers' blocks of FLUX.2, modulated by its three heads, with our weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from diffusers.models.transformers import transformer_flux2 as theirs

        self.heads = nn.ModuleList(theirs.Flux2Modulation(D, count, bias=True) for count in (2, 2, 1))
        for trunk, head in zip(model.scheme.trunks, self.heads, strict=True):
            put(trunk, head.linear)
        first, *rest = model.blocks
        self.two = theirs.Flux2TransformerBlock(D, H, D // H, bias=True)
        put_streams(first, self.two.attn)
        for own, other in ((first.mlp.op, self.two.ff), (first.text_mlp.op, self.two.ff_context)):
            put(own.up, other.linear_in)
            put(own.down, other.linear_out)
        self.ones = nn.ModuleList(theirs.Flux2SingleTransformerBlock(D, H, D // H, bias=True) for _ in rest)
        with torch.no_grad():
            for block, one in zip(rest, self.ones, strict=True):
                op, mlp, attn = block.attention.op, block.mlp.op, one.attn
                attn.to_qkv_mlp_proj.weight.copy_(torch.cat([op.qkv.weight, mlp.up.weight]))
                attn.to_qkv_mlp_proj.bias.copy_(torch.cat([op.qkv.bias, mlp.up.bias]))
                attn.to_out.weight.copy_(torch.cat([op.out.weight, mlp.down.weight], dim=1))
                attn.to_out.bias.copy_(op.out.bias + mlp.down.bias)
                attn.norm_q.weight.copy_(op.q_norm.weight)
                attn.norm_k.weight.copy_(op.k_norm.weight)

    def forward(self, x: Tensor, y: Tensor, c: Tensor, order: tuple[int, int] = (0, 1)) -> Tensor:
        """The image's tokens; `order`: which head is of the image, which of the prompt."""
        image, text, joint = (head(c[:, 0]) for head in self.heads)
        pair = (image, text)
        y, x = self.two(x, y, *(pair[k] for k in order))
        z = torch.cat([y, x], dim=1)
        for one in self.ones:
            z = one(z, None, joint)
        return z[:, y.shape[1] :]


def test_a_shared_head_of_each_kind_of_stream_is_flux_2s() -> None:
    """M_img, M_txt and M_single, each the same in every block, in whole blocks of FLUX.2."""
    model = made("flux", head="shared")
    other, (x, y, c) = Flux2(model), streams()
    mine = passed(model, x, y, c)[:, :16]
    pairs = [(a.weight, b.linear.weight) for a, b in zip(model.scheme.trunks, other.heads, strict=True)]
    compare(mine, other(x, y, c), [x, y, c], pairs)
    assert not torch.allclose(mine, other(x, y, c, (1, 0)), atol=1e-3), "the two streams' heads are one another's"
    own = made("flux")  # a map of each block's own has no such weights
    assert not any(name.startswith("scheme.trunks") for name, _ in own.named_parameters())


# --- an approximator: Chroma ------------------------------------------------------------------------------------------


def chroma(model: Approximate, layers: int) -> Any:
    """diffusers' approximator with our weights."""
    from diffusers.models.transformers.transformer_chroma import ChromaApproximator

    other = ChromaApproximator(64, D, 24, layers)
    put(model.up, other.in_proj)
    put(model.out, other.out_proj)
    with torch.no_grad():
        for own, mlp, norm in zip(model.layers, other.layers, other.norms, strict=True):
            norm.weight.copy_(own[0].weight)
            put(own[1], mlp.linear_1)
            put(own[3], mlp.linear_2)
    return other


def test_an_approximator_is_chromas() -> None:
    """The vectors of all blocks and what they do in them; c is their sinusoids of t and of no guidance."""
    from diffusers.models.transformers.transformer_chroma import ChromaCombinedTimestepTextProjEmbeddings

    model = made("adaln-zero", head="approximator(24, 2)")
    trunk, count = model.scheme.trunk, 6 * len(model.blocks)
    other = chroma(trunk, 2)
    inputs = ChromaCombinedTimestepTextProjEmbeddings(16, count)(torch.tensor([20.0, 500.0, 990.0]))
    c = inputs[:, 0, :32].clone().requires_grad_()
    mine = trunk(c)
    theirs = other(torch.cat([c[:, None].expand(-1, count, -1), inputs[..., 32:]], dim=-1))
    pairs = [
        (trunk.up.weight, other.in_proj.weight),
        (trunk.out.weight, other.out_proj.weight),
    ]
    pairs += [(a[1].weight, b.linear_1.weight) for a, b in zip(trunk.layers, other.layers, strict=True)]
    compare(mine, theirs, [c], pairs)
    for k, block in enumerate(model.blocks):  # as their blocks take them: six of each, in order
        given = torch.cat([v for m in block.head(mine) for v in m if v is not None], dim=-1)
        assert torch.equal(given, mine[:, 6 * k : 6 * k + 6].flatten(1))
    assert not torch.allclose(mine, other(inputs.flip(1)), atol=1e-3), "the numbers of the vectors matter"


# --- a prompt at t = 0 that does not see the image: Qwen-Image-2.1 ----------------------------------------------------


def without_biases(model: Any) -> Any:
    """The blocks' attention and MLP with biases of zero: theirs have none."""
    with torch.no_grad():
        for name, parameter in model.blocks.named_parameters():
            if ".op." in name and name.endswith("bias"):
                parameter.zero_()
    return model


def qwen_block(block: Any) -> Any:
    """diffusers' block of Qwen-Image-2.1 with our weights."""
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21TransformerBlock

    other, op, mlp = QwenImage21TransformerBlock(D, H, D // H), block.attention.op, block.mlp.op
    with torch.no_grad():
        for linear, weight in zip(
            (other.attn.to_q, other.attn.to_k, other.attn.to_v), op.qkv.weight.chunk(3), strict=True
        ):
            linear.weight.copy_(weight)
        for linear, weight in zip((other.img_mlp.gate_layer, other.img_mlp.proj), mlp.up.weight.chunk(2), strict=True):
            linear.weight.copy_(weight)
        other.attn.to_out[0].weight.copy_(op.out.weight)
        other.img_mlp.out.weight.copy_(mlp.down.weight)
        other.attn.norm_q.weight.copy_(op.q_norm.weight)
        other.attn.norm_k.weight.copy_(op.k_norm.weight)
    return other


@pytest.mark.parametrize("padded", [False, True])
def test_a_blind_prompt_at_t_zero_is_qwen_image_21s(padded: bool) -> None:
    """All blocks: one head for all, its row of t = 0 on the prompt's tokens, which see one another alone.

    There a caption's tokens are causal, and those of a reference image see one another, as our prompt's do.
    """
    options = dict(head="shared", norm="layer", post="none", prompt_time="zero", prompt_sees_image="no")
    model = without_biases(made("lumina2", **options))
    blocks = nn.ModuleList(qwen_block(block) for block in model.blocks)
    (x, y, c), zero = streams(), gaussian(1, D, seed=8).requires_grad_()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]) if padded else None

    def theirs(rows: Tensor, segments: list[tuple[int, int, bool]]) -> Tensor:
        z, target = torch.cat([y, x], dim=1), torch.arange(21) >= 5
        valid = None if mask is None else torch.cat([mask, mask.new_ones(3, 16)], dim=1)
        for block in blocks:
            z = block(z, rows, target_token_mask=target, segments=segments, key_valid=valid)
        return z[:, 5:]

    rows = torch.cat([model.scheme.trunk(c[:, 0]), model.scheme.trunk(zero)])
    mine = passed(model, x, y, c, mask, zero)[:, :16]
    pairs = [(a.attention.op.out.weight, b.attn.to_out[0].weight) for a, b in zip(model.blocks, blocks, strict=True)]
    pairs += [(a.mlp.op.down.weight, b.img_mlp.out.weight) for a, b in zip(model.blocks, blocks, strict=True)]
    blind = theirs(rows, [(0, 5, False)])
    compare(mine, blind, [x, y, c, zero], pairs)
    assert not torch.allclose(mine, theirs(rows.roll(1, 0), [(0, 5, False)]), atol=1e-3), "another t's rows"
    assert not torch.allclose(mine, theirs(rows, [(0, 5, True)]), atol=1e-3), "a causal prompt"
    seeing = without_biases(made("lumina2", **options | dict(prompt_sees_image="yes")))
    assert not torch.allclose(passed(seeing, x, y, c, mask, zero)[:, :16], blind, atol=1e-3)


# --- keys and values of a text that is never updated: PRX -------------------------------------------------------------


def prx_block(block: Any) -> Any:
    """diffusers' block of PRX with our weights, its GELU ours."""
    from diffusers.models.transformers.transformer_prx import PRXBlock

    other, op, mlp = PRXBlock(D, H), block.attention.op, block.mlp.op
    put(block.head.affine, other.modulation.lin)
    other.mlp_act = nn.GELU()
    with torch.no_grad():
        other.attention.img_qkv_proj.weight.copy_(op.qkv.weight)
        other.attention.txt_kv_proj.weight.copy_(block.text.kv.weight)
        other.attention.to_out[0].weight.copy_(op.out.weight)
        other.attention.norm_q.weight.copy_(op.q_norm.weight)
        other.attention.norm_k.weight.copy_(op.k_norm.weight)
        other.attention.norm_added_k.weight.copy_(block.text.k_norm.weight)
        gate, up = mlp.up.weight.chunk(2)
        other.gate_proj.weight.copy_(gate)
        other.up_proj.weight.copy_(up)
        other.down_proj.weight.copy_(mlp.down.weight)
    return other


@pytest.mark.parametrize("padded", [False, True])
def test_static_text_is_prx(padded: bool) -> None:
    """All blocks in turn; theirs have no biases."""
    model = without_biases(made("static-text", CONFIG.with_changes(mlp="geglu", mlp_ratio=6.0, qk_norm=True)))
    with torch.no_grad():
        for block in model.blocks:
            block.text.kv.bias.zero_()
    blocks, (x, y, c) = [prx_block(block) for block in model.blocks], streams()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]) if padded else None

    def theirs(tokens: Tensor, seen: Tensor | None) -> Tensor:
        h = x
        for block in blocks:
            h = block(h, tokens, c[:, 0], None, seen)
        return h

    mine = passed(model, x, y, c, mask)
    pairs = [
        (a.attention.op.qkv.weight, b.attention.img_qkv_proj.weight) for a, b in zip(model.blocks, blocks, strict=True)
    ]
    pairs += [(a.text.kv.weight, b.attention.txt_kv_proj.weight) for a, b in zip(model.blocks, blocks, strict=True)]
    compare(mine, theirs(y, mask), [x, y, c], pairs)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    assert not torch.allclose(mine, theirs(y, hidden), atol=1e-3) and not torch.allclose(
        mine, theirs(y * 1.1, mask), atol=1e-3
    )


# --- cross-attention with shift, scale and gate: Kandinsky 5 ----------------------------------------------------------


class Rotated(Ours):
    """The same where theirs takes the text second, or none."""

    def forward(self, x: Tensor, encoder_hidden_states: Tensor | None = None, *unused: Any, **more: Any) -> Tensor:
        return self.op(x) if encoder_hidden_states is None else self.op(x, encoder_hidden_states)


def test_a_modulated_cross_attention_is_kandinskys() -> None:
    """Its decoder's block, nine vectors of one map, around our attentions and MLP."""
    from diffusers.models.transformers.transformer_kandinsky import Kandinsky5TransformerDecoderBlock

    model, (x, y, c) = made("adaln-zero-cross", CONFIG, cross="modulated"), streams()
    blocks = []
    for block in model.blocks:
        other = Kandinsky5TransformerDecoderBlock(D, D, 4 * D, D // H)
        put(block.head.affine, other.visual_modulation.out_layer)
        other.self_attention, other.cross_attention = Rotated(block.attention.op), Rotated(block.cross.op)
        other.feed_forward = block.mlp.op
        for norm in (other.self_attention_norm, other.cross_attention_norm, other.feed_forward_norm):
            norm.eps = 1e-6  # ours, the backbone's; theirs is 1e-5
        blocks.append(other)

    def theirs() -> Tensor:
        h = x
        for block in blocks:
            h = block(h, y, c[:, 0], None, None)
        return h

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    mine = x
    for block in model.blocks:
        mine = block(mine, condition)
    pairs = [
        (a.head.affine.weight, b.visual_modulation.out_layer.weight) for a, b in zip(model.blocks, blocks, strict=True)
    ]
    compare(mine, theirs(), [x, y, c], pairs)
    with torch.no_grad():
        for other in blocks:  # the cross-attention's three for the MLP's
            linear = other.visual_modulation.out_layer
            linear.weight.copy_(torch.cat([linear.weight.chunk(3)[k] for k in (0, 2, 1)]))
    assert not torch.allclose(mine, theirs(), atol=1e-3)


# --- one head for all blocks of a single stream: Krea 2, ERNIE-Image -------------------------------------------------


def krea_block(block: Any) -> Any:
    """diffusers' block of Krea 2 with our table and norms, around our attention and MLP."""
    from diffusers.models.transformers.transformer_krea2 import Krea2TransformerBlock

    other = Krea2TransformerBlock(D, 4 * D, H, H, 1e-5)
    other.attn, other.ff = Ours(block.attention.op), block.mlp.op
    with torch.no_grad():
        other.scale_shift_table.copy_(scale_first(block.head.affine.table.view(6, D)))
        other.norm1.weight.copy_(block.attention.norm.weight - 1)  # theirs is 1 + weight
        other.norm2.weight.copy_(block.mlp.norm.weight - 1)
    return other


def scale_first(vectors: Tensor) -> Tensor:
    """Six vectors (..., 6, D) of ours, shift, scale, gate twice, in the order of Krea 2."""
    return vectors[..., [1, 0, 2, 4, 3, 5], :]


def test_a_table_over_one_head_is_krea_2s() -> None:
    model, (x, y, c) = made("krea2", CONFIG), streams()
    blocks = [krea_block(block) for block in model.blocks]

    def theirs(order: Any) -> Tensor:
        h, vectors = torch.cat([x, y], dim=1), order(model.scheme.trunk(c[:, 0]).unflatten(-1, (6, D)))
        for block in blocks:
            h = block(h, vectors.flatten(1)[:, None], None)
        return h[:, :16]

    mine = passed(model, x, y, c)[:, :16]
    compare(mine, theirs(scale_first), [x, y, c], [])
    assert not torch.allclose(mine, theirs(lambda vectors: vectors), atol=1e-3), "shifts for scales"


def test_one_head_for_a_single_stream_is_ernie_images() -> None:
    from diffusers.models.transformers.transformer_ernie_image import ErnieImageSharedAdaLNBlock

    model, (x, y, c) = made("ernie-image", CONFIG), streams()
    blocks = []
    for block in model.blocks:
        other = ErnieImageSharedAdaLNBlock(D, H, 4 * D, eps=1e-5)
        other.self_attention, other.mlp = Ours(block.attention.op), block.mlp.op
        with torch.no_grad():
            other.adaLN_sa_ln.weight.copy_(block.attention.norm.weight)
            other.adaLN_mlp_ln.weight.copy_(block.mlp.norm.weight)
        blocks.append(other)

    def theirs(roll: int = 0) -> Tensor:
        h, vectors = torch.cat([x, y], dim=1).transpose(0, 1), model.scheme.trunk(c[:, 0]).chunk(6, -1)
        vectors = vectors[roll:] + vectors[:roll]
        for block in blocks:
            h = block(h, None, tuple(vector[None] for vector in vectors))
        return h.transpose(0, 1)[:, :16]

    mine = passed(model, x, y, c)[:, :16]
    compare(mine, theirs(), [x, y, c], [])
    assert not torch.allclose(mine, theirs(3), atol=1e-3), "the MLP's vectors for the attention's"


# --- a norm with weights before the cross-attention: Wan -------------------------------------------------------------


def test_a_norm_before_the_cross_attention_is_wans() -> None:
    """Its block around our attentions and MLP, with our table and norm."""
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    model, (x, y, c) = made("wan", CONFIG), streams()
    blocks = []
    for block in model.blocks:
        other = WanTransformerBlock(D, 4 * D, H, cross_attn_norm=True)
        other.attn1, other.attn2, other.ffn = Rotated(block.attention.op), Rotated(block.cross.op), block.mlp.op
        put(block.cross.norm, other.norm2)
        with torch.no_grad():
            other.scale_shift_table.copy_(block.head.affine.table.view(1, 6, D))
        blocks.append(other)

    def theirs() -> Tensor:
        h, vectors = x, model.scheme.trunk(c[:, 0]).unflatten(-1, (6, D))
        for block in blocks:
            h = block(h, y, vectors, None)
        return h

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    mine = x
    for block in model.blocks:
        mine = block(mine, condition)
    pairs = [(a.cross.norm.weight, b.norm2.weight) for a, b in zip(model.blocks, blocks, strict=True)]
    pairs += [(a.head.affine.table, b.scale_shift_table) for a, b in zip(model.blocks, blocks, strict=True)]
    compare(mine, theirs(), [x, y, c], pairs)
    for other in blocks:
        other.norm2 = nn.Identity()  # PixArt's
    assert not torch.allclose(mine, theirs(), atol=1e-3)


@pytest.mark.parametrize("scheme", ["shared-modulation", "wan", "adaln-zero-cross", "ltx2", "flux", "auraflow"])
def test_blank_tokens_are_as_tokens_of_a_prompt_that_every_prompt_has(scheme: str) -> None:
    """Of unequal captions, whose masks they leave as they are; a twin without them differs."""
    model, plain = made(scheme, registers=2), made(scheme, registers=0)
    own = model.state_dict()
    blanks = own.pop("scheme.text_bank.tokens")
    plain.load_state_dict(own)
    x, y, c = streams()
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [True] + [False] * 4])
    longer = torch.cat([blanks.expand(3, -1, -1), y], dim=1), torch.cat([mask.new_ones(3, 2), mask], dim=1)
    mine, theirs, without = (
        passed(one, x, *given)[:, : x.shape[1]]
        for one, given in ((model, (y, c, mask)), (plain, (longer[0], c, longer[1])), (plain, (y, c, mask)))
    )
    assert torch.allclose(mine, theirs, atol=1e-6)
    assert not torch.allclose(mine, without, atol=1e-3)
