"""`labels`: one word that sets the whole image, cell by cell: what the path from one vector carries."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob
from bench.store import seeds

BRIGHTNESS = torch.tensor([1.0, 0.85, 0.7, 0.55])


class Labels(Task):
    """z: label; brightness."""

    name = "labels"
    says = "capacity: one label sets the colour of each of 9 cells"
    predicts = "per-block modulation leads shared once there are more labels than channels"
    levels: ClassVar[Levels] = {"easy": {"labels": 64}, "medium": {"labels": 128}, "hard": {"labels": 256}}

    def __init__(self, *, labels: Annotated[int, Knob("labels", least=2, most=200_000)] = 128) -> None:
        self.labels = labels
        codes = torch.zeros(0, dtype=torch.long)
        generator = seeds.generator("task", "labels", "arrangements")
        while len(codes) < labels:  # in the order of sampling, so that fewer labels are the first of more
            more = torch.cat([codes, torch.randint(6**9, (labels,), generator=generator)])
            values, place = more.unique(return_inverse=True)
            first = torch.full((len(values),), len(more)).scatter_reduce(0, place, torch.arange(len(more)), "amin")
            codes = more[first.sort().values]
        self._cells = codes[:labels, None] // 6 ** torch.arange(9) % 6  # (C, 9)
        shares = torch.stack([(self._cells == colour).double().mean(0) for colour in range(6)])  # (6, 9), of all labels
        self._guess = float(shares.square().sum(0).mean())  # how often a cell of two labels has one colour
        self._colours = paint.table(paint.COLOURS, 6)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The label."""
        return (Slot("label", tuple(map(str, range(self.labels)))),)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The arrangement as a whole, and the share of its cells."""
        return Attribute("label", "global", (0,), 1 / self.labels), Attribute("cells", "local", (0,), self._guess)

    def right(self, read: Tensor, z: Tensor) -> dict[str, Tensor]:
        """`cells`: the share of cells of one colour in both labels."""
        cells = (self._cells[read[:, 0]] == self._cells[z[:, 0]]).float().mean(1)
        return {"label": (read[:, 0] == z[:, 0]).float(), "cells": cells}

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return paint.sampled(count, (self.labels, 4), generator)

    def words(self, z: Tensor) -> Tensor:
        """The label."""
        return z[..., :1]

    def paint(self, z: Tensor) -> Tensor:
        """Nine cells."""
        colours = (self._colours[self._cells[z[..., 0]]] + 1) * BRIGHTNESS[z[..., 1]][..., None, None] - 1
        return paint.grid(colours, 3)

    def modes(self, words: Tensor) -> Tensor:
        """Brightnesses."""
        return paint.with_hidden(words, 4)

    def world(self) -> Tensor:
        """All."""
        return paint.product(self.labels, 4)

    @property
    def images(self) -> int:
        """Labels by brightnesses."""
        return 4 * self.labels

    @property
    def layout_words(self) -> int:
        """None, and six colours."""
        return 7

    def layout(self, words: Tensor) -> Tensor:
        """The colour of each cell."""
        return self._cells[words[:, 0]][..., None] + 1
