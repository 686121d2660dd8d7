"""Blocks over two streams, x (B, N, D) of the image and y (B, L, D) of the prompt, and over both as one sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from architectures.layers import LayerNorm, SelfAttention, attend_jointly
from architectures.modulation import FinalNorm, Placement, parse_placement
from architectures.options import Option
from architectures.prompt import Encoded
from architectures.scheme import BackboneConfig, Scheme
from architectures.sublayer import PLAIN, Adaptive, Condition, SubLayer, Vectors, joint_mask, parse_gate

Pair = tuple[Tensor, Tensor]  # x (B, N, D) and y (B, L, D)

TEXT = Option("what the prompt's stream is told: vectors of its own, or nothing", ("modulated", "plain"))


class DualBlock(nn.Module):
    """(x, y) -> (x, y): each stream told by a head of its own, one attention over both, two MLPs.

    c.modulation begins with what the image's head reads and what the prompt's head reads (None: it is told nothing).
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
        (x, y), (told, told_y, *_) = h, c.modulation  # type: ignore[misc]
        m1, m2 = self.head(told)
        n1, n2 = self.text_head(told_y) if self.text_head is not None else (Vectors(), Vectors())
        u, w = self.attention.before(x, m1), self.text_attention.before(y, n1)
        a, b = attend_jointly(u, w, self.attention.op, self.text_attention.op, *self.attention.context(c))  # type: ignore[arg-type]
        x, y = self.attention.after(x, u, a, m1), self.text_attention.after(y, w, b, n1)
        return self.mlp(x, c, m2), self.text_mlp(y, c, n2)


class LastDualBlock(nn.Module):
    """(x, y) -> (x, y): y is only read, normed and told by `text_norm`: q, k, v, and no more (SD3's last block)."""

    def __init__(
        self, head: nn.Module, text_norm: nn.Module, *, attention: SubLayer, mlp: SubLayer, text_attention: nn.Module
    ) -> None:
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp
        self.text_norm, self.text_attention = text_norm, prompt_path(text_attention)

    def forward(self, h: Pair, c: Condition) -> Pair:
        (x, y), (told, *_) = h, c.modulation  # type: ignore[misc]
        m1, m2 = self.head(told)
        u, w = self.attention.before(x, m1), self.text_norm(y, c.vector)
        a, _ = attend_jointly(u, w, self.attention.op, self.text_attention, *self.attention.context(c))  # type: ignore[arg-type]
        return self.mlp(self.attention.after(x, u, a, m1), c, m2), y


class ParallelBlock(nn.Module):
    """z <- z + g (SA(u) + MLP(u)), u = LN(z) (1 + s) + b: attention beside MLP, one triple for both (FLUX).

    The first of them receives two streams and joins them: z = [x ; y]. c.modulation ends with what the head reads.
    """

    def __init__(self, head: nn.Module, *, attention: SubLayer, mlp: SubLayer) -> None:
        """Args:
        attention: norm, modulation and gate are its own. mlp: a bare sub-layer, whose op sees what attention sees.
        """
        super().__init__()
        self.head, self.attention, self.mlp = head, attention, mlp

    def forward(self, h: Pair | Tensor, c: Condition) -> Tensor:
        z = torch.cat(h, dim=1) if isinstance(h, tuple) else h  # (B, N + L, D)
        assert c.modulation is not None
        (m,) = self.head(c.modulation[-1])
        u = self.attention.before(z, m)
        y = self.attention.op(u, *self.attention.context(c)) + self.mlp.op(u)
        return self.attention.after(z, u, y, m)


def dual_block(
    heads: Placement,
    told: Adaptive,
    *,
    attention: SelfAttention,
    text_attention: SelfAttention,
    mlp: Callable[[], nn.Module],
    plain: bool = False,
    context: Callable[[Condition], tuple] = joint_mask,
) -> nn.Module:
    """A block of two streams, each told `told` by a head of its own, with LN before each branch.

    Args:
        text_attention: if it is only read, so is y: nothing reads it after this block (`LastDualBlock`).
        plain: y is told nothing. context: what the attention is told of mask and positions.
    """
    d = heads.width
    own = SubLayer(attention, LayerNorm(d), told, context=context)
    if text_attention.out is None:
        text_norm = FinalNorm(LayerNorm(d), "none" if plain else told.modulation, d)
        own_mlp = SubLayer(mlp(), LayerNorm(d), told)
        return LastDualBlock(heads.head(), text_norm, attention=own, mlp=own_mlp, text_attention=text_attention)
    text_told = PLAIN if plain else told
    return DualBlock(
        heads.head(),
        None if plain else heads.head(),
        attention=own,
        mlp=SubLayer(mlp(), LayerNorm(d), told),
        text_attention=SubLayer(text_attention, LayerNorm(d), text_told),
        text_mlp=SubLayer(mlp(), LayerNorm(d), text_told),
    )


class TwoStreams(Scheme):
    """What SD3 and Qwen-Image share: two streams in every block, y begins as the prompt's tokens and is only read in
    the last block, and the image's stream is shifted and scaled before the output.

    Args:
        gate, head, signals: names of the parts, as a scheme's options. plain: y is told nothing.
    """

    def __init__(
        self, backbone: BackboneConfig, image_size: int, *, gate: str, head: str, signals: str, plain: bool = False
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.hears(signals)
        self.told = Adaptive("scale+shift", parse_gate(gate))
        self.heads = parse_placement(head, d, [self.told, self.told])
        self.plain = plain
        self.trunk = self.heads.trunk()
        self.text_trunk = nn.Identity() if plain else self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.signal(e_t, prompt)  # (B, D)
        return Condition(c, (self.trunk(c), self.text_trunk(c)), prompt.tokens, self.joint_mask(prompt.mask))

    def enter(self, x: Tensor, c: Condition) -> Pair:
        assert c.tokens is not None
        return x, c.tokens

    def block(self, index: int) -> nn.Module:
        return dual_block(
            self.heads,
            self.told,
            attention=self.self_attention(),
            text_attention=self.text_attention(last=index == self.backbone.depth - 1),
            mlp=self.mlp,
            plain=self.plain,
        )

    def leave(self, h: Pair, c: Condition) -> Tensor:
        return self.final(h[0], c.vector)


def prompt_path(module: nn.Module) -> Any:
    """Counts a module's parameters to the prompt's path."""
    module.role = "prompt"  # type: ignore[assignment]
    return module
