"""`clock`: whether the time can be read off x_t, by how much of the image is white noise of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

AMPLITUDES = torch.tensor([0.5, 1.0, 2.0])


class Clock(Task):
    """z: amplitude; template. x_0 = a ((1 - white) template / 2 + white eps)."""

    name = "clock"
    says = "time: from a smooth image it can be read off x_t, from white noise of known strength it cannot"
    predicts = "time-free schemes tie on easy and stay at the time-free optimum on hard"
    levels: ClassVar[Levels] = {"easy": {"white": 0.0}, "medium": {"white": 0.5}, "hard": {"white": 1.0}}
    steps = 16

    def __init__(
        self, *, white: Annotated[float, Knob("share of white noise in the image", least=0.0, most=1.0)] = 0.5
    ) -> None:
        self.white = white
        self._shown = 1 if white == 1 else 4  # templates
        angle = (torch.arange(self.size) + 0.5) / self.size * 2 * torch.pi
        waves = torch.stack([angle.sin(), angle.cos(), -angle.sin(), -angle.cos()])
        self._templates = waves[:, None, None, :].expand(4, 3, self.size, self.size) / 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The amplitude."""
        return (Slot("amplitude", tuple(f"{a:g}" for a in AMPLITUDES.tolist())),)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The amplitude."""
        return (Attribute("amplitude", "global", (0,), 1 / 3),)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return paint.sampled(count, (3, self._shown), generator)

    def words(self, z: Tensor) -> Tensor:
        """The amplitude."""
        return z[..., :1]

    def paint(self, z: Tensor) -> Tensor:
        """The template."""
        return (1 - self.white) * AMPLITUDES[z[..., 0]][..., None, None, None] * self._templates[z[..., 1]]

    def grain(self, z: Tensor) -> Tensor:
        """Of the amplitude."""
        return self.white * AMPLITUDES[z[..., 0]]

    def modes(self, words: Tensor) -> Tensor:
        """Templates."""
        return paint.with_hidden(words, self._shown)

    def world(self) -> Tensor:
        """All."""
        return paint.product(3, self._shown)

    def layout(self, words: Tensor) -> Tensor:
        """The amplitude at each token."""
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)
