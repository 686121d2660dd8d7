"""`bind`: several places and colours, and which colour is where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

SHADES = torch.tensor([1.0, 0.6])
GREY = -0.1


class Bind(Task):
    """z: the places of n slots, their colours (all places differ, and all colours); their shades."""

    name = "bind"
    says = "binding: each slot names a place and a colour, and colours may be swapped"
    predicts = "attention binds, modulation swaps"
    levels: ClassVar[Levels] = {"easy": {"objects": 2}, "medium": {}, "hard": {"objects": 4, "colours": 4}}
    repeats = True  # the order of slots is not in the image

    def __init__(
        self,
        *,
        objects: Annotated[int, Knob("slots, each an object", least=1, most=4)] = 3,
        colours: Annotated[int, Knob("colours", least=2, most=6)] = 6,
    ) -> None:
        if objects > colours:
            raise ValueError(f"task 'bind': objects {objects}: at most colours ({colours}), for colours differ")
        self.objects, self.colours = objects, colours
        self._colours = paint.table(paint.COLOURS, 6)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places, then the colours."""
        places = tuple(f"row {k // 3 + 1} column {k % 3 + 1}" for k in range(9))
        colours, each = tuple(paint.COLOURS)[: self.colours], range(1, self.objects + 1)
        return (*(Slot(f"place {k}", places) for k in each), *(Slot(f"colour {k}", colours) for k in each))

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Places as a set; the share of slots whose colour is in its place, and of those that show another slot's."""
        n, second = self.objects, tuple(range(self.objects, 2 * self.objects))
        return (
            Attribute("place", "local", tuple(range(n)), 1 / math.comb(9, n)),
            Attribute("colour", "local", second, n / 9 / self.colours),
            Attribute("swapped", "local", second, 0.0, lower=True),
        )

    def _map(self, z: Tensor) -> Tensor:
        """The colour of each place (..., 9) from 1 on, 0 for none."""
        n = self.objects
        return torch.zeros(*z.shape[:-1], 9, dtype=torch.long).scatter(-1, z[..., :n], z[..., n : 2 * n] + 1)

    def right(self, read: Tensor, z: Tensor) -> dict[str, Tensor]:
        """By what each place shows."""
        n, found, asked = self.objects, self._map(read), self._map(z)
        at, own = found.gather(1, z[:, :n]), z[:, n : 2 * n] + 1  # (B, n)
        other = (at[:, :, None] == own[:, None]).any(2) & (at != own)
        place = ((found > 0) == (asked > 0)).all(1)
        return {"place": place.float(), "colour": (at == own).float().mean(1), "swapped": other.float().mean(1)}

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform places and colours without repetition."""
        columns = [torch.rand(count, k, generator=generator).argsort(1)[:, : self.objects] for k in (9, self.colours)]
        return torch.cat([*columns, paint.sampled(count, (2,) * self.objects, generator)], 1)

    def words(self, z: Tensor) -> Tensor:
        """All but the shades."""
        return z[..., : 2 * self.objects]

    def text(self, words: Sequence[int]) -> str:
        """Each colour with its place."""
        n, named = self.objects, [slot.words[word] for slot, word in zip(self.slots, words, strict=True)]
        return ", ".join(f"{named[n + k]} at {named[k]}" for k in range(n))

    def paint(self, z: Tensor) -> Tensor:
        """Coloured cells on grey."""
        n = self.objects
        colours = (self._colours[z[..., n : 2 * n]] + 1) * SHADES[z[..., 2 * n :]][..., None] - 1  # (..., n, 3)
        flat = torch.full((*z.shape[:-1], 9, 3), GREY)
        return paint.grid(flat.scatter(-2, z[..., :n, None].expand(*z.shape[:-1], n, 3), colours), 3)

    def modes(self, words: Tensor) -> Tensor:
        """Shades."""
        return paint.with_hidden(words, *(2,) * self.objects)

    def world(self) -> Tensor:
        """Each image once: places in ascending order."""
        places = torch.tensor(list(combinations(range(9), self.objects)))
        colours = torch.tensor(list(permutations(range(self.colours), self.objects)))
        rows = paint.product(len(places), len(colours))
        shown = torch.cat([places[rows[:, 0]], colours[rows[:, 1]]], 1)
        return paint.with_hidden(shown, *(2,) * self.objects).flatten(0, 1)

    @property
    def images(self) -> int:
        """Sets of places by orders of colours by shades."""
        return math.comb(9, self.objects) * math.perm(self.colours, self.objects) * 2**self.objects

    @property
    def layout_words(self) -> int:
        """None, and the colours."""
        return 1 + self.colours

    def layout(self, words: Tensor) -> Tensor:
        """The colour of each place."""
        return self._map(words)[..., None]

    def object(self, z: Tensor) -> Tensor:
        """Cells with a colour."""
        return self._map(z) > 0
