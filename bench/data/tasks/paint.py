"""What images of tasks are painted with: colours that differ, glyphs of 4 x 4 px, patterns of period 4, cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CELL = 4  # pixels a side
COLOURS = {  # red, green, blue from 0 to 1
    "red": (0.92, 0.12, 0.12),
    "green": (0.05, 0.70, 0.20),
    "blue": (0.12, 0.25, 0.95),
    "yellow": (1.00, 0.90, 0.10),
    "magenta": (0.90, 0.15, 0.85),
    "cyan": (0.10, 0.85, 0.92),
}
TONES = {
    "slate": (0.30, 0.34, 0.42),
    "sand": (0.82, 0.74, 0.56),
    "moss": (0.38, 0.50, 0.30),
    "rose": (0.80, 0.58, 0.60),
    "ice": (0.66, 0.78, 0.84),
    "plum": (0.40, 0.26, 0.44),
}
PATTERNS = ("bars", "stripes", "diagonal", "checks")
GLYPHS = {
    "block": "#### #### #### ####",
    "ring": "#### #..# #..# ####",
    "cross": "#..# .##. .##. #..#",
    "plus": ".##. #### #### .##.",
}


def table(colours: dict[str, tuple[float, float, float]], count: int) -> Tensor:
    """The first colours (count, 3) in [-1, 1]."""
    return torch.tensor(list(colours.values())[:count]) * 2 - 1


def glyphs(count: int) -> Tensor:
    """The first glyphs (count, 4, 4), 1 where they are."""
    rows = [[[letter == "#" for letter in row] for row in text.split()] for text in GLYPHS.values()]
    return torch.tensor(rows[:count]).float()


def patterns(count: int, size: int) -> Tensor:
    """The first patterns in 4 phases (count, 4, size, size), -1 or 1."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    fields = []
    for phase in range(4):
        places = (x + phase, y + phase, x + y + phase)
        fields.append([*(place // 2 % 2 for place in places), ((x + phase) // 2 + y // 2) % 2])
    return torch.tensor([[one.tolist() for one in field] for field in fields]).transpose(0, 1)[:count].float() * 2 - 1


def cells(values: Tensor) -> Tensor:
    """Values (..., 3, side, side) a cell as images (..., 3, 4 side, 4 side)."""
    return values.repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)


def grid(flat: Tensor, side: int) -> Tensor:
    """Colours (..., side * side, 3) of cells, row by row, as images (..., 3, S, S)."""
    return cells(flat.transpose(-1, -2).unflatten(-1, (side, side)))


def product(*counts: int) -> Tensor:
    """Every row (W, len(counts)) of whole numbers below these counts."""
    columns = torch.meshgrid(*(torch.arange(count) for count in counts), indexing="ij")
    return torch.stack([column.flatten() for column in columns], 1)


def sampled(count: int, counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """Rows (count, len(counts)) of uniform whole numbers below these counts."""
    return (torch.rand(count, len(counts), generator=generator, dtype=torch.float64) * torch.tensor(counts)).long()


def with_hidden(shown: Tensor, *counts: int) -> Tensor:
    """Rows (B, A) that the prompt gives, each with every value of what is hidden: (B, K, A + len(counts))."""
    hidden = product(*counts)
    shape = (len(shown), len(hidden))
    return torch.cat([shown[:, None].expand(*shape, -1), hidden[None].expand(*shape, -1)], 2)
