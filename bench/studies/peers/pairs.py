"""Published systems twice, here and in diffusers, with the same sizes, weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import architectures
from architectures import FeatureBatch

CLASSES = 10
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of both models and their inputs.

    Attributes:
        side: of the latents; patches are 2 wide.
        tokens: of the prompt.
        text: width of a prompt's token.
        pooled: width of its pooled vector.
    """

    device: str = "cpu"
    width: int = 256
    heads: int = 4
    depth: int = 6
    batch: int = 8
    side: int = 16
    tokens: int = 32
    text: int = 64
    pooled: int = 64

    @property
    def axes(self) -> tuple[int, int, int]:
        """Channels of a head that turn with time, row and column."""
        head = self.width // self.heads
        return head // 4, 3 * head // 8, 3 * head // 8


@dataclass(frozen=True)
class Pair:
    """One system twice, with the same weights and inputs: a model of ours and its output, theirs and its output."""

    ours: nn.Module
    our_output: Step
    theirs: nn.Module
    their_output: Step


@dataclass(frozen=True)
class Inputs:
    """What both are given: latents of 4 and of 16 channels, time as a share and as a step, class ids, text features."""

    x4: Tensor
    x16: Tensor
    t: Tensor
    steps: Tensor
    y: Tensor
    text: FeatureBatch


def inputs(of: Sizes) -> Inputs:
    """The same at every call."""
    g, there = torch.Generator().manual_seed(0), torch.device(of.device)
    x4, x16 = (torch.randn(of.batch, c, of.side, of.side, generator=g).to(there) for c in (4, 16))
    tokens = torch.randn(of.batch, of.tokens, of.text, generator=g).to(there)
    pooled = torch.randn(of.batch, of.pooled, generator=g).to(there)
    t, steps = torch.rand(of.batch, generator=g).to(there), torch.randint(1000, (of.batch,), generator=g).to(there)
    mask = torch.ones(of.batch, of.tokens, dtype=torch.bool, device=there)
    y = torch.arange(of.batch, device=there).remainder(CLASSES)
    return Inputs(x4, x16, t, steps, y, FeatureBatch(tokens, mask, pooled))


def untyped(module: Any) -> Any:
    """A library whose functions carry no types."""
    return module


