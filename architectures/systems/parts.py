"""What published transformers have beside the backbone's parts: time and caption embedders, positions, sandwiches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.layers import GatedMLP, RMSNorm, SelfAttention, init_with, sinusoid, zeros
from architectures.modulation import Affine, Head
from architectures.rotary import PrecomputedRoPE
from architectures.sublayer import (
    PLAIN,
    Adaptive,
    Block,
    Condition,
    Context,
    SubLayer,
    mask_and_positions,
    no_context,
    parse_gate,
)


class TwoLinear(nn.Module):
    """W2 a(W1 x + b1) + b2: (B, ..., I) -> (B, ..., D).

    Args:
        inputs: I. width: D. hidden: between them, D by default. activation: a. bias: whether there are b1 and b2.
    """

    symbol = "MLP"

    def __init__(
        self,
        inputs: int,
        width: int,
        hidden: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, hidden or width, bias=bias)
        self.out = nn.Linear(hidden or width, width, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.up(x)))


class TimeEmbedding(TwoLinear):
    """W2 silu(W1 sinusoid(factor t) + b1) + b2: (B,) -> (B, D); the sinusoid has `channels`.

    `scale` multiplies after t f instead: the same but for rounding, which at 1000 shows (Qwen-Image).
    """

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        channels: int = 256,
        factor: float = 1.0,
        scale: float = 1.0,
        activation: Any = F.silu,
    ) -> None:
        super().__init__(channels, width, hidden, activation)
        self.factor, self.scale = factor, scale

    def forward(self, t: Tensor) -> Tensor:
        made = sinusoid(self.factor * t.float(), self.up.in_features, self.scale)
        return super().forward(made.to(self.up.weight.dtype))


class NormedLinear(nn.Module):
    """W RMS(y) + b: a frozen text encoder's tokens (B, L, I) -> (B, L, D)."""

    role = "prompt"

    def __init__(self, inputs: int, width: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(inputs, eps=eps)
        self.out = nn.Linear(inputs, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.out(self.norm(y))


class CentredRMSNorm(nn.RMSNorm):
    """x / rms(x) * (1 + w), in float32, since 1 + w would round in bfloat16."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)
        init_with(self, weight=zeros)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.normalized_shape, 1 + self.weight.float(), self.eps).to(x.dtype)


class AcrossHeadsNorm(nn.RMSNorm):
    """RMS over all heads at once, of queries or keys (B, H, N, d); the weight is (H, d)."""

    def __init__(self, width: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__((heads, width // heads), eps=eps)

    def forward(self, q: Tensor) -> Tensor:
        return super().forward(q.transpose(1, 2)).transpose(1, 2)


def plain_norm(width: int) -> nn.LayerNorm:
    """LN without weights, eps 1e-5."""
    return nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)


def positions_alone(c: Condition) -> tuple[None, Tensor | None]:
    """For self-attention among image tokens: all of them are attended to, c.tokens are the caption's."""
    return None, c.positions


def without_biases(module: nn.Module) -> None:
    """Takes the biases of all its Linears away."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.register_parameter("bias", None)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return F.gelu(x, approximate="tanh")


def epsilon_velocity(predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The straight-path velocity of a model that predicts the noise of a variance-preserving one.

    With x_s = a x_0 + s eps on the linear schedule (1e-4 to 0.02 in 1000 steps), x = x_s / (a + s) lies on the straight
    path at t = s / (a + s); so v = eps - x_0 there, and DDIM is Euler's method on it.

    Args:
        predict: (x_s, steps (B,)) -> eps, more channels ignored.
        x: (B, C, H, W).
        t: (B,) in [0, 1], 1 noise.
    """
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64, device=x.device)
    kept = (1 - beta).cumprod(0)
    path = (1 - kept).sqrt() / (kept.sqrt() + (1 - kept).sqrt())  # t of each step, rising
    above = torch.searchsorted(path, t.double()).clamp(1, 999)
    part = ((t - path[above - 1]) / (path[above] - path[above - 1])).clamp(0, 1)
    step = above - 1 + part
    at = torch.lerp(path[above - 1], path[above], part).float()[:, None, None, None]
    a, s = ((u / (at**2 + (1 - at) ** 2).sqrt()) for u in (1 - at, at))
    x_s = x * (a + s)
    eps = predict(x_s, step.float())[:, : x.shape[1]]
    return eps - (x_s - s * eps) / a


def check_axes(axes: Sequence[int], width: int, heads: int) -> None:
    """Refuses rotary axes that do not fill a head.

    Raises:
        ValueError: with both numbers.
    """
    if sum(axes) != width // heads:
        raise ValueError(f"rotary axes {tuple(axes)} sum to {sum(axes)}, a head has {width // heads} channels")


def turns(positions: Tensor, axes: Sequence[int], theta: float) -> Tensor:
    """Cosines and sines (..., d/2, 2) of positions (..., A); axis a turns axes[a] channels, one after another."""
    angles = []
    for k, width in enumerate(axes):
        frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width)
        angles.append(positions[..., k, None].double() * frequency)
    angle = torch.cat(angles, dim=-1).float()
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def grid_positions(rows: Tensor, columns: Tensor) -> Tensor:
    """(h w, 3): 0, row, column of each token, row-major."""
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1)


