"""Whole published systems against diffusers: totals at published sizes, outputs and gradients at tiny ones.

The weights go from diffusers' model into ours by `load_published`; the same moves carry its gradients into our names,
so that every parameter's gradient is compared.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import architectures
from architectures.prompt import FeatureBatch
from architectures.systems.weights import convert

diffusers = pytest.importorskip("diffusers")

D, H = 32, 2
AXES = (4, 6, 6)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.15, generator=g)
            if "norm" in name and parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agree(mine: nn.Module, theirs: nn.Module, ours: Callable, other: Callable, inputs: list[Tensor]) -> None:
    """Outputs, gradients of the inputs and of every parameter; and a changed input changes the output."""
    assert architectures.load_published(mine, theirs.state_dict()) == "diffusers"
    a, b = ours(*inputs), other(*inputs)
    assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5), (a - b).abs().max()
    weights = draw(*a.shape, seed=9)
    grads = torch.autograd.grad((a * weights).sum(), [*inputs, *mine.parameters()], allow_unused=True)
    wanted = torch.autograd.grad((b * weights).sum(), [*inputs, *theirs.parameters()], allow_unused=True)
    for x, y in zip(grads[: len(inputs)], wanted[: len(inputs)], strict=True):
        close(x, y, "input")
    state = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    named = zip([name for name, _ in theirs.named_parameters()], wanted[len(inputs) :], strict=True)
    state |= {name: grad for name, grad in named if grad is not None}
    carried = convert(mine, state, "diffusers")
    for (name, parameter), grad in zip(mine.named_parameters(), grads[len(inputs) :], strict=True):
        close(torch.zeros_like(parameter) if grad is None else grad, carried[name], name)
    assert not torch.allclose(ours(*[x * 1.1 for x in inputs]), b, atol=1e-3)


def close(x: Tensor, y: Tensor, name: str) -> None:
    scale = max(1.0, float(y.abs().max()))
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
    "qwen-image": lambda: diffusers.QwenImageTransformer2DModel(),
}  # fmt: skip
MILLIONS = {"sd3": 2028.3, "sd3-large": 8056.6, "flux": 11901.4, "flux-schnell": 11891.2, "qwen-image": 20430.4}


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


# --- outputs and gradients --------------------------------------------------------------------------------------------


def prompts(width: int, pooled: int = 5, lengths: tuple[int, ...] = (7, 4)) -> FeatureBatch:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return FeatureBatch(draw(len(lengths), max(lengths), width, seed=3), mask, draw(len(lengths), pooled, seed=4))


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
        )  # fmt: skip
    )
    first = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:  # one embedder, as the paper has; and the original's frequencies
        block.norm1.emb = first
    first.time_proj.downscale_freq_shift = 0
    mine = architectures.published("dit", width=D, heads=H, depth=2, image_size=8, classes=7)
    steps, y = torch.tensor([3, 700]), torch.tensor([2, 7])
    x = draw(2, 4, 8, 8).requires_grad_()
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
        )  # fmt: skip
    )
    mine = architectures.published(
        "sd3", depth=2, width=D, channels=4, text_width=12, pooled_width=5, max_grid=12, base_grid=8, qk_norm=qk_norm
    )
    p, t = prompts(12), torch.tensor([20.0, 900.0])
    x, y, v = draw(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_(), p.pooled.requires_grad_()
    own = mine.positions.clone()
    agree(
        mine, theirs,
        lambda x, y, v: mine(x, t, FeatureBatch(y, p.mask, v)),
        lambda x, y, v: theirs(x, encoder_hidden_states=y, pooled_projections=v, timestep=t).sample,
        [x, y, v],
    )  # fmt: skip
    assert torch.allclose(own, mine.positions, atol=1e-6)  # what we compute is what their file holds
    with pytest.raises(ValueError, match="13, but the model's limit is 12"):
        mine(draw(2, 4, 26, 8), t, p)


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
        )  # fmt: skip
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
    x, y, v = draw(2, 4, 8, 12).requires_grad_(), p.tokens.requires_grad_(), p.pooled.requires_grad_()
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 6, "cpu", torch.float32)

    def other(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        out = theirs(
            pack(x), y, v, t, ids, torch.zeros(y.shape[1], 3), guidance=g if guided else None, return_dict=False
        )[0]
        return unpack(out, 8, 12)

    agree(mine, theirs, lambda x, y, v: mine(x, t, FeatureBatch(y, p.mask, v), g), other, [x, y, v])


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
        )  # fmt: skip
    )
    mine = architectures.published("qwen-image", width=D, heads=H, depth=2, channels=4, text_width=12, axes=AXES)
    p, t = prompts(12), torch.tensor([0.1, 0.8])
    x, y = draw(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()
    shapes = [[(1, size[0] // 2, size[1] // 2)]] * 2

    def other(x: Tensor, y: Tensor) -> Tensor:
        out = theirs(pack(x), y, p.mask, t, shapes, return_dict=False)[0]
        return unpack(out, *size)

    agree(mine, theirs, lambda x, y: mine(x, t, FeatureBatch(y, p.mask, p.pooled)), other, [x, y])
