"""Tokens beside those that blocks pass on: learned ones by the image's or the prompt's, layers of an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.options import Option
from architectures.prompt import Encoded
from architectures.sublayer import Condition

BANK = Option(
    "learned tokens beside the image's, how many and before which block they enter: with the pooled prompt added to "
    "each, or blank",
    ("none", "tokens(8, 0)", "registers(8, 0)"),
)
BLANKS = Option("blank tokens beside the prompt's: learned, the same for every image, t and prompt")
TEXT_LAYERS = Option(
    "the prompt's tokens in a block: those that the block before gave, or beside these those of a layer of the "
    "encoder, another for each block, through a map of its own, discarded after it",
    ("last", "each"),
)


class Bank(nn.Module):
    """k learned tokens P: how many images -> (B, k, D)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, width))

    def forward(self, images: int) -> Tensor:
        return self.tokens.expand(images, -1, -1)


class TextLayers(nn.Module):
    """y_i = V_i l_i of each block i, l_i the tokens of the encoder's layer i, or of its last where it has no more.

    Args:
        width: D. blocks: how many.
    """

    role = "prompt"

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))

    def forward(self, prompt: Encoded) -> tuple[Tensor, ...]:
        """A prompt of tokens (B, L, D) -> the same of each block."""
        layers = prompt.layers or (prompt.tokens,)
        return tuple(v(layers[min(i, len(layers) - 1)]) for i, v in enumerate(self.maps))


def with_blanks(blanks: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """[blanks ; y] and its mask: learned tokens (B, k, D), which are never padding, before the prompt's (B, L, D)."""
    if mask is not None:
        mask = torch.cat([mask.new_ones(blanks.shape[:2]), mask], dim=1)
    return torch.cat([blanks.to(y.dtype), y], dim=1), mask


def with_room(y: Tensor, mask: Tensor | None, prompt: Encoded) -> tuple[Tensor, Tensor | None]:
    """[y ; prompt tokens] and its mask: tokens of a prompt and room for a block's own (`with_layer`)."""
    if mask is not None:
        assert prompt.mask is not None
        mask = torch.cat([mask, prompt.mask], dim=1)
    return torch.cat([y, prompt.tokens], dim=1), mask


def with_layer(index: int, tokens: Tensor, c: Condition) -> Tensor:
    """[... ; y_i]: tokens of which the prompt's are last, block i's own in the place of the last L, if it has some."""
    if not c.layers or c.kept is not None:
        return tokens
    own = c.layers[index].to(tokens.dtype)
    return torch.cat([tokens[:, : -own.shape[1]], own], dim=1)
