"""Two sides of one attention, x (B, N, D) of the image and y (B, L, D) of the prompt, which may be conditioned apart.

    a_x, a_y = Attention([u ; w])                            y sees the image
    a_y = Attention(w),  a_x = Attention(u, [u ; w])         it does not
    a_y = Attention(w),  a_x = Attention(u)                  neither sees the other

A prompt that sees neither image nor t is the same at every step of a sampler: `keep` gives the keys and values that it
has in a block, and a block that is given them (c.kept) computes the image's side alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from architectures.layers import RMSNorm, SelfAttention, attend
from architectures.options import Option
from architectures.sublayer import Condition, Equations, SubLayer, Vectors, carry_modulated
from architectures.symbols import op_symbol

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
    x: Tensor, image: SelfAttention, kept: Kept | None, mask: Tensor | None = None, angles: Tensor | None = None
) -> Tensor:
    """x (B, N, D) to itself and to the prompt's keys and values, if any, of the joint mask and angles -> (B, N, D)."""
    q, k, v = image.split(x, *(() if angles is None else (angles[:, : x.shape[1]],)))
    if kept is None:
        return image.emit(attend(q, k, v, None), x)  # no token of an image is padding
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
    """One side of a block: its sub-layers, and the vectors of each; of the first alone, where one triple is of both."""

    attention: SubLayer
    mlp: SubLayer
    first: Vectors = Vectors()
    second: Vectors = Vectors()


class Sided(Equations):
    """A block over two sides, each of an attention and an MLP, with one attention over both.

    Attributes:
        sees: whether y attends to x.
        joint: whether the sides attend to one another at all.
        beside: whether the MLP reads what the attention reads, with one gate for both (FLUX), or comes after it.
    """

    sees = True
    joint = True
    beside = False

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
        if self.sees and self.joint:
            return self.both(x, y, c)
        y, kept = self.keep(y, c)
        return self.image(x, c, kept), y

    def both(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """Each attends to both."""
        i, p = self.image_side(c), self.prompt_side(c)
        u, w = i.attention.pre(x, i.first), p.attention.pre(y, p.first)
        a_x, a_y = attend_jointly(u, w, attention_of(i.attention), attention_of(p.attention), *i.attention.context(c))
        assert a_y is not None
        return self.after(i, x, u, a_x, c), self.after(p, y, w, a_y, c)

    def after(self, side: Side, x: Tensor, u: Tensor, a: Tensor, c: Condition) -> Tensor:
        """One side, x, with what its attention's output a of its input u and its MLP add."""
        if self.beside:
            return side.attention.residual(x, u, a + side.mlp.op(u), side.first)
        return side.mlp.after(x, side.attention.residual(x, u, a, side.first), c, side.second)

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """The prompt's side alone: y (B, L, D) -> the same, and its keys and values in this block."""
        p = self.prompt_side(c)
        w = p.attention.pre(y, p.first)
        a_y, kept = attend_alone(w, attention_of(p.attention), *p.attention.context(c))
        assert a_y is not None
        return self.after(p, y, w, a_y, c), kept

    def image(self, x: Tensor, c: Condition, kept: Kept) -> Tensor:
        """The image's side, which attends to the prompt's keys and values: x (B, N, D) -> the same."""
        i = self.image_side(c)
        u = i.attention.pre(x, i.first)
        a_x = attend_to_kept(u, attention_of(i.attention), kept if self.joint else None, *i.attention.context(c))
        return self.after(i, x, u, a_x, c)

    def attention_equations(self, u: str, w: str) -> list[str]:
        """What attends to what, of the attention's inputs on both sides."""
        if not self.joint:
            return [f"a_x = Attention({u})", f"a_y = Attention({w})"]
        if self.sees:
            return [f"a_x, a_y = Attention([{u} ; {w}])"]
        return [f"a_x, _ = Attention([{u} ; {w}])", f"a_y = Attention({w})"]

    def read_equations(self, x: SubLayer, x_mlp: SubLayer, w: str) -> list[str]:
        """The attention to w, which is made of y and read only, then x's branches."""
        u, added = x.input_equation("x", "1"), x.branch_equation("a_x", "1")
        if x.carry is carry_modulated:
            return [f"u = {u}", f"a_x, _ = Attention([u ; {w}])", f"x <- u + {added}", *x_mlp.equations("x", "2")]
        return [f"a_x, _ = Attention([{u} ; {w}])", f"x <- x + {added}", *x_mlp.equations("x", "2")]

    def turn_equations(self, x: SubLayer, x_mlp: SubLayer, y: SubLayer, y_mlp: SubLayer) -> list[str]:
        """The attention, then each side's branches, an MLP after it; y's vectors are primed."""
        return [
            *self.attention_equations(x.input_equation("x", "1"), y.input_equation("y", "1'")),
            f"x <- x + {x.branch_equation('a_x', '1')}",
            "y <- y + " + y.branch_equation("a_y", "1'"),
            *x_mlp.equations("x", "2"),
            *y_mlp.equations("y", "2'"),
        ]

    def beside_equations(self, x: SubLayer, y: SubLayer, mlp: SubLayer) -> list[str]:
        """Each side's input, the attention, and what it and the MLP add; y's vectors are primed."""
        both = ((x, "x", "u", ""), (y, "y", "w", "'"))
        op = op_symbol(mlp.op)
        return [
            f"u = {x.input_equation('x', '')}",
            f"w = {y.input_equation('y', chr(39))}",
            *self.attention_equations("u", "w"),
            *(f"{s} <- {s} + {one.branch_equation(f'(a_{s} + {op}({w}))', k)}" for one, s, w, k in both),
        ]


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
