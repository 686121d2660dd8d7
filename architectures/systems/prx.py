from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from architectures import streams
from architectures.final import FinalNorm
from architectures.layers import GatedMLP, LayerNorm, SelfAttention, patchify, unpatchify
from architectures.modulation import PerBlock
from architectures.prompt import FeatureBatch, with_image
from architectures.rotary import PrecomputedRoPE
from architectures.sequence import KeyedBlock
from architectures.sides import KeysValues
from architectures.streams import prompt_path
from architectures.sublayer import Condition, mask_and_positions
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import TimeEmbedding, check_axes, gelu_tanh, grid_positions, turns
from architectures.systems.weights import LAYOUTS, Move, channels_last, linear, rows, two, weight


class PRX(nn.Module):
    """PRX: each block attends to keys and values that it makes of the caption's tokens, which none updates.

        c = e_t,  b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i
        u = LN(x) (1 + s1) + b1
        x <- x + g1 Attention(u, [u ; y])           (keys of y normed, not rotated)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)        (gated by gelu)
        b, s = W silu(c) + b,  x = LN(x) (1 + s) + b

    Rotary positions are (row, column). The files for DC-AE's latents have `channels=32, patch=1`.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 2304) and mask (B, L)) -> (B, 16, H, W).
    Photoroom/PRX, 2025.
    """

    system = "prx"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 1792,
        depth: int = 16,
        heads: int = 28,
        hidden: int = 6272,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 2304,
        axes: tuple[int, ...] = (32, 32),
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d, maps = width, PerBlock(width, [BRANCH, BRANCH])
        self.patch, self.channels, self.depth, self.axes, self.theta = patch, channels, depth, axes, theta
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, scale=1000.0)
        self.text = prompt_path(nn.Linear(text_width, d))
        self.trunk = maps.trunk()

        branch = partial(streams.branch, d, BRANCH)

        self.blocks = nn.ModuleList(
            KeyedBlock(
                maps.head(),
                attention=branch(
                    SelfAttention(d, heads, bias=(False, False), qk_norm=True, rope=PrecomputedRoPE()),
                    mask_and_positions,
                ),
                mlp=branch(GatedMLP(d, hidden=hidden, bias=False, activation=gelu_tanh)),
                text=KeysValues(d, heads, qk_norm=True, bias=False),
            )
            for _ in range(depth)
        )
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = self.time(t)
        places = grid_positions(torch.arange(h, device=x.device), torch.arange(w, device=x.device))[:, 1:]
        condition = Condition(
            c,
            self.trunk(c),
            tokens=self.text(prompt.tokens),
            mask=with_image(prompt.mask, h * w),
            positions=turns(places, self.axes, self.theta)[None],
        )
        x = self.patches(patchify(x, self.patch))
        for block in self.blocks:
            x = block(x, condition)
        return unpatchify(self.head(self.final(x, c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How a file of Photoroom/PRX (`original`) or of diffusers (`diffusers`) becomes these parameters."""
        of = LAYOUTS.index(layout)
        made = linear("patches", "img_in") + linear("text", "txt_in") + two("time", "time_in", "in_layer", "out_layer")
        made += linear("final.head.affine", "final_layer.adaLN_modulation.1")
        made += linear("head", "final_layer.linear", channels_last(self.patch))
        for k in range(self.depth):
            block = f"blocks.{k}"
            made += linear(f"{block}.head.affine", f"{block}.modulation.lin")
            made += rows(f"{block}.mlp.op.up", [f"{block}.gate_proj", f"{block}.up_proj"], bias=False)
            made += weight(f"{block}.mlp.op.down", f"{block}.down_proj")
            made += [Move(f"{block}.{ours}.weight", f"{block}.{names[of]}") for ours, names in ATTENTION.items()]
        return made


# Our names in a block, and the released file's and diffusers' for each.
ATTENTION = {
    "attention.op.qkv": ("img_qkv_proj.weight", "attention.img_qkv_proj.weight"),
    "attention.op.out": ("attn_out.weight", "attention.to_out.0.weight"),
    "attention.op.q_norm": ("qk_norm.query_norm.scale", "attention.norm_q.weight"),
    "attention.op.k_norm": ("qk_norm.key_norm.scale", "attention.norm_k.weight"),
    "text.kv": ("txt_kv_proj.weight", "attention.txt_kv_proj.weight"),
    "text.k_norm": ("k_norm.scale", "attention.norm_added_k.weight"),
}
