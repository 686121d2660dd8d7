"""Systems of 2025-26 twice, as `pairs.py` has the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import architectures
from bench.studies.peers.pairs import Pair, Sizes, heads, inputs, untyped


def wan(of: Sizes) -> Pair:
    """Wan 2.1 for one frame, of captions as long as they may be."""
    import diffusers

    at, head, hidden = inputs(of), of.width // of.heads, 4 * of.width
    theirs: Any = untyped(diffusers).WanTransformer3DModel(
        **heads(of), in_channels=16, out_channels=16, text_dim=of.text, ffn_dim=hidden, num_layers=of.depth
    )
    third = 2 * (head // 6)  # channels that turn with the row, and with the column
    ours = architectures.published(
        "wan", width=of.width, heads=of.heads, depth=of.depth, hidden=hidden, text_width=of.text,
        text_length=of.tokens, axes=(head - 2 * third, third, third),
    )  # fmt: skip
    return Pair(
        ours,
        lambda: ours(at.x16, at.t, at.text),
        theirs,
        lambda: theirs(at.x16[:, :, None], timestep=1000 * at.t, encoder_hidden_states=at.text.tokens).sample[:, :, 0],
    )


def prx(of: Sizes) -> Pair:
    """PRX, whose captions no block updates."""
    import diffusers

    at, half = inputs(of), of.width // of.heads // 2
    theirs: Any = untyped(diffusers).PRXTransformer2DModel(
        in_channels=16, context_in_dim=of.text, hidden_size=of.width, mlp_ratio=4.0, num_heads=of.heads,
        depth=of.depth, axes_dim=[half, half],
    )  # fmt: skip
    ours = architectures.published(
        "prx", width=of.width, heads=of.heads, depth=of.depth, hidden=4 * of.width, text_width=of.text,
        axes=(half, half),
    )  # fmt: skip
    return Pair(
        ours,
        lambda: ours(at.x16, at.t, at.text),
        theirs,
        lambda: theirs(at.x16, at.t, at.text.tokens, at.text.mask).sample,
    )


def flux3(of: Sizes) -> Pair:
    """FLUX.3 without reference images, with latents that are packed before the model."""
    import diffusers
    from diffusers.modular_pipelines.flux3 import before_denoise

    at, early, joint = inputs(of), of.depth // 3, of.depth - of.depth // 3
    axes, side = (of.width // of.heads // 4,) * 4, of.side // 2
    theirs: Any = untyped(diffusers).Flux3Transformer2DModel(
        **heads(of), in_channels=64, num_layers=early, num_single_layers=joint, joint_attention_dim=of.text,
        axes_dims_rope=axes,
    )  # fmt: skip
    ours = architectures.published(
        "flux3", width=of.width, heads=of.heads, early=early, joint=joint, channels=64, text_width=of.text, axes=axes
    )
    step: Any = before_denoise
    x = at.x16.unflatten(2, (side, 2)).unflatten(4, (side, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    places = step._prepare_image_ids(side, side, image_rope_scale=0.5).to(of.device)
    texts = step.Flux3TextRoPEInputsStep._prepare_text_ids(at.text.tokens).to(of.device)
    return Pair(
        ours,
        lambda: ours(x, at.t, at.text),
        theirs,
        lambda: theirs(x.flatten(2).mT, at.text.tokens, at.t, places, texts).sample.mT.unflatten(2, (side, side)),
    )


RECENT: dict[str, Callable[[Sizes], Pair]] = {"wan": wan, "prx": prx, "flux3": flux3}
