"""Sana: PixArt's modulation and bare cross-attention around a linear attention and an MLP with a convolution."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import streams
from architectures.final import FinalTable
from architectures.layers import CrossAttention, LayerNorm, RMSNorm, normal, patchify, sincos_at, unpatchify
from architectures.modulation import SharedTable
from architectures.prompt import FeatureBatch
from architectures.streams import prompt_path
from architectures.sublayer import PLAIN, Block, Condition, SubLayer, prompt_tokens
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import TimeEmbedding, TwoLinear, gelu_tanh, grid_positions
from architectures.systems.weights import LAYOUTS, Move, block_parts, linear, weight


class LinearAttention(nn.Module):
    """r(q) (r(k)^T v) / (r(q) sum r(k)), r = relu, in float32: its cost is linear in the number of tokens.

    Args:
        width: D.
        heads: H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        q, k, v = self.qkv(x).float().unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, d)
        q, k = q.relu(), k.relu()
        a = q @ (k.mT @ v) / (q @ k.sum(2)[..., None] + 1e-15)
        return self.out(a.transpose(1, 2).flatten(2).to(x.dtype))


class MixFFN(nn.Module):
    """D -> 2M -> M -> D: u, v = K silu(W x + w), u silu(v), K a 3 x 3 convolution of each channel alone.

    Args:
        width: D.
        hidden: M.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        """x (B, h w, D), row-major -> (B, h w, D)."""
        u = F.silu(self.up(x)).mT.unflatten(2, (h, w))  # (B, 2M, h, w)
        u, v = self.depthwise(u).flatten(2).mT.chunk(2, dim=-1)
        return self.down(u * F.silu(v))


def on_grid(c: Condition) -> tuple[int, ...]:
    """For an op over the image as rows and columns: how many, of positions (h, w, 3)."""
    assert c.positions is not None
    return c.positions.shape[:2]


class Sana(nn.Module):
    """Sana: one map for all blocks and a table for each, as PixArt has them; captions end in a norm.

        c = e_t,  b1, s1, g1, b2, s2, g2 = W silu(c) + b + E_i          (W and b of all blocks, E_i of one)
        x <- x + g1 LinearAttention(LN(x) (1 + s1) + b1)
        x <- x + CA(x, RMS(y))
        x <- x + g2 MixFFN(LN(x) (1 + s2) + b2)
        b, s = E + c,  x = LN(x) (1 + s) + b

    Nothing but the convolutions' padding depends on a token's place; the files for 2K and 4K add sin-cos positions, of
    `base_grid=64, interpolation=1` and `base_grid=128, interpolation=2`. Sana-1.5 has normed queries and keys, which
    are left out.

    forward(x (B, 32, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 2304) and mask (B, L)) -> (B, 32, H, W).
    Xie et al. 2024 (arXiv 2410.10629).
    """

    system = "sana"
    unused = ("pos_embed", r"y_embedder\.y_embedding", r"logvar_linear\..+")  # positions; null caption; training's

    def __init__(
        self,
        *,
        width: int = 2240,
        depth: int = 20,
        heads: int = 70,
        cross_heads: int = 20,
        hidden: int = 5600,
        patch: int = 1,
        channels: int = 32,
        text_width: int = 2304,
        base_grid: int = 32,
        interpolation: float | None = None,
    ) -> None:
        super().__init__()
        d = self.width = width
        self.patch, self.channels, self.depth = patch, channels, depth
        self.base_grid, self.interpolation = base_grid, interpolation
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.text = prompt_path(nn.Sequential(TwoLinear(text_width, d, activation=gelu_tanh), RMSNorm(d)))
        maps = SharedTable(d, [BRANCH, PLAIN, BRANCH], normal(0.02))
        self.trunk = maps.trunk()

        branch = partial(streams.branch, d, BRANCH)

        self.blocks = nn.ModuleList(
            Block(
                maps.head(),
                attention=branch(LinearAttention(d, heads)),
                cross=SubLayer(op=CrossAttention(d, cross_heads), context=prompt_tokens),
                mlp=branch(MixFFN(d, hidden), on_grid),
            )
            for _ in range(depth)
        )
        self.norm, self.final = LayerNorm(d), FinalTable(d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        rows, columns = (torch.arange(n, device=x.device) for n in (h, w))
        x = self.patches(patchify(x, self.patch))
        if self.interpolation is not None:
            base = self.base_grid / self.interpolation
            x = x + sincos_at(self.width, rows * (base / h), columns * (base / w))
        c = self.time(t)
        places = grid_positions(rows, columns).unflatten(0, (h, w))
        condition = Condition(c, self.trunk(c), tokens=self.text(prompt.tokens), mask=prompt.mask, positions=places)
        for block in self.blocks:
            x = block(x, condition)
        return unpatchify(self.head(self.final(self.norm(x), c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 32, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        of, table = LAYOUTS.index(layout), "scale_shift_table"
        made = [Move("final.table.table", ("final_layer." + table, table)[of])]
        made += weight("text.1", ("attention_y_norm", "caption_norm")[of])
        for ours, names in OUTER.items():
            made += linear(ours, names[of])
        for k in range(self.depth):
            block, theirs = f"blocks.{k}", f"{('blocks', 'transformer_blocks')[of]}.{k}"
            made += [Move(f"{block}.head.affine.table", f"{theirs}.{table}")]
            made += block_parts(block, theirs, BLOCK, of) + block_parts(block, theirs, WITHOUT_BIAS, of, bias=False)
        return made


# Our names, and the released file's and diffusers' for each.
OUTER = {
    "patches": ("x_embedder.proj", "patch_embed.proj"),
    "time.up": ("t_embedder.mlp.0", "time_embed.emb.timestep_embedder.linear_1"),
    "time.out": ("t_embedder.mlp.2", "time_embed.emb.timestep_embedder.linear_2"),
    "trunk": ("t_block.1", "time_embed.linear"),
    "text.0.up": ("y_embedder.y_proj.fc1", "caption_projection.linear_1"),
    "text.0.out": ("y_embedder.y_proj.fc2", "caption_projection.linear_2"),
    "head": ("final_layer.linear", "proj_out"),
}
BLOCK = {
    "attention.op.out": ("attn.proj", "attn1.to_out.0"),
    "cross.op.q": ("cross_attn.q_linear", "attn2.to_q"),
    "cross.op.kv": ("cross_attn.kv_linear", "attn2.to_k attn2.to_v"),
    "cross.op.out": ("cross_attn.proj", "attn2.to_out.0"),
    "mlp.op.up": ("mlp.inverted_conv.conv", "ff.conv_inverted"),
    "mlp.op.depthwise": ("mlp.depth_conv.conv", "ff.conv_depth"),
}
WITHOUT_BIAS = {
    "attention.op.qkv": ("attn.qkv", "attn1.to_q attn1.to_k attn1.to_v"),
    "mlp.op.down": ("mlp.point_conv.conv", "ff.conv_point"),
}
