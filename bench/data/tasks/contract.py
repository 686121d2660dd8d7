"""What a task is: latents that are sampled, a prompt that names some of them, and an image that shows all of them.

Every latent is a whole number, so a sample is z (B, M), one column a latent. Given its prompt an image is one of K,
each as likely, with white grain of known strength: its optimal denoiser is a softmax over K (`bench.data.tasks.exact`).

    z (B, M) = sample(count, split, generator)      attributes that the prompt names, and some that it does not
    words (B, L) = words(z)                         a word for each slot, 0 .. len(slot.words) - 1
    x_0 (B, 3, S, S) = paint(z) + grain(z) eps      in [-1, 1] but for the grain
    z (B, K, M) = modes(words)                      every z with that prompt
    z (W, M) = world()                              every z there is, for the blind optimum and for reading

A task is one file of at most 120 lines; leading dimensions of `paint`, `grain`, `words` are free.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

LEVELS = ("easy", "medium", "hard")
Levels = Mapping[str, Mapping[str, Any]]  # level -> knob -> value


@dataclass(frozen=True)
class Slot:
    """A position of the prompt: its name and its words. Those of two slots differ, whatever their text (`Task.ids`)."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """What control is measured on: columns of z that are all to be right.

    Attributes:
        reach: `local` to some tokens, or `global` to the whole image.
        columns: of z.
        chance: share that is right where the prompt is not known.
        lower: whether less of it is better, as of swapped colours; it is then no part of "every attribute right".
    """

    name: str
    reach: str
    columns: tuple[int, ...]
    chance: float
    lower: bool = False

    def __post_init__(self) -> None:
        if self.reach not in ("local", "global") or not 0 <= self.chance < 1:
            raise ValueError(
                f"attribute {self.name!r}: its reach is local or global and its chance in [0, 1), got {self.reach!r} "
                f"and {self.chance!r}"
            )


class Task(ABC):
    """A task with its knobs set; see the module for the letters.

    Attributes:
        name: in configs. says: what it isolates, a sentence. predicts: what is expected of schemes, a sentence.
        levels: knobs of `easy`, `medium` and `hard`. Knobs are annotated keyword arguments of `__init__`.
        size: S, pixels a side. patch: pixels a token's side, one cell of the image.
        times: the range of t that errors are measured on. steps: of Euler, for the exact denoiser to arrive.
        enumerable: whether `modes` and `world` list all; else override `denoise`, `denoise_blind`, `read`.
        repeats: whether different prompts may show the same images, as a chain and what it resolves to.
        pooled: whether the mean of a prompt's tokens distinguishes prompts; where a word is the same in every slot it
            hardly does, and a scheme that gets one vector lacks what that vector lacks.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    predicts: ClassVar[str] = ""
    levels: ClassVar[Levels]
    size: int = 12
    patch: int = 4
    times: ClassVar[tuple[float, float]] = (0.0, 1.0)
    steps: ClassVar[int] = 8
    enumerable: ClassVar[bool] = True
    repeats: ClassVar[bool] = False
    pooled: ClassVar[bool] = True

    # --- what a task defines ---

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The L slots of the prompt."""

    @property
    @abstractmethod
    def attributes(self) -> tuple[Attribute, ...]:
        """What control is measured on."""

    @abstractmethod
    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        """Latents z (count, M) of a split: `train` and `heldout` alike, or `unseen`, of pairs that training lacks."""

    @abstractmethod
    def words(self, z: Tensor) -> Tensor:
        """The prompt (..., L) of z (..., M)."""

    @abstractmethod
    def paint(self, z: Tensor) -> Tensor:
        """The image (..., 3, S, S) in [-1, 1] of z (..., M), without its grain."""

    @abstractmethod
    def modes(self, words: Tensor) -> Tensor:
        """Every z (B, K, M) that has the prompt (B, L), each as likely."""

    @abstractmethod
    def world(self) -> Tensor:
        """One z (W, M) for each image of training, each image as likely."""

    @abstractmethod
    def layout(self, words: Tensor) -> Tensor:
        """The prompt as a map for the oracle: ids (B, N, A) below `layout_words` that each token shows; 0: none."""

    # --- what it may define ---

    has_unseen: ClassVar[bool] = False

    @property
    def layout_words(self) -> int:
        """Number of ids of `layout`; those of the prompt's words by default."""
        return self.vocabulary

    @property
    def images(self) -> int:
        """W, the number of images of training, known before any is made where it may be large."""
        return len(self.world())

    @property
    def bits(self) -> tuple[float, float]:
        """Entropy of an image but for its grain: bits that the prompt gives, and bits that it leaves open."""
        z = self.sample(1, "train", torch.Generator().manual_seed(0))
        hidden = math.log2(self.modes(self.words(z)).shape[1])
        return math.log2(self.images) - hidden, hidden

    def readable(self) -> Tensor:
        """Every z that `read` chooses from: the world, and the unseen pairs where there are any."""
        return self.world()

    def same(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether latents (B, M) show the same image: (B,)."""
        return (self.paint(a) - self.paint(b)).abs().flatten(1).amax(1) + (self.grain(a) - self.grain(b)).abs() < 1e-6

    def denoise(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """E[x_0 | x_t, prompt]: x_t (B, 3, S, S), t (B,), words (B, L) -> (B, 3, S, S)."""
        from bench.data.tasks.exact import mixture

        return mixture(self, x_t, t, words)

    def denoise_blind(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] where the prompt is not known."""
        from bench.data.tasks.exact import mixture_blind

        return mixture_blind(self, x_t, t)

    def grain(self, z: Tensor) -> Tensor:
        """The standard deviation (...) of the white grain of z (..., M)."""
        return torch.zeros(z.shape[:-1])

    def object(self, z: Tensor) -> Tensor:
        """The tokens (B, N), true where the image shows what the prompt is about; all by default."""
        return torch.ones(len(z), self.tokens, dtype=torch.bool)

    def read(self, x: Tensor) -> Tensor:
        """The most likely z (B, M) of images (B, 3, S, S), among all of `world` and of the unseen pairs."""
        from bench.data.tasks.exact import nearest

        return nearest(self, x)

    def right(self, read: Tensor, z: Tensor) -> dict[str, Tensor]:
        """For each attribute what was read (B, M) as it is (B, M): (B,), 0 to 1, a share where it has parts."""
        return {one.name: (read[:, one.columns] == z[:, one.columns]).all(1).float() for one in self.attributes}

    # --- what follows ---

    @property
    def tokens(self) -> int:
        """N, tokens of an image."""
        return (self.size // self.patch) ** 2

    @functools.cached_property
    def _slots(self) -> tuple[Slot, ...]:
        """The slots, listed once: `labels` may have 200,000 words, and every batch asks."""
        return self.slots

    @property
    def vocabulary(self) -> int:
        """Number of ids: 0 is none, the words of all slots follow."""
        return 1 + sum(len(slot.words) for slot in self._slots)

    def ids(self, words: Tensor) -> Tensor:
        """Words (..., L) of slots as ids (..., L) of one vocabulary."""
        starts = torch.tensor([0, *(len(slot.words) for slot in self._slots)]).cumsum(0)[:-1]
        return words + 1 + starts

    def text(self, words: Sequence[int]) -> str:
        """A prompt (L,) as text, for people and text encoders: of any words, other text for other words."""
        return ", ".join(f"{slot.name} {slot.words[word]}" for slot, word in zip(self._slots, words, strict=True))
