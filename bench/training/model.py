"""The model of a cell's config, and a cell loaded with its data and prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import architectures
from architectures import BackboneConfig, DiT, PromptKind
from bench.config.schema import Backbone, as_dict
from bench.config.spec import CellConfig
from bench.data.datasets import Dataset
from bench.data.prompts import Prompts


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
        prompt=prompt,
        seed=seed,
        **config.options,
    )
    model.residual = config.train.residual
    return model


@dataclass(frozen=True)
class LoadedCell:
    """A cell's model in evaluation, with what it is measured on.

    Attributes:
        model: with the averaged weights in place.
        config: the cell's resolved config.
        device: where the model is.
    """

    model: DiT
    data: Dataset
    prompts: Prompts
    config: CellConfig
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the model sees: an image, or its latents."""
        return self.data.shape

    def autocast(self) -> torch.autocast:
        """The cell's arithmetic."""
        low = self.config.train.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low)
