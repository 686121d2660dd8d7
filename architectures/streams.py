"""Blocks over two streams, x (B, N, D) of the image and y (B, L, D) of the prompt, and over both as one sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm, M, SelfAttention, attend_jointly
from architectures.modulation import Placement, Static
from architectures.options import Option
from architectures.sublayer import (
    OPEN,
    Block,
    Condition,
    Context,
    Equations,
    Gate,
    SubLayer,
    Vectors,
    joint_mask,
    no_context,
    op_symbol,
)

Pair = tuple[Tensor, Tensor]  # x (B, N, D) and y (B, L, D)

TEXT = Option("the prompt's stream: modulated by a head of its own, or unmodulated", ("modulated", "plain"))
POST = Option("a norm of each branch's output: RMS, or none", ("rms", "none"))
CONTEXT = Option(
    "the prompt's tokens in the blocks: updated by each, or static, the encoder's in every one", ("updated", "static")
)


def attention_of(sublayer: SubLayer) -> SelfAttention:
    """The attention of a sub-layer that is one side of a joint attention."""
    assert isinstance(sublayer.op, SelfAttention)
    return sublayer.op


class DualBlock(Equations):
    """(x, y) -> (x, y): each stream modulated by a head of its own, one attention over both, two MLPs.

    Args:
        head: reads c.modulation, for x.
        text_head: reads c.text, for y; None: y is unmodulated.
        attention: of x; its context is that of the joint attention.
        mlp: of x.
        text_attention: of y.
        text_mlp: of y.
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
    ) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_head = text_head
        self.text_attention, self.text_mlp = prompt_path(text_attention), prompt_path(text_mlp)

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> the same."""
        x, y = h
        m1, m2 = self.head(c.modulation)
        n1, n2 = self.text_head(c.text) if self.text_head is not None else (Vectors(), Vectors())
        u, w = self.attention.pre(x, m1), self.text_attention.pre(y, n1)
        image, text = attention_of(self.attention), attention_of(self.text_attention)
        a_x, a_y = attend_jointly(u, w, image, text, *self.attention.context(c))
        assert a_y is not None
        x, y = self.attention.residual(x, u, a_x, m1), self.text_attention.residual(y, w, a_y, n1)
        return self.mlp(x, c, m2), self.text_mlp(y, c, n2)

    def equations(self) -> list[str]:
        """One attention over both streams, then each stream's branches; y's vectors are primed."""
        u, w = self.attention.input_equation("x", "1"), self.text_attention.input_equation("y", "1'")
        return [
            f"a_x, a_y = Attention([{u} ; {w}])",
            f"x <- x + {self.attention.branch_equation('a_x', '1')}",
            "y <- y + " + self.text_attention.branch_equation("a_y", "1'"),
            *self.mlp.equations("x", "2"),
            *self.text_mlp.equations("y", "2'"),
        ]


class LastDualBlock(Equations):
    """(x, y) -> (x, y): y is only attended to: its normed and modulated tokens give keys and values (SD3's last block).

    Args:
        head: reads c.modulation, for x.
        text_norm: (y, c.vector) -> what y's attention reads.
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

    def forward(self, h: Pair, c: Condition) -> Pair:
        """x (B, N, D) and y (B, L, D) -> x updated, y as it was."""
        x, y = h
        m1, m2 = self.head(c.modulation)
        u, w = self.attention.pre(x, m1), self.text_norm(y, c.vector)
        a_x, _ = attend_jointly(u, w, attention_of(self.attention), self.text_attention, *self.attention.context(c))
        return self.mlp(self.attention.residual(x, u, a_x, m1), c, m2), y

    def equations(self) -> list[str]:
        """One attention over both streams, of which x alone is updated."""
        slots = self.text_norm.head.slots[0] if self.text_norm.head is not None else ()
        w = "LN(y)" + (" (1 + s')" if "scale" in slots else "") + (" + b'" if "shift" in slots else "")
        return [
            f"a_x, _ = Attention([{self.attention.input_equation('x', '1')} ; {w}])",
            f"x <- x + {self.attention.branch_equation('a_x', '1')}",
            *self.mlp.equations("x", "2"),
        ]


class StaticBlock(Block):
    """x -> x: attention over [x ; y], y the prompt's tokens c.tokens, of which x alone is updated; an MLP on x.

    Every block attends to y as the encoder gives it. Its parts and arguments are those of `Block`.
    """

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        assert c.tokens is not None
        vectors = self.head(c.modulation) if self.head is not None else [Vectors()] * len(self.order)
        attention, mlp = (getattr(self, name) for name in self.order)
        z = attention(torch.cat([x, c.tokens.to(x.dtype)], dim=1), c, vectors[0])  # (B, N + L, D)
        updated: Tensor = mlp(z[:, : x.shape[1]], c, vectors[1])
        return updated

    def equations(self) -> list[str]:
        """A block's, its attention's over [x ; y]; what it makes of y is discarded, written `_`."""
        lines, count = super().equations(), len(getattr(self, self.order[0]).equations("x", ""))
        joined = [line.replace("(x)", "([x ; y])").replace("<- x", "<- [x ; y]") for line in lines[:count]]
        return [line.replace("x <-", "x, _ <-") for line in joined] + lines[count:]


def token_block(context: str, head: nn.Module | None = None, *, attention: SubLayer, mlp: SubLayer) -> Block:
    """A block over image and prompt as one sequence, with the prompt's tokens updated or static (`CONTEXT`)."""
    kind = StaticBlock if context == "static" else Block
    return kind(head, attention=attention, mlp=mlp)


def join_tokens(context: str, x: Tensor, c: Condition) -> Tensor:
    """What the first `token_block` receives: [x ; y] (B, N + L, D), or x alone where each block joins y itself."""
    assert c.tokens is not None
    return x if context == "static" else torch.cat([x, c.tokens], dim=1)


class ParallelBlock(Equations):
    """z <- z + g (SA(u) + MLP(u)), u = LN(z) (1 + s) + b: attention beside MLP, one triple for both (FLUX).

    The first of them receives two streams and joins them: z = [x ; y].

    Args:
        head: reads c.joint.
        attention: with the norm, modulation and gate of both.
        mlp: a bare sub-layer, whose op receives what attention receives.
    """

    def __init__(self, head: nn.Module, *, attention: SubLayer, mlp: SubLayer) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp

    def forward(self, h: Pair | Tensor, c: Condition) -> Tensor:
        """Both streams, or z (B, N + L, D) -> z."""
        z = torch.cat(h, dim=1) if isinstance(h, tuple) else h  # (B, N + L, D)
        (m,) = self.head(c.joint)
        u = self.attention.pre(z, m)
        y = self.attention.op(u, *self.attention.context(c)) + self.mlp.op(u)
        return self.attention.residual(z, u, y, m)

    def equations(self) -> list[str]:
        """One norm and one gate for attention and MLP."""
        both = f"({op_symbol(self.attention.op)}(u) + {op_symbol(self.mlp.op)}(u))"
        return [f"u = {self.attention.input_equation('z', '')}", f"z <- z + {self.attention.branch_equation(both, '')}"]


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
        text_attention=branch(text_attention, bare=plain),
        text_mlp=branch(mlp(), bare=plain),
    )


def prompt_path(module: M) -> M:
    """Counts a module's parameters to the prompt's path."""
    vars(module)["role"] = "prompt"
    return module
