"""Rotary positions: pairs of channels of queries and keys turned by angles of their token's place."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RoPE(nn.Module):
    """Axial rotary positions: half of each head's channel pairs turn with the row, half with the column.

    Adjacent pairs (2i, 2i+1) are rotated. Tokens after the image's N keep position 0: they are not rotated.
    """

    def __init__(self, head_width: int, grid: int, theta: float = 10000.0) -> None:
        super().__init__()
        if head_width % 4:
            raise ValueError(f"rotary positions need a head width divisible by 4, got {head_width}")
        frequency = theta ** (-torch.arange(0, head_width // 4, dtype=torch.float64) / (head_width // 4))
        row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
        angle = torch.cat([p.flatten()[:, None] * frequency for p in (row, column)], dim=1)  # (N, d/2)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, q: Tensor) -> Tensor:
        """Rotates queries or keys (B, H, N + L, d)."""
        count = self.cos.shape[0]
        return torch.cat([rotate(q[:, :, :count], self.cos, self.sin), q[:, :, count:]], dim=2)


def rotate(q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates adjacent channel pairs (2i, 2i+1) of q (B, H, N, d); cos and sin (N, d/2), or of each batch and head.

    A pair is a complex number, turned by e^(i angle): a third of the time, with the same bits. Inductor writes no
    complex numbers: a compiled model has the products written out.
    """
    pairs = q.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2).to(q.dtype)
    even, odd = pairs.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(q.dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The channels i and i + d/2 of x (..., d) turned; cos and sin broadcast to (..., d/2)."""
    u, v = x.chunk(2, dim=-1)
    return torch.cat([u * cos - v * sin, u * sin + v * cos], dim=-1)


class PrecomputedRoPE(nn.Module):
    """Rotary positions that come with the sequence: cosines and sines (B, N, d/2, 2), made once a pass."""

    def forward(self, q: Tensor, angles: Tensor) -> Tensor:
        """Rotates queries or keys (B, H, N, d)."""
        return rotate(q, *angles[:, None].unbind(-1))
