"""Whole published systems against diffusers: totals at published sizes, outputs and gradients at tiny ones.

The weights go from diffusers' model into ours by `load_published`; the same moves carry its gradients into our names,
so that every parameter's gradient is compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_log
import pytest
import torch
from gaussians import gaussian, randomised
from torch import Tensor, nn

import architectures
from architectures.backbone import parameter_roles
from architectures.prompt import FeatureBatch
from architectures.systems.weights import convert
from bench.cli.described import systems
from bench.config.schema import Backbone, Data
from bench.config.spec import CellConfig
from bench.measure import cost

diffusers = pytest.importorskip("diffusers")

D, H = 32, 2
AXES = (4, 6, 6)
PROMPT = architectures.Features(768, 768, 4)


def agree(mine: nn.Module, theirs: nn.Module, ours: Callable, other: Callable, inputs: list[Tensor]) -> None:
    """Outputs, gradients of the inputs and of every parameter; and a changed input changes the output."""
    assert architectures.load_published(mine, theirs.state_dict()) == "diffusers"
    a, b = ours(*inputs), other(*inputs)
    assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5), (a - b).abs().max()
    system = str(mine.system)
    parity_log.note(system, "outputs", a, b)
    weights = gaussian(*a.shape, seed=9)
    grads = torch.autograd.grad((a * weights).sum(), [*inputs, *mine.parameters()], allow_unused=True)
    wanted = torch.autograd.grad((b * weights).sum(), [*inputs, *theirs.parameters()], allow_unused=True)
    for x, y in zip(grads[: len(inputs)], wanted[: len(inputs)], strict=True):
        close(x, y, "input", system)
    state = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    named = zip([name for name, _ in theirs.named_parameters()], wanted[len(inputs) :], strict=True)
    state |= {name: grad for name, grad in named if grad is not None}
    carried = convert(mine, state, "diffusers")
    for (name, parameter), grad in zip(mine.named_parameters(), grads[len(inputs) :], strict=True):
        close(torch.zeros_like(parameter) if grad is None else grad, carried[name], name, system)
    assert not torch.allclose(ours(*[x * 1.1 for x in inputs]), b, atol=1e-3)


def close(x: Tensor, y: Tensor, name: str, system: str) -> None:
    scale = max(1.0, float(y.abs().max()))
    parity_log.note(system, "gradients", x, y)
    assert torch.allclose(x, y, atol=1e-5 * scale), (name, float((x - y).abs().max()), scale)


# --- totals -----------------------------------------------------------------------------------------------------------

TOTALS = {"dit-s": 32_865_056, "dit-b": 130_315_808, "dit-l": 457_840_672, "dit": 674_834_720}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "sd3": lambda: diffusers.SD3Transformer2DModel(
        sample_size=128, num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
    "sd3-large": lambda: diffusers.SD3Transformer2DModel(
        sample_size=128, num_layers=38, num_attention_heads=38, caption_projection_dim=2432, pos_embed_max_size=192,
        qk_norm="rms_norm",
    ),
    "flux": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
    "flux-schnell": lambda: diffusers.FluxTransformer2DModel(),
    "flux2": lambda: diffusers.Flux2Transformer2DModel(),
    "flux2-klein-9b": lambda: diffusers.Flux2Transformer2DModel(
        num_single_layers=24, num_attention_heads=32, joint_attention_dim=12288, guidance_embeds=False
    ),
    "flux2-klein-4b": lambda: diffusers.Flux2Transformer2DModel(
        num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
    ),
    "chroma": lambda: diffusers.ChromaTransformer2DModel(),
    "qwen-image": lambda: diffusers.QwenImageTransformer2DModel(),
    "pixart": lambda: diffusers.PixArtTransformer2DModel(
        caption_channels=4096, sample_size=32, use_additional_conditions=False
    ),
    "pixart-1024": lambda: diffusers.PixArtTransformer2DModel(caption_channels=4096, sample_size=128),
    "lumina2": lambda: diffusers.Lumina2Transformer2DModel(cap_feat_dim=2304),
    "lumina2-3b": lambda: diffusers.Lumina2Transformer2DModel(
        hidden_size=2592, num_layers=30, axes_dim_rope=(36, 36, 36), cap_feat_dim=2304
    ),
    "lumina2-4b": lambda: diffusers.Lumina2Transformer2DModel(
        hidden_size=2880, num_layers=32, axes_dim_rope=(40, 40, 40), cap_feat_dim=2304
    ),
    "lumina2-7b": lambda: diffusers.Lumina2Transformer2DModel(
        hidden_size=3840, num_layers=32, num_attention_heads=32, axes_dim_rope=(40, 40, 40), cap_feat_dim=2304
    ),
    "z-image": lambda: diffusers.ZImageTransformer2DModel(),
}  # fmt: skip
MILLIONS = {"sd3": 2028.3, "sd3-large": 8056.6, "flux": 11901.4, "flux-schnell": 11891.2, "qwen-image": 20430.4}
MILLIONS |= {"pixart": 610.9, "pixart-1024": 611.3, "lumina2": 2609.8, "z-image": 6154.9}
MILLIONS |= {"lumina2-3b": 3734.8, "lumina2-4b": 4792.6, "lumina2-7b": 8247.7}
MILLIONS |= {"flux2": 32223.3, "flux2-klein-9b": 9078.6, "flux2-klein-4b": 3875.5, "chroma": 8900.0}
HDM = {"hdm-small": 237.29, "hdm": 343.18, "hdm-large": 555.63}


def total(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_dit(name: str) -> None:
    with torch.device("meta"):
        assert total(architectures.published(name)) == TOTALS[name]


@pytest.mark.parametrize("name", OTHERS)
def test_totals_are_diffusers_own(name: str) -> None:
    with torch.device("meta"):
        mine, theirs = architectures.published(name), OTHERS[name]()
    assert total(mine) == total(theirs)
    assert round(total(mine) / 1e6, 1) == MILLIONS[name]


@pytest.mark.parametrize("name", HDM)
def test_totals_of_hdm(name: str) -> None:
    with torch.device("meta"):
        assert round(total(architectures.published(name)) / 1e6, 2) == HDM[name]


# --- outputs and gradients --------------------------------------------------------------------------------------------


def prompts(width: int, pooled: int = 5, lengths: tuple[int, ...] = (7, 4)) -> FeatureBatch:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return FeatureBatch(
        gaussian(len(lengths), max(lengths), width, seed=3), mask, gaussian(len(lengths), pooled, seed=4)
    )


def test_dit_is_theirs() -> None:
    theirs = randomised(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=H,
            attention_head_dim=D // H,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=7,
            norm_eps=1e-6,
        )
    )
    first = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:  # one embedder, as the paper has; and the original's frequencies
        block.norm1.emb = first
    first.time_proj.downscale_freq_shift = 0
    mine = architectures.published("dit", width=D, heads=H, depth=2, image_size=8, classes=7)
    steps, y = torch.tensor([3, 700]), torch.tensor([2, 7])
    x = gaussian(2, 4, 8, 8).requires_grad_()
    agree(mine, theirs, lambda x: mine(x, steps, y), lambda x: theirs(x, timestep=steps, class_labels=y).sample, [x])


@pytest.mark.parametrize("qk_norm", [False, True])
def test_sd3_is_theirs(qk_norm: bool) -> None:
    theirs = randomised(
        diffusers.SD3Transformer2DModel(
            sample_size=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            caption_projection_dim=D,
            pooled_projection_dim=5,
            in_channels=4,
            out_channels=4,
            pos_embed_max_size=12,
            qk_norm="rms_norm" if qk_norm else None,
        )
    )
    mine = architectures.published(
        "sd3", depth=2, width=D, channels=4, text_width=12, pooled_width=5, max_grid=12, base_grid=8, qk_norm=qk_norm
    )
    p, t = prompts(12), torch.tensor([20.0, 900.0])
    x, y, v = gaussian(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_(), p.pooled.requires_grad_()
    own = mine.positions.clone()
    agree(
        mine, theirs,
        lambda x, y, v: mine(x, t, FeatureBatch(y, p.mask, v)),
        lambda x, y, v: theirs(x, encoder_hidden_states=y, pooled_projections=v, timestep=t).sample,
        [x, y, v],
    )  # fmt: skip
    assert torch.allclose(own, mine.positions, atol=1e-6)  # what we compute is what their file holds
    with pytest.raises(ValueError, match="13, but the model's limit is 12"):
        mine(gaussian(2, 4, 26, 8), t, p)


def pack(x: Tensor) -> Tensor:
    from diffusers import FluxPipeline

    return FluxPipeline._pack_latents(x, *x.shape)


def unpack(x: Tensor, h: int, w: int) -> Tensor:
    from diffusers import FluxPipeline

    return FluxPipeline._unpack_latents(x, h * 8, w * 8, 8)


@pytest.mark.parametrize("guided", [True, False])
def test_flux_is_theirs(guided: bool) -> None:
    from diffusers import FluxPipeline

    theirs = randomised(
        diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=5,
            guidance_embeds=guided,
            axes_dims_rope=AXES,
        )
    )
    mine = architectures.published(
        "flux",
        width=D,
        heads=H,
        dual=2,
        single=2,
        channels=4,
        text_width=12,
        pooled_width=5,
        axes=AXES,
        guidance=guided,
    )
    p, t, g = prompts(12), torch.tensor([0.1, 0.8]), torch.tensor([3.5, 1.0])
    x, y, v = gaussian(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_(), p.pooled.requires_grad_()
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 6, "cpu", torch.float32)

    def other(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        out = theirs(
            pack(x), y, v, t, ids, torch.zeros(y.shape[1], 3), guidance=g if guided else None, return_dict=False
        )[0]
        return unpack(out, 8, 12)

    agree(mine, theirs, lambda x, y, v: mine(x, t, FeatureBatch(y, p.mask, v), g), other, [x, y, v])


def a_flux2(guided: bool) -> nn.Module:
    return randomised(
        diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guided,
        )
    )


def tiny_flux2(guided: bool = True) -> Any:
    return architectures.published(
        "flux2",
        width=D,
        heads=H,
        dual=2,
        single=2,
        channels=16,
        text_width=12,
        axes=(4, 4, 4, 4),
        guidance=guided,
    )


@pytest.mark.parametrize("guided", [True, False])
def test_flux2_is_theirs(guided: bool) -> None:
    """With positions of image and caption as its pipeline gives them; it has no mask."""
    from diffusers import Flux2Pipeline

    theirs, mine = a_flux2(guided), tiny_flux2(guided)
    p, t, g = prompts(12), torch.tensor([0.1, 0.8]), torch.tensor([3.5, 1.0])
    x, y = gaussian(2, 16, 4, 6).requires_grad_(), p.tokens.requires_grad_()
    image, text = Flux2Pipeline._prepare_latent_ids(x), Flux2Pipeline._prepare_text_ids(y)

    def other(x: Tensor, y: Tensor, text: Tensor = text) -> Tensor:
        out = theirs(Flux2Pipeline._pack_latents(x), y, t, image, text, guidance=g if guided else None).sample
        return Flux2Pipeline._unpack_latents_with_ids(out, image)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, t, FeatureBatch(y, p.mask, p.pooled), g)

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    assert not torch.allclose(b, other(x, y, torch.zeros_like(text)), atol=1e-3), "a caption without positions"
    mine.trunks[0], mine.trunks[1] = mine.trunks[1], mine.trunks[0]
    assert not torch.allclose(ours(x, y), b, atol=1e-3), "the two streams' maps are one another's"


def a_chroma(**more: Any) -> Any:
    sizes = dict(num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, in_channels=16)
    sizes |= dict(approximator_hidden_dim=24, approximator_layers=2, **more)
    return randomised(diffusers.ChromaTransformer2DModel(**sizes, axes_dims_rope=AXES))


def tiny_chroma(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, dual=2, single=2, channels=4, hidden=24, layers=2, axes=AXES)
    return architectures.published("chroma", **sizes | more)


@pytest.mark.parametrize("seen", [(7, 4), (7, 7)])
def test_chroma_is_theirs(seen: tuple[int, int]) -> None:
    """With captions of unequal length, whose padding no token of the image attends to."""
    from diffusers import FluxPipeline

    theirs, mine = a_chroma(joint_attention_dim=12), tiny_chroma(text_width=12)
    p, t = prompts(12, lengths=seen), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_()
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 6, "cpu", torch.float32)

    def other(x: Tensor, y: Tensor, mask: Tensor = p.mask) -> Tensor:
        mask = torch.cat([mask, mask.new_ones(2, 24)], dim=1)
        out = theirs(pack(x), y, t, ids, torch.zeros(y.shape[1], 3), mask, return_dict=False)[0]
        return unpack(out, 8, 12)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, t, FeatureBatch(y, p.mask, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    assert not torch.allclose(b, other(x, y, p.mask.roll(2, 1) if seen[1] < 7 else p.mask & (p.mask.cumsum(1) < 4)))
    mine.trunk.numbers = mine.trunk.numbers.roll(1, 0)
    assert not torch.allclose(ours(x, y), b, atol=1e-3), "the numbers of the vectors matter"


@pytest.mark.parametrize("size", [(8, 12), (10, 6)])
def test_qwen_image_is_theirs(size: tuple[int, int]) -> None:
    theirs = randomised(
        diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            axes_dims_rope=AXES,
        )
    )
    mine = architectures.published("qwen-image", width=D, heads=H, depth=2, channels=4, text_width=12, axes=AXES)
    p, t = prompts(12), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()
    shapes = [[(1, size[0] // 2, size[1] // 2)]] * 2

    def other(x: Tensor, y: Tensor) -> Tensor:
        out = theirs(pack(x), y, p.mask, t, shapes, return_dict=False)[0]
        return unpack(out, *size)

    agree(mine, theirs, lambda x, y: mine(x, t, FeatureBatch(y, p.mask, p.pooled)), other, [x, y])


@pytest.mark.parametrize("sized", [False, True])
def test_pixart_is_theirs(sized: bool) -> None:
    theirs = randomised(
        diffusers.PixArtTransformer2DModel(
            num_attention_heads=H,
            attention_head_dim=24,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=48,
            sample_size=8,
            patch_size=2,
            norm_eps=1e-6,
            caption_channels=12,
            use_additional_conditions=sized,
            interpolation_scale=2,
        )
    )
    mine = architectures.published(
        "pixart", width=48, heads=H, depth=2, text_width=12, base_grid=4, interpolation=2.0, size_conditions=sized
    )
    p, t = prompts(12), torch.tensor([3, 700])
    size, aspect = torch.tensor([[8.0, 12.0], [16.0, 8.0]]), torch.tensor([0.7, 1.5])
    added = dict(resolution=size if sized else None, aspect_ratio=aspect[:, None] if sized else None)
    x, y = gaussian(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor) -> Tensor:
        return theirs(x, y, t, added, encoder_attention_mask=p.mask.float(), return_dict=False)[0]

    agree(mine, theirs, lambda x, y: mine(x, t, FeatureBatch(y, p.mask, p.pooled), size, aspect), other, [x, y])


@pytest.mark.parametrize("seen", [(7, 4), (7, 7)])
def test_lumina2_is_theirs(seen: tuple[int, int]) -> None:
    theirs = randomised(
        diffusers.Lumina2Transformer2DModel(
            in_channels=4,
            hidden_size=64,
            num_layers=2,
            num_refiner_layers=2,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=256,
            axes_dim_rope=AXES,
            axes_lens=(20, 16, 16),
            cap_feat_dim=12,
        )
    )
    for module in theirs.modules():  # the original's eps; diffusers has 1e-5 there
        if hasattr(module, "norm_q"):
            module.norm_q.eps = module.norm_k.eps = 1e-6
    mine = architectures.published(
        "lumina2", width=64, heads=4, kv_heads=2, depth=2, channels=4, text_width=12, axes=AXES, limits=(20, 16, 16)
    )
    p, t = prompts(12, lengths=seen), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_()
    agree(
        mine, theirs,
        lambda x, y: mine(x, t, FeatureBatch(y, p.mask, p.pooled)),
        lambda x, y: theirs(x, t, y, p.mask, return_dict=False)[0],
        [x, y],
    )  # fmt: skip
    with pytest.raises(ValueError, match="caption tokens: 31, but the model's limit is 20"):
        mine(x, t, prompts(12, lengths=(30, 4)))


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (8, 12)), ((40, 5), (8, 12)), ((32, 32), (8, 16))])
def test_z_image_is_theirs(seen: tuple[int, int], size: tuple[int, int]) -> None:
    theirs = randomised(
        diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=D,
            n_layers=2,
            n_refiner_layers=2,
            n_heads=H,
            n_kv_heads=H,
            cap_feat_dim=12,
            axes_dims=list(AXES),
            axes_lens=[80, 16, 16],
        )
    )
    mine = architectures.published(
        "z-image", width=D, heads=H, depth=2, channels=4, text_width=12, axes=AXES, limits=(80, 16, 16)
    )
    p, t = prompts(12, lengths=seen), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor) -> Tensor:
        captions = [one[:count] for one, count in zip(y, seen, strict=True)]
        return torch.stack(theirs([one[:, None] for one in x], t, captions, return_dict=False)[0])[:, :, 0]

    agree(mine, theirs, lambda x, y: mine(x, t, FeatureBatch(y, p.mask, p.pooled)), other, [x, y])


@pytest.mark.parametrize("masked", [False, True])
def test_the_unet_s_block_is_theirs(masked: bool) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    theirs = randomised(BasicTransformerBlock(D, H, D // H, cross_attention_dim=12))
    mine = architectures.published("sd15", width=D, heads=H, context=12)
    p = prompts(12)
    x, y = gaussian(2, 9, D).requires_grad_(), p.tokens.requires_grad_()
    bias = torch.where(p.mask, 0.0, -1e4)[:, None] if masked else None
    agree(
        mine, theirs,
        lambda x, y: mine(x, y, p.mask if masked else None),
        lambda x, y: theirs(x, encoder_hidden_states=y, encoder_attention_mask=bias),
        [x, y],
    )  # fmt: skip


# --- HDM: nobody else has it ------------------------------------------------------------------------------------------


def tiny_hdm() -> nn.Module:
    made = architectures.published(
        "hdm", width=D, heads=H, hidden=48, encoder=2, decoder=2, decoder_blocks=2, text_width=12
    )
    return randomised(made)


def test_hdm_is_the_post_norm_network_of_its_equations() -> None:
    """z = Norm(x) obeys z <- Norm(z + (1 + g) F(z)): written out here with torch's functions, skips and all."""
    model = tiny_hdm()
    p, t, aspect = prompts(12), torch.tensor([0.1, 0.8]), torch.tensor([0.7, 1.5])
    x = gaussian(2, 4, 8, 12)
    f = torch.nn.functional
    half = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(D // 2) / (D // 2))
    angle = 1000 * t[:, None] * half
    c = f.mish(model.time(torch.cat([angle.cos(), angle.sin()], 1))) + model.aspect(aspect[:, None])
    modulation = {
        name: head.out(f.mish(head.up(f.layer_norm(c, (D,), head.norm.weight, head.norm.bias)))).chunk(3, -1)
        for name, head in (("attention", model.attention_head), ("cross", model.cross_head), ("mlp", model.mlp_head))
    }
    ys, xs = torch.meshgrid((torch.arange(4) + 0.5) / 3 - 4 / 6, (torch.arange(6) + 0.5) / 3 - 1, indexing="ij")
    places = torch.cat([torch.stack([ys, xs], -1).flatten(0, 1), torch.zeros(7, 2)])

    def heads(u: Tensor) -> Tensor:
        return u.unflatten(-1, (H, D // H)).transpose(1, 2)

    def turn(u: Tensor, rope: Any) -> Tensor:
        a = torch.einsum("np,hkp->hnkp", places, rope.frequencies.exp()).flatten(2)
        z = torch.view_as_complex(heads(u).unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(a), a)
        return torch.view_as_real(z).flatten(-2)

    def attention(q: Tensor, k: Tensor, v: Tensor, op: Any) -> Tensor:
        w = (turn(q, op.rope) @ turn(k, op.rope).transpose(-1, -2) / (D // H) ** 0.5).softmax(-1)
        return op.out((w @ heads(v)).transpose(1, 2).flatten(2))

    def branch(name: str, op: Any, u: Tensor, memory: Tensor) -> Tensor:
        if name == "attention":
            return attention(*op.qkv(u).chunk(3, -1), op)
        if name == "cross":
            return attention(op.q(u), *op.kv(memory).chunk(2, -1), op)
        a, b = op.up(u).chunk(2, -1)
        return op.down(f.silu(a) * b)

    patches = f.unfold(x, 2, stride=2).transpose(1, 2)
    stream = torch.cat([model.patches(patches), model.text(p.tokens)], 1)
    memory = stream
    for k, block in enumerate([*model.before, *model.encoder, *model.decoder, *model.after]):
        if k == len(model.before) + len(model.encoder):
            memory = stream
        for name in block.order:
            part, (scale, shift, gate) = getattr(block, name), modulation[name]
            norm = stream / (stream.square().mean(-1, keepdim=True) + 1e-6).sqrt() * part.norm.weight
            u = norm * (1 + scale[:, None]) + shift[:, None]
            stream = u + (1 + gate[:, None]) * branch(name, part.op, u, memory)
    out = model.head(stream[:, :24]).unflatten(-1, (2, 2, 4)).permute(0, 1, 4, 2, 3).flatten(2).transpose(1, 2)
    theirs = f.fold(out.contiguous(), (8, 12), 2, stride=2)
    mine = model(x, t, p, aspect)
    assert torch.allclose(mine, theirs, atol=1e-4), (mine - theirs).abs().max()
    model.cross_head.out.bias.data.add_(0.1)
    assert not torch.allclose(model(x, t, p, aspect), theirs, atol=1e-3)


# Our names and the released ones, written apart from the moves: outside the blocks, then in a block.
HDM_NAMES = {
    "patches": "in_patch.proj",
    "time": "time_emb.proj.0",
    "aspect.up": "addon_info_embs_proj.0",
    "aspect.out": "addon_info_embs_proj.2",
    "text": "ctx_proj",
    "head": "out_patch.proj",
} | {
    f"{ours}_head.{part}": f"shared_adaln_{theirs}.{number}"
    for ours, theirs in (("attention", "attn"), ("cross", "xattn"), ("mlp", "ffw"))
    for part, number in (("norm", 0), ("up", 1), ("out", 3))
}
HDM_BLOCK = {
    "attention.op.qkv": "attn.qkv",
    "attention.op.out": "attn.out",
    "attention.op.rope.frequencies": "attn.rope.freqs",
    "attention.norm": "attn_pre_norm.norm",
    "mlp.op.up": "mlp.w12",
    "mlp.op.down": "mlp.w3",
    "mlp.norm": "mlp_pre_norm.norm",
    "cross.op.q": "xattn.q",
    "cross.op.kv": "xattn.kv",
    "cross.op.out": "xattn.out",
    "cross.op.rope.frequencies": "xattn.rope.freqs",
    "cross.norm": "xattn_pre_norm.norm",
}
HDM_BLOCKS = {  # of tiny_hdm
    "before.0": "prev_tread_trns.blocks.0",
    **{f"encoder.{k}": f"backbone.enc_blocks.{k}.0" for k in range(2)},
    **{f"decoder.{k}": f"backbone.dec_blocks.{k // 2}.{k % 2}" for k in range(4)},
    **{f"after.{k}": f"post_tread_trns.blocks.{k}" for k in range(3)},
}


def released_hdm(model: nn.Module) -> dict[str, Tensor]:
    """The file that HDM's release would have of these weights; its patches are a convolution's."""
    names = HDM_NAMES | {
        f"{ours}.{part}": f"{theirs}.{name}" for ours, theirs in HDM_BLOCKS.items() for part, name in HDM_BLOCK.items()
    }
    state = {}
    for key, value in model.state_dict().items():
        module, _, last = key.rpartition(".")
        state[names[key] if key in names else f"{names[module]}.{last}"] = value.clone()
    state["in_patch.proj.weight"] = state["in_patch.proj.weight"].reshape(D, 4, 2, 2)
    return state


def test_hdm_s_released_layout_loads_and_computes_the_same() -> None:
    model, fresh = tiny_hdm(), randomised(tiny_hdm(), seed=1)
    x, t, p, aspect = gaussian(2, 4, 8, 12), torch.tensor([0.1, 0.8]), prompts(12), torch.tensor([0.7, 1.5])
    assert not torch.equal(fresh(x, t, p, aspect), model(x, t, p, aspect))
    state = released_hdm(model)
    assert architectures.load_published(fresh, state) == "original"
    assert torch.equal(fresh(x, t, p, aspect), model(x, t, p, aspect))
    with pytest.raises(
        architectures.WeightsError, match=r"hdm in the original layout: 1 missing .*dec_blocks\.1\.0\.xattn\.q"
    ):
        architectures.load_published(fresh, {k: v for k, v in state.items() if "dec_blocks.1.0.xattn.q." not in k})
    with pytest.raises(architectures.WeightsError, match="1 left over .surprise."):
        architectures.load_published(fresh, state | {"surprise": torch.zeros(1)})
    with pytest.raises(architectures.WeightsError, match="not weights of flux.*they look like hdm"):
        architectures.load_published(tiny(), state)


# --- shares and the gallery -------------------------------------------------------------------------------------------

MODULATION = {
    "dit": 225.80, "pixart": 8.17, "sd3": 675.20, "flux": 3247.4, "qwen-image": 6815.9, "lumina2": 266.86,
    "z-image": 127.31, "hdm": 50.36, "sd15": 0.0, "flux2": 641.73, "chroma": 278.29,
    "wan": 158.56, "wan-1.3b": 14.44, "prx": 314.88,
    "flux3": 132.12, "qwen-image-2.1": 83.89, "sana": 30.39, "sana-0.6b": 8.17, "kandinsky5": 609.36,
    "krea2": 227.57, "ernie-image": 134.25, "hidream-i1": 2530.68, "glm-image": 760.65,
}  # fmt: skip


@pytest.mark.parametrize("name", MODULATION)
def test_modulation_s_share_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        count = architectures.parameter_split(architectures.published(name))["modulation"] / 1e6
    # without the embedders that make c, which the reference counts with Lumina 2.0 and Z-Image
    assert abs(count - MODULATION[name]) <= 0.06 or name in ("lumina2", "z-image"), count


WITH_OPTIONS = [name for name, system in architectures.PUBLISHED.items() if system.options]


def modulation_weights(model: nn.Module) -> int:
    roles = parameter_roles(model)
    named = model.named_parameters()
    return sum(p.numel() for key, p in named if roles[key] == "modulation" and not key.endswith("bias"))


def narrow(name: str, **sizes: Any) -> nn.Module:
    with torch.device("meta"):
        return architectures.published(name, width=D, heads=H, **sizes)


ALIKE: dict[str, dict[str, Any]] = {  # sizes that make a system as deep as the fixed backbone
    "flux2": dict(dual=1, single=2, axes=(4, 4, 4, 4)),
    "flux3": dict(early=1, joint=2, axes=(4, 4, 4, 4)),
    "wan": dict(depth=3, axes=(8, 4, 4)),
    "qwen-image-2.1": dict(depth=3, axes=AXES),
    "krea2": dict(kv_heads=1, depth=3, axes=AXES),
    "ernie-image": dict(depth=3, axes=AXES),
    "kandinsky5": dict(depth=3, text_depth=1, cond_width=D, axes=AXES),
    "glm-image": dict(depth=3, cond_width=D, axes=(8, 8)),
    "hidream-i1": dict(dual=1, single=2, axes=AXES),
}
BESIDE = {
    "krea2": 2 * D - 2 * D * D,  # a table in the last norm, where the option has a map
    "kandinsky5": 6 * D * D,  # the map of a caption's block
}


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_a_system_s_options_are_of_its_scheme(name: str) -> None:
    """Modulation is the option's but for biases; what a system has beside it, or instead, is in `BESIDE`."""
    system = architectures.PUBLISHED[name]
    backbone = architectures.BackboneConfig(width=D, depth=3, heads=H, patch=4, bias=False)
    prompt = architectures.Features(12, 5, 7)
    with torch.device("meta"):
        model: Any = architectures.create(
            system.scheme, backbone, image_size=8, in_channels=4, prompt=prompt, **system.options
        )
    if name == "chroma":  # its network reads sinusoids of t, and gives the last norm's vectors too
        assert len(model.scheme.trunks) == 1
        return
    mine = modulation_weights(narrow(name, **ALIKE[name.partition("-klein")[0].removesuffix("-1.3b")]))
    assert mine == modulation_weights(model) + BESIDE.get(name, 0)


def test_what_a_system_costs_on_the_backbone_is_what_a_cell_of_its_name_costs() -> None:
    cell = cost.count(CellConfig("chroma", backbone=Backbone(name="DiT-S/8"), data=Data(image_size=32)), PROMPT)
    here = architectures.on_backbone("chroma", "DiT-S/8", 32, 4)
    assert here.multiply_adds == cell["macs_forward"]
    assert (here.modulation, here.parameters) == (cell["parameters_modulation"], cell["parameters_total"])


@pytest.mark.thorough
def test_the_gallery_is_current_and_as_json_the_same_history_the_oldest_first() -> None:
    page = Path(architectures.__file__).parent / "README.md"
    head, mark, rest = page.read_text().partition("## Gallery\n\n")
    note, wanted = rest.split("\n\n", 1)[0], architectures.gallery()
    if os.environ.get("DITBENCH_UPDATE"):
        page.write_text(f"{head}{mark}{note}\n\n{wanted}")
    assert page.read_text().endswith(f"{note}\n\n{wanted}"), "DITBENCH_UPDATE=1 pytest -k gallery writes it"
    found = systems("DiT-B/2", 32, 64)
    assert list(found) == list(architectures.history()) and set(found) == {
        *architectures.PUBLISHED,
        *architectures.NAMED,
    }
    assert [one["year"] for one in found.values()] == sorted(one["year"] for one in found.values())
    assert found["flux2"]["conditioning"] == "flux dual=seventh head=shared signals=timestep"
    assert (found["dit"]["modulation"], found["dit"]["parameters"]) == architectures.share("dit")
    assert "parameters" not in found["jit"], "a name without a whole system has no published total"
    costs = {name: one["on_backbone"] for name, one in found.items()}
    assert all(cost["multiply_adds"] > 0 for cost in costs.values())
    assert {name for name, cost in costs.items() if cost["kept"]} == {"prx", "qwen-image-2.1", "cosmos3"}


# --- what is wrong is said --------------------------------------------------------------------------------------------


def tiny(**more: Any) -> nn.Module:
    return architectures.published("flux", width=D, heads=H, dual=1, single=1, channels=4, axes=AXES, **more)


def a_flux() -> nn.Module:
    return randomised(
        diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            axes_dims_rope=AXES,
            guidance_embeds=True,
        )
    )


def released_flux(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' file as the released one has it: fused qkv and linear1, (shift, scale) at the end."""
    old: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        joined = {u: f".{part}" for u in ("q", "k", "v")}
        for theirs, ours in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
            for k, name in ((1, "in_layer"), (2, "out_layer")):
                old[f"{ours}.{name}.{part}"] = state[f"time_text_embed.{theirs}_embedder.linear_{k}.{part}"]
        old[f"img_in.{part}"], old[f"txt_in.{part}"] = state[f"x_embedder.{part}"], state[f"context_embedder.{part}"]
        scale, shift = state[f"norm_out.linear.{part}"].chunk(2)
        old[f"final_layer.adaLN_modulation.1.{part}"] = torch.cat([shift, scale])
        old[f"final_layer.linear.{part}"] = state[f"proj_out.{part}"]
        two, one = "transformer_blocks.0", "single_transformer_blocks.0"
        for side, norm, qkv, out, ff in (
            ("img", "norm1", "to_{}", "to_out.0", "ff"),
            ("txt", "norm1_context", "add_{}_proj", "to_add_out", "ff_context"),
        ):
            old[f"double_blocks.0.{side}_mod.lin.{part}"] = state[f"{two}.{norm}.linear.{part}"]
            old[f"double_blocks.0.{side}_attn.qkv.{part}"] = torch.cat(
                [state[f"{two}.attn.{qkv.format(u)}{end}"] for u, end in joined.items()]
            )
            old[f"double_blocks.0.{side}_attn.proj.{part}"] = state[f"{two}.attn.{out}.{part}"]
            old[f"double_blocks.0.{side}_mlp.0.{part}"] = state[f"{two}.{ff}.net.0.proj.{part}"]
            old[f"double_blocks.0.{side}_mlp.2.{part}"] = state[f"{two}.{ff}.net.2.{part}"]
        old[f"single_blocks.0.modulation.lin.{part}"] = state[f"{one}.norm.linear.{part}"]
        rows = [state[f"{one}.attn.to_{u}{end}"] for u, end in joined.items()] + [state[f"{one}.proj_mlp.{part}"]]
        old[f"single_blocks.0.linear1.{part}"] = torch.cat(rows)
        old[f"single_blocks.0.linear2.{part}"] = state[f"{one}.proj_out.{part}"]
    for name, u in (("query", "q"), ("key", "k")):
        old[f"double_blocks.0.img_attn.norm.{name}_norm.scale"] = state[f"{two}.attn.norm_{u}.weight"]
        old[f"double_blocks.0.txt_attn.norm.{name}_norm.scale"] = state[f"{two}.attn.norm_added_{u}.weight"]
        old[f"single_blocks.0.norm.{name}_norm.scale"] = state[f"{one}.attn.norm_{u}.weight"]
    return old


def test_flux_s_released_layout_is_the_same_model() -> None:
    state = dict(a_flux().state_dict())
    mine, other = tiny(), tiny()
    assert architectures.load_published(mine, state) == "diffusers"
    old = {f"model.diffusion_model.{name}": value for name, value in released_flux(state).items()}
    assert architectures.load_published(other, old) == "original"
    for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_chroma_s_released_layout_is_the_same_model() -> None:
    """FLUX.1's names, without those of its vectors."""
    sizes = dict(dual=1, single=1, text_width=4096)
    state = dict(a_chroma(num_layers=1, num_single_layers=1).state_dict())
    mine, other = tiny_chroma(**sizes), tiny_chroma(**sizes)
    assert architectures.load_published(mine, state) == "diffusers"
    theirs, vectors = "distilled_guidance_layer", re.compile(r".*(_in\.(in|out)_layer|_mod\.lin|odulation\b.*)\.\w+")
    old = {
        name: value
        for name, value in released_flux(dict(a_flux().state_dict()) | state).items()
        if not vectors.fullmatch(name)
    }
    for name in [name for name in state if name.startswith(theirs)]:
        released = name.replace("linear_1", "in_layer").replace("linear_2", "out_layer")
        old[re.sub(r"(norms\.\d)\.weight", r"\1.scale", released)] = state[name]
    assert architectures.load_published(other, old) == "original"
    for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(architectures.WeightsError, match="not weights of flux.*they look like chroma"):
        architectures.load_published(tiny(), state)
    with pytest.raises(architectures.WeightsError, match="not weights of flux2.*they look like chroma"):
        architectures.load_published(tiny_flux2(), old)


def test_a_released_flux2_is_what_diffusers_makes_of_it() -> None:
    """Through diffusers' own converter and its model's layout, or straight: the same weights."""
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers as theirs

    straight, around = randomised(tiny_flux2()), tiny_flux2()
    old: dict[str, Tensor] = {}
    own = straight.state_dict()
    for move in straight.moves("original"):
        (name,), part = move.names, own[move.target].clone()
        # two parts of a fused Linear: rows of what they receive, columns of what they give
        old[name] = torch.cat([old[name], part], int("linear2" in name)) if name in old else part
    fresh = tiny_flux2()
    assert architectures.load_published(fresh, old) == "original"
    assert architectures.load_published(around, theirs(dict(old))) == "diffusers"
    for (name, a), b, c in zip(own.items(), fresh.state_dict().values(), around.state_dict().values(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c), name
    with pytest.raises(architectures.WeightsError, match="not weights of flux.*they look like flux2"):
        architectures.load_published(tiny(), old)
    with pytest.raises(ValueError, match="FLUX.2 dev is conditioned on a guidance scale; klein"):
        fresh(gaussian(2, 16, 4, 6), torch.rand(2), prompts(12))


def old_names(mine: nn.Module) -> dict[str, Tensor]:
    """Random tensors under the released names; each fused one has the sum of its parts' shapes."""
    own = mine.state_dict()
    return (
        {
            move.sources: gaussian(*own[move.target].shape, seed=k)
            for k, move in enumerate(mine.moves("original"))  # type: ignore[operator]
            if isinstance(move.sources, str)
        }
        | {
            name: gaussian(own[move.target].shape[0] // len(move.sources), *own[move.target].shape[1:], seed=k)
            for k, move in enumerate(mine.moves("original"))  # type: ignore[operator]
            if not isinstance(move.sources, str)
            for name in move.sources
        }
    )


@pytest.mark.parametrize("system", ["sd3", "z-image"])
def test_a_released_file_is_what_diffusers_makes_of_it(system: str) -> None:
    """Through diffusers' own converter and its model's layout, or straight: the same weights."""
    from diffusers.loaders import single_file_utils as theirs

    if system == "sd3":
        sizes = dict(
            depth=2, width=D, channels=4, text_width=12, pooled_width=5, max_grid=12, base_grid=8, qk_norm=True
        )
        convert_theirs = theirs.convert_sd3_transformer_checkpoint_to_diffusers
    else:
        sizes = dict(width=D, heads=H, depth=2, channels=4, text_width=12, axes=AXES)
        convert_theirs = theirs.convert_z_image_transformer_checkpoint_to_diffusers
    straight, around = (architectures.published(system, **sizes) for _ in range(2))
    old = old_names(straight)
    if system == "sd3":  # the released file's shapes: a convolution, a leading axis
        old["x_embedder.proj.weight"] = old["x_embedder.proj.weight"].reshape(D, 4, 2, 2)
        old["pos_embed"] = old["pos_embed"][None]
    assert architectures.load_published(straight, old) == "original"
    assert architectures.load_published(around, convert_theirs(dict(old))) == "diffusers"
    differing = [
        name
        for (name, a), b in zip(straight.state_dict().items(), around.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    ]
    assert not differing, differing


def test_an_unknown_system_or_size_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown published system 'sd4'.*sd3.*did you mean"):
        architectures.published("sd4")
    with pytest.raises(ValueError, match="sd3: unknown size 'dept'.*did you mean 'depth'"):
        architectures.published("sd3", dept=2)
    with pytest.raises(ValueError, match=r"axes \(16, 56, 56\) sum to 128, a head has 16"):
        architectures.published("flux", width=32, heads=2)


def test_weights_that_do_not_fit_are_named() -> None:
    state = dict(a_flux().state_dict())
    assert architectures.load_published(tiny(), state) == "diffusers"
    with pytest.raises(architectures.WeightsError, match="1 missing .proj_out.bias."):
        architectures.load_published(tiny(), {k: v for k, v in state.items() if k != "proj_out.bias"})
    with pytest.raises(architectures.WeightsError, match="1 left over .surprise."):
        architectures.load_published(tiny(), state | {"surprise": torch.zeros(1)})
    with pytest.raises(
        architectures.WeightsError, match=r"proj_out.bias \(3,\) does not make the model.s head.bias \(16,\)"
    ):
        architectures.load_published(tiny(), state | {"proj_out.bias": torch.zeros(3)})
    with pytest.raises(architectures.WeightsError, match="not weights of sd3.*they look like flux"):
        architectures.load_published(architectures.published("sd3", depth=2, width=D), state)
    with pytest.raises(architectures.WeightsError, match="not weights of hdm.*they look like flux"):
        architectures.load_published(tiny_hdm(), state)


# --- sampling with weights from a file --------------------------------------------------------------------------------


def test_euler_on_the_straight_path_is_ddim() -> None:
    """A step of diffusers' DDIM scheduler and a step of ours, with the same model of the noise."""
    from diffusers import DDIMScheduler

    from architectures.systems.parts import epsilon_velocity

    scheduler = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False)
    scheduler.set_timesteps(10)
    now, then = (int(step) for step in scheduler.timesteps[3:5])
    kept = scheduler.alphas_cumprod[[now, then]]
    total = kept.sqrt() + (1 - kept).sqrt()
    t, t_next = (1 - kept).sqrt() / total

    def predict(x: Tensor, steps: Tensor) -> Tensor:
        return torch.tanh(x) + steps[:, None, None, None] / 1000

    x = gaussian(2, 4, 4, 4)
    theirs = scheduler.step(predict(x, torch.full((2,), float(now))), now, x).prev_sample
    flow = x / total[0]
    mine = (flow + (t_next - t) * epsilon_velocity(predict, flow, t.repeat(2))) * total[1]
    assert torch.allclose(mine, theirs, atol=1e-4), (mine - theirs).abs().max()
    assert not torch.allclose(mine, x, atol=1e-2)


def test_a_file_of_weights_gives_samples_and_bad_files_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from typer.testing import CliRunner

    from bench.cli.app import app
    from bench.views.sample import published as files

    sizes = dict(width=D, heads=H, depth=2, image_size=8, classes=7)
    model = randomised(architectures.published("dit", **sizes))
    old = old_names(model)
    old["x_embedder.proj.weight"] = old["x_embedder.proj.weight"].reshape(D, 4, 2, 2)
    file = tmp_path / "dit.safetensors"
    save_file({name: value * 0.05 for name, value in old.items()}, file)
    command = ["sample-published", "dit", "--weights", str(file), "--latent", "8", "--steps", "3", "--count", "2"]
    command += [f"--size={key}={value}" for key, value in sizes.items()] + ["--out", str(tmp_path / "out.png")]
    result = CliRunner().invoke(app, [*command, "2", "5"])
    assert result.exit_code == 0, result.output
    sampled = load_file(tmp_path / "out.safetensors")["latents"]
    assert sampled.shape == (4, 4, 8, 8)
    assert sampled.isfinite().all()
    assert not torch.equal(sampled[:2], sampled[2:])

    assert CliRunner().invoke(app, [*command, "--guidance", "0", "2", "5"]).exit_code == 0
    free = load_file(tmp_path / "out.safetensors")["latents"]  # of no prompt: 0 is a guidance like any other
    assert torch.equal(free[:2], free[2:])

    half = tmp_path / "half.safetensors"
    half.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(files.FileError, match="half.safetensors: not a whole safetensors file"):
        files.load("dit", half, sizes)
    ran = tmp_path / "ran"
    torch.save({"weight": Boom(str(ran))}, tmp_path / "bad.safetensors")
    with pytest.raises(files.FileError, match="pickle.*which could run anything"):
        files.read(tmp_path / "bad.safetensors")
    assert not ran.exists()
    with pytest.raises(files.FileError, match="no safetensors file there"):
        files.read(tmp_path / "none.safetensors")
    with pytest.raises(architectures.WeightsError, match="another size"):
        files.load("dit", file, sizes | {"width": 64})


class Boom:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


# --- released layouts that no converter of diffusers' reads ----------------------------------------------------------

DIT_NAMES = {
    "pos_embed.proj": "x_embedder.proj",
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "transformer_blocks.0.norm1.emb.class_embedder.embedding_table": "y_embedder.embedding_table",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
PIXART_NAMES = {
    "pos_embed.proj": "x_embedder.proj",
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.emb.resolution_embedder.linear_1": "csize_embedder.mlp.0",
    "adaln_single.emb.resolution_embedder.linear_2": "csize_embedder.mlp.2",
    "adaln_single.emb.aspect_ratio_embedder.linear_1": "ar_embedder.mlp.0",
    "adaln_single.emb.aspect_ratio_embedder.linear_2": "ar_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "proj_out": "final_layer.linear",
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.to_out.0": "cross_attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
LUMINA_NAMES = {
    "time_caption_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_caption_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_caption_embed.caption_embedder": "cap_embedder",
    "norm_out.linear_1": "final_layer.adaLN_modulation.1",
    "norm_out.linear_2": "final_layer.linear",
    "norm1.linear": "adaLN_modulation.1",
    "norm1.norm": "attention_norm1",
    "norm1": "attention_norm1",
    "norm2": "attention_norm2",
    "to_out.0": "out",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
    "attn": "attention",
    "linear_1": "w1",
    "linear_2": "w2",
    "linear_3": "w3",
}


def released(state: dict[str, Tensor], names: dict[str, str], fused: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """diffusers' file with the released names: whole dotted parts are renamed, several Linears become one."""
    import re

    state, old = dict(state), {}
    for target, sources in fused.items():
        for part in ("weight", "bias"):
            for key in [key for key in state if key.endswith(f"{sources[0]}.{part}")]:
                begin = key.removesuffix(f"{sources[0]}.{part}")
                rows = [state.pop(f"{begin}{source}.{part}") for source in sources]
                state[f"{begin}{target}.{part}"] = torch.cat(rows)
    for key, value in state.items():
        for theirs, ours in names.items():
            key = re.sub(rf"(^|\.){re.escape(theirs)}(?=\.)", rf"\g<1>{ours}", key, count=1)
        old[re.sub(r"^transformer_blocks\.", "blocks.", key)] = value
    return old


@pytest.mark.parametrize("system", ["dit", "pixart", "pixart-1024", "lumina2"])
def test_a_released_file_gives_the_weights_of_diffusers_file(system: str) -> None:
    heads: dict[str, Any] = dict(num_attention_heads=H, attention_head_dim=24, sample_size=8)
    fused: dict[str, tuple[str, ...]] = {"attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v")}
    if system == "dit":
        theirs = diffusers.DiTTransformer2DModel(
            **heads, in_channels=4, out_channels=8, num_layers=2, num_embeds_ada_norm=7
        )
        sizes: dict[str, Any] = dict(width=48, heads=H, depth=2, image_size=8, classes=7)
        names = DIT_NAMES
    elif system == "lumina2":
        theirs = diffusers.Lumina2Transformer2DModel(
            in_channels=4, hidden_size=64, num_layers=2, num_refiner_layers=2, num_attention_heads=4, num_kv_heads=2,
            axes_dim_rope=AXES, cap_feat_dim=12,
        )  # fmt: skip
        sizes = dict(width=64, heads=4, kv_heads=2, depth=2, channels=4, text_width=12, axes=AXES)
        names, fused = LUMINA_NAMES, {"attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v")}
    else:
        sized = system == "pixart-1024"
        theirs = diffusers.PixArtTransformer2DModel(
            **heads, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=48, caption_channels=12,
            use_additional_conditions=sized,
        )  # fmt: skip
        sizes = dict(width=48, heads=H, depth=2, text_width=12)
        names, fused = PIXART_NAMES, fused | {"cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v")}
    state = dict(randomised(theirs).state_dict())
    straight, around = architectures.published(system, **sizes), architectures.published(system, **sizes)
    assert architectures.load_published(straight, state) == "diffusers"
    if system == "dit":  # one embedder for all blocks
        state = {key: value for key, value in state.items() if ".norm1.emb." not in key or ".0.norm1" in key}
    old = released(state, names, fused)
    if system.startswith("pixart"):
        old["final_layer.scale_shift_table"] = old.pop("scale_shift_table")
        old["y_embedder.y_embedding"] = torch.zeros(120, 12)  # in the file, an input here
    if system == "lumina2":
        old["norm_final.weight"] = torch.zeros(64)  # in the file, never used
    assert architectures.load_published(around, old) == "original"
    for (name, a), b in zip(straight.named_parameters(), around.parameters(), strict=True):
        assert torch.equal(a, b), name
