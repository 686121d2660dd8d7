"""The option `head`: a placement from its name, and Chroma's network, which is one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from architectures.layers import Init, init_with, normal, sinusoid, zeros
from architectures.modulation import (
    Affine,
    Bottleneck,
    Head,
    PerBlock,
    Placement,
    Shared,
    SharedAffine,
    SharedLowRank,
    SharedTable,
    Static,
)
from architectures.options import Option, choose_all
from architectures.sublayer import Adaptive

# --- a network that is read once for every vector (Chroma) ------------------------------------------------------------

NUMBER = 32  # channels of the sinusoid of a vector's number


class Approximate(nn.Module):
    """v_j = A([c ; sinusoid(1000 j)]) for j < J: (B, D) -> (B, J, D).

    A: Linear into h channels, l times h <- h + W2 silu(W1 RMS_w(h)), Linear into D.

    Args:
        channels: of c. width: D. hidden: h. layers: l. count: J.
    """

    role = "modulation"

    def __init__(self, channels: int, width: int, hidden: int, layers: int, count: int) -> None:
        super().__init__()
        self.up = nn.Linear(channels + NUMBER, hidden)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
            for _ in range(layers)
        )
        self.out = Affine(hidden, width)
        self.numbers: Tensor
        self.register_buffer("numbers", sinusoid(1000 * torch.arange(count), NUMBER), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """c (B, D), or (B, N, D) -> (B, J, D), or (B, N, J, D)."""
        shape = (*c.shape[:-1], len(self.numbers), -1)
        h = self.up(torch.cat([c.unsqueeze(-2).expand(shape), self.numbers.to(c.dtype).expand(shape)], dim=-1))
        for layer in self.layers:
            h = h + layer(h)
        out: Tensor = self.out(h)
        return out


class Numbered(nn.Module):
    """The vectors first .. first + k - 1 of all: (B, J, D) -> (B, k D)."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first, self.count = first, count

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors[..., self.first : self.first + self.count, :].flatten(-2)


class Approximator(Placement):
    """v_j = A([c ; sinusoid(1000 j)]), j numbering the vectors of all blocks in order; A's last map is at zero.

    A is one network, so that a block has no parameters of its own.

    Attributes:
        first: number of its first vector. total: of the vectors that its trunk gives (`trunks_of`).
    """

    def __init__(
        self, width: int, adaptive: Sequence[Adaptive], init: Init, hidden: int, layers: int, depth: int
    ) -> None:
        super().__init__(width, adaptive, init)
        if any(one.gate.init not in (None, zeros) for one in self.adaptive):
            raise ValueError(
                "an approximator has one map for all vectors, so that a gate cannot have first weights of "
                "its own: choose gate zero, tanh, one+zero, random or one"
            )
        if "angle" in self.slots:
            raise ValueError(
                "an approximator gives vectors of D channels, and an angle has half as many: choose modulation none, "
                "scale or scale+shift"
            )
        self.hidden, self.layers = hidden, layers
        self.count = self.out // width
        self.first, self.total = 0, self.count * depth

    def trunk(self) -> nn.Module:
        made = Approximate(self.channels, self.width, self.hidden, self.layers, self.total)
        init_with(made.out, weight=self.init)
        return made

    def affine(self) -> nn.Module:
        """Not without the block's index."""
        raise ValueError(
            "head 'approximator' numbers the vectors of all blocks: write heads.head(index) in block(index)"
        )

    def head(self, index: int | None = None) -> Head:
        """The vectors of block `index`."""
        if index is None:
            return super().head()
        return self._head(Numbered(self.first + index * self.count, self.count))


# --- by name ----------------------------------------------------------------------------------------------------------

HEAD = Option(
    "where shift, scale, gate come from: a map of each block's own, one for all, one plus a table, a table and factors "
    "or a low-rank map a block, each block's own behind a shared bottleneck, or a network that is given the vector's "
    "number (its width, its layers); widths are channels or a share of D",
    ("per-block", "shared", "shared+table", "shared+affine", "bottleneck(D/4)", "low-rank(D/8)", "approximator(D, 2)"),
)

Made = Callable[..., Placement]

# Name -> what makes it, and the rule of its weights.
PLACEMENTS: dict[str, tuple[Made, Init]] = {
    "per-block": (PerBlock, zeros),
    "shared": (Shared, normal(0.02)),
    "shared+table": (SharedTable, normal(0.02)),
    "shared+affine": (SharedAffine, normal(0.02)),
    "bottleneck": (Bottleneck, zeros),
    "low-rank": (SharedLowRank, normal(0.02)),
    "approximator": (Approximator, zeros),
}


