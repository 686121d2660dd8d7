"""Where shift, scale and gate come from.

All but one are one family, a per-block affine map S_i of a(c) = silu(c):

    per-block       S_i(c) = W_i a(c) + b_i                        DiT, SD3, FLUX, Qwen-Image
    bottleneck(r)   S_i(c) = W_i a(V c + v) + b_i,  V: D -> r      Lumina 2.0 (Z-Image: without a)
    shared          S_i(c) = W a(c) + b                            DiT-Air
    shared+table    S_i(c) = W a(c) + b + E_i                      PixArt
    shared+affine   S_i(c) = (W a(c) + b) (1 + F_i) + E_i          E-MMDiT
    low-rank(r)     S_i(c) = W a(c) + b + B_i A_i a(c)             FiTv2, Cosmos

and one is a small network, read once for every vector j of all blocks (`placement.py`):

    approximator(h, l)   v_j(c) = A([c ; sinusoid(1000 j)])        Chroma

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
from architectures.sublayer import Adaptive, Vectors, channels

# --- the maps -------------------------------------------------------------------------------------------------------


class Affine(nn.Linear):
    """W a + b, returned in the dtype of W also under autocast: in bf16 1 + s would be 1 for s up to 0.003."""

    def forward(self, a: Tensor) -> Tensor:
        return super().forward(a).to(self.weight.dtype)


class SiLULinear(Affine):
    """W a(c) + b."""

    role = "modulation"

    def forward(self, c: Tensor) -> Tensor:
        return super().forward(F.silu(c))


class Linear(Affine):
    """W c + b: of a c that is narrow, and has no activation (Z-Image)."""

    role = "modulation"


class LinearSiLU(nn.Linear):
    """a(V c + v)."""

    role = "modulation"

    def forward(self, c: Tensor) -> Tensor:
        return F.silu(super().forward(c))


class SharedAndActivated(Affine):
    """(W a + b, a), a = silu(c) or c itself: what a low-rank head reads."""

    role = "modulation"

    def __init__(self, width: int, out: int, *, activate: bool = True) -> None:
        super().__init__(width, out)
        self.activate = activate

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a = F.silu(c) if self.activate else c
        return super().forward(a), a


class Table(nn.Module):
    """shared + E: a learned table of k vectors on top of a shared map. (B, k D) -> (B, k D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(width))

    def forward(self, shared: Tensor) -> Tensor:
        return shared + self.table


class TableAndScale(Table):
    """shared (1 + F) + E: a table of factors and one of k vectors. (B, k D) -> (B, k D)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.factor = nn.Parameter(torch.empty(width))

    def forward(self, shared: Tensor) -> Tensor:
        return super().forward(shared * (1 + self.factor))


class LowRank(nn.Module):
    """shared + B A a: a correction of rank r; B is initialised at zero. (B, k D) and (B, D) -> (B, k D)."""

    def __init__(self, width: int, rank: int, out: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = init_with(nn.Linear(rank, out, bias=False), weight=zeros)

    def forward(self, trunk: tuple[Tensor, Tensor]) -> Tensor:
        shared, a = trunk
        return shared + self.up(self.down(a))


class Nothing(nn.Module):
    """None, of any c: there is nothing that a head could read."""

    def forward(self, c: Tensor | None) -> None:
        """Nothing."""


class Given(nn.Module):
    """b: vectors that are the same for every image, t and prompt. Anything -> (1, k D)."""

    role = "modulation"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(width))

    def forward(self, trunk: Tensor | None) -> Tensor:
        return self.table[None]


def _split(vectors: Tensor, slots: Sequence[str], dim: int = -1) -> tuple[Tensor, ...]:
    """The vectors of these slots, side by side in one dimension, each alone."""
    width = 2 * vectors.shape[dim] // sum(channels(slots, 2))
    return vectors.split(channels(slots, width), dim)


class Head(nn.Module):
    """One block's map from the trunk's output to the vectors of its sub-layers.

    Args:
        affine: trunk's output -> (B, k D).
        slots: for each sub-layer, which of shift, scale, angle and gate it takes; k in all.
        own: for each sub-layer, its gate's vector, where that is no function of c.
    """

    role = "modulation"

    def __init__(
        self, affine: nn.Module, slots: Sequence[tuple[str, ...]], own: Sequence[nn.Module | None] = ()
    ) -> None:
        super().__init__()
        self.affine = affine
        self.slots = tuple(slots)
        self.names = [slot for of_one in slots for slot in of_one]
        self.own = nn.ModuleList(one or Nothing() for one in own)

    def forward(self, trunk: Tensor | tuple[Tensor, ...] | None) -> list[Vectors]:
        chunks = iter(_split(self.affine(trunk), self.names) if self.names else ())
        vectors = [Vectors(**{slot: next(chunks) for slot in slots}) for slots in self.slots]
        if not len(self.own):
            return vectors
        gates = (own(None) for own in self.own)
        return [v if g is None else v._replace(gate=g) for v, g in zip(vectors, gates, strict=True)]


# --- the placements -------------------------------------------------------------------------------------------------


class Placement(ABC):
    """Where the maps from c to shift, scale and gate are: a trunk once a pass, and a head in each block.

    Args:
        width: D, of each vector, and of c unless `channels` says otherwise.
        adaptive: what each sub-layer of a block takes, in order.
        init: of the weights of the maps; a gate's own rule comes first.

    Attributes:
        channels: of c. activate: whether the maps read a(c) = silu(c), or c itself.
    """

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init = zeros) -> None:
        self.width, self.adaptive, self.init = width, tuple(adaptive), init
        self.channels, self.activate = width, True
        self.slots = [slot for sublayer in self.adaptive for slot in sublayer.slots]
        self.out = sum(channels(self.slots, width))

    @abstractmethod
    def trunk(self) -> nn.Module:
        """c (B, D) -> what every block's head reads."""

    @abstractmethod
    def affine(self) -> nn.Module:
        """One block's own part of the map, trunk's output -> (B, k D)."""

    def head(self, index: int | None = None) -> Head:
        """The head of one block; a placement that numbers its vectors over all blocks needs the block's index."""
        return self._head(self.affine())

    def _head(self, affine: nn.Module) -> Head:
        """A block's own part of the map, with the gates that are no function of c."""
        own = [init_with(Given(self.width), table=zeros) if one.gate.static else None for one in self.adaptive]
        return Head(affine, [one.slots for one in self.adaptive], own if any(own) else ())

    def rows(self, init: Init) -> Init:
        """Fills k groups of rows: `init` everywhere but for the gates that have a rule of their own."""
        rules = [
            (slot == "gate" and sublayer.gate.init) or init for sublayer in self.adaptive for slot in sublayer.slots
        ]

        def fill(tensor: Tensor, generator: torch.Generator) -> None:
            init(tensor, generator)  # as a whole first: fans are those of the whole matrix
            for rows, rule in zip(_split(tensor, self.slots, 0), rules, strict=True):
                if rule is not init:
                    rule(rows, generator)

        return fill

    def _initialised(self, linear: nn.Linear) -> nn.Linear:
        return init_with(linear, weight=self.rows(self.init))


