"""Blocks over image and prompt as one sequence z = [x ; y], x (B, N, D) and y (B, L, D)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from architectures.options import Option
from architectures.sides import Kept, Side, Sided, attention_of, of_prompt
from architectures.sublayer import Block, Condition, SubLayer

POST = Option("a norm of each branch's output: RMS, or none", ("rms", "none"))
CONTEXT = Option(
    "the prompt's tokens in the blocks: updated by each, or static, the encoder's in every one", ("updated", "static")
)


def token_block(
    context: str,
    head: nn.Module | None = None,
    *,
    attention: SubLayer,
    mlp: SubLayer,
    apart: bool = False,
    sees: bool = True,
    plain: bool = False,
    text_head: nn.Module | None = None,
) -> nn.Module:
    """A block over image and prompt as one sequence, with the prompt's tokens updated or static (`CONTEXT`).

    Args:
        context: `updated` or `static`.
        head: as of `Block`.
        attention: over both.
        mlp: of both.
        apart: whether the prompt's tokens are a side of their own (`SidedBlock`, whose are `sees` and `plain`).
        sees: whether they attend to the image's.
        plain: whether they are unmodulated.
        text_head: of the prompt's tokens, where that is another than the image's (`apart`).
    """
    static = context == "static"
    if not apart and not static:
        return Block(head, attention=attention, mlp=mlp)
    return SidedBlock(head, attention=attention, mlp=mlp, sees=sees, plain=plain, static=static, text_head=text_head)


def join_tokens(context: str, x: Tensor, c: Condition) -> Tensor:
    """What the first `token_block` receives: [x ; y] (B, N + L, D), or x alone where each block has y itself."""
    assert c.tokens is not None
    return x if context == "static" or c.kept is not None else torch.cat([x, c.tokens], dim=1)


# --- a block over one sequence, whose prompt is a side ----------------------------------------------------------------


class SidedBlock(Sided):
    """z = [x ; y] -> z: one set of weights for both sides, y modulated apart, or blind to x, or both.

    Args:
        head: reads c.modulation for x, and that of `of_prompt(c)` for y; None where nothing is modulated.
        attention, mlp: of both sides.
        sees: whether y attends to x.
        plain: y is unmodulated and ungated.
        static: y is the encoder's in every block, which attends to it and updates x alone.
        text_head: of y, where that is another than x's.
    """

    def __init__(
        self,
        head: nn.Module | None,
        *,
        attention: SubLayer,
        mlp: SubLayer,
        sees: bool = True,
        plain: bool = False,
        static: bool = False,
        text_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_head = text_head
        self.sees, self.plain, self.static = sees and not static, plain, static

    def given(self, c: Condition) -> Any:
        """What the heads read of a condition."""
        return c.modulation

    def image_side(self, c: Condition) -> Side:
        """Modulated."""
        return Side(self.attention, self.mlp, *(() if self.head is None else self.head(self.given(c))))

    def prompt_side(self, c: Condition) -> Side:
        """Modulated by its own, or not."""
        head = self.head if self.text_head is None else self.text_head
        vectors = () if head is None or self.plain else head(self.given(of_prompt(c)))
        return Side(self.attention, self.mlp, *vectors)

    def forward(self, z: Tensor, c: Condition) -> Tensor:
        """z (B, N + L, D) -> z; x alone -> x where y is static, or its keys and values are given."""
        assert c.tokens is not None
        if c.kept is not None or self.static:
            return self.sides(z, c.tokens.to(z.dtype), c)[0]
        count = z.shape[1] - c.tokens.shape[1]
        return torch.cat(self.sides(z[:, :count], z[:, count:], c), dim=1)

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """A static y as it was, and its keys and values."""
        if not self.static:
            return super().keep(y, c)
        op, w = attention_of(self.attention), self.attention.pre(y, self.prompt_side(c).first)
        return y, op.split(w, turned=False)[1:]

    def equations(self) -> list[str]:
        """The attention, then each side's branches; where y is modulated apart its vectors are primed."""
        x_1, y_1 = self.attention, self.attention.unmodulated() if self.plain else self.attention
        y_2 = self.mlp.unmodulated() if self.plain else self.mlp
        if self.static:
            return self.read_equations(x_1, self.mlp, y_1.input_equation("y", "1'"))
        if self.beside:
            return self.beside_equations(x_1, y_1, self.mlp)
        return self.turn_equations(x_1, self.mlp, y_1, y_2)


# --- a block over x alone, with keys and values of y ------------------------------------------------------------------


class KeyedBlock(Sided):
    """x -> x: attention of x to itself and to keys and values of the prompt's tokens; an MLP.

    Args:
        head: reads c.modulation.
        attention: of x.
        mlp: of x.
        text: y (B, L, D) -> its keys and values.
    """

    def __init__(self, head: nn.Module, *, attention: SubLayer, mlp: SubLayer, text: nn.Module) -> None:
        super().__init__()
        self.head, self.attention, self.mlp, self.text = head, attention, mlp, text

    def image_side(self, c: Condition) -> Side:
        """Modulated."""
        return Side(self.attention, self.mlp, *self.head(c.modulation))

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        assert c.tokens is not None
        return self.image(x, c, c.kept or self.text(c.tokens.to(x.dtype)))

    def keep(self, y: Tensor, c: Condition) -> tuple[Tensor, Kept]:
        """y as it was, and its keys and values."""
        return y, self.text(y)

    def equations(self) -> list[str]:
        """An attention to both, of which x alone is updated."""
        u, branch = (
            self.attention.input_equation("x", "1"),
            self.attention.branch_equation("Attention(u, [u ; y])", "1"),
        )
        return [f"u = {u}", f"x <- x + {branch}", *self.mlp.equations("x", "2")]