def parse_placement(
    text: str,
    width: int,
    adaptive: Sequence[Adaptive],
    init: Init | None = None,
    *,
    depth: int | None = None,
    channels: int | None = None,
    activate: bool = True,
    static: bool = False,
) -> Placement:
    """A placement from its name: `per-block`, `shared`, `shared+table`, `shared+affine`, `bottleneck(R)`, ...

    Args:
        text: one of the choices of `HEAD`.
        width: D.
        adaptive: what each sub-layer takes, in order.
        init: None is the placement's own rule: zero where each block has its map, N(0, 0.02^2) where it is shared.
        depth: of how many blocks it is; `approximator` alone needs it.
        channels: of c, D by default.
        activate: whether the maps read silu(c), or c itself.
        static: whether there is no c.

    Raises:
        ValueError: for any other text, or if no sub-layer takes a vector.
    """
    name, numbers = choose_all("head", text, HEAD.choices, width)
    if static:
        return static_placement(text, width, adaptive)
    if not any(sublayer.slots for sublayer in adaptive):
        raise ValueError("modulation 'none' without a gate leaves the blocks unmodulated: choose another of the two")
    make, own = PLACEMENTS[name]
    arguments = [int(number) for number in numbers]
    if make is Approximator:
        if depth is None:
            raise ValueError(f"head {text!r} numbers the vectors of all blocks: give parse_placement their depth")
        arguments.append(depth)
    placement = make(width, adaptive, init or own, *arguments)
    placement.channels, placement.activate = channels or width, activate
    return placement


TRUNK = Option(
    "which tokens have a map of c of their own: each of two streams (stream), the prompt's in one sequence too (side), "
    "or none (one)",
    ("stream", "side", "one"),
)
STREAM_TRUNK = replace(TRUNK, choices=("stream", "one"))  # where all blocks have two streams
SIDE_TRUNK = replace(TRUNK, choices=("stream", "side"))  # where all have one sequence


def trunks_of(placements: Sequence[Placement], trunk: str) -> list[nn.Module]:
    """A trunk for each of several placements of one scheme: its own, or with `one` the same where they are alike.

    One network numbers the vectors of all placements, in order; other maps are alike where they give as many vectors.

    Args:
        placements: made by the option `head`.
        trunk: one of the choices of `TRUNK`.
    """
    if trunk != "one":
        return [placement.trunk() for placement in placements]
    numbered = [placement for placement in placements if isinstance(placement, Approximator)]
    for placement in numbered:
        placement.first = sum(other.total for other in numbered[: numbered.index(placement)])
    if numbered:
        numbered[0].total = sum(other.total for other in numbered)
        return [numbered[0].trunk()] * len(placements)
    made = {placement.out: placement.trunk() for placement in placements}
    return [made[placement.out] for placement in placements]


class Trunks(nn.ModuleList):
    """The trunks of several kinds of tokens (`trunks_of`), each computed once for one c.

    Args:
        placements: by kind.
        trunk: one of the choices of `TRUNK`.
    """

    def __init__(self, placements: dict[str, Placement], trunk: str) -> None:
        different = list(dict.fromkeys(placements.values()))
        made = dict(zip(different, trunks_of(different, trunk), strict=True))
        super().__init__(dict.fromkeys(made.values()))
        self.numbers = {kind: list(self).index(made[placement]) for kind, placement in placements.items()}

    def read(self, vectors: dict[str, Tensor | None]) -> dict[str, Any]:
        """What the heads of each kind read of its c (B, D), by kind; None of one without a placement."""
        made: list[tuple[int, Tensor | None, Any]] = []
        read = dict.fromkeys(vectors)
        for kind, c in vectors.items():
            number = self.numbers.get(kind)
            if number is None:
                continue
            known = [out for other, of, out in made if other == number and of is c]
            read[kind] = known[0] if known else self[number](c)
            made.append((number, c, read[kind]))
        return read


CONSTANTS = {"per-block": zeros, "shared": zeros, "shared+table": None}


def static_placement(head: str, width: int, adaptive: Sequence[Adaptive]) -> Static:
    """What a head is where c sums nothing: its constant, initialised as its biases or its table would be.

    Raises:
        ValueError: for a head that would be a constant in a way that another is.
    """
    if head not in CONSTANTS:
        raise ValueError(
            f"head {head!r} reads c, and with these signals there is none: choose {', '.join(CONSTANTS)}, or signals"
        )
    return Static(width, adaptive, CONSTANTS[head] or normal(width**-0.5), shared=head == "shared")
