"""The one update rule.

Every sub-layer of every published system is an instance of it:

    u = modulate(norm(x), shift, scale, angle)
    y = post(op(u, context))
    x <- carry(x, u) + gate(g) * y

A block is sub-layers in order, and one head that gives each its shift, scale and gate. `repr(block)` is the equations
that it computes, written from the parts it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from architectures.layers import Init, normal, zeros
from architectures.options import Option, choose
from architectures.rotary import rotate_halves
from architectures.symbols import modulated_symbol, norm_symbol, op_symbol


class Condition(NamedTuple):
    """What a scheme makes of timestep and prompt, once a pass; every block receives it.

    Attributes:
        vector: c (B, D), the sum of signals, or (B, N, D), where each token has its own; or None.
        modulation: what the heads of the blocks read, of a scheme with two streams the heads of the image's: the output
            of the trunk, in the form that the head's placement has.
        text: the same for the heads of the prompt's stream, or None where that is unmodulated.
        joint: the same for the heads of both streams as one sequence, or None where no block joins them.
        tokens: (B, L, D), or None.
        mask: (B, L) true where a token is attended to (in-context: (B, N + L), the image's tokens first), or None.
        positions: of the same tokens, where they come with the sequence: rotary angles (B, N + L, d/2, 2), or None.
        beside: tokens (B, k, D) that enter the image's sequence beside its own, or None.
        prompt: what modulates the prompt's side, where that is another c than the image's; or None.
        kept: of one block, the prompt's keys and values (B, H, L, d) in it, where they are known before; or None.
        time: e_t (B, D), where more than c is made of it; or None.
        layers: of each block, tokens (B, L, D) in the place of the last L of the prompt's; or empty.
    """

    vector: Tensor | None = None
    modulation: Tensor | tuple[Tensor, ...] | None = None
    text: Tensor | tuple[Tensor, ...] | None = None
    joint: Tensor | tuple[Tensor, ...] | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None
    beside: Tensor | None = None
    prompt: Condition | None = None
    kept: tuple[Tensor, Tensor] | None = None
    time: Tensor | None = None
    layers: tuple[Tensor, ...] = ()


# --- modulate: nothing | scale | scale and shift | rotate | rotate and scale -----------------------------------------


def modulate(
    x: Tensor, shift: Tensor | None = None, scale: Tensor | None = None, angle: Tensor | None = None
) -> Tensor:
    """R(angle) x (1 + scale) + shift, over channels; x (B, N, D), vectors (B, D), or (B, N, D): each token's own."""
    if angle is not None:
        x = rotate(x, angle)
    if scale is not None:
        x = x * (1 + for_tokens(scale))
    if shift is not None:
        x = x + for_tokens(shift)
    return x


def for_tokens(v: Tensor) -> Tensor:
    """A vector (B, D) for every token, (B, 1, D); one a token (B, N, D) as it is."""
    return v if v.dim() == 3 else v.unsqueeze(1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """R(angle) x: the channels i and i + D / 2 turned by angle i; x (B, N, D), angle (B, D / 2) or (B, N, D / 2)."""
    return rotate_halves(x, for_tokens(angle.cos()), for_tokens(angle.sin()))


MODULATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "scale": ("scale",),
    "scale+shift": ("shift", "scale"),
    "rotate": ("angle",),
    "rotate+scale": ("angle", "scale"),
}
MODULATION = Option(
    "what is done to a normalised activation: nothing, x (1 + s), x (1 + s) + b, its channels turned in pairs, R(a) x, "
    "or R(a) x (1 + s)",
    tuple(MODULATIONS),
)


def channels(slots: Iterable[str], width: int) -> list[int]:
    """Channels of each vector: D, and D / 2 of an angle, which turns a pair."""
    return [width // 2 if slot == "angle" else width for slot in slots]


# --- gate: 1 | g | tanh g | 1 + g -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """How a branch is weighed: a function of a vector g (B, D), and how the rows that give g are initialised.

    Attributes:
        function: None is the open gate, 1: it needs no g.
        init: None leaves the rows to the head's own rule.
        symbol: the function in an equation, `{}` for g.
        static: g is learned itself, the same for every image, t and prompt, and no head's.
    """

    function: Callable[[Tensor], Tensor] | None
    init: Init | None = None
    symbol: str = "{}"
    static: bool = False

    @property
    def closed(self) -> bool:
        """Whether the branch is initialised as 0."""
        return self.function is not None and self.init is zeros and not self.function(torch.zeros((), device="cpu"))


def identity(g: Tensor) -> Tensor:
    """The gate g."""
    return g


OPEN = Gate(None)
LINEAR = Gate(identity)


GATE = Option(
    "how a branch is weighed: g from 0, g from N(0, S^2), tanh g from 0, 1 + g from 1, g initialised as its head's "
    "other rows (0 in a head per block), a learned g from 0 that no head gives, or not",
    ("zero", "gaussian(1e-3)", "tanh", "one+zero", "random", "static-zero", "one"),
)


def parse_gate(text: str) -> Gate:
    """A gate from its name.

    `zero` (g, initialised at 0), `gaussian(S)` (g, from N(0, S^2)), `tanh` (tanh g, at 0), `one+zero` (1 + g, at 1),
    `random` (g, initialised as the head's other rows), `static-zero` (g learned itself, at 0), `one` (no gate).

    Raises:
        ValueError: for any other text.
    """
    name, number = choose("gate", text, GATE.choices)
    if number is not None:
        return Gate(identity, normal(number))
    named = {
        "zero": Gate(identity, zeros),
        "tanh": Gate(torch.tanh, zeros, "tanh({})"),
        "one+zero": Gate(lambda g: 1 + g, zeros, "(1 + {})"),
        "random": Gate(identity),
        "static-zero": Gate(identity, zeros, static=True),
        "one": OPEN,
    }
    return named[name]


@dataclass(frozen=True)
class Adaptive:
    """What a head gives one sub-layer: its modulation (one of `MODULATIONS`) and its gate.

    Raises:
        ValueError: for a modulation of another name.
    """

    modulation: str = "none"
    gate: Gate = OPEN

    def __post_init__(self) -> None:
        """Checks the modulation's name."""
        choose("modulation", self.modulation, MODULATION.choices)

    @property
    def slots(self) -> tuple[str, ...]:
        """Which vectors it takes of c, in order."""
        return MODULATIONS[self.modulation] + (("gate",) if self.gate.function and not self.gate.static else ())

    @property
    def vectors(self) -> bool:
        """Whether it takes any."""
        return bool(self.slots) or self.gate.static


PLAIN = Adaptive()

# --- the rule -------------------------------------------------------------------------------------------------------


class Vectors(NamedTuple):
    """What a head gives one sub-layer, each (B, D) or absent; an angle (B, D / 2)."""

    shift: Tensor | None = None
    scale: Tensor | None = None
    gate: Tensor | None = None
    angle: Tensor | None = None


def no_context(c: Condition) -> tuple[()]:
    """For an op without a condition: attention among image tokens, MLP."""
    return ()


def prompt_tokens(c: Condition) -> tuple[Tensor | None, Tensor | None]:
    """For an op that attends to the prompt's tokens: cross-attention."""
    return c.tokens, c.mask


def joint_mask(c: Condition) -> tuple[Tensor | None]:
    """For an op over image and prompt tokens in one sequence, of which some may be padding."""
    return (c.mask,)


def mask_and_positions(c: Condition) -> tuple[Tensor | None, Tensor | None]:
    """For an op that needs the position of each token, too."""
    return c.mask, c.positions


def carry_input(x: Tensor, u: Tensor) -> Tensor:
    """Carries x (pre-norm)."""
    return x


def carry_modulated(x: Tensor, u: Tensor) -> Tensor:
    """Carries u, the modulated norm of x (HDM)."""
    return u


Context = Callable[[Condition], tuple[Any, ...]]
Observer = Callable[[Tensor, Tensor, Tensor, Vectors], None]  # (x, u, out, m) of one pass


class SubLayer(nn.Module):
    """x <- carry(x, u) + gate(g) * post(op(u, context)), u = modulate(norm(x), shift, scale, angle).

    Args:
        op: what the branch computes, (B, N, D) and context -> (B, N, D).
        norm: None leaves x as it is (PixArt's cross-attention).
        modulation: one of `MODULATIONS`.
        gate: how the branch is weighed.
        post: a norm on the branch's output (the sandwich of Lumina 2.0), or None.
        context: which part of the condition the op receives.
        carry: x (pre-norm), or u (HDM).

    Attributes:
        observer: called with (x, u, out, m) after each pass where it is set (`architectures.observe`).
        parallel: whether it reads the block's input, and not what the branches before it made of it (`after`).
        through: whether it is added to the block's input, so that the branches before it count by what it reads alone.
    """

    def __init__(
        self,
        op: nn.Module,
        norm: nn.Module | None = None,
        *,
        modulation: str = "none",
        gate: Gate = OPEN,
        post: nn.Module | None = None,
        context: Context = no_context,
        carry: Callable[[Tensor, Tensor], Tensor] = carry_input,
    ) -> None:
        super().__init__()
        self.op = op
        self.norm = norm or nn.Identity()
        self.post = post or nn.Identity()
        self.modulation, self.gate, self.context, self.carry = modulation, gate, context, carry
        self.observer: Observer | None = None
        self.parallel = self.through = False

    def forward(self, x: Tensor, c: Condition, m: Vectors) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        u = self.pre(x, m)
        return self.residual(x, u, self.op(u, *self.context(c)), m)

    def after(self, x: Tensor, attended: Tensor, c: Condition, m: Vectors) -> Tensor:
        """What the branches before it made of a block's input x (B, N, D), with its own added -> (B, N, D)."""
        read, onto = (x if self.parallel else attended), (x if self.through else attended)
        if read is onto:
            out: Tensor = self(attended, c, m)
            return out
        u = self.pre(read, m)
        return self.residual(read, u, self.op(u, *self.context(c)), m, onto)

    def pre(self, x: Tensor, m: Vectors) -> Tensor:
        """u: the op's input."""
        return modulate(self.norm(x), m.shift, m.scale, m.angle)

    def residual(self, x: Tensor, u: Tensor, y: Tensor, m: Vectors, onto: Tensor | None = None) -> Tensor:
        """The op's output y, through post and gate, added to what is carried, or to `onto`."""
        y = self.post(y)
        if self.gate.function is not None and m.gate is not None:
            y = for_tokens(self.gate.function(m.gate)) * y
        carried = self.carry(x, u) if onto is None else onto
        out = (carried + y).to(x.dtype)  # vectors are float32 under autocast; the stream keeps its own
        if self.observer is not None:
            self.observer(x if onto is None else onto, u, out, m)
        return out

    # --- as equations -----------------------------------------------------------------------------------------------

    def unmodulated(self) -> SubLayer:
        """The same branch without vectors."""
        made = SubLayer(self.op, self.norm, post=self.post, context=self.context, carry=self.carry)
        made.parallel, made.through = self.parallel, self.through
        return made

    def input_equation(self, x: str, k: str) -> str:
        """`LN(x) (1 + s1) + b1`: u in an equation, of stream `x`, its vectors numbered `k`."""
        norm = norm_symbol(self.norm)
        return modulated_symbol(f"{norm}({x})" if norm else x, MODULATIONS[self.modulation], k)

    def branch_equation(self, y: str, k: str) -> str:
        """`g1 RMS(y)`: what is added, of the op's output `y`."""
        post = norm_symbol(self.post)
        y = f"{post}({y})" if post else y
        return y if self.gate.function is None else f"{self.gate.symbol.format(f'g{k}')} {y}"

    def equations(self, x: str, k: str) -> list[str]:
        """The lines that it computes: one, or two where u is carried; x_0 is the block's input."""
        attended = ", y" if self.context is prompt_tokens else ""
        op, u = op_symbol(self.op), self.input_equation(f"{x}_0" if self.parallel else x, k)
        if self.carry is carry_modulated:
            return [f"u = {u}", f"{x} <- u + {self.branch_equation(f'{op}(u{attended})', k)}"]
        onto = f"{x}_0" if self.through else x
        return [f"{x} <- {onto} + {self.branch_equation(f'{op}({u}{attended})', k)}"]


class Equations(nn.Module):
    """A block whose `repr` is the equations that it computes."""

    def equations(self) -> list[str]:
        """A line an update, in order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The equations, under the block's class; x_0 is its input."""
        return "\n  ".join([f"{type(self).__name__}:", *self.equations()])


class Block(Equations):
    """Sub-layers in order, each given its vectors by the head.

    Their names are the parameters' names, so that `attention` and `mlp` are initialised with the same weights in every
    scheme.

    Args:
        head: (trunk's output) -> one `Vectors` a sub-layer; None where none is modulated or gated.
        sublayers: by name, in order.
    """

    stream = "x"  # in the equations

    def __init__(self, head: nn.Module | None = None, **sublayers: SubLayer) -> None:
        super().__init__()
        self.head = head
        self.order = tuple(sublayers)
        for name, sublayer in sublayers.items():
            self.add_module(name, sublayer)

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        vectors = self.head(c.modulation) if self.head is not None else [Vectors()] * len(self.order)
        h = x
        for name, m in zip(self.order, vectors, strict=True):
            h = getattr(self, name).after(x, h, c, m)
        return h

    def equations(self) -> list[str]:
        """Its sub-layers' lines; vectors are numbered over the sub-layers that have some."""
        lines, k = [], 0
        for name in self.order:
            sublayer: SubLayer = getattr(self, name)
            k += Adaptive(sublayer.modulation, sublayer.gate).vectors
            lines += sublayer.equations(self.stream, str(k))
        return lines
