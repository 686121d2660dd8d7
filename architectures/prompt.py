"""What a prompt is, and how it becomes vectors: a label, a caption, words in slots, or a frozen encoder's output.

Each kind is declared by a small value (`Labels`, `Captions`, `Slots`, `Features`), which knows its own null prompt, the
one that means "no prompt" in classifier-free guidance, and builds the encoder that the model holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from architectures.layers import MLP, SelfAttention, init_with, normal
from architectures.sublayer import Block, Condition, SubLayer, joint_mask


class Encoded(NamedTuple):
    """An encoded prompt: tokens (B, L, D), mask (B, L) true where a token is attended to (None: all), pooled (B, D).

    Attributes:
        at_zero: the embedding of t = 0 (1, D), where the prompt's side is modulated by it; or None.
        kept: the prompt's keys and values in each block, where they depend on neither image nor t; else empty.
        layers: tokens (B, L, D) of each of the encoder's layers, the last being `tokens`, where a scheme reads them and
            there are several; else empty.
    """

    tokens: Tensor
    mask: Tensor | None
    pooled: Tensor
    at_zero: Tensor | None = None
    kept: tuple[tuple[Tensor, Tensor], ...] = ()
    layers: tuple[Tensor, ...] = ()


class FeatureBatch(NamedTuple):
    """Prompts encoded outside: tokens (B, L, W), mask (B, L), pooled (B, P). A mask all false is the null prompt.

    Tokens may be of less precision than the model, which widens them.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Labels:
    """One of `classes` labels: a prompt is ids (B,) in 0 .. classes - 1; the id `classes` is null."""

    classes: int

    def null(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """`batch` null prompts."""
        return torch.full((batch,), self.classes, device=device)

    def drop(self, prompt: Tensor, dropped: Tensor) -> Tensor:
        """The prompt with the null one where `dropped` (B,) is true."""
        return torch.where(dropped, self.classes, prompt)

    def encoder(self, width: int, reads: frozenset[str]) -> nn.Module:
        return LabelEncoder(self.classes, width)


@dataclass(frozen=True)
class Captions:
    """Token ids (B, length), 0 for padding; encoded by a small transformer learned with the model. All padding is null.

    Attributes:
        vocabulary: number of ids, the padding among them.
        length: L.
        depth: blocks of the encoder.
    """

    vocabulary: int
    length: int
    depth: int = 2

    def null(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """`batch` null prompts."""
        return torch.zeros(batch, self.length, dtype=torch.long, device=device)

    def drop(self, prompt: Tensor, dropped: Tensor) -> Tensor:
        """The prompt with the null one where `dropped` (B,) is true."""
        return prompt.masked_fill(dropped[:, None], 0)

    def encoder(self, width: int, reads: frozenset[str]) -> nn.Module:
        return CaptionEncoder(self.vocabulary, self.length, self.depth, width, every="layers" in reads)


@dataclass(frozen=True)
class Slots:
    """Word ids (B, length), a word a slot and 0 for none, each position with a meaning of its own. All 0 is null.

    Attributes:
        vocabulary: number of ids, 0 among them.
        length: L.
        words: A, the words of a position; more than one makes prompts (B, L, A), whose words are summed.
    """

    vocabulary: int
    length: int
    words: int = 1

    def null(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """`batch` null prompts."""
        shape = (batch, self.length) if self.words == 1 else (batch, self.length, self.words)
        return torch.zeros(shape, dtype=torch.long, device=device)

    def drop(self, prompt: Tensor, dropped: Tensor) -> Tensor:
        """The prompt with the null one where `dropped` (B,) is true."""
        return prompt.masked_fill(dropped.view(-1, *[1] * (prompt.dim() - 1)), 0)

    def encoder(self, width: int, reads: frozenset[str]) -> nn.Module:
        return SlotEncoder(self.vocabulary, self.length, width)


@dataclass(frozen=True)
class Features:
    """The output of a frozen encoder, a `FeatureBatch`, made outside the model.

    Attributes:
        width: W of its tokens in a layer.
        pooled_width: P of its pooled vector.
        length: L.
        layers: K of its layers, whose tokens are side by side, the last at last: a batch's are (B, L, K W).
    """

    width: int
    pooled_width: int
    length: int
    layers: int = 1

    def null(self, batch: int, device: torch.device | str = "cpu") -> FeatureBatch:
        """`batch` null prompts."""
        return FeatureBatch(
            torch.zeros(batch, self.length, self.layers * self.width, device=device),
            torch.zeros(batch, self.length, dtype=torch.bool, device=device),
            torch.zeros(batch, self.pooled_width, device=device),
        )

    def drop(self, prompt: FeatureBatch, dropped: Tensor) -> FeatureBatch:
        """The prompt with the null one where `dropped` (B,) is true."""
        return prompt._replace(mask=prompt.mask & ~dropped[:, None])

    def encoder(self, width: int, reads: frozenset[str]) -> nn.Module:
        return FeatureEncoder(self.width, self.pooled_width, width, reads, layers=self.layers)


PromptKind = Labels | Captions | Slots | Features


def length_of(kind: PromptKind) -> int:
    """L, the tokens of a prompt; a label is one."""
    return 1 if isinstance(kind, Labels) else kind.length


def of_length(kind: PromptKind, length: int) -> PromptKind:
    """The kind with `length` tokens; labels become slots of as many words."""
    return Slots(kind.classes + 1, length) if isinstance(kind, Labels) else replace(kind, length=length)


class LabelEncoder(nn.Module):
    """A table with one row a class and one for null: the row is the only token and the pooled vector."""

    role = "prompt"

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, prompt: Tensor) -> Encoded:
        y = self.table(prompt)
        return Encoded(tokens=y[:, None], mask=None, pooled=y)


class CaptionEncoder(nn.Module):
    """Word and position tables, pre-norm self-attention blocks, a norm.

    Pooled is the mean over the words that are not padding.

    The first token is always attended to, so that a caption of padding alone, the null prompt, is the padding's own
    vector. With `every` each block's output passes the norm, and is a layer.
    """

    role = "prompt"

    def __init__(self, vocabulary: int, length: int, depth: int, width: int, *, every: bool = False) -> None:
        super().__init__()
        heads = max(count for count in range(1, max(1, width // 64) + 1) if width % count == 0)
        self.every = every
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        init_with(self, positions=normal(0.02))
        self.blocks = nn.ModuleList(
            Block(
                attention=SubLayer(op=SelfAttention(width, heads), norm=nn.LayerNorm(width), context=joint_mask),
                mlp=SubLayer(op=MLP(width), norm=nn.LayerNorm(width)),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, prompt: Tensor) -> Encoded:
        mask = prompt != 0
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
        tokens = self.words(prompt) + self.positions  # (B, L, D)
        outputs = []
        for block in self.blocks:
            tokens = block(tokens, Condition(mask=mask))
            outputs.append(tokens)
        tokens = self.norm(tokens)
        words = mask.unsqueeze(-1).to(tokens.dtype)
        layers = (*map(self.norm, outputs[:-1]), tokens) if self.every else ()
        return Encoded(tokens, mask, (tokens * words).sum(1) / words.sum(1), layers=layers)


class SlotEncoder(nn.Module):
    """LN(word + position), no blocks; pooled is the mean of the tokens.

    Every token is attended to. The word 0 has a vector of its own where a position has one word; where a position has
    several, 0 adds nothing to their sum.
    """

    role = "prompt"

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        init_with(self, positions=normal(0.02))
        self.norm = nn.LayerNorm(width)

    def forward(self, prompt: Tensor) -> Encoded:
        """Ids (B, L), or (B, L, A) of which the A words of a position are summed."""
        words = self.words(prompt)
        if prompt.dim() == 3:
            words = (words * (prompt != 0).unsqueeze(-1).to(words.dtype)).sum(2)
        tokens = self.norm(words + self.positions)  # (B, L, D)
        return Encoded(tokens, None, tokens.mean(1))


class FeatureEncoder(nn.Module):
    """LN and one Linear to the model's width, for the tokens and the pooled vector that the scheme reads.

    Of several layers the last alone is read, or each by the same map.
    """

    role = "prompt"

    def __init__(
        self, token_width: int, pooled_width: int, width: int, reads: frozenset[str], *, layers: int = 1
    ) -> None:
        super().__init__()
        self.width, self.layers, self.token_width = width, layers, token_width
        if "tokens" in reads:
            self.tokens = nn.Sequential(nn.LayerNorm(token_width), nn.Linear(token_width, width))
            self.null_token = nn.Parameter(torch.empty(width))
        if "pooled" in reads:
            self.pooled = nn.Sequential(nn.LayerNorm(pooled_width), nn.Linear(pooled_width, width))
            self.null_pooled = nn.Parameter(torch.empty(width))
        self.reads = reads

    def forward(self, prompt: FeatureBatch) -> Encoded:
        null = ~prompt.mask.any(1)  # (B,)
        tokens = pooled = prompt.pooled.new_zeros(())
        mask = prompt.mask
        layers: tuple[Tensor, ...] = ()
        if "tokens" in self.reads:
            stored = prompt.tokens.to(self.null_token.dtype)  # float16 until here: half of what a batch is to a device
            given = stored.unflatten(-1, (self.layers, self.token_width)).unbind(2)
            read = given if "layers" in self.reads else given[-1:]
            made = tuple(torch.where(null[:, None, None], self.null_token, self.tokens(one)) for one in read)
            tokens, layers = made[-1], made if len(made) > 1 else ()
            mask = torch.cat([mask[:, :1] | null[:, None], mask[:, 1:]], dim=1)
        if "pooled" in self.reads:
            pooled = torch.where(null[:, None], self.null_pooled, self.pooled(prompt.pooled))
        return Encoded(tokens, mask, pooled, layers=layers)


def with_image(mask: Tensor | None, count: int) -> Tensor | None:
    """Mask of tokens (B, L) -> of `count` tokens of the image and those (B, count + L); None (no padding) stays."""
    return None if mask is None else torch.cat([mask.new_ones(len(mask), count), mask], dim=1)


def with_time(e_t: Tensor, prompt: Encoded) -> tuple[Tensor, Tensor | None]:
    """[e_t ; prompt tokens] (B, 1 + L, D) and its mask, in which time is always attended to (None: all)."""
    k, mask = torch.cat([e_t[:, None], prompt.tokens], dim=1), prompt.mask
    return k, None if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)


def index_prompt(prompt: Any, index: Any) -> Any:
    """Rows of a prompt, whatever its kind."""
    return FeatureBatch(*(part[index] for part in prompt)) if isinstance(prompt, FeatureBatch) else prompt[index]
