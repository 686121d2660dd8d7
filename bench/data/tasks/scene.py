"""`scene`: a tone and a pattern of the whole image, and one coloured glyph in its place."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

SHADES = torch.tensor([1.0, 0.6])
CONTRAST = 0.18


class Scene(Task):
    """z: tone, pattern, place, colour, glyph; phase, shade."""

    name = "scene"
    says = "global against local: the same prompt sets the whole background and one cell"
    predicts = "modulation sets tone and pattern, attention puts the glyph in its place"
    levels: ClassVar[Levels] = {"easy": {"colours": 3, "glyphs": 3}, "medium": {}, "hard": {"side": 4}}
    has_unseen = True

    def __init__(
        self,
        *,
        side: Annotated[int, Knob("cells a side, each a place", least=2, most=5)] = 3,
        colours: Annotated[int, Knob("colours of the glyph", least=2, most=6)] = 6,
        glyphs: Annotated[int, Knob("glyphs", least=3, most=4)] = 4,
    ) -> None:
        self.size, self.side = side * self.patch, side
        self.counts = (6, 4, side * side, colours, glyphs)
        self._tones, self._colours = paint.table(paint.TONES, 6), paint.table(paint.COLOURS, colours)
        self._glyphs, self._patterns = paint.glyphs(glyphs), paint.patterns(4, self.size)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Tone, pattern, place, colour, glyph."""
        _, _, places, colours, glyphs = self.counts
        return (
            Slot("tone", tuple(paint.TONES)),
            Slot("pattern", paint.PATTERNS),
            Slot("place", tuple(f"row {k // self.side + 1} column {k % self.side + 1}" for k in range(places))),
            Slot("colour", tuple(paint.COLOURS)[:colours]),
            Slot("glyph", tuple(paint.GLYPHS)[:glyphs]),
        )

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Two of the image, three of the glyph."""
        reach = ("global", "global", "local", "local", "local")
        return tuple(Attribute(slot.name, reach[k], (k,), 1 / len(slot.words)) for k, slot in enumerate(self.slots))

    def withheld(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whether (tone, pattern) and (colour, glyph) of z (..., M) are pairs that training lacks."""
        return z[..., 1] == z[..., 0] % 4, z[..., 4] == (z[..., 3] + 1) % self.counts[4]

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Uniform; pairs of training, or for `unseen` two withheld pairs."""
        z = paint.sampled(count, (*self.counts, 4, 2), generator)
        glyphs = self.counts[4]
        if split == "unseen":
            z[:, 1], z[:, 4] = z[:, 0] % 4, (z[:, 3] + 1) % glyphs
            return z
        step = paint.sampled(count, (3, glyphs - 1), generator) + 1  # from the withheld one on
        z[:, 1], z[:, 4] = (z[:, 0] + step[:, 0]) % 4, (z[:, 3] + 1 + step[:, 1]) % glyphs
        return z

    def words(self, z: Tensor) -> Tensor:
        """The first five columns."""
        return z[..., :5]

    def paint(self, z: Tensor) -> Tensor:
        """The glyph over the pattern."""
        tone, pattern, place, colour, glyph, phase, shade = z.unbind(-1)
        back = self._tones[tone][..., None, None] + CONTRAST * self._patterns[pattern, phase][..., None, :, :]
        where = torch.nn.functional.one_hot(place, self.side**2).float().unflatten(-1, (self.side, self.side))
        mask = paint.cells(where) * self._glyphs[glyph].repeat(*(1,) * place.dim(), self.side, self.side)
        fore = ((self._colours[colour] + 1) * SHADES[shade][..., None] - 1)[..., None, None]
        return torch.where(mask[..., None, :, :] > 0, fore, back)

    def modes(self, words: Tensor) -> Tensor:
        """Phases and shades."""
        return paint.with_hidden(words, 4, 2)

    def readable(self) -> Tensor:
        """All pairs."""
        return paint.product(*self.counts, 4, 2)

    def world(self) -> Tensor:
        """The pairs of training."""
        z = self.readable()
        first, second = self.withheld(z)
        return z[~first & ~second]

    @property
    def images(self) -> int:
        """Pairs of training by places by what is hidden."""
        _, _, places, colours, glyphs = self.counts
        return 18 * places * colours * (glyphs - 1) * 8

    def object(self, z: Tensor) -> Tensor:
        """The glyph's cell."""
        return torch.nn.functional.one_hot(z[:, 2], self.side**2).bool()

    def layout(self, words: Tensor) -> Tensor:
        """Tone and pattern of each token; colour and glyph where the glyph is."""
        ids = self.ids(words)[:, [0, 1, 3, 4]]
        here = torch.nn.functional.one_hot(words[:, 2], self.side**2)[..., None]  # (B, N, 1)
        return torch.cat([ids[:, None, :2].expand(-1, self.side**2, -1), ids[:, None, 2:] * here], 2)
