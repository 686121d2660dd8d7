"""Blocks over two streams, x (B, N, D) of the image and y (B, L, D) of the prompt, and over both as one sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm, M, SelfAttention
from architectures.modulation import Placement, Static
from architectures.options import Option
from architectures.sequence import SidedBlock
from architectures.sides import (
    Kept,
    Pair,
    Side,
    Sided,
    attend_alone,
    attend_jointly,
    attention_of,
    of_prompt,
)
from architectures.sublayer import (
    PLAIN,
    Adaptive,
    Condition,
    Context,
    Gate,
    SubLayer,
    joint_mask,
    no_context,
)
from architectures.symbols import modulated_symbol, op_symbol

TEXT = Option("the prompt's stream: modulated by a head of its own, or unmodulated", ("modulated", "plain"))


class DualBlock(Sided):
    """(x, y) -> (x, y): each stream modulated by a head of its own, one attention over both, two MLPs.

    Args:
        head: reads c.modulation, for x.
        text_head: reads c.text, for y; None: y is unmodulated.
        attention: of x; its context is that of the joint attention.
        mlp: of x.
        text_attention: of y.
        text_mlp: of y.
        sees: whether y attends to x.
        joint: whether the streams attend to one another at all.
        beside: whether the MLPs are bare, and read what the attention reads.
    """

    def __init__(
        self,
        head: nn.Module,
        text_head: nn.Module | None,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        text_attention: SubLayer,
        text_mlp: SubLayer,
        sees: bool = True,
        joint: bool = True,
        beside: bool = False,
    ) -> None:
        super().__init__()
        self.sees, self.joint, self.beside = sees, joint, beside
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_head = text_head
        self.text_attention, self.text_mlp = prompt_path(text_attention), prompt_path(text_mlp)

    def image_side(self, c: Condition) -> Side:
        """x's sub-layers."""
        return Side(self.attention, self.mlp, *self.head(c.modulation))

    def prompt_side(self, c: Condition) -> Side:
        """y's."""
        vectors = self.text_head(c.text) if self.text_head is not None else ()
        return Side(self.text_attention, self.text_mlp, *vectors)

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> the same."""
        return self.sides(*h, c)

    def equations(self) -> list[str]:
        """One attention over both streams, then each stream's branches; y's vectors are primed."""
        if self.beside:
            return self.beside_equations(self.attention, self.text_attention, self.mlp)
        return self.turn_equations(self.attention, self.mlp, self.text_attention, self.text_mlp)


class LastDualBlock(Sided):
    """(x, y) -> (x, y): y is only attended to: its normed and modulated tokens give keys and values (SD3's last block).

    Args:
        head: reads c.modulation, for x.
        text_norm: (y, c) -> what y's attention reads.
        attention: of x.
        mlp: of x.
        text_attention: of y, read only.
        beside: as of `DualBlock`.
    """

    def __init__(
        self,
        head: nn.Module,
        text_norm: FinalNorm,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        text_attention: SelfAttention,
        beside: bool = False,
    ) -> None:
        super().__init__()
        self.beside = beside
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_norm, self.text_attention = text_norm, prompt_path(text_attention)

    def image_side(self, c: Condition) -> Side:
        """x's sub-layers."""
        return Side(self.attention, self.mlp, *self.head(c.modulation))

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> x updated, y as it was."""
        return self.sides(*h, c)

    def both(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """x attends to both."""
        i, w = self.image_side(c), self.text_norm(y, of_prompt(c).vector)
        u = self.attention.pre(x, i.first)
        a_x, _ = attend_jointly(u, w, attention_of(self.attention), self.text_attention, *self.attention.context(c))
        return self.after(i, x, u, a_x, c), y

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """y as it was, and its keys and values."""
        w = self.text_norm(y, of_prompt(c).vector)
        return y, attend_alone(w, self.text_attention, *self.attention.context(c))[1]

    def equations(self) -> list[str]:
        """One attention over both streams, of which x alone is updated."""
        slots = self.text_norm.head.slots[0] if self.text_norm.head is not None else ()
        w = modulated_symbol("LN(y)", slots, "'")
        if self.beside:
            u = self.attention.input_equation("x", "")
            added = self.attention.branch_equation(f"(a_x + {op_symbol(self.mlp.op)}(u))", "")
            return [f"u = {u}", f"a_x, _ = Attention([u ; {w}])", f"x <- x + {added}"]
        return self.read_equations(self.attention, self.mlp, w)


class JoinedBlock(SidedBlock):
    """z -> z: one set of weights for both streams as one sequence, the attention beside the MLP (FLUX) or before it.

    The first of them receives two streams and joins them: z = [x ; y].

        z <- z + g (SA(u) + MLP(u)),  u = LN(z) (1 + s) + b                                     beside
        z <- z + g1 SA(LN(z) (1 + s1) + b1),  z <- z + g2 MLP(LN(z) (1 + s2) + b2)              before

    Args:
        head: reads c.joint; for y that of `of_prompt(c)`.
        attention: with norm, modulation and gate, of the MLP too where that is beside it.
        mlp: the same, or a bare sub-layer, whose op receives what attention receives.
        beside: whether the MLP is beside the attention.
        apart: whether y is a side of its own.
        sees: whether y attends to x.
        plain: y is unmodulated and ungated.
        text_head: of y, where that is another than x's (`apart`).
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        beside: bool = True,
        apart: bool = False,
        sees: bool = True,
        plain: bool = False,
        text_head: nn.Module | None = None,
    ) -> None:
        super().__init__(head, attention=attention, mlp=mlp, sees=sees, plain=plain, text_head=text_head)
        self.beside, self.apart = beside, apart

    def given(self, c: Condition) -> Any:
        """What the heads of joined streams read."""
        return c.joint

    def forward(self, h: Pair | Tensor, c: Condition) -> Tensor:
        """Both streams, or z (B, N + L, D) -> z; x alone -> x where the prompt's keys and values are given."""
        if c.kept is not None:
            return super().forward(h[0] if isinstance(h, tuple) else h, c)
        z = torch.cat(h, dim=1) if isinstance(h, tuple) else h  # (B, N + L, D)
        if self.apart:
            return super().forward(z, c)
        side = self.image_side(c)
        u = self.attention.pre(z, side.first)
        return self.after(side, z, u, self.attention.op(u, *self.attention.context(c)), c)

    def equations(self) -> list[str]:
        """One norm and one gate for attention and MLP, or one for each."""
        if self.apart:
            return super().equations()
        if not self.beside:
            return [*self.attention.equations("z", "1"), *self.mlp.equations("z", "2")]
        both = f"({op_symbol(self.attention.op)}(u) + {op_symbol(self.mlp.op)}(u))"
        return [f"u = {self.attention.input_equation('z', '')}", f"z <- z + {self.attention.branch_equation(both, '')}"]


