"""Blocks over two streams, x (B, N, D) of the image and y (B, L, D) of the prompt, and over both as one sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm, M, SelfAttention
from architectures.modulation import Placement, Static
from architectures.options import Option
from architectures.sides import (
    Kept,
    Pair,
    Side,
    Sided,
    attend_alone,
    attend_jointly,
    attend_to_kept,
    attention_of,
    of_prompt,
    parallel,
)
from architectures.sublayer import (
    OPEN,
    Condition,
    Context,
    Gate,
    SubLayer,
    Vectors,
    joint_mask,
    no_context,
)

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
    ) -> None:
        super().__init__()
        self.sees = sees
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_head = text_head
        self.text_attention, self.text_mlp = prompt_path(text_attention), prompt_path(text_mlp)

    def image_side(self, c: Condition) -> Side:
        """x's sub-layers."""
        first, second = self.head(c.modulation)
        return Side(self.attention, self.mlp, first, second)

    def prompt_side(self, c: Condition) -> Side:
        """y's."""
        first, second = self.text_head(c.text) if self.text_head is not None else (Vectors(), Vectors())
        return Side(self.text_attention, self.text_mlp, first, second)

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> the same."""
        return self.sides(*h, c)

    def equations(self) -> list[str]:
        """One attention over both streams, then each stream's branches; y's vectors are primed."""
        u, w = self.attention.input_equation("x", "1"), self.text_attention.input_equation("y", "1'")
        return [
            *self.attention_equations(u, w),
            f"x <- x + {self.attention.branch_equation('a_x', '1')}",
            "y <- y + " + self.text_attention.branch_equation("a_y", "1'"),
            *self.mlp.equations("x", "2"),
            *self.text_mlp.equations("y", "2'"),
        ]


class LastDualBlock(Sided):
    """(x, y) -> (x, y): y is only attended to: its normed and modulated tokens give keys and values (SD3's last block).

    Args:
        head: reads c.modulation, for x.
        text_norm: (y, c) -> what y's attention reads.
        attention: of x.
        mlp: of x.
        text_attention: of y, read only.
    """

    def __init__(
        self,
        head: nn.Module,
        text_norm: FinalNorm,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        text_attention: SelfAttention,
    ) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_norm, self.text_attention = text_norm, prompt_path(text_attention)

    def image_side(self, c: Condition) -> Side:
        """x's sub-layers."""
        first, second = self.head(c.modulation)
        return Side(self.attention, self.mlp, first, second)

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> x updated, y as it was."""
        return self.sides(*h, c)

    def both(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """x attends to both."""
        i, w = self.image_side(c), self.text_norm(y, of_prompt(c).vector)
        u = self.attention.pre(x, i.first)
        a_x, _ = attend_jointly(u, w, attention_of(self.attention), self.text_attention, *self.attention.context(c))
        return self.mlp(self.attention.residual(x, u, a_x, i.first), c, i.second), y

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """y as it was, and its keys and values."""
        w = self.text_norm(y, of_prompt(c).vector)
        return y, attend_alone(w, self.text_attention, *self.attention.context(c))[1]

    def equations(self) -> list[str]:
        """One attention over both streams, of which x alone is updated."""
        slots = self.text_norm.head.slots[0] if self.text_norm.head is not None else ()
        w = "LN(y)" + (" (1 + s')" if "scale" in slots else "") + (" + b'" if "shift" in slots else "")
        return [
            f"a_x, _ = Attention([{self.attention.input_equation('x', '1')} ; {w}])",
            f"x <- x + {self.attention.branch_equation('a_x', '1')}",
            *self.mlp.equations("x", "2"),
        ]


class ParallelBlock(Sided):
    """z <- z + g (SA(u) + MLP(u)), u = LN(z) (1 + s) + b: attention beside MLP, one triple for both (FLUX).

    The first of them receives two streams and joins them: z = [x ; y].

    Args:
        head: reads c.joint; for y that of `of_prompt(c)`.
        attention: with the norm, modulation and gate of both.
        mlp: a bare sub-layer, whose op receives what attention receives.
        apart: whether y is a side of its own.
        sees: whether y attends to x.
        plain: y is unmodulated and ungated.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        apart: bool = False,
        sees: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp
        self.apart, self.sees, self.plain = apart, sees, plain

    def forward(self, h: Pair | Tensor, c: Condition) -> Tensor:
        """Both streams, or z (B, N + L, D) -> z; x alone -> x where the prompt's keys and values are given."""
        if c.kept is not None:
            return self.image(h[0] if isinstance(h, tuple) else h, c, c.kept)
        if self.apart:
            assert c.tokens is not None
            count = c.tokens.shape[1]
            x, y = h if isinstance(h, tuple) else (h[:, :-count], h[:, -count:])
            return torch.cat(self.sides(x, y, c), dim=1)
        z = torch.cat(h, dim=1) if isinstance(h, tuple) else h  # (B, N + L, D)
        (m,) = self.head(c.joint)
        u = self.attention.pre(z, m)
        y = self.attention.op(u, *self.attention.context(c)) + self.mlp.op(u)
        return self.attention.residual(z, u, y, m)

    def _of_prompt(self, c: Condition) -> Vectors:
        (n,) = [Vectors()] if self.plain else self.head(of_prompt(c).joint)
        return n

    def both(self, x: Tensor, y: Tensor, c: Condition) -> Pair:
        """Each attends to both."""
        (m,), n, op = self.head(c.joint), self._of_prompt(c), attention_of(self.attention)
        u, w = self.attention.pre(x, m), self.attention.pre(y, n)
        a_x, a_y = attend_jointly(u, w, op, op, *self.attention.context(c))
        y = self.attention.residual(y, w, a_y + self.mlp.op(w), n)
        return self.attention.residual(x, u, a_x + self.mlp.op(u), m), y

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """The prompt's side alone."""
        n = self._of_prompt(c)
        w = self.attention.pre(y, n)
        a_y, kept = attend_alone(w, attention_of(self.attention), *self.attention.context(c))
        return self.attention.residual(y, w, a_y + self.mlp.op(w), n), kept

    def image(self, x: Tensor, c: Condition, kept: Kept) -> Tensor:
        """The image's side."""
        (m,) = self.head(c.joint)
        u = self.attention.pre(x, m)
        a_x = attend_to_kept(u, attention_of(self.attention), kept, *self.attention.context(c))
        return self.attention.residual(x, u, a_x + self.mlp.op(u), m)

    def equations(self) -> list[str]:
        """One norm and one gate for attention and MLP."""
        if not self.apart:
            u, both = self.attention.input_equation("z", ""), parallel(self.attention, self.mlp)
            return [f"u = {u}", f"z <- z + {self.attention.branch_equation(both, '')}"]
        of_y = self.attention.unmodulated() if self.plain else self.attention
        x, y = (
            one.branch_equation(f"(a_{s} + MLP({w}))", k)
            for one, s, w, k in ((self.attention, "x", "u", ""), (of_y, "y", "w", "'"))
        )
        lines = [f"u = {self.attention.input_equation('x', '')}", "w = " + of_y.input_equation("y", "'")]
        return [*lines, *self.attention_equations("u", "w"), f"x <- x + {x}", f"y <- y + {y}"]


def dual_block(
    heads: Placement,
    gate: Gate,
    *,
    index: int | None = None,
    attention: SelfAttention,
    text_attention: SelfAttention,
    mlp: Callable[[], nn.Module],
    plain: bool = False,
    context: Context = joint_mask,
    modulation: str = "scale+shift",
    sees: bool = True,
) -> nn.Module:
    """A block of two streams, each with LN, shift and scale before each branch, given by a head of its own.

    Args:
        heads: where the maps are.
        gate: of every branch.
        index: of the block.
        attention: of the image's stream.
        text_attention: of the prompt's; if it is read only, so is y: nothing reads it after this block.
        mlp: makes one.
        plain: y is unmodulated and ungated.
        context: which part of the condition the attention receives.
        modulation: of every branch.
        sees: whether y attends to x.
    """
    d = heads.width

    def branch(op: nn.Module, *, bare: bool = False, context: Context = no_context) -> SubLayer:
        kind, own = ("none", OPEN) if bare else (modulation, gate)
        return SubLayer(op=op, norm=LayerNorm(d), modulation=kind, gate=own, context=context)

    image, image_mlp = branch(attention, context=context), branch(mlp())
    if text_attention.out is None:
        kind, without_c = "none" if plain else modulation, isinstance(heads, Static)
        text_norm = FinalNorm(LayerNorm(d), kind, d, static=without_c)
        return LastDualBlock(
            heads.head(index), text_norm, attention=image, mlp=image_mlp, text_attention=text_attention
        )
    return DualBlock(
        heads.head(index),
        None if plain else heads.head(index),
        attention=image,
        mlp=image_mlp,
        text_attention=branch(text_attention, bare=plain, context=context),
        text_mlp=branch(mlp(), bare=plain),
        sees=sees,
    )


def prompt_path(module: M) -> M:
    """Counts a module's parameters to the prompt's path."""
    vars(module)["role"] = "prompt"
    return module
