"""Schemes against an implementation nobody here wrote: diffusers, in float32, outputs and gradients.

Every parameter is sampled again first, since zero-initialised heads make every wrong modulation look right; and every
comparison has a twin that must fail.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from torch import Tensor, nn

import architectures
from architectures import BackboneConfig, Features, Labels
from architectures.layers import timestep_sinusoid
from architectures.prompt import Encoded
from architectures.sublayer import Condition

diffusers = pytest.importorskip("diffusers")

D, H, N, CLASSES = 32, 2, 3, 7
CONFIG = BackboneConfig(width=D, depth=N, heads=H, patch=2)


def ours(scheme: str, kind: Any = None, **options: Any) -> Any:
    model = architectures.create(
        scheme, CONFIG, image_size=8, in_channels=4, out_channels=8, prompt=kind or Labels(CLASSES), seed=0, **options
    )
    return randomised(model)


def put(source: nn.Linear, target: nn.Linear) -> None:
    """A Linear's weights into another; a convolution's shape is taken as it comes."""
    with torch.no_grad():
        target.weight.copy_(source.weight.reshape(target.weight.shape))
        if target.bias is not None:
            target.bias.copy_(source.bias)


def put_rows(source: nn.Linear, targets: list[nn.Linear]) -> None:
    """A fused Linear's groups of rows into several."""
    with torch.no_grad():
        for weight, bias, target in zip(
            source.weight.chunk(len(targets)), source.bias.chunk(len(targets)), targets, strict=True
        ):
            target.weight.copy_(weight)
            target.bias.copy_(bias)


def put_attention(source: Any, target: Any) -> None:
    if hasattr(source, "qkv"):
        put_rows(source.qkv, [target.to_q, target.to_k, target.to_v])
    else:
        put(source.q, target.to_q)
        put_rows(source.kv, [target.to_k, target.to_v])
    put(source.out, target.to_out[0])


def put_mlp(source: Any, target: Any) -> None:
    put(source.up, target.net[0].proj)
    put(source.down, target.net[2])


def compare(
    mine: Tensor, theirs: Tensor, inputs: list[Tensor], pairs: list[tuple[Tensor, Tensor]], tolerance: float = 1e-5
) -> None:
    """Outputs, and gradients with respect to the inputs and to pairs of parameters."""
    assert torch.allclose(mine, theirs, atol=tolerance), (mine - theirs).abs().max()
    weights = gaussian(*mine.shape, seed=9)
    own = torch.autograd.grad((mine * weights).sum(), [*inputs, *(a for a, _ in pairs)])
    other = torch.autograd.grad((theirs * weights).sum(), [*inputs, *(b for _, b in pairs)])
    for a, b in zip(own, other, strict=True):
        assert a.abs().max() > 0 and torch.allclose(
            a, b.reshape(a.shape), atol=tolerance * max(1.0, float(a.abs().max()))
        )


def attention_pairs(source: Any, target: Any) -> list[tuple[Tensor, Tensor]]:
    return [(source.out.weight, target.to_out[0].weight), (source.out.bias, target.to_out[0].bias)]


# --- in-context and cross-attention: the plain transformer block ----------------------------------------------------


def plain_blocks(model: Any, cross: bool, affine: bool = False) -> list[Any]:
    from diffusers.models.attention import BasicTransformerBlock

    made = []
    for block in model.blocks:
        other = BasicTransformerBlock(
            D,
            H,
            D // H,
            activation_fn="gelu-approximate",
            attention_bias=True,
            norm_type="layer_norm",
            norm_elementwise_affine=affine,
            norm_eps=1e-5 if affine else 1e-6,
            cross_attention_dim=D if cross else None,
        )
        put_attention(block.attention.op, other.attn1)
        put_mlp(block.mlp.op, other.ff)
        if affine:
            for own, theirs in ((block.attention, other.norm1), (block.cross, other.norm2), (block.mlp, other.norm3)):
                theirs.load_state_dict(own.norm.state_dict())
        if cross:
            put_attention(block.cross.op, other.attn2)
        made.append(other)
    return made


