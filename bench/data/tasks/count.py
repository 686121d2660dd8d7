"""`count`: how many cells are lit, wherever they are: the negative control. Exact by dynamic programming.

Given n every set of n cells is as likely, so cells are a conditional Bernoulli. With the odds r_i = p(x_i | lit) /
p(x_i | dark) and e_n the elementary symmetric polynomials,

    p(x | n) ~ e_n(r) / C(cells, n)        p(i lit | x, n) = r_i e_{n-1}(r without i) / e_n(r)
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bench.data.tasks import paint
from bench.data.tasks.contract import Attribute, Levels, Slot, Task
from bench.data.tasks.registry import Knob

LIT, DARK = 0.35, -0.35
SIDE, CELLS = 4, 16  # of one pixel each: of more the image would show what is lit at any t, and no prompt be needed


class Count(Task):
    """z: n - 1, and for each cell whether it is lit."""

    name = "count"
    says = "negative control: how many cells are lit is a matter of the image tokens, not of how they are conditioned"
    predicts = "no difference between schemes"
    levels: ClassVar[Levels] = {"easy": {"most": 15}, "medium": {}, "hard": {"most": 6}}
    size, patch, steps = SIDE, 1, 16
    times = (0.3, 0.7)
    enumerable = False

    def __init__(self, *, most: Annotated[int, Knob("most cells that are lit", least=2, most=15)] = 10) -> None:
        self.most = most

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The number."""
        return (Slot("count", tuple(str(n) for n in range(1, self.most + 1))),)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The number."""
        return (Attribute("count", "global", (0,), 1 / self.most),)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """A uniform number, then a uniform set of as many cells."""
        n = paint.sampled(count, (self.most,), generator)
        rank = torch.rand(count, CELLS, generator=generator).argsort(1).argsort(1)
        return torch.cat([n, (rank <= n).long()], 1)

    def words(self, z: Tensor) -> Tensor:
        """The number."""
        return z[..., :1]

    def paint(self, z: Tensor) -> Tensor:
        """Light and dark cells."""
        return self._image(DARK + (LIT - DARK) * z[..., 1:].float())

    def modes(self, words: Tensor) -> Tensor:
        """Too many to list."""
        raise NotImplementedError("the sets of n cells are not listed; denoise sums over them")

    def world(self) -> Tensor:
        """Too many to list, and not each as likely."""
        raise NotImplementedError("the sets of cells are not listed; denoise_blind sums over them")

    @property
    def images(self) -> int:
        """All sets."""
        return sum(math.comb(CELLS, n) for n in range(1, self.most + 1))

    @property
    def bits(self) -> tuple[float, float]:
        """Of the number, and of the set."""
        return math.log2(self.most), sum(math.log2(math.comb(CELLS, n + 1)) for n in range(self.most)) / self.most

    def denoise(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """By the number of lit cells."""
        return self._shown(self._posterior(x_t, t)[0][torch.arange(len(x_t)), words[:, 0]], x_t)

    def denoise_blind(self, x_t: Tensor, t: Tensor) -> Tensor:
        """By each number, as likely as it is."""
        share, weights = self._posterior(x_t, t)
        return self._shown((share * weights[..., None]).sum(1), x_t)

    def read(self, x: Tensor) -> Tensor:
        """Each cell by its mean."""
        lit = (x.mean(1).flatten(1) > (LIT + DARK) / 2).long()
        return torch.cat([lit.sum(1, keepdim=True) - 1, lit], 1)

    def layout(self, words: Tensor) -> Tensor:
        """The number at each token."""
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)

    def _shown(self, share: Tensor, like: Tensor) -> Tensor:
        return self._image(DARK + (LIT - DARK) * share).to(like.dtype)

    def _image(self, grey: Tensor) -> Tensor:
        return grey.unflatten(-1, (SIDE, SIDE))[..., None, :, :].expand(*grey.shape[:-1], 3, SIDE, SIDE)

    def _posterior(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """P(i lit | x, n) (B, most, cells) and p(n | x) (B, most), of log odds in float64."""
        sums = x_t.double().sum(1).flatten(1)  # (B, cells)
        keep, variance = (1 - t.double())[:, None], t.double().square().clamp(min=1e-10)[:, None]
        odds = keep * (LIT - DARK) * (sums - keep * 3 * (LIT + DARK) / 2) / variance
        whole = self._symmetric(odds)[:, 1:]  # (B, most)
        without = torch.stack([self._symmetric(odds[:, [k for k in range(CELLS) if k != i]]) for i in range(CELLS)], 2)
        sets = torch.tensor([math.log(math.comb(CELLS, n)) for n in range(1, self.most + 1)], dtype=torch.float64)
        return (odds[:, None] + without[:, :-1] - whole[..., None]).exp(), (whole - sets).softmax(1)

    def _symmetric(self, odds: Tensor) -> Tensor:
        """log e_0 .. e_most (B, most + 1) of odds (B, cells) in logarithms."""
        found = torch.full((len(odds), self.most + 1), -math.inf, dtype=torch.float64).index_fill(1, torch.tensor(0), 0)
        for one in odds.unbind(1):
            found = torch.cat([found[:, :1], torch.logaddexp(found[:, 1:], found[:, :-1] + one[:, None])], 1)
        return found
