"""`facts`: colours that the prompt gives directly, or by a chain of slots: `row 1: as note 3`, `note 3: red`."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

COLOURS, ROWS = 6, 3
SHADES = torch.tensor([1.0, 0.6])


class Facts(Task):
    """z: the words of 3 rows and of the notes, a colour or 6 + the note meant; then a shade a row."""

    name = "facts"
    says = "reasoning over the prompt: a row's colour is found along a chain of slots among distractors"
    predicts = "static text ties on chains of no step; text that is updated along the blocks wins on longer ones"
    levels: ClassVar[Levels] = {"easy": {"depth": 0}, "medium": {"depth": 1}, "hard": {"depth": 2}}
    repeats = True

    def __init__(
        self,
        *,
        depth: Annotated[int, Knob("steps of a chain", least=0, most=2)] = 1,
        notes: Annotated[int, Knob("slots beside the rows, distractors and links", least=3, most=12)] = 6,
    ) -> None:
        if notes < ROWS * depth:
            raise ValueError(f"task 'facts': notes {notes}: at least {ROWS * depth} for chains of depth {depth}")
        self.depth, self.notes = depth, notes
        self._colours = paint.table(paint.COLOURS, COLOURS)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Rows, then notes."""
        words = (*paint.COLOURS, *(f"as note {k + 1}" for k in range(self.notes)))
        names = [*(f"row {k + 1}" for k in range(ROWS)), *(f"note {k + 1}" for k in range(self.notes))]
        return tuple(Slot(name, words) for name in names)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The rows."""
        return (Attribute("colour", "local", tuple(range(ROWS)), 1 / COLOURS),)

    def resolve(self, z: Tensor) -> Tensor:
        """The colours (..., 3) of the rows of words (..., L)."""
        found = z[..., :ROWS]
        for _ in range(self.depth):
            linked = z.gather(-1, (found - COLOURS + ROWS).clamp(min=0))
            found = torch.where(found < COLOURS, found, linked)
        return found

    def right(self, read: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The share of rows of the right colour."""
        return {"colour": (self.resolve(read) == self.resolve(z)).float().mean(1)}

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform colours; links lead to notes of which none is used twice, so that rows are independent."""
        z = paint.sampled(count, (*(COLOURS,) * (ROWS + self.notes), *(2,) * ROWS), generator)
        order = torch.rand(count, self.notes, generator=generator).argsort(1)
        at = torch.arange(ROWS).expand(count, -1)
        for step in range(self.depth):
            target = order[:, step * ROWS : (step + 1) * ROWS]
            z = z.scatter(1, at, target + COLOURS)
            at = target + ROWS
        return z

    def words(self, z: Tensor) -> Tensor:
        """All but the shades."""
        return z[..., : ROWS + self.notes]

    def paint(self, z: Tensor) -> Tensor:
        """Three rows."""
        colours = (self._colours[self.resolve(z)] + 1) * SHADES[z[..., -ROWS:]][..., None] - 1  # (..., 3, 3)
        return paint.grid(colours.repeat_interleave(3, -2), 3)

    def modes(self, words: Tensor) -> Tensor:
        """Shades."""
        return paint.with_hidden(words, *(2,) * ROWS)

    def world(self) -> Tensor:
        """Each image once: colours given directly, notes of the first colour."""
        rows = paint.product(*(COLOURS,) * ROWS, *(2,) * ROWS)
        notes = torch.zeros(len(rows), self.notes, dtype=torch.long)
        return torch.cat([rows[:, :ROWS], notes, rows[:, ROWS:]], 1)

    @property
    def layout_words(self) -> int:
        """None, and the colours."""
        return 1 + COLOURS

    def layout(self, words: Tensor) -> Tensor:
        """The colour of each row, the chain resolved."""
        return (self.resolve(words) + 1).repeat_interleave(3, 1)[..., None]
