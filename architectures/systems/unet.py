from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from architectures.layers import CrossAttention, GatedMLP, SelfAttention
from architectures.sublayer import Block, Condition, SubLayer, prompt_tokens
from architectures.systems.weights import Move, linear, rows, swap, weight


class UNetBlock(nn.Module):
    """The transformer block of Stable Diffusion 1.5 and XL; the U-Net around it, by which time enters, is not built.

    forward(x (B, N, D), tokens (B, L, E), mask (B, L) or None) -> (B, N, D). Rombach et al. 2022 (arXiv 2112.10752).
    """

    system = "unet"
    unused = ()

    def __init__(self, *, width: int = 1280, heads: int = 8, context: int = 768) -> None:
        super().__init__()
        own = SelfAttention(width, heads, bias=(False, True))
        cross = CrossAttention(width, heads, context=context, bias=False)
        mlp = GatedMLP(width, hidden=4 * width, activation=F.gelu)
        self.block = Block(
            attention=SubLayer(op=own, norm=nn.LayerNorm(width, eps=1e-5)),
            cross=SubLayer(op=cross, norm=nn.LayerNorm(width, eps=1e-5), context=prompt_tokens),
            mlp=SubLayer(op=mlp, norm=nn.LayerNorm(width, eps=1e-5)),
        )

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.block(x, Condition(tokens=tokens, mask=mask))

    def moves(self, layout: str) -> list[Move]:
        """A block's own keys, which released file and diffusers share; the second half of its first MLP is the gate."""
        if layout == "original":
            return []
        made = rows("block.attention.op.qkv", [f"attn1.to_{u}" for u in "qkv"], bias=False)
        made += linear("block.attention.op.out", "attn1.to_out.0") + weight("block.cross.op.q", "attn2.to_q")
        made += rows("block.cross.op.kv", [f"attn2.to_{u}" for u in "kv"], bias=False)
        made += linear("block.cross.op.out", "attn2.to_out.0")
        made += linear("block.mlp.op.up", "ff.net.0.proj", swap) + linear("block.mlp.op.down", "ff.net.2")
        for ours, theirs in (("attention", "norm1"), ("cross", "norm2"), ("mlp", "norm3")):
            made += linear(f"block.{ours}.norm", theirs)
        return made
