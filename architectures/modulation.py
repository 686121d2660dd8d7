"""Where shift, scale and gate come from.

All placements are one family, a per-block affine map S_i of a(c) = silu(c):

    per-block       S_i(c) = W_i a(c) + b_i                        DiT, SD3, FLUX, Qwen-Image
    bottleneck(r)   S_i(c) = W_i a(V c + v) + b_i,  V: D -> r      Lumina 2.0 (Z-Image: without a)
    shared          S_i(c) = W a(c) + b                            DiT-Air
    shared+table    S_i(c) = W a(c) + b + E_i                      PixArt
    low-rank(r)     S_i(c) = W a(c) + b + B_i A_i a(c)             FiTv2, Cosmos

A placement has a *trunk*, computed once a pass, and a *head* in each block, which reads the trunk's output and gives
one `Vectors` a sub-layer. The flat order is shift, scale, gate of the first sub-layer, then of the next (DiT's order).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.layers import Init, init_with, normal, zeros
from architectures.options import Option, choose
from architectures.sublayer import Adaptive, Vectors, modulate

# --- the maps -------------------------------------------------------------------------------------------------------


class Affine(nn.Linear):
    """W a + b in the dtype of W, also under autocast: in bf16 1 + s would be 1 for s up to 0.003."""

    def forward(self, a: Tensor) -> Tensor:
        return super().forward(a).to(self.weight.dtype)


class SiLULinear(Affine):
    """W a(c) + b."""

    role = "modulation"

    def forward(self, c: Tensor) -> Tensor:
        return super().forward(F.silu(c))


class LinearSiLU(nn.Linear):
    """a(V c + v)."""

    role = "modulation"

    def forward(self, c: Tensor) -> Tensor:
        return F.silu(super().forward(c))


class SharedAndActivated(SiLULinear):
    """(W a(c) + b, a(c)): what a low-rank head reads."""

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(c), F.silu(c)


class Table(nn.Module):
    """shared + E: a learned table of k vectors on top of a shared map. (B, k D) -> (B, k D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(width))

    def forward(self, shared: Tensor) -> Tensor:
        return shared + self.table


class LowRank(nn.Module):
    """shared + B A a: a correction of rank r; B is initialised at zero. (B, k D) and (B, D) -> (B, k D)."""

    def __init__(self, width: int, rank: int, out: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = init_with(nn.Linear(rank, out, bias=False), weight=zeros)

    def forward(self, trunk: tuple[Tensor, Tensor]) -> Tensor:
        shared, a = trunk
        return shared + self.up(self.down(a))


class Head(nn.Module):
    """One block's map from the trunk's output to the vectors of its sub-layers.

    Args:
        affine: trunk's output -> (B, k D).
        slots: for each sub-layer, which of shift, scale and gate it takes; k in all.
    """

    role = "modulation"

    def __init__(self, affine: nn.Module, slots: Sequence[tuple[str, ...]]) -> None:
        super().__init__()
        self.affine = affine
        self.slots = tuple(slots)

    def forward(self, trunk: Tensor | tuple[Tensor, ...]) -> list[Vectors]:
        chunks = iter(self.affine(trunk).chunk(sum(map(len, self.slots)), dim=-1))
        return [Vectors(**{slot: next(chunks) for slot in slots}) for slots in self.slots]


# --- the placements -------------------------------------------------------------------------------------------------


class Placement(ABC):
    """Where the maps from c to shift, scale and gate are: a trunk once a pass, and a head in each block.

    Args:
        width: D, of c and of each vector.
        adaptive: what each sub-layer of a block takes, in order.
        init: of the weights of the maps; a gate's own rule comes first.
    """

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init = zeros) -> None:
        self.width, self.adaptive, self.init = width, tuple(adaptive), init
        self.out = width * sum(len(sublayer.slots) for sublayer in adaptive)

    @abstractmethod
    def trunk(self) -> nn.Module:
        """c (B, D) -> what every block's head reads."""

    @abstractmethod
    def affine(self) -> nn.Module:
        """One block's own part of the map, trunk's output -> (B, k D)."""

    def head(self) -> Head:
        """The head of one block."""
        return Head(self.affine(), [sublayer.slots for sublayer in self.adaptive])

    def rows(self, init: Init) -> Init:
        """Fills k groups of rows: `init` everywhere but for the gates that have a rule of their own."""
        rules = [
            (slot == "gate" and sublayer.gate.init) or init for sublayer in self.adaptive for slot in sublayer.slots
        ]

        def fill(tensor: Tensor, generator: torch.Generator) -> None:
            init(tensor, generator)  # as a whole first: fans are those of the whole matrix
            for rows, rule in zip(tensor.chunk(len(rules), dim=0), rules, strict=True):
                if rule is not init:
                    rule(rows, generator)

        return fill

    def _initialised(self, linear: nn.Linear) -> nn.Linear:
        return init_with(linear, weight=self.rows(self.init))


class PerBlock(Placement):
    """W_i a(c) + b_i: a map of each block's own."""

    def trunk(self) -> nn.Module:
        """a(c)."""
        return nn.SiLU()

    def affine(self) -> nn.Module:
        """W_i a + b_i."""
        return self._initialised(Affine(self.width, self.out))


class Bottleneck(Placement):
    """W_i a(V c + v) + b_i, V: D -> r."""

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init, rank: int) -> None:
        super().__init__(width, adaptive, init)
        self.rank = rank

    def trunk(self) -> nn.Module:
        return LinearSiLU(self.width, self.rank)

    def affine(self) -> nn.Module:
        return self._initialised(Affine(self.rank, self.out))


