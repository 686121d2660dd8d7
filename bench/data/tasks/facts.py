"""`facts`: colours that the prompt gives directly, or by a chain of slots: `row 1: as note 3`, `note 3: red`."""

from __future__ import annotations

from itertools import permutations
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

COLOURS, ROWS = 4, 3
SHADES = torch.tensor([1.0, 0.6])


class Facts(Task):
    """z: the words of 3 rows and of the notes, a colour or 4 + the note meant; then a shade a row.

    Notes come in layers of four. Those of a layer mean the four of the next, each once, and those of the last have the
    four colours, each once: what all notes say together, or those of one layer, says no colour of any row. Some rows
    say their colour, some are a step away, and so on to `depth`: who reads the first alone knows a share of the rows.
    """

    name = "facts"
    says = "reasoning over the prompt: a row's colour is found along a chain of slots among distractors"
    predicts = "static text ties on chains of no step; text that is updated along the blocks wins on longer ones"
    levels: ClassVar[Levels] = {"easy": {"depth": 0}, "medium": {"depth": 1}, "hard": {"depth": 2}}
    repeats = True
    pooled = False  # the mean of words that mean the same in every slot hardly says which slot has which

    def __init__(self, *, depth: Annotated[int, Knob("steps of a chain", least=0, most=3)] = 1) -> None:
        self.depth, self.layers = depth, max(1, depth)  # of no step all notes are distractors
        self.notes = COLOURS * self.layers
        self._colours = paint.table(paint.COLOURS, COLOURS)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Rows, then notes."""
        words = (*tuple(paint.COLOURS)[:COLOURS], *(f"as note {k + 1}" for k in range(self.notes)))
        names = [*(f"row {k + 1}" for k in range(ROWS)), *(f"note {k + 1}" for k in range(self.notes))]
        return tuple(Slot(name, words) for name in names)

    @property
    def vocabulary(self) -> int:
        """A word is the same in every slot: a row that says its colour shows how a note is to be read."""
        return 1 + COLOURS + self.notes

    def ids(self, words: Tensor) -> Tensor:
        """Words (..., L), of all slots alike."""
        return words + 1

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The rows."""
        return (Attribute("colour", "local", tuple(range(ROWS)), 1 / COLOURS),)

    def resolve(self, z: Tensor) -> Tensor:
        """The colours (..., 3) of the rows of words (..., L)."""
        found = z[..., :ROWS]
        for _ in range(self.depth):
            found = self._follow(z, found)
        return found

    def _follow(self, z: Tensor, said: Tensor) -> Tensor:
        """Words (..., 3) a step along the chain: what the notes that are meant say, and colours as they are."""
        return torch.where(said < COLOURS, said, z.gather(-1, (said - COLOURS + ROWS).clamp(min=0)))

    def right(self, read: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The share of rows of the right colour."""
        return {"colour": (self.resolve(read) == self.resolve(z)).float().mean(1)}

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Rows mean three of four, along chains of at most `depth` steps; each layer is a permutation."""
        said = torch.rand(count, 1 + self.layers, COLOURS, generator=generator).argsort(-1)
        starts = [*(COLOURS * (layer + 1) for layer in range(self.depth)), 0, 0]  # of notes among the words, of colours
        said = said + torch.tensor(starts[: 1 + self.layers])[:, None]
        shades = paint.sampled(count, (2,) * ROWS, generator)
        z = torch.cat([said[:, 0, :ROWS], said[:, 1:].flatten(1), shades], 1)
        steps = paint.sampled(count, (self.depth + 1,) * ROWS, generator)  # that a row is spared
        for step in range(self.depth):
            z[:, :ROWS] = torch.where(steps > step, self._follow(z, z[:, :ROWS]), z[:, :ROWS])
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
        """Each image once: three different colours given directly, notes of the first colour."""
        rows = torch.tensor([(*row, *[0] * self.notes) for row in permutations(range(COLOURS), ROWS)])
        return paint.with_hidden(rows, *(2,) * ROWS).flatten(0, 1)

    @property
    def layout_words(self) -> int:
        """None, and the colours."""
        return 1 + COLOURS

    def layout(self, words: Tensor) -> Tensor:
        """The colour of each row, the chain resolved."""
        return (self.resolve(words) + 1).repeat_interleave(3, 1)[..., None]
