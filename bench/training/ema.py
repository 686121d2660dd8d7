"""A moving average of the weights.

Written by hand: `torch.optim.swa_utils.AveragedModel` has no warm-up of the decay and cannot be swapped in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.training.sharded import placed


class Ema:
    """A moving average of the trainable parameters, short at first: decay min(d, (1 + k) / (10 + k)) after step k."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.live: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """mean <- d mean + (1 - d) live, after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, self.live, 1 - decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The averaged weights in the model's place, and back again whatever happens."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, mean in zip(self.live, self.mean, strict=True):
            keep = live.detach().clone()
            live.copy_(mean)
            mean.copy_(keep)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameters' names."""
        return dict(zip(self.names, self.mean, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the averages of a checkpoint."""
        for name, mean in zip(self.names, self.mean, strict=True):
            mean.copy_(placed(state[name], mean))
