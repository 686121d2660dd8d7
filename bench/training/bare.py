"""The plainest training step, which harness, budgets and other implementations are timed with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.config.schema import Train


def bare_step(model: nn.Module, loss: Callable[[], Tensor], config: Train) -> Callable[[], None]:
    """A training step without harness: gradients of `loss`, clipped, AdamW.

    Args:
        model: what is trained.
        loss: computes a scalar on the next batch.
        config: its learning rate, betas, weight decay and clip count.
    """
    parameters = list(model.parameters())
    beta_1, beta_2 = config.betas
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, betas=(beta_1, beta_2), weight_decay=config.weight_decay, fused=True
    )

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()

    return step
