"""The one update rule. Every sub-layer of every published system is an instance of it:

    u = modulate(norm(x), shift, scale)
    y = post(op(u, context))
    x <- x + gate(g) * y

(Systems whose carry is u instead of x bring it as `carry`.) A block is sub-layers in order, and one head that tells
each its shift, scale and gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from architectures.layers import Initial, normal, zeros
from architectures.options import Option, choose


class Condition(NamedTuple):
    """What a scheme makes of time and prompt, once a pass; every block sees it.

    Attributes:
        vector: c (B, D), the sum of signals, or None.
        modulation: what the heads of the blocks read (the output of the trunk); its form is the head placement's own.
        tokens: (B, L, D), or None.
        mask: (B, L) true where a token may be seen (in-context: (B, N + L), the image's tokens first), or None.
        positions: of the same tokens, where they come with the sequence: rotary turns (B, N + L, d/2, 2), or None.
    """

    vector: Tensor | None = None
    modulation: Tensor | tuple[Tensor, ...] | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None


# --- modulate: nothing | scale | scale and shift --------------------------------------------------------------------


def modulate(x: Tensor, shift: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """x (1 + scale) + shift, over channels; x (B, N, D), shift and scale (B, D)."""
    if scale is not None:
        x = x * (1 + scale.unsqueeze(1))
    if shift is not None:
        x = x + shift.unsqueeze(1)
    return x


MODULATIONS: dict[str, tuple[str, ...]] = {"none": (), "scale": ("scale",), "scale+shift": ("shift", "scale")}
MODULATION = Option("what is done to a normalised activation: nothing, x (1 + s), or x (1 + s) + b", tuple(MODULATIONS))

# --- gate: 1 | g | tanh g | 1 + g -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """How strongly a branch speaks: a function of a vector g (B, D), and how the rows that make g begin.

    `function` None is the open gate, 1: it needs no g. `initial` None leaves the rows to the head's own rule.
    """

    function: Callable[[Tensor], Tensor] | None
    initial: Initial | None = None


def identity(g: Tensor) -> Tensor:
    return g


def one_plus(g: Tensor) -> Tensor:
    return 1 + g


OPEN = Gate(None)
LINEAR = Gate(identity)


GATE = Option(
    "how a branch is weighed: g from 0, g from N(0, S^2), tanh g from 0, 1 + g from 1, g as its head's rows, or not",
    ("zero", "gaussian(1e-3)", "tanh", "one+zero", "random", "one"),
)


def parse_gate(text: str) -> Gate:
    """A gate from its name: `zero` (g, begins at 0), `gaussian(S)` (g, begins N(0, S^2)), `tanh` (tanh g, begins at 0),
    `one+zero` (1 + g, begins at 1), `random` (g, begins as the head's other rows do), `one` (no gate).

    Raises:
        ValueError: for any other text.
    """
    name, number = choose("gate", text, GATE.choices)
    if number is not None:
        return Gate(identity, normal(number))
    named = {"zero": Gate(identity, zeros), "tanh": Gate(torch.tanh, zeros), "one+zero": Gate(one_plus, zeros)}
    return {**named, "random": Gate(identity), "one": OPEN}[name]


@dataclass(frozen=True)
class Adaptive:
    """What of a sub-layer the condition steers: its modulation (`none`, `scale`, `scale+shift`) and its gate.

    Raises:
        ValueError: for a modulation of another name.
    """

    modulation: str = "none"
    gate: Gate = OPEN

    def __post_init__(self) -> None:
        choose("modulation", self.modulation, MODULATION.choices)

    @property
    def slots(self) -> tuple[str, ...]:
        """Which vectors it takes of a head, in order."""
        return MODULATIONS[self.modulation] + (("gate",) if self.gate.function else ())


PLAIN = Adaptive()

# --- the rule -------------------------------------------------------------------------------------------------------


class Vectors(NamedTuple):
    """What a head says to one sub-layer, each (B, D) or absent."""

    shift: Tensor | None = None
    scale: Tensor | None = None
    gate: Tensor | None = None


def nothing(c: Condition) -> tuple[()]:
    """An op that sees no condition: attention among image tokens, MLP."""
    return ()


def prompt_tokens(c: Condition) -> tuple[Tensor | None, Tensor | None]:
    """An op that reads the prompt's tokens: cross-attention."""
    return c.tokens, c.mask


def joint_mask(c: Condition) -> tuple[Tensor | None]:
    """An op over image and prompt tokens in one sequence, of which some may be padding."""
    return (c.mask,)


def placed(c: Condition) -> tuple[Tensor | None, Tensor | None]:
    """An op that is told where each token stands, too."""
    return c.mask, c.positions


class SubLayer(nn.Module):
    """x <- carry + gate(g) * post(op(modulate(norm(x), shift, scale), context))."""

    def __init__(
        self,
        op: nn.Module,
        norm: nn.Module | None = None,
        adaptive: Adaptive = PLAIN,
        *,
        post: nn.Module | None = None,
        context: Callable[[Condition], tuple] = nothing,
        carry: Callable[[Tensor, Tensor], Tensor] = lambda x, u: x,
    ) -> None:
        """Args:
        op: what the branch computes, (B, N, D) and context -> (B, N, D).
        norm: None leaves x as it is (PixArt's cross-attention).
        adaptive: its modulation and gate.
        post: a norm on the branch's output (the sandwich of Lumina 2.0), or None.
        context: which part of the condition the op receives.
        carry: x (pre-norm), or u (HDM).
        """
        super().__init__()
        self.op = op
        self.norm = norm or nn.Identity()
        self.post = post or nn.Identity()
        self.gate, self.context, self.carry = adaptive.gate, context, carry

    def forward(self, x: Tensor, c: Condition, m: Vectors) -> Tensor:
        u = self.before(x, m)
        return self.after(x, u, self.op(u, *self.context(c)), m)

    def before(self, x: Tensor, m: Vectors) -> Tensor:
        """u: what the op sees."""
        return modulate(self.norm(x), m.shift, m.scale)

    def after(self, x: Tensor, u: Tensor, y: Tensor, m: Vectors) -> Tensor:
        """What the op gave, through post and gate, added to what is carried."""
        y = self.post(y)
        if self.gate.function is not None and m.gate is not None:
            y = self.gate.function(m.gate).unsqueeze(1) * y
        return self.carry(x, u) + y


def modulated(x: Tensor, u: Tensor) -> Tensor:
    """What is carried: u."""
    return u


class Block(nn.Module):
    """Sub-layers in order, each told its vectors by the head. Their names are the parameters' names, so that
    `attention` and `mlp` begin with the same weights in every scheme."""

    def __init__(self, head: nn.Module | None = None, **sublayers: SubLayer) -> None:
        super().__init__()
        self.head = head
        self.order = tuple(sublayers)
        for name, sublayer in sublayers.items():
            self.add_module(name, sublayer)

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        told = self.head(c.modulation) if self.head is not None else [Vectors()] * len(self.order)
        for name, vectors in zip(self.order, told, strict=True):
            x = getattr(self, name)(x, c, vectors)
        return x
