"""Kandinsky 5.0 for images: modulated blocks of the caption, then of the image, each of whose branches is modulated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import CrossAttention, RMSNorm, SelfAttention, patchify, unpatchify
from architectures.modulation import Affine, Head
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE
from architectures.streams import prompt_path
from architectures.sublayer import Block, Condition, Context, SubLayer, mask_and_positions, no_context, prompt_tokens
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import (
    TimeEmbedding,
    TwoLinear,
    check_axes,
    grid_positions,
    plain_norm,
    positions_alone,
    too_long,
    turns,
)
from architectures.systems.weights import Move, channels_first, channels_last, linear, rows, two

QK_EPS = torch.finfo(torch.float32).eps  # of a torch.nn.RMSNorm without one


def embedder(inputs: int, width: int) -> nn.Module:
    """LN_w(W y + b): (B, ..., I) -> (B, ..., D)."""
    return prompt_path(nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width, eps=1e-5)))


def modulated_block(width: int, heads: int, hidden: int, cond_width: int, *, cross: bool) -> Block:
    """SA, CA and MLP of a block of the image, SA and MLP of one of the caption, each with shift, scale and gate.

    Args:
        width: D.
        heads: H.
        hidden: of the MLP.
        cond_width: channels of c.
        cross: whether it is a block of the image, which attends to the caption.
    """
    d = width

    def branch(op: nn.Module, context: Context = no_context) -> SubLayer:
        made = SubLayer(op=op, norm=plain_norm(d), modulation=BRANCH.modulation, gate=BRANCH.gate, context=context)
        return made if cross else prompt_path(made)

    attention = SelfAttention(d, heads, qk_norm=True, qk_eps=QK_EPS, rope=PrecomputedRoPE())
    parts = {"attention": branch(attention, positions_alone if cross else mask_and_positions)}
    if cross:
        op = CrossAttention(d, heads)
        op.q_norm, op.k_norm = (RMSNorm(d // heads, eps=QK_EPS) for _ in range(2))
        parts["cross"] = branch(op, prompt_tokens)
    parts["mlp"] = branch(TwoLinear(d, d, hidden, activation=F.gelu, bias=False))
    return Block(Head(Affine(cond_width, 3 * len(parts) * d), [BRANCH.slots] * len(parts)), **parts)


class Kandinsky5(nn.Module):
    """Kandinsky 5.0, text to image: a video of one frame.

        c = e_t + LN_w(W p + w),  b1, s1, g1, ... = W_i silu(c) + b_i       (p is the pooled caption)
        y <- y + g1 SA(LN(y) (1 + s1) + b1)
        y <- y + g2 MLP(LN(y) (1 + s2) + b2)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + g2 CA(LN(x) (1 + s2) + b2, y)
        x <- x + g3 MLP(LN(x) (1 + s3) + b3)
        b, s = W silu(c) + b,  x = LN(x) (1 + s) + b

    c has `cond_width` channels. All blocks of the caption, y, precede those of the image, x. Rotary positions are
    (0, row, column) of the image's tokens and the place of the caption's, among themselves.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 3584), mask (B, L) and pooled (B, 768))
    -> (B, 16, H, W). Padding is masked, as in kandinskylab/kandinsky-5; diffusers attends to it. Rotated queries and
    keys, which both round to bfloat16, are not rounded. Kandinsky team 2025 (arXiv 2511.14993).
    """

    system = "kandinsky5"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 2560,
        text_depth: int = 2,
        depth: int = 50,
        heads: int = 20,
        hidden: int = 10240,
        cond_width: int = 512,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 3584,
        pooled_width: int = 768,
        axes: tuple[int, ...] = (32, 48, 48),
        theta: float = 10000.0,
        max_tokens: int = 1024,
        max_grid: int = 128,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = width
        self.patch, self.channels, self.axes, self.theta = patch, channels, axes, theta
        self.max_tokens, self.max_grid = max_tokens, max_grid
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(cond_width, channels=d, factor=1000.0)
        self.text, self.pooled = embedder(text_width, d), embedder(pooled_width, cond_width)

        def made(count: int, *, cross: bool) -> nn.ModuleList:
            return nn.ModuleList(modulated_block(d, heads, hidden, cond_width, cross=cross) for _ in range(count))

        self.text_blocks, self.blocks = made(text_depth, cross=False), made(depth, cross=True)
        self.final = FinalNorm(plain_norm(d), "scale+shift", d, cond_width=cond_width)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        (h, w), L = (side // self.patch for side in x.shape[-2:]), prompt.tokens.shape[1]
        too_long("caption tokens", L, self.max_tokens)
        too_long("tokens a side", max(h, w), self.max_grid)
        c = self.time(t) + self.pooled(prompt.pooled)
        m = F.silu(c)
        text = turns(torch.arange(L, device=x.device)[:, None], (sum(self.axes),), self.theta)[None]
        places = grid_positions(torch.arange(h, device=x.device), torch.arange(w, device=x.device))
        image = turns(places, self.axes, self.theta)[None]
        y = self.text(prompt.tokens)
        for block in self.text_blocks:
            y = block(y, Condition(c, m, mask=prompt.mask, positions=text))
        x = self.patches(patchify(x, self.patch))
        for block in self.blocks:
            x = block(x, Condition(c, m, tokens=y, mask=prompt.mask, positions=image))
        return unpatchify(self.head(self.final(x, c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def refuse(self, state: Mapping[str, Tensor]) -> str:
        """What a file of Kandinsky 5 is of, a clause, if that is not text-to-image; else empty."""
        patches = state.get("visual_embeddings.in_layer.weight")
        if patches is None or patches.shape[1:2] != (self.patch**2 * (2 * self.channels + 1),):  # an image and its mask
            return ""
        return "of a model that is conditioned on an image: take a text-to-image one (Kandinsky-5.0-T2I-Lite)"

    def moves(self, layout: str) -> list[Move]:
        """diffusers' layout is the released one."""
        if layout == "original":
            return []
        made = linear("patches", "visual_embeddings.in_layer", channels_first(self.patch))
        made += linear("head", "out_layer.out_layer", channels_last(self.patch))
        made += two("time", "time_embeddings", "in_layer", "out_layer")
        made += linear("final.head.affine", "out_layer.modulation.out_layer")
        for ours, theirs in (("text", "text_embeddings"), ("pooled", "pooled_text_embeddings")):
            made += linear(f"{ours}.0", f"{theirs}.in_layer") + linear(f"{ours}.1", f"{theirs}.norm")
        for own, other in (("text_blocks", "text"), ("blocks", "visual")):
            for k in range(len(getattr(self, own))):
                block, theirs = f"{own}.{k}", f"{other}_transformer_blocks.{k}"
                made += linear(f"{block}.head.affine", f"{theirs}.{other}_modulation.out_layer")
                for ours, names in (BIASED | UNBIASED).items():
                    if own == "blocks" or not ours.startswith("cross"):
                        parts = [f"{theirs}.{name}" for name in names.split()]
                        made += rows(f"{block}.{ours}", parts, bias=ours in BIASED)
        return made


# Our names in a block, and theirs.
BIASED = {
    "attention.op.qkv": "self_attention.to_query self_attention.to_key self_attention.to_value",
    "attention.op.out": "self_attention.out_layer",
    "cross.op.q": "cross_attention.to_query",
    "cross.op.kv": "cross_attention.to_key cross_attention.to_value",
    "cross.op.out": "cross_attention.out_layer",
}
UNBIASED = {
    "attention.op.q_norm": "self_attention.query_norm",
    "attention.op.k_norm": "self_attention.key_norm",
    "cross.op.q_norm": "cross_attention.query_norm",
    "cross.op.k_norm": "cross_attention.key_norm",
    "mlp.op.up": "feed_forward.in_layer",
    "mlp.op.out": "feed_forward.out_layer",
}
