"""Wan 2.1 for one frame: PixArt's blocks with a norm before the cross-attention, normed queries and keys, RoPE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import streams
from architectures.final import FinalTable
from architectures.layers import (
    CrossAttention,
    LayerNorm,
    SelfAttention,
    normal,
    patchify,
    unpatchify,
)
from architectures.modulation import SharedTable
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE
from architectures.streams import prompt_path
from architectures.sublayer import PLAIN, Block, Condition, SubLayer, prompt_tokens
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import (
    AcrossHeadsNorm,
    TimeEmbedding,
    TwoLinear,
    check_axes,
    gelu_tanh,
    grid_positions,
    positions_alone,
    too_long,
    turns,
)
from architectures.systems.weights import LAYOUTS, Move, block_parts, linear, weight

A = TypeVar("A", SelfAttention, CrossAttention)


def normed(op: A, width: int) -> A:
    """The attention with queries and keys normed across heads."""
    op.q_norm, op.k_norm = AcrossHeadsNorm(width, op.heads), AcrossHeadsNorm(width, op.heads)
    return op


class Wan(nn.Module):
    """Wan 2.1, text-to-video, in image mode: a video of one frame.

        c = e_t,  b1, s1, g1, b2, s2, g2 = W silu(c) + b + E_i          (W and b of all blocks, E_i of one)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + CA(LN(x) w + v, caption)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = E + c,  x = LN(x) (1 + s) + b

    Rotary positions are (0, row, column). Captions are filled up to `text_length` with zeros, which are attended to as
    any token is: there is no mask in attention.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 4096) and mask (B, L)) -> (B, 16, H, W).
    Wan team 2025 (arXiv 2503.20314).
    """

    system = "wan"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 5120,
        depth: int = 40,
        heads: int = 40,
        hidden: int = 13824,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 4096,
        text_length: int = 512,
        axes: tuple[int, ...] = (44, 42, 42),
        theta: float = 10000.0,
        max_grid: int = 1024,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = width
        self.patch, self.channels, self.depth, self.text_length = patch, channels, depth, text_length
        self.axes, self.theta, self.max_grid = axes, theta, max_grid
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.text = prompt_path(TwoLinear(text_width, d, activation=gelu_tanh))
        maps = SharedTable(d, [BRANCH, PLAIN, BRANCH], normal(0.02))
        self.trunk = maps.trunk()

        branch = partial(streams.branch, d, BRANCH)

        self.blocks = nn.ModuleList(
            Block(
                maps.head(),
                attention=branch(normed(SelfAttention(d, heads, rope=PrecomputedRoPE()), d), positions_alone),
                cross=SubLayer(
                    op=normed(CrossAttention(d, heads), d), norm=nn.LayerNorm(d, eps=1e-6), context=prompt_tokens
                ),
                mlp=branch(TwoLinear(d, d, hidden, activation=gelu_tanh)),
            )
            for _ in range(depth)
        )
        self.norm, self.final = LayerNorm(d), FinalTable(d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"x of shape {tuple(x.shape)}: one frame is modelled here, as (B, {self.channels}, H, W)")
        h, w = (side // self.patch for side in x.shape[-2:])
        too_long("tokens a side", max(h, w), self.max_grid)
        c = self.time(t)
        places = grid_positions(torch.arange(h, device=x.device), torch.arange(w, device=x.device))
        angles = turns(places, self.axes, self.theta)[None]
        condition = Condition(c, self.trunk(c), tokens=self.text(self.filled(prompt)), positions=angles)
        x = self.patches(patchify(x, self.patch))
        for block in self.blocks:
            x = block(x, condition)
        return unpatchify(self.head(self.final(self.norm(x), c)), self.patch, self.channels, (h, w))

    def filled(self, prompt: FeatureBatch) -> Tensor:
        """Captions (B, text_length, 4096), zero where they have no token."""
        missing = self.text_length - prompt.tokens.shape[1]
        too_long("caption tokens", prompt.tokens.shape[1], self.text_length)
        return F.pad(prompt.tokens.masked_fill(~prompt.mask[..., None], 0), (0, 0, 0, missing))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def refuse(self, state: Mapping[str, Tensor]) -> str:
        """What a file of Wan is of, a clause, if that is not text-to-video; else empty."""
        patches = state.get("patch_embedding.weight")
        beside = patches is not None and patches.shape[1:2] == (2 * self.channels + 4,)  # a frame and its mask
        if beside or any(IMAGE_EMBEDDER.match(name) for name in state):
            return "of an image-to-video model, which is conditioned on a frame: take a text-to-video one (Wan2.1-T2V)"
        return ""

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        of = LAYOUTS.index(layout)
        table = ("modulation", "scale_shift_table")[of]
        made = [Move("final.table.table", ("head.modulation", "scale_shift_table")[of])]
        for ours, names in OUTER.items():
            made += linear(ours, names[of])
        for k in range(self.depth):
            block = f"blocks.{k}"
            made += [Move(f"{block}.head.affine.table", f"{block}.{table}")]
            made += block_parts(block, block, BLOCK, of)
            for ours, names in ATTENTIONS.items():
                for u in "qk":
                    made += weight(f"{block}.{ours}.op.{u}_norm", f"{block}.{names[of]}.norm_{u}")
        return made


IMAGE_EMBEDDER = re.compile(r"(?:img_emb|condition_embedder\.image_embedder)\.")  # of both layouts

# Our names, and the released file's and diffusers' for each.
OUTER = {
    "patches": ("patch_embedding", "patch_embedding"),
    "time.up": ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    "time.out": ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    "trunk": ("time_projection.1", "condition_embedder.time_proj"),
    "text.up": ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    "text.out": ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    "head": ("head.head", "proj_out"),
}
BLOCK = {
    "attention.op.qkv": ("self_attn.q self_attn.k self_attn.v", "attn1.to_q attn1.to_k attn1.to_v"),
    "attention.op.out": ("self_attn.o", "attn1.to_out.0"),
    "cross.op.q": ("cross_attn.q", "attn2.to_q"),
    "cross.op.kv": ("cross_attn.k cross_attn.v", "attn2.to_k attn2.to_v"),
    "cross.op.out": ("cross_attn.o", "attn2.to_out.0"),
    "cross.norm": ("norm3", "norm2"),
    "mlp.op.up": ("ffn.0", "ffn.net.0.proj"),
    "mlp.op.out": ("ffn.2", "ffn.net.2"),
}
ATTENTIONS = {"attention": ("self_attn", "attn1"), "cross": ("cross_attn", "attn2")}
