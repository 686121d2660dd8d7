"""Qwen-Image-2.1: one sequence of the image and a causal caption, whose tokens see neither image nor t."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import streams
from architectures.final import FinalNorm
from architectures.layers import GatedMLP, LayerNorm, SelfAttention
from architectures.modulation import Shared
from architectures.prompt import FeatureBatch, with_image
from architectures.rotary import PrecomputedRoPE
from architectures.sequence import SidedBlock
from architectures.sides import Kept, attention_of
from architectures.streams import prompt_path
from architectures.sublayer import Adaptive, Condition, mask_and_positions, no_context
from architectures.systems.mmdit import centred_grid
from architectures.systems.parts import (
    GATE_TANH,
    CentredRMSNorm,
    TimeEmbedding,
    TwoLinear,
    check_axes,
    gelu_tanh,
    lengths,
    turns,
    without_biases,
)
from architectures.systems.weights import LAYOUTS, Move, rows

BRANCH = Adaptive("scale", GATE_TANH)


class CausalBlock(SidedBlock):
    """z = [x ; y] -> z: x attends to both, each token of y to itself and those before it."""

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """y (B, L, D), padded at the end -> the same, and its keys and values."""
        assert c.positions is not None
        side = self.prompt_side(c)
        op, w = attention_of(side.attention), side.attention.pre(y, side.first)
        q, k, v = op.split(w, c.positions[:, -y.shape[1] :])
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        return self.after(side, y, w, op.emit(a, w), c), (k, v)

    def attention_equations(self, u: str, w: str) -> list[str]:
        """What attends to what."""
        return [line.replace("a_y = ", "a_y = Causal") for line in super().attention_equations(u, w)]


class QwenImage21(nn.Module):
    """Qwen-Image-2.1, text to image: one map of the timestep for all blocks, of t for x and of t = 0 for y.

        c = e_t, c' = e_0
        s1, g1, s2, g2 = W silu(c),  s1', g1', s2', g2' = W silu(c')
        u, w = LN(x) (1 + s1), LN(y) (1 + s1')
        x <- x + tanh(g1) Attention(u, [u ; w]),  y <- y + tanh(g1') CausalAttention(w)
        x <- x + tanh(g2) MLP(LN(x) (1 + s2)),  y likewise

    Rotary positions are (k, k, k) of the caption's token k and (L, row, column) of the image's, counted from its
    middle; L counts the padding.

    forward(x (B, 64, h, w), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 4096) and mask (B, L)) -> (B, 64, h, w).
    x is latents as its VAE gives them, and there are no biases. Reference images, which it has as a part of the prompt,
    are left out. QwenLM/Qwen-Image-2.1, 2026, as diffusers computes it; the last block writes a caption that nothing
    reads.
    """

    system = "qwen-image-2.1"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 4096,
        depth: int = 32,
        heads: int = 32,
        channels: int = 64,
        text_width: int = 4096,
        axes: tuple[int, ...] = (16, 56, 56),
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d, maps = width, Shared(width, [BRANCH, BRANCH])
        self.channels, self.axes, self.theta, self.depth = channels, axes, theta, depth
        self.patches = nn.Linear(channels, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.text = prompt_path(
            nn.Sequential(CentredRMSNorm(text_width, eps=1e-6), TwoLinear(text_width, d, activation=gelu_tanh))
        )
        self.trunk = maps.trunk()

        branch = partial(streams.branch, d, BRANCH)

        self.blocks = nn.ModuleList(
            CausalBlock(
                maps.head(),
                attention=branch(SelfAttention(d, heads, qk_norm=True, rope=PrecomputedRoPE()), mask_and_positions),
                mlp=branch(GatedMLP(d, hidden=3 * d), no_context),
                sees=False,
            )
            for _ in range(depth)
        )
        self.final = FinalNorm(LayerNorm(d), "scale", d)
        self.head = nn.Linear(d, channels)
        without_biases(self)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        lengths(prompt.mask)  # refuses padding before a token, which would attend to it
        h, w = x.shape[-2:]
        c = self.time(t)
        x, y = self.patches(x.flatten(2).mT), self.text(prompt.tokens)
        image, L = centred_grid(h, w, x.device), y.shape[1]
        image[:, 0] = L
        text = torch.arange(L, device=x.device)[:, None].expand(-1, 3)
        condition = Condition(
            c,
            self.trunk(c),
            tokens=y,
            mask=with_image(prompt.mask, h * w),
            positions=turns(torch.cat([image, text]), self.axes, self.theta)[None],
            prompt=Condition(modulation=self.trunk(self.time(t.new_zeros(1)))),
        )
        z = torch.cat([x, y], dim=1)
        for block in self.blocks:
            z = block(z, condition)
        return self.head(self.final(z[:, : h * w], c)).mT.unflatten(2, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 64, h, w), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the single file with fused MLPs (`original`) or the release (`diffusers`) becomes these parameters."""
        made = []
        for ours, theirs in OUTER.items():
            made += rows(ours, [theirs], bias=False)
        block = BLOCK | {"mlp.op.up": UP[LAYOUTS.index(layout)]}
        for k in range(self.depth):
            for ours, parts in block.items():
                names = [f"transformer_blocks.{k}.{part}" for part in parts.split()]
                made += rows(f"blocks.{k}.{ours}", names, bias=False)
        return made


# Our names and theirs; in the single file one Linear gives both inputs of an MLP's product.
OUTER = {
    "patches": "img_in",
    "text.0": "txt_in.text_norm",
    "text.1.up": "txt_in.in_layer",
    "text.1.out": "txt_in.out_layer",
    "time.up": "time_text_embed.timestep_embedder.linear_1",
    "time.out": "time_text_embed.timestep_embedder.linear_2",
    "trunk": "modulation.1",
    "final.head.affine": "norm_out.linear",
    "head": "proj_out",
}
BLOCK = {
    "attention.op.qkv": "attn.to_q attn.to_k attn.to_v",
    "attention.op.out": "attn.to_out.0",
    "attention.op.q_norm": "attn.norm_q",
    "attention.op.k_norm": "attn.norm_k",
    "mlp.op.down": "img_mlp.out",
}
UP = ("img_mlp.gate_up", "img_mlp.gate_layer img_mlp.proj")
