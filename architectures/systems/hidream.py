"""HiDream-I1: blocks of two streams, then of one, whose image MLP is a mixture of experts; each has its own caption."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import streams
from architectures.final import FinalNorm
from architectures.layers import GatedMLP, LayerNorm, SelfAttention, patchify, unpatchify
from architectures.modulation import PerBlock
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE
from architectures.streams import DualBlock, prompt_path
from architectures.sublayer import Block, Condition, SubLayer, mask_and_positions
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import (
    AcrossHeadsNorm,
    TimeEmbedding,
    TwoLinear,
    check_axes,
    grid_positions,
    too_long,
    turns,
)
from architectures.systems.weights import Move, channels_first, cut, linear, rows, two, weight


class Experts(nn.Module):
    """E(x) + sum_i p_i E_i(x) over the k greatest of p = softmax(W x), which are not made to sum to 1 again.

    Args:
        width: D.
        hidden: of each E_i.
        shared_hidden: of E, which every token passes.
        experts: how many E_i there are.
        chosen: k.
    """

    symbol = "MoE"

    def __init__(self, width: int, hidden: int, shared_hidden: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.route = nn.Linear(width, experts, bias=False)
        self.shared = GatedMLP(width, hidden=shared_hidden, bias=False)
        self.experts = nn.ModuleList(GatedMLP(width, hidden=hidden, bias=False) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        flat = x.flatten(0, 1)
        p, chosen = self.route(flat).softmax(-1).topk(self.chosen)  # each (B N, k)
        y = self.shared(flat)
        for k, expert in enumerate(self.experts):
            token, rank = (chosen == k).nonzero(as_tuple=True)
            y = y.index_add(0, token, (p[token, rank, None] * expert(flat[token])).to(y.dtype))
        return y.view_as(x)


class PaddedAttention(SelfAttention):
    """Self-attention whose padding has keys of 0: no mask excludes it, it takes part with a logit of 0.

    Queries and keys are normed across heads. Positions are (B, N, d/2, 3): cosine, sine, and a key's factor, 0 or 1.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, rope=PrecomputedRoPE())
        self.q_norm, self.k_norm = AcrossHeadsNorm(width, heads, 1e-5), AcrossHeadsNorm(width, heads, 1e-5)

    def split(self, x: Tensor, *where: Tensor, turned: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, D) -> q, k, v, each (B, H, N, d)."""
        (places,) = where
        q, k, v = super().split(x, places[..., :2], turned=turned)
        return q, k * places[:, None, :, :1, 2].to(k.dtype), v


class HiDream(nn.Module):
    """HiDream-I1: a caption of T5 and of 32 layers of Llama, of which each block has one that no other updates.

        c = e_t + pooled,  y_i = V_i (layer min(i, 32)) in block i of n,  y = [V T5 ; y_n]
        blocks of two streams:  SD3's on x and [y ; y_i], with x <- x + g2 MoE(LN(x) (1 + s2) + b2)
        blocks of one:          z = [x ; y ; y_i],  b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i
                                z <- z + g1 SA(LN(z) (1 + s1) + b1),  z <- z + g2 MoE(LN(z) (1 + s2) + b2)
        after each block y_i is discarded

    Rotary positions are (0, row, column), of the caption 0. An image that is not square is filled up to `max_tokens`
    with zeros, which are attended to with a logit of 0, as its code has it. Routing is that of inference: no loss
    balances the experts.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 33 * 4096), T5's and then Llama's layers
    side by side, and pooled (B, 2048)) -> (B, 16, H, W), data minus noise. It has no mask of captions.
    HiDream-ai 2025 (arXiv 2505.22705).
    """

    system = "hidream-i1"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 2560,
        heads: int = 20,
        dual: int = 16,
        single: int = 32,
        hidden: int = 6912,
        shared_hidden: int = 3584,
        experts: int = 4,
        chosen: int = 2,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 4096,
        layers: int = 32,
        pooled_width: int = 2048,
        axes: tuple[int, ...] = (64, 32, 32),
        theta: float = 10000.0,
        max_tokens: int = 4096,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d, maps = width, PerBlock(width, [BRANCH, BRANCH])
        self.width, self.patch, self.channels, self.layers, self.experts = d, patch, channels, layers, experts
        self.axes, self.theta, self.max_tokens = axes, theta, max_tokens
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.pooled = prompt_path(TwoLinear(pooled_width, d))
        texts = (nn.Linear(text_width, d, bias=False) for _ in range(dual + single + 1))  # a block's each, and T5's
        self.texts = prompt_path(nn.ModuleList(texts))
        self.trunk = maps.trunk()

        branch = partial(streams.branch, d, BRANCH)

        def attention() -> SubLayer:
            return branch(PaddedAttention(d, heads), mask_and_positions)

        def mlp() -> SubLayer:
            return branch(Experts(d, hidden, shared_hidden, experts, chosen))

        self.dual = nn.ModuleList(
            DualBlock(
                maps.head(),
                maps.head(),
                attention=attention(),
                mlp=mlp(),
                text_attention=attention(),
                text_mlp=branch(GatedMLP(d, hidden=hidden, bias=False)),
            )
            for _ in range(dual)
        )
        self.single = nn.ModuleList(Block(maps.head(), attention=attention(), mlp=mlp()) for _ in range(single))
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        count = h * w if h == w else self.max_tokens
        too_long("tokens of an image that is not square", h * w, count)
        c = self.time(t) + self.pooled(prompt.pooled)
        m = self.trunk(c)
        *own, t5 = self.captions(prompt.tokens)
        y = torch.cat([t5, own[-1]], dim=1)  # (B, 2L, D)
        condition = Condition(c, m, m, positions=self.places(h, w, count, y.shape[1] + t5.shape[1], x.device))
        x = self.patches(F.pad(patchify(x, self.patch), (0, 0, 0, count - h * w)))
        for block, tokens in zip(self.dual, own, strict=False):
            x, both = block((x, torch.cat([y, tokens], dim=1)), condition)
            y = both[:, : y.shape[1]]
        z = torch.cat([x, y], dim=1)
        for block, tokens in zip(self.single, own[len(self.dual) :], strict=True):
            z = block(torch.cat([z, tokens], dim=1), condition)[:, : z.shape[1]]
        return unpatchify(self.head(self.final(z[:, : h * w], c)), self.patch, self.channels, (h, w))

    def captions(self, tokens: Tensor) -> list[Tensor]:
        """(B, L, D) for each block, and T5's at last, of tokens (B, L, (1 + layers) I)."""
        t5, *llama = tokens.unflatten(-1, (1 + self.layers, -1)).unbind(2)
        given = [llama[min(k, self.layers - 1)] for k in range(len(self.texts) - 1)]
        return [text(one) for text, one in zip(self.texts, [*given, t5], strict=True)]

    def places(self, h: int, w: int, count: int, text: int, device: torch.device) -> Tensor:
        """Positions (1, count + text, d/2, 3) of an image's tokens, padding to make them `count`, and a caption's."""
        grid = grid_positions(torch.arange(h, device=device), torch.arange(w, device=device))
        angles = turns(F.pad(grid, (0, 0, 0, count + text - h * w)), self.axes, self.theta)
        factor = torch.ones_like(angles[..., :1])
        factor[h * w : count] = 0
        return torch.cat([angles, factor], dim=-1)[None]

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise: the model's own output is the other way."""
        return -self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file, which has diffusers' layout, becomes these parameters."""
        if layout == "original":
            return []
        d = self.width
        made = linear("patches", "x_embedder.proj", channels_first(self.patch))
        made += two("time", "t_embedder.timestep_embedder", "linear_1", "linear_2")
        made += two("pooled", "p_embedder.pooled_embedder", "linear_1", "linear_2")
        made += linear("final.head.affine", "final_layer.adaLN_modulation.1") + linear("head", "final_layer.linear")
        for k in range(len(self.texts)):
            made += weight(f"texts.{k}", f"caption_projection.{k}.linear")
        for own in ("dual", "single"):
            for k in range(len(getattr(self, own))):
                block, theirs = f"{own}.{k}", f"{own}_stream_blocks.{k}.block".replace("dual", "double")
                made += linear(f"{block}.head.affine", f"{theirs}.adaLN_modulation.1", cut(0, 6 * d))
                made += attention_moves(f"{block}.attention.op", f"{theirs}.attn1", "")
                made += weight(f"{block}.mlp.op.route", f"{theirs}.ff_i.gate")
                made += gated_moves(f"{block}.mlp.op.shared", f"{theirs}.ff_i.shared_experts")
                for e in range(self.experts):
                    made += gated_moves(f"{block}.mlp.op.experts.{e}", f"{theirs}.ff_i.experts.{e}")
                if own == "dual":
                    made += linear(f"{block}.text_head.affine", f"{theirs}.adaLN_modulation.1", cut(6 * d, 12 * d))
                    made += attention_moves(f"{block}.text_attention.op", f"{theirs}.attn1", "_t")
                    made += gated_moves(f"{block}.text_mlp.op", f"{theirs}.ff_t")
        return made


def attention_moves(target: str, source: str, end: str) -> list[Move]:
    """One stream's side of an attention, whose names have an `end`."""
    made = rows(f"{target}.qkv", [f"{source}.to_{u}{end}" for u in "qkv"])
    for u in "qk":
        made += weight(f"{target}.{u}_norm", f"{source}.{u}_rms_norm{end}")
    return made + linear(f"{target}.out", f"{source}.to_out{end}")


def gated_moves(target: str, source: str) -> list[Move]:
    """A SwiGLU."""
    return rows(f"{target}.up", [f"{source}.w1", f"{source}.w3"], bias=False) + weight(f"{target}.down", f"{source}.w2")