@pytest.mark.parametrize("scheme", ["in-context", "cross-attention", "ldm"])
def test_paper_schemes_are_the_standard_block(scheme: str) -> None:
    """The whole network: e_t and the label are tokens beside the image's, or the context of cross-attention."""
    cross = scheme != "in-context"
    model = ours(scheme)
    blocks = plain_blocks(model, cross, affine=scheme == "ldm")
    x, t, y = gaussian(3, 4, 8, 8).requires_grad_(), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 3, CLASSES])
    image = torch.nn.functional.conv2d(x, model.patches.weight.reshape(D, 4, 2, 2), model.patches.bias, stride=2)
    tokens = image.flatten(2).transpose(1, 2) + model.positions
    condition = torch.stack([model.time(t), model.prompt.table(y)], dim=1)

    def theirs(condition: Tensor) -> Tensor:
        h = tokens if cross else torch.cat([tokens, condition], dim=1)
        for block in blocks:
            h = block(h, encoder_hidden_states=condition if cross else None)
        h = torch.nn.functional.layer_norm(h[:, :16], (D,), eps=1e-6)
        h = model.head(h).reshape(3, 4, 4, 2, 2, 8)
        return torch.einsum("nhwpqc->nchpwq", h).reshape(3, 8, 8, 8)

    pairs = [p for a, b in zip(model.blocks, blocks, strict=True) for p in attention_pairs(a.attention.op, b.attn1)]
    compare(model(x, t, y), theirs(condition), [x], pairs)
    assert not torch.allclose(model(x, t, y), theirs(condition.flip(1) * 1.1), atol=1e-3)


# --- adaLN-Zero and adaLN: DiT --------------------------------------------------------------------------------------


def dit(model: Any, *, shift: float = 0) -> Any:
    """diffusers' DiT with our weights, its frequency shift set to the original's."""
    other = diffusers.DiTTransformer2DModel(
        num_attention_heads=H,
        attention_head_dim=D // H,
        in_channels=4,
        out_channels=8,
        num_layers=N,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
        attention_bias=True,
        activation_fn="gelu-approximate",
    ).eval()
    put(model.patches, other.pos_embed.proj)
    for own, block in zip(model.blocks, other.transformer_blocks, strict=True):
        embed = block.norm1.emb
        embed.time_proj.downscale_freq_shift = shift
        put(model.time.up, embed.timestep_embedder.linear_1)
        put(model.time.out, embed.timestep_embedder.linear_2)
        with torch.no_grad():
            embed.class_embedder.embedding_table.weight.copy_(model.prompt.table.weight)
        put(own.head.affine, block.norm1.linear)
        put_attention(own.attention.op, block.attn1)
        put_mlp(own.mlp.op, block.ff)
    put(model.scheme.final.head.affine, other.proj_out_1)
    put(model.head, other.proj_out_2)
    return other


