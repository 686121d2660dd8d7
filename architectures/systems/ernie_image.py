"""ERNIE-Image: one sequence of image and caption, modulated by one map of the timestep that all blocks share."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.layers import GatedMLP, LayerNorm, RMSNorm, SelfAttention, sinusoid
from architectures.modulation import Head, Linear, Shared
from architectures.prompt import FeatureBatch, with_image
from architectures.streams import prompt_path
from architectures.sublayer import MODULATIONS, Condition, modulate
from architectures.systems.mmdit import BRANCH
from architectures.systems.next_dit import joint_places
from architectures.systems.parts import TwoLinear, check_axes, lengths, pre_norm_block, turns
from architectures.systems.weights import Move, linear, rows, swap, two, weight


class CrossedRoPE(nn.Module):
    """u cos a - w sin a and w cos b + u sin b, for halves u and w of a head: a and b are not the same angles.

    Angle i is of channels 2 i and 2 i + 1, but channel j is turned with channel j + d/2. So it is no rotation, and
    q k^T is no function of the difference of two positions: as ERNIE-Image was trained.
    """

    def forward(self, q: Tensor, angles: Tensor) -> Tensor:
        """Queries or keys (B, H, N, d) at angles' cosines and sines (B, N, d/2, 2) -> (B, H, N, d)."""
        cos, sin = angles.repeat_interleave(2, dim=2)[:, None].unbind(-1)  # each (B, 1, N, d)
        u, w = q.float().chunk(2, dim=-1)
        return (q * cos + torch.cat([-w, u], dim=-1) * sin).to(q.dtype)


class ErnieImage(nn.Module):
    """ERNIE-Image: every block's vectors are M(silu(c)), c = e_t; the last norm's are a map of c itself.

    e_t has as many sines and cosines as the stream has channels. Rotary positions are (length, row, column) of the
    image's tokens, length the caption's, and (place, 0, 0) of the caption's tokens, see `CrossedRoPE`.

    forward(x (B, 128, h, w), t (B,) = 1000 sigma, prompt of tokens (B, L, 3072) and mask (B, L)) -> (B, 128, h, w).
    x is latents of 32 channels, packed 2 x 2 and normalised, as FLUX.2's VAE gives them. baidu/ERNIE-Image, 2026.
    """

    system = "ernie-image"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 4096,
        heads: int = 32,
        depth: int = 36,
        hidden: int = 12288,
        channels: int = 128,
        text_width: int = 3072,
        axes: tuple[int, ...] = (32, 48, 48),
        theta: float = 256.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = self.width = width
        self.channels, self.axes, self.theta, self.depth = channels, axes, theta, depth
        self.patches = nn.Linear(channels, d)
        self.time = TwoLinear(d, d)
        self.text = prompt_path(nn.Linear(text_width, d, bias=False))
        maps = Shared(d, [BRANCH, BRANCH])
        self.trunk = maps.trunk()
        self.blocks = nn.ModuleList(
            pre_norm_block(
                d,
                partial(RMSNorm, eps=1e-6),
                attention=SelfAttention(d, heads, bias=(False, False), qk_norm=True, rope=CrossedRoPE()),
                mlp=GatedMLP(d, hidden=hidden, bias=False, activation=F.gelu),
                head=maps.head(),
                branch=BRANCH,
            )
            for _ in range(depth)
        )
        self.norm, self.last = LayerNorm(d), Head(Linear(d, 2 * d), [MODULATIONS["scale+shift"]])
        self.head = nn.Linear(d, channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = x.shape[-2:]
        cosines, sines = sinusoid(t, self.width).chunk(2, dim=1)
        c = self.time(torch.cat([sines, cosines], dim=1).to(self.head.weight.dtype))
        places = joint_places(h, w, prompt.tokens.shape[1], count=lengths(prompt.mask))
        condition = Condition(
            modulation=self.trunk(c),
            mask=with_image(prompt.mask, h * w),
            positions=turns(places, self.axes, self.theta),
        )
        z = torch.cat([self.patches(x.flatten(2).mT), self.text(prompt.tokens)], dim=1)
        for block in self.blocks:
            z = block(z, condition)
        (last,) = self.last(c)
        out = modulate(self.norm(z[:, : h * w]), last.shift, last.scale)
        return self.head(out).mT.unflatten(2, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 128, h, w), t in [0, 1], 1 noise."""
        return self(x, 1000 * t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """diffusers' layout is the released one."""
        if layout == "original":
            return []
        made = linear("patches", "x_embedder.proj") + weight("text", "text_proj")
        made += two("time", "time_embedding", "linear_1", "linear_2") + linear("trunk", "adaLN_modulation.1")
        made += linear("last.affine", "final_norm.linear", swap) + linear("head", "final_linear")
        for k in range(self.depth):
            ours, theirs = f"blocks.{k}", f"layers.{k}"
            attention, mlp = f"{theirs}.self_attention", f"{theirs}.mlp"
            made += weight(f"{ours}.attention.norm", f"{theirs}.adaLN_sa_ln")
            made += rows(f"{ours}.attention.op.qkv", [f"{attention}.to_{u}" for u in "qkv"], bias=False)
            made += weight(f"{ours}.attention.op.out", f"{attention}.to_out.0")
            for u in "qk":
                made += weight(f"{ours}.attention.op.{u}_norm", f"{attention}.norm_{u}")
            made += weight(f"{ours}.mlp.norm", f"{theirs}.adaLN_mlp_ln")
            made += rows(f"{ours}.mlp.op.up", [f"{mlp}.gate_proj", f"{mlp}.up_proj"], bias=False)
            made += weight(f"{ours}.mlp.op.down", f"{mlp}.linear_fc2")
        return made