class ModulationLinear(nn.Linear):
    """V c + v."""

    role = "modulation"


class Projected(Bottleneck):
    """W_i (V c + v) + b_i, V: D -> r: a bottleneck without an activation (Z-Image)."""

    def trunk(self) -> nn.Module:
        return ModulationLinear(self.width, self.rank)


class Shared(Placement):
    """W a(c) + b, the same in every block."""

    def trunk(self) -> nn.Module:
        return self._initialised(SiLULinear(self.width, self.out))

    def affine(self) -> nn.Module:
        return nn.Identity()


class SharedTable(Shared):
    """W a(c) + b + E_i; E_i is initialised N(0, 1 / D) (PixArt)."""

    def affine(self) -> nn.Module:
        return init_with(Table(self.out), table=self.rows(normal(self.width**-0.5)))


class SharedLowRank(Shared):
    """W a(c) + b + B_i A_i a(c)."""

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init, rank: int) -> None:
        super().__init__(width, adaptive, init)
        self.rank = rank

    def trunk(self) -> nn.Module:
        return self._initialised(SharedAndActivated(self.width, self.out))

    def affine(self) -> nn.Module:
        return LowRank(self.width, self.rank, self.out)


HEAD = Option(
    "where shift, scale, gate come from: a map of each block's own, one for all, one plus a table or a low-rank map a "
    "block, or each block's own behind a shared bottleneck",
    ("per-block", "shared", "shared+table", "bottleneck(64)", "low-rank(16)"),
)


def parse_placement(text: str, width: int, adaptive: Sequence[Adaptive], init: Init | None = None) -> Placement:
    """A placement from its name: `per-block`, `shared`, `shared+table`, `bottleneck(R)`, `low-rank(R)`.

    `init` None is the placement's own rule: zero where each block has its map, N(0, 0.02^2) where it is shared.

    Raises:
        ValueError: for any other text, or if no sub-layer takes a vector.
    """
    name, number = choose("head", text, HEAD.choices)
    if not any(sublayer.slots for sublayer in adaptive):
        raise ValueError("modulation 'none' without a gate leaves the blocks unmodulated: choose another of the two")
    if number is not None:
        ranked, own = RANKED[name]
        return ranked(width, adaptive, init or own, int(number))
    placement, own = PLACEMENTS[name]
    return placement(width, adaptive, init or own)


# Name -> class, and the rule of its weights.
PLACEMENTS: dict[str, tuple[type[PerBlock | Shared], Init]] = {
    "per-block": (PerBlock, zeros),
    "shared": (Shared, normal(0.02)),
    "shared+table": (SharedTable, normal(0.02)),
}
RANKED: dict[str, tuple[type[Bottleneck | SharedLowRank], Init]] = {
    "bottleneck": (Bottleneck, zeros),
    "low-rank": (SharedLowRank, normal(0.02)),
}


# --- one map for all blocks of a kind (HDM) --------------------------------------------------------------------------


class SharedMLP(nn.Module):
    """W mish(V LN_w(c) + v) + w: (B, D) -> (B, 3 D), or 2 D where there is no gate."""

    role = "modulation"

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.up = nn.Linear(width, 4 * width)
        self.out = init_with(Affine(4 * width, count * width), weight=zeros)

    def forward(self, c: Tensor) -> Tensor:
        return self.out(F.mish(self.up(self.norm(c))))


class SharedHead(nn.Module):
    """Splits what the shared maps give into scale, shift and, where there is one, gate of each sub-layer (HDM)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.slots = ("scale", "shift", "gate")[:count]

    def forward(self, modulation: tuple[Tensor, ...]) -> list[Vectors]:
        """One (B, k D) a sub-layer -> its vectors."""
        chunks = (m.chunk(len(self.slots), dim=-1) for m in modulation)
        return [Vectors(**dict(zip(self.slots, parts, strict=True))) for parts in chunks]


# --- before the output ----------------------------------------------------------------------------------------------


class FinalNorm(nn.Module):
    """modulate(norm(x), shift, scale): what precedes the output Linear. Initialised as the bare norm.

    Args:
        norm: of x.
        modulation: `none`, `scale` or `scale+shift`.
        width: D.
        cond_width: channels of c, D by default.
    """

    def __init__(self, norm: nn.Module, modulation: str, width: int, cond_width: int | None = None) -> None:
        super().__init__()
        self.norm = norm
        slots = Adaptive(modulation).slots
        self.head = None
        if slots:
            linear = SiLULinear(cond_width or width, len(slots) * width)
            self.head = Head(init_with(linear, weight=zeros), [slots])

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x (B, N, D), c (B, D) or (B, N, D) -> (B, N, D)."""
        (m,) = self.head(c) if self.head is not None and c is not None else (Vectors(),)
        return modulate(self.norm(x), m.shift, m.scale)


class FinalTable(nn.Module):
    """(shift, scale) = E + c, the raw c added to both rows (PixArt); E is initialised N(0, 1 / D)."""

    role = "modulation"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = init_with(Table(2 * width), table=normal(width**-0.5))

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x (B, N, D) normalised, c (B, D) -> (B, N, D)."""
        assert c is not None
        shift, scale = self.table(c.repeat(1, 2)).chunk(2, dim=-1)
        return modulate(x, shift, scale)