def both_dits(model: Any, other: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, steps, y = gaussian(3, 4, 8, 8).requires_grad_(), torch.tensor([0, 500, 999]), torch.tensor([0, 3, CLASSES])
    return x, model(x, steps / 1000, y), other(x, timestep=steps, class_labels=y).sample


def test_adaln_zero_is_dit() -> None:
    model = ours("adaln-zero")
    other = dit(model)
    x, mine, theirs = both_dits(model, other)
    pairs = [(model.head.weight, other.proj_out_2.weight), (model.patches.weight, other.pos_embed.proj.weight)]
    for own, block in zip(model.blocks, other.transformer_blocks, strict=True):
        pairs += [
            (own.head.affine.weight, block.norm1.linear.weight),
            (own.mlp.op.up.weight, block.ff.net[0].proj.weight),
        ]
        pairs += attention_pairs(own.attention.op, block.attn1)
    compare(mine, theirs, [x], pairs)


def test_adaln_is_dit_with_its_gates_pinned_to_one() -> None:
    model, zero = ours("adaln"), ours("adaln-zero")
    with torch.no_grad():
        for own, block in zip(model.blocks, zero.blocks, strict=True):
            for name, gate in (("weight", 0.0), ("bias", 1.0)):
                b1, s1, b2, s2 = getattr(own.head.affine, name).chunk(4)
                g = torch.full_like(b1, gate)
                getattr(block.head.affine, name).copy_(torch.cat([b1, s1, g, b2, s2, g]))
        common = {k: v for k, v in model.state_dict().items() if not (k.startswith("blocks.") and ".head." in k)}
        zero.load_state_dict(common, strict=False)
    other = dit(zero)
    x, mine, theirs = both_dits(model, other)
    pairs = [
        (own.mlp.op.up.weight, block.ff.net[0].proj.weight)
        for own, block in zip(model.blocks, other.transformer_blocks, strict=True)
    ]
    compare(mine, theirs, [x], pairs)


@pytest.mark.parametrize("what", ["frequency shift", "scale and shift swapped", "gates swapped"])
def test_the_comparison_with_dit_can_fail(what: str) -> None:
    model = ours("adaln-zero")
    other = dit(model, shift=1 if what == "frequency shift" else 0)
    if what != "frequency shift":
        order = [1, 0, 2, 4, 3, 5] if what.startswith("scale") else [0, 1, 5, 3, 4, 2]
        with torch.no_grad():
            for block in other.transformer_blocks:
                linear = block.norm1.linear
                linear.weight.copy_(torch.cat([linear.weight.chunk(6)[k] for k in order]))
    _, mine, theirs = both_dits(model, other)
    assert (mine - theirs).abs().max() > 1e-3


def test_the_sinusoid_is_dits() -> None:
    from diffusers.models.embeddings import Timesteps

    steps = torch.tensor([0, 1, 500, 999])
    theirs = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(steps)
    assert torch.allclose(timestep_sinusoid(steps / 1000), theirs, atol=2e-4)  # 1000 t in float32


# --- shared modulation: PixArt --------------------------------------------------------------------------------------


def pixart(model: Any) -> Any:
    other = diffusers.PixArtTransformer2DModel(
        num_attention_heads=H,
        attention_head_dim=D // H,
        in_channels=4,
        out_channels=8,
        num_layers=N,
        cross_attention_dim=D,
        caption_channels=D,
        sample_size=8,
        patch_size=2,
        norm_eps=1e-6,
        use_additional_conditions=False,
        interpolation_scale=1,
    ).eval()
    put(model.patches, other.pos_embed.proj)
    put(model.time.up, other.adaln_single.emb.timestep_embedder.linear_1)
    put(model.time.out, other.adaln_single.emb.timestep_embedder.linear_2)
    put(model.scheme.trunk, other.adaln_single.linear)
    with torch.no_grad():
        for own, block in zip(model.blocks, other.transformer_blocks, strict=True):
            block.scale_shift_table.copy_(own.head.affine.table.reshape(6, D))
            put_attention(own.attention.op, block.attn1)
            put_attention(own.cross.op, block.attn2)
            put_mlp(own.mlp.op, block.ff)
        other.scale_shift_table.copy_(model.scheme.final.table.table.reshape(2, D))
    put(model.head, other.proj_out)
    other.caption_projection = nn.Identity()  # our prompt's tokens come ready made
    return other


class Ready(nn.Module):
    """A prompt encoder that hands on tokens and mask as they are."""

    def forward(self, prompt: tuple[Tensor, Tensor]) -> Encoded:
        return Encoded(prompt[0], prompt[1], prompt[0].mean(1))


@pytest.mark.parametrize("masked", [False, True])
def test_shared_modulation_is_pixart(masked: bool) -> None:
    model = ours("shared-modulation", Features(D, D, 5))
    other = pixart(model)
    model.prompt = Ready()
    x, steps, tokens = gaussian(3, 4, 8, 8).requires_grad_(), torch.tensor([0, 500, 999]), gaussian(3, 5, D, seed=2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    if masked:
        mask[1, 3:] = False
        mask[2, 1:] = False
    mine = model(x, steps / 1000, (tokens, mask))
    theirs = other(
        x,
        encoder_hidden_states=tokens,
        timestep=steps,
        encoder_attention_mask=mask.float() if masked else None,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
    ).sample
    pairs = [(model.head.weight, other.proj_out.weight), (model.scheme.trunk.weight, other.adaln_single.linear.weight)]
    pairs.append((model.scheme.final.table.table, other.scale_shift_table))
    for own, block in zip(model.blocks, other.transformer_blocks, strict=True):
        pairs += [(own.head.affine.table, block.scale_shift_table), *attention_pairs(own.cross.op, block.attn2)]
    compare(mine, theirs, [x], pairs)
    with torch.no_grad():
        other.transformer_blocks[0].scale_shift_table.copy_(other.transformer_blocks[0].scale_shift_table.flip(0))
    swapped = other(
        x, encoder_hidden_states=tokens, timestep=steps, added_cond_kwargs={"resolution": None, "aspect_ratio": None}
    ).sample
    assert not torch.allclose(mine, swapped, atol=1e-3)


# --- shift-free: Lumina-Image 2.0 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["shift-free", "lumina2"])
def test_its_modulation_is_luminas(scheme: str) -> None:
    """The block's modulation, norms and gates around our attention and MLP, by diffusers' own Lumina 2.0 parts."""
    from diffusers.models.normalization import LuminaLayerNormContinuous, LuminaRMSNormZero

    model = ours(scheme)
    c, x = gaussian(3, D, seed=3).requires_grad_(), gaussian(3, 16, D, seed=4).requires_grad_()
    trunk = model.scheme.trunk(c)
    condition = Condition(vector=c, modulation=trunk)
    own = model.blocks[0]

    def theirs() -> Tensor:
        zero = LuminaRMSNormZero(D, norm_eps=1e-5, norm_elementwise_affine=True)
        zero.linear = nn.Linear(D, 4 * D)  # it takes min(D, 1024) features; ours are D
        put(own.head.affine, zero.linear)
        norms = {n: diffusers.models.normalization.RMSNorm(D, eps=1e-5) for n in ("norm2", "ffn1", "ffn2")}
        with torch.no_grad():
            zero.norm.weight.copy_(own.attention.norm.weight)
            norms["norm2"].weight.copy_(own.attention.post.weight)
            norms["ffn1"].weight.copy_(own.mlp.norm.weight)
            norms["ffn2"].weight.copy_(own.mlp.post.weight)
        normed, gate_attention, scale_mlp, gate_mlp = zero(x, c)
        h = x + gate_attention.unsqueeze(1).tanh() * norms["norm2"](own.attention.op(normed))
        y = own.mlp.op(norms["ffn1"](h) * (1 + scale_mlp.unsqueeze(1)))
        h = h + gate_mlp.unsqueeze(1).tanh() * norms["ffn2"](y)
        final = LuminaLayerNormContinuous(D, D, elementwise_affine=False, eps=1e-6, bias=True, out_dim=None)
        put(model.scheme.final.head.affine, final.linear_1)
        return final(h, c)

    mine = model.scheme.leave(own(x, condition), condition)
    compare(mine, theirs(), [x, c], [])
    with torch.no_grad():
        own.attention.post.weight.mul_(1.5)
    assert not torch.allclose(mine, model.scheme.leave(own(x, condition), condition), atol=1e-3)


# --- SD3: two streams -----------------------------------------------------------------------------------------------


def joint_block(block: Any, last: bool) -> Any:
    """diffusers' joint block with our weights; its last text head reads (scale, shift), SD3's gives (shift, scale)."""
    from diffusers.models.attention import JointTransformerBlock

    other = JointTransformerBlock(D, H, D // H, context_pre_only=last)
    put(block.head.affine, other.norm1.linear)
    put_attention(block.attention.op, other.attn)
    put_mlp(block.mlp.op, other.ff)
    text = block.text_attention if last else block.text_attention.op
    put_rows(text.qkv, [other.attn.add_q_proj, other.attn.add_k_proj, other.attn.add_v_proj])
    if last:
        own = block.text_norm.head.affine
        with torch.no_grad():
            other.norm1_context.linear.weight.copy_(torch.cat(own.weight.chunk(2)[::-1]))
            other.norm1_context.linear.bias.copy_(torch.cat(own.bias.chunk(2)[::-1]))
    else:
        put(block.text_head.affine, other.norm1_context.linear)
        put(text.out, other.attn.to_add_out)
        put_mlp(block.text_mlp.op, other.ff_context)
    return other


def test_sd3_blocks_are_the_joint_blocks() -> None:
    """All blocks in turn, the last with its text side only read; unequal streams, gradients to both."""
    model = ours("sd3")
    x, y, c = (gaussian(3, n, D, seed=s).requires_grad_() for n, s in ((16, 3), (5, 4), (1, 5)))
    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    blocks = [joint_block(block, last=k == N - 1) for k, block in enumerate(model.blocks)]

    def theirs(scale: float = 1.0) -> Tensor:
        h, text = x, y * scale
        for block in blocks:
            text, h = block(h, text, c[:, 0])
        return h

    h = (x, y)
    for block in model.blocks:
        h = block(h, condition)
    pairs = [p for a, b in zip(model.blocks, blocks, strict=True) for p in attention_pairs(a.attention.op, b.attn)]
    pairs += [(model.blocks[k].text_attention.op.out.weight, blocks[k].attn.to_add_out.weight) for k in range(N - 1)]
    compare(h[0], theirs(), [x, y, c], pairs)
    assert not torch.allclose(h[0], theirs(1.1), atol=1e-3)
    own = model.blocks[-1].text_norm.head.affine  # without the swap of (shift, scale) it must fail
    with torch.no_grad():
        blocks[-1].norm1_context.linear.weight.copy_(own.weight)
    assert not torch.allclose(h[0], theirs(), atol=1e-3)


# --- FLUX and Qwen-Image: two streams, then one ----------------------------------------------------------------------

NORMED = CONFIG.with_changes(qk_norm=True)


def put_streams(block: Any, attn: Any) -> None:
    """Both streams' attention with normed queries and keys into diffusers' one module."""
    put_attention(block.attention.op, attn)
    text = block.text_attention.op
    put_rows(text.qkv, [attn.add_q_proj, attn.add_k_proj, attn.add_v_proj])
    put(text.out, attn.to_add_out)
    with torch.no_grad():
        for mine, theirs in (
            (block.attention.op.q_norm, attn.norm_q),
            (block.attention.op.k_norm, attn.norm_k),
            (text.q_norm, attn.norm_added_q),
            (text.k_norm, attn.norm_added_k),
        ):
            theirs.weight.copy_(mine.weight)


def streams_of(scheme: str, **options: Any) -> tuple[Any, Tensor, Tensor, Tensor, Any]:
    model = randomised(
        architectures.create(
            scheme, NORMED, image_size=8, in_channels=4, out_channels=8, prompt=Labels(CLASSES), seed=0, **options
        )
    )
    x, y, c = (gaussian(3, n, D, seed=s).requires_grad_() for n, s in ((16, 3), (5, 4), (1, 5)))
    return model, x, y, c, model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))


def test_flux_blocks_are_theirs() -> None:
    """A block of two streams, then blocks of one: theirs fuses the two output Linears of the parallel branch."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock

    model, x, y, c, condition = streams_of("flux")
    first, *rest = model.blocks
    two = FluxTransformerBlock(D, H, D // H)
    put(first.head.affine, two.norm1.linear)
    put(first.text_head.affine, two.norm1_context.linear)
    put_streams(first, two.attn)
    put_mlp(first.mlp.op, two.ff)
    put_mlp(first.text_mlp.op, two.ff_context)
    ones = []
    for block in rest:
        one = FluxSingleTransformerBlock(D, H, D // H)
        put(block.head.affine, one.norm.linear)
        op = block.attention.op
        put_rows(op.qkv, [one.attn.to_q, one.attn.to_k, one.attn.to_v])
        put(block.mlp.op.up, one.proj_mlp)
        with torch.no_grad():
            one.attn.norm_q.weight.copy_(op.q_norm.weight)
            one.attn.norm_k.weight.copy_(op.k_norm.weight)
            one.proj_out.weight.copy_(torch.cat([op.out.weight, block.mlp.op.down.weight], dim=1))
            one.proj_out.bias.copy_(op.out.bias + block.mlp.op.down.bias)
        ones.append(one)

    def theirs(scale: float = 1.0) -> Tensor:
        text, h = two(x, y * scale, c[:, 0])
        for one in ones:
            text, h = one(h, text, c[:, 0])
        return h

    h = (x, y)
    for block in model.blocks:
        h = block(h, condition)
    mine = h[:, :16]  # type: ignore[call-overload]
    pairs = [(a.head.affine.weight, b.norm.linear.weight) for a, b in zip(rest, ones, strict=True)]
    pairs += [(a.mlp.op.up.weight, b.proj_mlp.weight) for a, b in zip(rest, ones, strict=True)]
    pairs += attention_pairs(first.attention.op, two.attn)
    pairs += [(first.text_mlp.op.up.weight, two.ff_context.net[0].proj.weight)]
    compare(mine, theirs(), [x, y, c], pairs)
    assert not torch.allclose(mine, theirs(1.1), atol=1e-3)


def test_qwen_image_blocks_are_theirs() -> None:
    """All blocks in turn; theirs writes y once more in the last block, which nothing reads."""
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock

    model, x, y, c, condition = streams_of("qwen-image")
    blocks = []
    for k, block in enumerate(model.blocks):
        other = randomised(QwenImageTransformerBlock(D, H, D // H))
        put(block.head.affine, other.img_mod[1])
        put_mlp(block.mlp.op, other.img_mlp)
        if k < N - 1:
            put(block.text_head.affine, other.txt_mod[1])
            put_mlp(block.text_mlp.op, other.txt_mlp)
            put_streams(block, other.attn)
        else:
            put_attention(block.attention.op, other.attn)
            text = block.text_attention
            put_rows(text.qkv, [other.attn.add_q_proj, other.attn.add_k_proj, other.attn.add_v_proj])
            with torch.no_grad():
                other.txt_mod[1].weight[: 2 * D] = block.text_norm.head.affine.weight
                other.txt_mod[1].bias[: 2 * D] = block.text_norm.head.affine.bias
                for mine, theirs_norm in (
                    (block.attention.op.q_norm, other.attn.norm_q),
                    (block.attention.op.k_norm, other.attn.norm_k),
                    (text.q_norm, other.attn.norm_added_q),
                    (text.k_norm, other.attn.norm_added_k),
                ):
                    theirs_norm.weight.copy_(mine.weight)
        blocks.append(other)

    def theirs(scale: float = 1.0) -> Tensor:
        h, text = x, y * scale
        for block in blocks:
            text, h = block(h, text, None, c[:, 0])
        return h

    h = (x, y)
    for block in model.blocks:
        h = block(h, condition)
    pairs = [(a.head.affine.weight, b.img_mod[1].weight) for a, b in zip(model.blocks, blocks, strict=True)]
    pairs += [p for a, b in zip(model.blocks, blocks, strict=True) for p in attention_pairs(a.attention.op, b.attn)]
    compare(h[0], theirs(), [x, y, c], pairs)
    assert not torch.allclose(h[0], theirs(1.1), atol=1e-3)


# --- Z-Image and HDM ------------------------------------------------------------------------------------------------


def test_z_image_s_block_modulation_is_theirs() -> None:
    """A whole block of diffusers', its attention and feed-forward replaced by ours, modulated by the narrow vector."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

    model = ours("z-image", rank=D)
    own, c, x = model.blocks[0], gaussian(3, D, seed=3).requires_grad_(), gaussian(3, 16, D, seed=4).requires_grad_()
    other = ZImageTransformerBlock(0, D, H, H, 1e-5, True)
    put(own.head.affine, other.adaLN_modulation[0])
    with torch.no_grad():
        for theirs, mine in (
            (other.attention_norm1, own.attention.norm),
            (other.attention_norm2, own.attention.post),
            (other.ffn_norm1, own.mlp.norm),
            (other.ffn_norm2, own.mlp.post),
        ):
            theirs.weight.copy_(mine.weight)
    other.attention, other.feed_forward = Ours(own.attention.op), own.mlp.op
    condition = Condition(vector=c, modulation=c)
    mine = own(x, condition)
    compare(
        mine, other(x, None, None, adaln_input=c), [x, c], [(own.head.affine.weight, other.adaLN_modulation[0].weight)]
    )
    with torch.no_grad():
        other.attention_norm2.weight.mul_(1.5)
    assert not torch.allclose(mine, other(x, None, None, adaln_input=c), atol=1e-3)


class Ours(nn.Module):
    """Our attention where theirs takes a mask and positions."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor, mask: Tensor | None = None, **unused: Any) -> Tensor:
        return self.op(x)


class ModulatedNorm(nn.Module):
    def __init__(self, norm: nn.RMSNorm, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.norm, self.scale, self.shift = norm, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * (1 + self.scale[:, None]) + self.shift[:, None]


def test_hdm_is_a_post_norm_transformer_with_the_modulation_in_its_norms() -> None:
    """All blocks against torch's own post-norm layer, shifted by one norm: gates at 1 + 0."""
    model = ours("hdm")
    with torch.no_grad():
        for head in (model.scheme.attention_head, model.scheme.mlp_head):
            head.out.weight[2 * D :].zero_()
            head.out.bias[2 * D :].zero_()
    x, e_t, y = (gaussian(3, n, D, seed=s).requires_grad_() for n, s in ((16, 3), (1, 4), (5, 5)))
    c = model.scheme.embed(e_t[:, 0], Encoded(y, None, torch.zeros(3, D)))
    h = model.scheme.enter(x, c)
    for block in model.blocks:
        h = block(h, c)

    def theirs(factor: float = 1.0) -> Tensor:
        condition = model.scheme.embed(e_t[:, 0], Encoded(y, None, torch.zeros(3, D)))
        (scale, b1, _), (s2, b2, _) = (m.chunk(3, dim=-1) for m in condition.modulation)
        scale = scale * factor
        z = ModulatedNorm(model.blocks[0].attention.norm, scale, b1)(torch.cat([x, y], dim=1))
        for k, block in enumerate(model.blocks):
            gelu = nn.GELU(approximate="tanh")
            layer = nn.TransformerEncoderLayer(D, H, 4 * D, dropout=0.0, activation=gelu, batch_first=True)
            layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.attention.op.qkv.parameters()
            layer.self_attn.out_proj.weight, layer.self_attn.out_proj.bias = block.attention.op.out.parameters()
            layer.linear1, layer.linear2 = block.mlp.op.up, block.mlp.op.down
            layer.norm1 = ModulatedNorm(block.mlp.norm, s2, b2)
            last = k == N - 1
            layer.norm2 = nn.Identity() if last else ModulatedNorm(model.blocks[k + 1].attention.norm, scale, b1)
            z = layer(z)
        return z

    compare(h, theirs(), [x, e_t, y], [])
    assert not torch.allclose(h, theirs(1.1), atol=1e-3)
    with torch.no_grad():
        model.scheme.mlp_head.out.bias[2 * D :].add_(0.5)
    c = model.scheme.embed(e_t[:, 0], Encoded(y, None, torch.zeros(3, D)))
    gated = model.scheme.enter(x, c)
    for block in model.blocks:
        gated = block(gated, c)
    assert not torch.allclose(gated, h, atol=1e-3), "a gate of 1 + 0.5 is another network"
