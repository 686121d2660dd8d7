"""What precedes the output Linear: a norm, modulated by c."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.layers import init_with, normal, zeros
from architectures.modulation import Given, Head, SiLULinear, Table
from architectures.sublayer import Adaptive, Vectors, channels, modulate


class FinalNorm(nn.Module):
    """modulate(norm(x), its vectors): what precedes the output Linear. Initialised as the bare norm.

    Args:
        norm: of x.
        modulation: one of `MODULATIONS`.
        width: D.
        cond_width: channels of c, D by default.
        static: there is no c: shift and scale are the same for every image, t and prompt.
    """

    def __init__(
        self, norm: nn.Module, modulation: str, width: int, cond_width: int | None = None, *, static: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm
        slots = Adaptive(modulation).slots
        self.head, out = None, sum(channels(slots, width))
        if slots and static:
            self.head = Head(init_with(Given(out), table=zeros), [slots])
        elif slots:
            linear = SiLULinear(cond_width or width, out)
            self.head = Head(init_with(linear, weight=zeros), [slots])

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x (B, N, D), c (B, D) or (B, N, D), or None where it is static -> (B, N, D)."""
        (m,) = self.head(c) if self.head is not None else (Vectors(),)
        return modulate(self.norm(x), m.shift, m.scale, m.angle)


class FinalTable(nn.Module):
    """(shift, scale) = E + c, the raw c added to both rows (PixArt); E is initialised N(0, 1 / D)."""

    role = "modulation"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = init_with(Table(2 * width), table=normal(width**-0.5))

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x (B, N, D) normalised, c (B, D) or (B, N, D), or None: no c is added -> (B, N, D)."""
        rows = self.table.table[None] if c is None else self.table(torch.cat([c, c], dim=-1))
        shift, scale = rows.chunk(2, dim=-1)
        return modulate(x, shift, scale)
