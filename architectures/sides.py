"""Two sides of one attention, x (B, N, D) of the image and y (B, L, D) of the prompt, which may be conditioned apart.

    a_x, a_y = Attention([u ; w])          y sees the image
    a_y = Attention(w),  a_x = Attention(u, [u ; w])         it does not

A prompt that sees neither image nor t is the same at every step of a sampler: `keep` gives the keys and values that it
has in a block, and a block that is given them (c.kept) computes the image's side alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from architectures.layers import RMSNorm, SelfAttention, attend
from architectures.options import Option
from architectures.sublayer import Condition, Equations, SubLayer, Vectors, op_symbol

PROMPT_TIME = Option(
    "what modulates the prompt's side: c, c with the timestep's embedding of t = 0, or nothing", ("t", "zero", "none")
)
SEES = Option("whether the prompt's tokens attend to the image's", ("yes", "no"))

Pair = tuple[Tensor, Tensor]  # x (B, N, D) and y (B, L, D)
Kept = tuple[Tensor, Tensor]  # keys and values (B, H, L, d) of the prompt in one block

# --- the attention of two sides ---------------------------------------------------------------------------------------


def attend_jointly(
    x: Tensor,
    y: Tensor,
    image: SelfAttention,
    text: SelfAttention,
    mask: Tensor | None = None,
    angles: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One softmax over two sides, each with qkv and out of its own.

    x (B, N, D), y (B, L, D), mask (B, N + L), angles (B, N + L, d/2, 2) -> the same; None for a text side that is only
    attended to.
    """
    where_x, where_y = ((), ()) if angles is None else ((angles[:, : x.shape[1]],), (angles[:, x.shape[1] :],))
    sides = image.split(x, *where_x), text.split(y, *where_y, turned=bool(where_y))
    q, k, v = (torch.cat(pair, 2) for pair in zip(*sides, strict=True))
    a = attend(q, k, v, mask)
    a_x, a_y = a[:, : x.shape[1]], a[:, x.shape[1] :]
    return image.emit(a_x, x), text.emit(a_y, y) if text.out is not None else None


def attend_alone(
    y: Tensor, text: SelfAttention, mask: Tensor | None = None, angles: Tensor | None = None
) -> tuple[Tensor | None, Kept]:
    """y (B, L, D) to itself, of joint mask and angles -> the same (None if it is read only); and its keys, values."""
    count = y.shape[1]
    where = () if angles is None else (angles[:, -count:],)
    q, k, v = text.split(y, *where, turned=bool(where))
    if text.out is None:
        return None, (k, v)
    return text.emit(attend(q, k, v, None if mask is None else mask[:, -count:]), y), (k, v)


def attend_to_kept(
    x: Tensor, image: SelfAttention, kept: Kept, mask: Tensor | None = None, angles: Tensor | None = None
) -> Tensor:
    """x (B, N, D) to itself and to the prompt's keys and values, of the joint mask and angles -> (B, N, D)."""
    q, k, v = image.split(x, *(() if angles is None else (angles[:, : x.shape[1]],)))
    return image.emit(attend(q, torch.cat([k, kept[0]], 2), torch.cat([v, kept[1]], 2), mask), x)


def attention_of(sublayer: SubLayer) -> SelfAttention:
    """The attention of a sub-layer that is one side of a joint attention."""
    assert isinstance(sublayer.op, SelfAttention)
    return sublayer.op


def of_prompt(c: Condition) -> Condition:
    """What modulates the prompt's side: its own, or what modulates the image's."""
    return c if c.prompt is None else c.prompt


class KeysValues(nn.Module):
    """Keys and values of prompt tokens that image tokens attend to beside their own: kv, and a norm of the keys.

    Args:
        width: D. heads: H. qk_norm: RMS-normalise keys per head. bias: of kv.
    """

    role = "prompt"

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(width, 2 * width, bias=bias)
        self.k_norm = RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, L, D) -> k and v, each (B, H, L, d)."""
        k, v = self.kv(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.k_norm(k), v


# --- a block of two sides ---------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One side of a block: its sub-layers, and the vectors of each."""

    attention: SubLayer
    mlp: SubLayer
    first: Vectors
    second: Vectors


class Sided(Equations):
    """A block over two sides, each of an attention and an MLP, with one attention over both.

    Attributes:
        sees: whether y attends to x.
    """

    sees = True

    def image_side(self, c: Condition) -> Side:
        """The image's."""
        raise NotImplementedError

    def prompt_side(self, c: Condition) -> Side:
        """The prompt's."""
        raise NotImplementedError

    def sides(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> the same; y as it was where its keys and values are given."""
        if c.kept is not None:
            return self.image(x, c, c.kept), y
        if self.sees:
            return self.both(x, y, c)
        y, kept = self.keep(y, c)
        return self.image(x, c, kept), y

    def both(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """Each attends to both."""
        i, p = self.image_side(c), self.prompt_side(c)
        u, w = i.attention.pre(x, i.first), p.attention.pre(y, p.first)
        a_x, a_y = attend_jointly(u, w, attention_of(i.attention), attention_of(p.attention), *i.attention.context(c))
        assert a_y is not None
        y = p.mlp(p.attention.residual(y, w, a_y, p.first), c, p.second)
        return i.mlp(i.attention.residual(x, u, a_x, i.first), c, i.second), y

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """The prompt's side alone: y (B, L, D) -> the same, and its keys and values in this block."""
        p = self.prompt_side(c)
        w = p.attention.pre(y, p.first)
        a_y, kept = attend_alone(w, attention_of(p.attention), *p.attention.context(c))
        assert a_y is not None
        return p.mlp(p.attention.residual(y, w, a_y, p.first), c, p.second), kept

    def image(self, x: Tensor, c: Condition, kept: Kept) -> Tensor:
        """The image's side, which attends to the prompt's keys and values: x (B, N, D) -> the same."""
        i = self.image_side(c)
        u = i.attention.pre(x, i.first)
        a_x = attend_to_kept(u, attention_of(i.attention), kept, *i.attention.context(c))
        out: Tensor = i.mlp(i.attention.residual(x, u, a_x, i.first), c, i.second)
        return out

    def attention_equations(self, u: str, w: str) -> list[str]:
        """What attends to what, of the attention's inputs on both sides."""
        if self.sees:
            return [f"a_x, a_y = Attention([{u} ; {w}])"]
        return [f"a_x, _ = Attention([{u} ; {w}])", f"a_y = Attention({w})"]


def parallel(sublayer: SubLayer, mlp: SubLayer) -> str:
    """`(SA(u) + MLP(u))`: two ops of one input."""
    return f"({op_symbol(sublayer.op)}(u) + {op_symbol(mlp.op)}(u))"


def plain_or(text: str, prompt_time: str) -> str:
    """The `prompt_time` of a stream that is `modulated` or `plain` (`TEXT`).

    Raises:
        ValueError: if it is plain, and modulated at t = 0.
    """
    if text == "plain" and prompt_time == "zero":
        raise ValueError(
            "text 'plain' is a prompt's stream without modulation, and prompt_time 'zero' modulates it at "
            "t = 0: leave one of the two out"
        )
    return "none" if text == "plain" else prompt_time
