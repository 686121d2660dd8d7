"""Chroma: FLUX.1's blocks, all of whose vectors one network gives, of the timestep and each vector's number."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from architectures.layers import MLP, LayerNorm, patchify, sinusoid, unpatchify, zeros
from architectures.placement import Approximate, Approximator
from architectures.prompt import FeatureBatch, with_image
from architectures.streams import prompt_path
from architectures.sublayer import Condition, modulate
from architectures.systems.flux import block_moves, blocks, image_after, image_turns, outer_moves
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import check_axes
from architectures.systems.weights import Move, linear

CHANNELS = 16  # of the sinusoid of t, and of that of a guidance


class Chroma(nn.Module):
    """Chroma: v_j = A([sinusoid(1000 t) ; sinusoid(0) ; sinusoid(1000 j)]) for every vector j of the model.

    They are numbered in the order: blocks of one stream, image's of two, caption's of two, shift and scale at the end.
    The second sinusoid is of a guidance that is always 0; nothing pooled of the caption enters. A is one network, where
    the scheme's option `head: approximator` has one for each kind of stream.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens and mask (B, L)) -> (B, 16, H, W); tokens are
    (B, L, 4096), latents are packed 2 x 2 inside. In training, masks kept one token of padding. lodestones/Chroma1-HD,
    2025.
    """

    system = "chroma"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 3072,
        heads: int = 24,
        dual: int = 19,
        single: int = 38,
        channels: int = 16,
        patch: int = 2,
        text_width: int = 4096,
        hidden: int = 5120,
        layers: int = 5,
        axes: tuple[int, ...] = (16, 56, 56),
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = self.width = width
        self.patch, self.channels, self.axes, self.theta = patch, channels, axes, theta
        self.dual, self.single, self.layers = dual, single, layers
        self.patches = nn.Linear(channels * patch**2, d)
        self.text = prompt_path(nn.Linear(text_width, d))
        self.counts = [3 * single, 6 * dual, 6 * dual, 2]
        self.trunk = Approximate(2 * CHANNELS, d, hidden, layers, sum(self.counts))
        self.blocks = blocks(
            Approximator(d, [BRANCH, BRANCH], zeros, hidden, layers, dual),
            Approximator(d, [BRANCH], zeros, hidden, layers, single),
            dual=dual,
            single=single,
            heads=heads,
            mlp=partial(MLP, d),
            joint_mlp=partial(MLP, d, out_bias=False),
        )
        self.norm = LayerNorm(d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = torch.cat([sinusoid(1000 * t.float(), CHANNELS), sinusoid(torch.zeros_like(t), CHANNELS)], dim=1)
        joint, image, text, last = self.trunk(c.to(self.head.weight.dtype)).split(self.counts, dim=1)
        positions = image_turns((h, w), prompt.tokens, self.axes, self.theta)
        condition = Condition(None, image, text, joint, mask=with_image(prompt.mask, h * w), positions=positions)
        out = image_after(self.blocks, self.patches(patchify(x, self.patch)), self.text(prompt.tokens), condition)
        out = modulate(self.norm(out), *last.unbind(1))
        return unpatchify(self.head(out), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        every = block_moves(layout, self.width, self.dual, self.single)
        made = outer_moves(layout, self.patch) + [move for move in every if "head.affine" not in move.target]
        theirs = "distilled_guidance_layer"
        first, second, scale = ("in_layer", "out_layer", "scale")
        if layout == "diffusers":
            first, second, scale = ("linear_1", "linear_2", "weight")
        made += linear("trunk.up", f"{theirs}.in_proj") + linear("trunk.out", f"{theirs}.out_proj")
        for k in range(self.layers):
            made += [Move(f"trunk.layers.{k}.0.weight", f"{theirs}.norms.{k}.{scale}")]
            made += linear(f"trunk.layers.{k}.1", f"{theirs}.layers.{k}.{first}")
            made += linear(f"trunk.layers.{k}.3", f"{theirs}.layers.{k}.{second}")
        return made
