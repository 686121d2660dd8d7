"""`tone`: factors of the whole image alone, the positive control."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

FACTORS = ("red", "green", "blue", "bars", "stripes", "diagonal")
WORDS = ("lowest", "low", "high", "highest")
STEPS = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
HIDDEN = 0.1  # amplitude of the checks, whose phase is in no prompt


class Tone(Task):
    """z: the level of each factor; phase."""

    name = "tone"
    says = "positive control: independent factors of the whole image, which every scheme should set"
    predicts = "all schemes saturate"
    levels: ClassVar[Levels] = {"easy": {"factors": 1}, "medium": {"factors": 3}, "hard": {"factors": 6}}

    def __init__(self, *, factors: Annotated[int, Knob("factors of four levels", least=1, most=6)] = 3) -> None:
        self.factors = factors
        flat = torch.eye(3)[:, :, None, None].expand(3, 3, self.size, self.size) * 0.45
        waves = paint.patterns(3, self.size)[:, 0, None].expand(3, 3, self.size, self.size) * 0.15
        self._fields = torch.cat([flat, waves])[:factors].flatten(1)  # (g, 3 S S)
        self._hidden = HIDDEN * paint.patterns(4, self.size)[3][:, None].expand(4, 3, self.size, self.size)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The factors."""
        return tuple(Slot(name, WORDS) for name in FACTORS[: self.factors])

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Each factor."""
        return tuple(Attribute(slot.name, "global", (k,), 1 / 4) for k, slot in enumerate(self.slots))

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return paint.sampled(count, (4,) * (self.factors + 1), generator)

    def words(self, z: Tensor) -> Tensor:
        """All but the phase."""
        return z[..., :-1]

    def paint(self, z: Tensor) -> Tensor:
        """A sum of one field a factor."""
        shown = STEPS[z[..., :-1]] @ self._fields
        return shown.unflatten(-1, (3, self.size, self.size)) + self._hidden[z[..., -1]]

    def modes(self, words: Tensor) -> Tensor:
        """Phases."""
        return paint.with_hidden(words, 4)

    def world(self) -> Tensor:
        """All."""
        return paint.product(*(4,) * (self.factors + 1))

    def layout(self, words: Tensor) -> Tensor:
        """All words at each token."""
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)