class PerBlock(Placement):
    """W_i a(c) + b_i: a map of each block's own."""

    def trunk(self) -> nn.Module:
        """a(c)."""
        return nn.SiLU() if self.activate else nn.Identity()

    def affine(self) -> nn.Module:
        """W_i a + b_i."""
        return self._initialised(Affine(self.channels, self.out))


class Bottleneck(Placement):
    """W_i a(V c + v) + b_i, V: D -> r."""

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init, rank: int) -> None:
        super().__init__(width, adaptive, init)
        self.rank = rank

    def trunk(self) -> nn.Module:
        return LinearSiLU(self.channels, self.rank)

    def affine(self) -> nn.Module:
        return self._initialised(Affine(self.rank, self.out))


class Static(Placement):
    """b_i, where c sums nothing: a constant of each block's own, or one for all. A gate's own rule comes first."""

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init, *, shared: bool) -> None:
        super().__init__(width, adaptive, init)
        self.shared = shared and self.out > 0

    def given(self) -> nn.Module:
        """The vectors themselves."""
        return init_with(Given(self.out), table=self.rows(self.init)) if self.out else Nothing()

    def trunk(self) -> nn.Module:
        return self.given() if self.shared else Nothing()

    def affine(self) -> nn.Module:
        return nn.Identity() if self.shared else self.given()


class ModulationLinear(nn.Linear):
    """V c + v."""

    role = "modulation"


class Shared(Placement):
    """W a(c) + b, the same in every block."""

    def trunk(self) -> nn.Module:
        return self._initialised((SiLULinear if self.activate else Linear)(self.channels, self.out))

    def affine(self) -> nn.Module:
        return nn.Identity()


class SharedTable(Shared):
    """W a(c) + b + E_i; E_i is initialised N(0, 1 / D) (PixArt)."""

    def affine(self) -> nn.Module:
        return init_with(Table(self.out), table=self.rows(normal(self.width**-0.5)))


class SharedAffine(Shared):
    """(W a(c) + b) (1 + F_i) + E_i; E_i and F_i are initialised N(0, 1 / D) (E-MMDiT)."""

    def affine(self) -> nn.Module:
        own = normal(self.width**-0.5)
        return init_with(TableAndScale(self.out), table=self.rows(own), factor=own)


class SharedLowRank(Shared):
    """W a(c) + b + B_i A_i a(c)."""

    def __init__(self, width: int, adaptive: Sequence[Adaptive], init: Init, rank: int) -> None:
        super().__init__(width, adaptive, init)
        self.rank = rank

    def trunk(self) -> nn.Module:
        return self._initialised(SharedAndActivated(self.channels, self.out, activate=self.activate))

    def affine(self) -> nn.Module:
        return LowRank(self.channels, self.rank, self.out)


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
