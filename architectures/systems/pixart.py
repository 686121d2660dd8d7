from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from architectures.final import FinalTable
from architectures.layers import MLP, CrossAttention, LayerNorm, SelfAttention, normal, patchify, sincos_at, unpatchify
from architectures.modulation import SharedTable
from architectures.prompt import FeatureBatch
from architectures.streams import prompt_path
from architectures.sublayer import LINEAR, PLAIN, Adaptive, Block, Condition, SubLayer, prompt_tokens
from architectures.systems.parts import TimeEmbedding, TwoLinear, epsilon_velocity, gelu_tanh
from architectures.systems.weights import Move, attention, feed_forward, linear, released_branches, rows, two


class PixArt(nn.Module):
    """PixArt-alpha: one head for all blocks and a table for each; captions by a bare cross-attention.

    forward(x (B, 4, H, W), t (B,) steps 0 .. 999, prompt of tokens (B, L, 4096) and mask (B, L)) -> (B, 8, H, W),
    epsilon and variance. With `size_conditions` (the 1024 model) c adds height and width (B, 2) and aspect ratio (B,).
    Positions are scaled: index * base / grid / interpolation. A released file holds their table, and one of others is
    refused; diffusers' layout holds none, so that the size must be given with it: `pixart` is of 256 pixels,
    `pixart-512` and `pixart-1024` of more. Chen et al. 2023 (arXiv 2310.00426).
    """

    system = "pixart"
    unused = ("pos_embed", r"y_embedder\.y_embedding")  # positions; the null caption, an input here

    def __init__(
        self,
        *,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        patch: int = 2,
        channels: int = 4,
        text_width: int = 4096,
        base_grid: int = 16,
        interpolation: float = 1.0,
        size_conditions: bool = False,
    ) -> None:
        super().__init__()
        d, branch = width, Adaptive("scale+shift", LINEAR)
        self.patch, self.channels, self.width, self.depth = patch, channels, width, depth
        self.base_grid, self.interpolation = base_grid, interpolation
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d)
        self.side = TimeEmbedding(d // 3) if size_conditions else None
        self.aspect = TimeEmbedding(d // 3) if size_conditions else None
        self.text = prompt_path(TwoLinear(text_width, d, activation=gelu_tanh))
        heads_of = SharedTable(d, [branch, PLAIN, branch], normal(0.02))
        self.trunk = heads_of.trunk()
        self.blocks = nn.ModuleList(
            Block(
                heads_of.head(),
                attention=SubLayer(
                    op=SelfAttention(d, heads), norm=LayerNorm(d), modulation=branch.modulation, gate=branch.gate
                ),
                cross=SubLayer(op=CrossAttention(d, heads), context=prompt_tokens),
                mlp=SubLayer(op=MLP(d), norm=LayerNorm(d), modulation=branch.modulation, gate=branch.gate),
            )
            for _ in range(depth)
        )
        self.norm, self.final = LayerNorm(d), FinalTable(d)
        self.head = nn.Linear(d, patch**2 * 2 * channels)

    def forward(
        self, x: Tensor, t: Tensor, prompt: FeatureBatch, size: Tensor | None = None, aspect: Tensor | None = None
    ) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        rows_, columns = (torch.arange(n, device=x.device) * (self.base_grid / n / self.interpolation) for n in (h, w))
        x = self.patches(patchify(x, self.patch)) + sincos_at(self.width, rows_, columns)
        c = self.time(t)
        if self.side is not None and self.aspect is not None:
            if size is None or aspect is None:
                raise ValueError("this model is conditioned on the image's size (B, 2) and aspect ratio (B,)")
            sides = [self.side(size[:, 0]), self.side(size[:, 1])]
            c = c + torch.cat([*sides, self.aspect(aspect)], dim=-1)
        condition = Condition(c, self.trunk(c), tokens=self.text(prompt.tokens), mask=prompt.mask)
        for block in self.blocks:
            x = block(x, condition)
        return unpatchify(self.head(self.final(self.norm(x), c)), self.patch, 2 * self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 4, H, W) on the straight path, t in [0, 1], 1 noise; a 1024 model gets the image's own size."""
        size = aspect = None
        if self.side is not None:
            size = torch.tensor([[8.0 * side for side in x.shape[-2:]]], device=x.device).repeat(len(x), 1)
            aspect = size[:, 0] / size[:, 1]
        return epsilon_velocity(lambda x_s, steps: self(x_s, steps, prompt, size, aspect), x, t)

    def refuse(self, state: Mapping[str, Tensor]) -> str:
        """What a file of PixArt is of, a clause, if its table of positions is not this model's; else empty."""
        table = state.get("pos_embed")
        if "t_block.1.weight" not in state or table is None or table.shape[-1:] != (self.width,):
            return ""
        table = table.reshape(-1, self.width).float().cpu()  # (grid grid, D)
        grid = math.isqrt(len(table))
        at = torch.arange(grid) * (self.base_grid / max(grid, 1) / self.interpolation)
        own = sincos_at(self.width, at, at)
        if table.shape == own.shape and torch.allclose(table, own, atol=0.05):
            return ""
        return (
            f"of a model with other positions than base_grid {self.base_grid} and interpolation "
            f"{self.interpolation:g} give: its table is {grid} x {grid}; choose pixart for 16, pixart-512 for 32, "
            "pixart-1024 for 64, or give both (of Sigma the interpolation is 0.5, 1, 2, 4 for 16, 32, 64, 128)"
        )

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        original = layout == "original"
        first, second = ("mlp.0", "mlp.2") if original else ("linear_1", "linear_2")
        emb = "" if original else "adaln_single.emb."
        names = {"time": f"{emb}t_embedder" if original else f"{emb}timestep_embedder"}
        if self.side is not None:
            names |= {
                "side": "csize_embedder" if original else f"{emb}resolution_embedder",
                "aspect": "ar_embedder" if original else f"{emb}aspect_ratio_embedder",
            }
        made = []
        for ours, theirs in names.items():
            made += two(ours, theirs, first, second)
        if original:
            made += linear("patches", "x_embedder.proj") + linear("trunk", "t_block.1")
            made += two("text", "y_embedder.y_proj", "fc1", "fc2")
            made += [Move("final.table.table", "final_layer.scale_shift_table"), *linear("head", "final_layer.linear")]
        else:
            made += linear("patches", "pos_embed.proj") + linear("trunk", "adaln_single.linear")
            made += two("text", "caption_projection", "linear_1", "linear_2")
            made += [Move("final.table.table", "scale_shift_table"), *linear("head", "proj_out")]
        for k in range(self.depth):
            ours, theirs = f"blocks.{k}", f"blocks.{k}" if original else f"transformer_blocks.{k}"
            made += [Move(f"{ours}.head.affine.table", f"{theirs}.scale_shift_table")]
            if original:
                made += released_branches(f"{ours}.", theirs)
                made += linear(f"{ours}.cross.op.q", f"{theirs}.cross_attn.q_linear")
                made += linear(f"{ours}.cross.op.kv", f"{theirs}.cross_attn.kv_linear")
                made += linear(f"{ours}.cross.op.out", f"{theirs}.cross_attn.proj")
            else:
                made += attention(f"{ours}.attention.op", f"{theirs}.attn1")
                made += linear(f"{ours}.cross.op.q", f"{theirs}.attn2.to_q")
                made += rows(f"{ours}.cross.op.kv", [f"{theirs}.attn2.to_{u}" for u in "kv"])
                made += linear(f"{ours}.cross.op.out", f"{theirs}.attn2.to_out.0")
                made += feed_forward(f"{ours}.mlp.op", f"{theirs}.ff")
        return made
