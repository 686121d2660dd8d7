"""The model of a cell's config, and a cell loaded with its data and prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import architectures
from architectures import BackboneConfig, DiT, PromptKind
from bench.config.schema import Backbone, Train, as_dict
from bench.config.spec import CellConfig
from bench.data.datasets import Dataset
from bench.data.prompts import Prompts
from bench.training.process import process_of
from bench.training.ranks import ALONE, Ranks


def backbone(config: Backbone) -> BackboneConfig:
    """The backbone that a config names.

    Raises:
        ValueError: for an unknown name or sizes that do not fit.
    """
    return BackboneConfig.named(**as_dict(config))


def build(config: CellConfig, prompt: PromptKind, *, seed: int = 0) -> DiT:
    """The model of a cell's config.

    Raises:
        ValueError: for an unknown scheme, option or backbone, or sizes that do not fit, in one sentence.
    """
    model = architectures.create(
        config.scheme,
        backbone(config.backbone),
        image_size=config.data.image_size,
        in_channels=config.data.in_channels,
        out_channels=process_of(config.train).outputs * config.data.in_channels,
        prompt=prompt,
        seed=seed,
        **config.options,
    )
    model.residual, model.recompute = config.train.residual, config.train.recompute
    return model


def encoded(model: Any, prompt: Any, guidance: float = 0.0) -> Any:
    """A prompt as a model of ours encodes it, for many passes or for the graph that the sampler has; else as it is.

    Args:
        model: of ours, or another.
        prompt: of its kind.
        guidance: of the modulation, see `DiT.encode`.
    """
    return model.encode(prompt, guidance) if isinstance(model, DiT) else prompt


def places(count: int, size: int, train: Train) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The places below `count` in batches of `size`, each with how many of them are to be kept.

    Of a compiled model the last batch is filled up with its last place: another shape would be another graph.
    """
    for start in range(0, count, size):
        kept = min(size, count - start)
        end = start + (size if train.compile == "on" else kept)
        yield np.minimum(np.arange(start, end), count - 1), kept


@dataclass(frozen=True)
class LoadedCell:
    """A cell's model in evaluation, with what it is measured on.

    Attributes:
        model: with the averaged weights in place.
        config: the cell's resolved config.
        device: where the model is.
        ranks: that have this model too, and among which work is shared out.
    """

    model: DiT
    data: Dataset
    prompts: Prompts
    config: CellConfig
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the model sees: an image, or its latents."""
        return self.data.shape

    @property
    def pass_size(self) -> int:
        """Images of one pass of the sampler, with guidance twice the samples of a batch."""
        return self.config.sample.batch * (1 if self.config.sample.guidance == 1.0 else 2)

    def autocast(self) -> torch.autocast:
        """The cell's arithmetic."""
        low = self.config.train.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low)
