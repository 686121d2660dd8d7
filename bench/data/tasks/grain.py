"""`grain`: white noise in the data, which x_t alone does not separate from the noise of diffusion."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

TONE, CONTRAST = 0.7, 0.3  # of a colour, of the pattern over it: together in [-1, 1]
WEAKEST = 0.08  # grain that can be read back beside none: templates have .05 at least


class Grain(Task):
    """z: tone, pattern, grain. x_0 = tone + CONTRAST pattern + grain eps."""

    name = "grain"
    says = "time by prompt: how much noise belongs to the image is in the prompt, how much to diffusion is in the time"
    predicts = "schemes that modulate by time and prompt together lead"
    levels: ClassVar[Levels] = {"easy": {"grains": 2}, "medium": {}, "hard": {"grains": 5, "ratio": 1.8}}
    steps = 64
    size, patch = 6, 2  # twelve values a token, so that white noise passes through any width

    def __init__(
        self,
        *,
        tones: Annotated[int, Knob("tones", least=2, most=6)] = 6,
        grains: Annotated[int, Knob("strengths of the grain, from none to the strongest", least=2, most=5)] = 4,
        strongest: Annotated[float, Knob("standard deviation of the strongest grain", least=0.2, most=0.8)] = 0.5,
        ratio: Annotated[float, Knob("of a grain to the next weaker one", least=1.4, most=3.0)] = 2.0,
    ) -> None:
        weakest = strongest / ratio ** (grains - 2)
        if weakest < WEAKEST:
            raise ValueError(
                f"its weakest grain of {weakest:.3g} cannot be read back: at least {WEAKEST}, by a larger `strongest`, "
                "a smaller `ratio` or fewer `grains`"
            )
        self.counts = (tones, 4, grains)
        self.std = torch.tensor([0.0, *(strongest / ratio ** (grains - 2 - k) for k in range(grains - 1))])
        self._tones, self._patterns = TONE * paint.table(paint.COLOURS, tones), paint.patterns(4, self.size)[:, 0]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Tone, pattern, grain."""
        tones, _, _ = self.counts
        return (
            Slot("tone", tuple(paint.COLOURS)[:tones]),
            Slot("pattern", paint.PATTERNS),
            Slot("grain", tuple(f"{std:.3g}" for std in self.std.tolist())),
        )

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """All three of the whole image."""
        return tuple(Attribute(slot.name, "global", (k,), 1 / len(slot.words)) for k, slot in enumerate(self.slots))

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return paint.sampled(count, self.counts, generator)

    def words(self, z: Tensor) -> Tensor:
        """All of them."""
        return z

    def paint(self, z: Tensor) -> Tensor:
        """The pattern over the tone."""
        tone, pattern, _ = z.unbind(-1)
        return self._tones[tone][..., None, None] + CONTRAST * self._patterns[pattern][..., None, :, :]

    def grain(self, z: Tensor) -> Tensor:
        """As the prompt says."""
        return self.std[z[..., 2]]

    def modes(self, words: Tensor) -> Tensor:
        """The one."""
        return words[:, None]

    def world(self) -> Tensor:
        """All."""
        return paint.product(*self.counts)

    def layout(self, words: Tensor) -> Tensor:
        """All words at each token."""
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)