def branch(width: int, kind: Adaptive, op: nn.Module, context: Context = no_context) -> SubLayer:
    """g op(LN(x) (1 + s) + b), of the vectors that an `Adaptive` has."""
    return SubLayer(op=op, norm=LayerNorm(width), modulation=kind.modulation, gate=kind.gate, context=context)


def dual_block(
    heads: Placement,
    gate: Gate,
    *,
    text_heads: Placement | None = None,
    index: int | None = None,
    attention: SelfAttention,
    text_attention: SelfAttention,
    mlp: Callable[[], nn.Module],
    plain: bool = False,
    context: Context = joint_mask,
    modulation: str = "scale+shift",
    sees: bool = True,
    joint: bool = True,
    beside: bool = False,
) -> nn.Module:
    """A block of two streams, each with LN, shift and scale before each branch, given by a head of its own.

    Args:
        heads: where the maps are.
        gate: of every branch.
        text_heads: of y, where they are others than x's.
        index: of the block.
        attention: of the image's stream.
        text_attention: of the prompt's; if it is read only, so is y: nothing reads it after this block.
        mlp: makes one.
        plain: y is unmodulated and ungated.
        context: which part of the condition the attention receives.
        modulation: of every branch.
        sees: whether y attends to x.
        joint: whether the streams attend to one another at all.
        beside: whether each MLP reads what the attention reads, with one gate for both.
    """
    d, own = heads.width, Adaptive(modulation, gate)
    text = PLAIN if plain else own

    def after(kind: Adaptive) -> SubLayer:
        return SubLayer(op=mlp()) if beside else branch(d, kind, mlp())

    image, image_mlp = branch(d, own, attention, context), after(own)
    if text_attention.out is None:
        norm = FinalNorm(LayerNorm(d), text.modulation, d, static=isinstance(heads, Static))
        read = text_attention
        return LastDualBlock(
            heads.head(index), norm, attention=image, mlp=image_mlp, text_attention=read, beside=beside
        )
    return DualBlock(
        heads.head(index),
        None if plain else (text_heads or heads).head(index),
        attention=image,
        mlp=image_mlp,
        text_attention=branch(d, text, text_attention, context),
        text_mlp=after(text),
        sees=sees,
        joint=joint,
        beside=beside,
    )


def prompt_path(module: M) -> M:
    """Counts a module's parameters to the prompt's path."""
    vars(module)["role"] = "prompt"
    return module