def lengths(mask: Tensor) -> Tensor:
    """Seen tokens of each row, (B,), of a mask (B, L).

    Raises:
        ValueError: if padding comes before a token.
    """
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError("captions are padded at the end: a mask is true, then false")
    return mask.sum(1)


def too_long(what: str, asked: int, limit: int) -> None:
    """Refuses what is longer than the model's limit.

    Raises:
        ValueError: with both numbers.
    """
    if asked > limit:
        raise ValueError(f"{what}: {asked}, but the model's limit is {limit}")


def pre_norm_block(
    width: int,
    norm: Callable[[int], nn.Module],
    *,
    attention: nn.Module,
    mlp: nn.Module,
    head: nn.Module | None = None,
    branch: Adaptive = PLAIN,
    context: Context = mask_and_positions,
) -> Block:
    """z <- z + g1 SA(norm(z) (1 + s1) + b1), z <- z + g2 MLP(norm(z) (1 + s2) + b2).

    Args:
        width: D.
        norm: makes one of D channels.
        attention: of all tokens.
        mlp: of each.
        head: gives both branches their vectors; None: unmodulated and ungated.
        branch: which vectors each takes.
        context: which part of the condition the attention receives.
    """

    def made(op: nn.Module, context: Context) -> SubLayer:
        return SubLayer(op=op, norm=norm(width), modulation=branch.modulation, gate=branch.gate, context=context)

    return Block(head, attention=made(attention, context), mlp=made(mlp, no_context))


GATE_TANH = parse_gate("tanh")


class Sandwich(Block):
    """z <- z + tanh(g1) RMS(SA(RMS(z) (1 + s1))), z <- z + tanh(g2) RMS(MLP(RMS(z) (1 + s2))).

    Bias-free, with normed queries and keys, SwiGLU (Lumina 2.0, Z-Image). Without cond_width, a refiner of captions: no
    scale and no gate.

    Args:
        width: D.
        heads: H.
        kv_heads: of keys and values.
        hidden: of SwiGLU.
        qk_eps: of the norm of queries and keys.
        cond_width: channels of what its head reads; None: unmodulated and ungated.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, hidden: int, qk_eps: float, cond_width: int | None
    ) -> None:
        branches = Adaptive("scale", GATE_TANH) if cond_width else PLAIN
        attention = SelfAttention(
            width, heads, kv_heads=kv_heads, bias=(False, False), qk_norm=True, qk_eps=qk_eps, rope=PrecomputedRoPE()
        )
        mlp = GatedMLP(width, hidden=hidden, bias=False)

        def branch(op: nn.Module, context: Context) -> SubLayer:
            norm, post = RMSNorm(width), RMSNorm(width)
            return SubLayer(
                op=op, norm=norm, modulation=branches.modulation, gate=branches.gate, post=post, context=context
            )

        super().__init__(
            Head(Affine(cond_width, 4 * width), [branches.slots] * 2) if cond_width else None,
            attention=branch(attention, mask_and_positions),
            mlp=branch(mlp, no_context),
        )
