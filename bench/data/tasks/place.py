"""`place`: one blob in one of many cells."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

GREY = -0.1


class Place(Task):
    """z: place; colour."""

    name = "place"
    says = "placing: one word names one of many cells, and nothing else"
    predicts = "attention is flat in the number of places, modulation falls as it nears the width"
    levels: ClassVar[Levels] = {"easy": {"side": 2}, "medium": {"side": 4}, "hard": {"side": 8}}

    def __init__(self, *, side: Annotated[int, Knob("cells a side, each a place", least=2, most=12)] = 4) -> None:
        self.side, self.places, self.size = side, side * side, side * self.patch
        self._colours, self._disc = paint.table(paint.COLOURS, 4), paint.glyphs(4)[3]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The place."""
        return (
            Slot("place", tuple(f"row {k // self.side + 1} column {k % self.side + 1}" for k in range(self.places))),
        )

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The place."""
        return (Attribute("place", "local", (0,), 1 / self.places),)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return paint.sampled(count, (self.places, 4), generator)

    def words(self, z: Tensor) -> Tensor:
        """The place."""
        return z[..., :1]

    def paint(self, z: Tensor) -> Tensor:
        """A blob on grey."""
        where = torch.nn.functional.one_hot(z[..., 0], self.places).float().unflatten(-1, (self.side, self.side))
        mask = paint.cells(where) * self._disc.repeat(*(1,) * (z.dim() - 1), self.side, self.side)
        return torch.where(mask[..., None, :, :] > 0, self._colours[z[..., 1]][..., None, None], torch.tensor(GREY))

    def modes(self, words: Tensor) -> Tensor:
        """Colours."""
        return paint.with_hidden(words, 4)

    def world(self) -> Tensor:
        """All."""
        return paint.product(self.places, 4)

    def object(self, z: Tensor) -> Tensor:
        """The blob's cell."""
        return torch.nn.functional.one_hot(z[:, 0], self.places).bool()

    @property
    def layout_words(self) -> int:
        """None, or the blob."""
        return 2

    def layout(self, words: Tensor) -> Tensor:
        """1 where the blob is."""
        return torch.nn.functional.one_hot(words[:, 0], self.places)[..., None]
