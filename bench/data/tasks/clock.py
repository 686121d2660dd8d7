"""`clock`: whether the time can be read off x_t, by how much of the image is white noise of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

AMPLITUDES = torch.tensor([0.15, 0.4, 1.0])


class Clock(Task):
    """z: amplitude. x_0 = a ((1 - white) wave + white eps)."""

    name = "clock"
    says = "time: from a smooth image it can be read off x_t, from white noise of known strength it cannot"
    predicts = "time-free schemes tie on easy and stay at the time-free optimum on hard"
    levels: ClassVar[Levels] = {"easy": {"white": 0.25}, "medium": {"white": 0.5}, "hard": {"white": 1.0}}
    steps = 16
    size, patch = 4, 1  # three values a token, so that white noise passes through any width

    def __init__(
        self, *, white: Annotated[float, Knob("share of white noise in the image", least=0.0, most=1.0)] = 0.5
    ) -> None:
        self.white = white
        angle = (torch.arange(self.size) + 0.5) / self.size * 2 * torch.pi
        self._wave = angle.cos().expand(3, self.size, self.size)

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
        return paint.sampled(count, (3,), generator)

    def words(self, z: Tensor) -> Tensor:
        """The amplitude."""
        return z[..., :1]

    def paint(self, z: Tensor) -> Tensor:
        """The wave."""
        return (1 - self.white) * AMPLITUDES[z[..., 0]][..., None, None, None] * self._wave

    def grain(self, z: Tensor) -> Tensor:
        """Of the amplitude."""
        return self.white * AMPLITUDES[z[..., 0]]

    def modes(self, words: Tensor) -> Tensor:
        """The one."""
        return words[:, None]

    def world(self) -> Tensor:
        """All."""
        return paint.product(3)

    def layout(self, words: Tensor) -> Tensor:
        """The amplitude at each token."""
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)