def heads(of: Sizes) -> dict[str, Any]:
    """Attention heads as diffusers names them."""
    return {"num_attention_heads": of.heads, "attention_head_dim": of.width // of.heads}


def dit(of: Sizes) -> Pair:
    """DiT, of class labels."""
    import diffusers

    at = inputs(of)
    theirs: Any = untyped(diffusers).DiTTransformer2DModel(
        **heads(of),
        in_channels=4,
        out_channels=8,
        num_layers=of.depth,
        sample_size=of.side,
        num_embeds_ada_norm=CLASSES,
    )
    ours = architectures.published(
        "dit", width=of.width, heads=of.heads, depth=of.depth, image_size=of.side, classes=CLASSES
    )
    return Pair(
        ours,
        lambda: ours(at.x4, at.steps, at.y),
        theirs,
        lambda: theirs(at.x4, timestep=at.steps, class_labels=at.y).sample,
    )


def pixart(of: Sizes) -> Pair:
    """PixArt-alpha, of text tokens."""
    import diffusers

    at = inputs(of)
    theirs: Any = untyped(diffusers).PixArtTransformer2DModel(
        **heads(of), in_channels=4, out_channels=8, num_layers=of.depth, cross_attention_dim=of.width,
        sample_size=of.side, caption_channels=of.text, use_additional_conditions=False,
    )  # fmt: skip
    ours = architectures.published(
        "pixart", width=of.width, heads=of.heads, depth=of.depth, text_width=of.text, base_grid=of.side // 2
    )
    none: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    mask = at.text.mask.float()
    return Pair(
        ours,
        lambda: ours(at.x4, at.steps, at.text),
        theirs,
        lambda: theirs(at.x4, at.text.tokens, at.steps, none, encoder_attention_mask=mask).sample,
    )


def sd3(of: Sizes) -> Pair:
    """Stable Diffusion 3, of text tokens and a pooled vector."""
    import diffusers

    at = inputs(of)
    theirs: Any = untyped(diffusers).SD3Transformer2DModel(
        **heads(of), sample_size=of.side, num_layers=of.depth, joint_attention_dim=of.text,
        caption_projection_dim=of.width, pooled_projection_dim=of.pooled, in_channels=16, out_channels=16,
        pos_embed_max_size=of.side,
    )  # fmt: skip
    ours = architectures.published(
        "sd3",
        depth=of.depth,
        width=of.width,
        heads=of.heads,
        text_width=of.text,
        pooled_width=of.pooled,
        max_grid=of.side,
        base_grid=of.side // 2,
    )
    return Pair(
        ours,
        lambda: ours(at.x16, 1000 * at.t, at.text),
        theirs,
        lambda: theirs(at.x16, at.text.tokens, at.text.pooled, 1000 * at.t).sample,
    )


def flux(of: Sizes) -> Pair:
    """FLUX, of text tokens and a pooled vector."""
    import diffusers
    from diffusers import FluxPipeline

    at, dual, single = inputs(of), of.depth // 3, of.depth - of.depth // 3
    theirs: Any = untyped(diffusers).FluxTransformer2DModel(
        **heads(of), in_channels=64, num_layers=dual, num_single_layers=single, joint_attention_dim=of.text,
        pooled_projection_dim=of.pooled, axes_dims_rope=of.axes,
    )  # fmt: skip
    ours = architectures.published(
        "flux", width=of.width, heads=of.heads, dual=dual, single=single, text_width=of.text, pooled_width=of.pooled,
        axes=of.axes, guidance=False,
    )  # fmt: skip
    pipeline: Any = FluxPipeline
    ids = pipeline._prepare_latent_image_ids(1, of.side // 2, of.side // 2, of.device, torch.float32)
    packed, texts = pipeline._pack_latents(at.x16, *at.x16.shape), torch.zeros(of.tokens, 3, device=of.device)
    return Pair(
        ours,
        lambda: ours(at.x16, at.t, at.text),
        theirs,
        lambda: theirs(packed, at.text.tokens, at.text.pooled, at.t, ids, texts).sample,
    )


def flux2(of: Sizes) -> Pair:
    """FLUX.2, of text tokens, with latents that are packed before the model."""
    import diffusers
    from diffusers import Flux2Pipeline

    at, dual, single = inputs(of), of.depth // 3, of.depth - of.depth // 3
    axes = (of.width // of.heads // 4,) * 4
    theirs: Any = untyped(diffusers).Flux2Transformer2DModel(
        **heads(of), in_channels=64, num_layers=dual, num_single_layers=single, joint_attention_dim=of.text,
        axes_dims_rope=axes, guidance_embeds=False,
    )  # fmt: skip
    ours = architectures.published(
        "flux2", width=of.width, heads=of.heads, dual=dual, single=single, channels=64, text_width=of.text, axes=axes,
        guidance=False,
    )  # fmt: skip
    pipeline: Any = Flux2Pipeline
    x = pipeline._patchify_latents(at.x16)
    places = pipeline._prepare_latent_ids(x).to(of.device)
    texts = pipeline._prepare_text_ids(at.text.tokens).to(of.device)
    return Pair(
        ours,
        lambda: ours(x, at.t, at.text),
        theirs,
        lambda: theirs(pipeline._pack_latents(x), at.text.tokens, at.t, places, texts).sample,
    )


SYSTEMS: dict[str, Callable[[Sizes], Pair]] = {
    "dit": dit,
    "pixart": pixart,
    "sd3": sd3,
    "flux": flux,
    "flux2": flux2,
}
