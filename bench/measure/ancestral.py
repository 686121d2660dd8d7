"""Samplers of DDPM: ancestral, with the variance that the network predicts, and DDIM, without chance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.store.seeds import generator
from bench.training.ddpm import STEPS, Ladder, Noise, ladder, log_variance
from bench.training.signals import beat


def ancestral(model: Noise, x: Tensor, prompt: Any, steps: int) -> Tensor:
    """x <- mean of p(x_before | x) + its standard deviation times fresh noise (arXiv 2006.11239, algorithm 2).

    The fresh noise of a sample is a function of its first noise: not of batch size or scheme.

    Args:
        model: predicts [noise ; variance], (B, 2C, H, W).
        x: noise (B, C, H, W).
        prompt: of the samples.
        steps: of the 1,000.
    """
    of, chances = ladder(steps), [generator("ancestral", *bits) for bits in _bits(x)]
    of_data, of_x, most, least = (table.tolist() for table in (of.of_data, of.of_x, of.b.log(), of.log_least))
    for k in reversed(range(steps)):
        x_0, _, r = _predicted(model, x, prompt, of, k)
        x = of_data[k] * x_0 + of_x[k] * x
        if k:
            deviation = (log_variance(r, most[k], least[k]) / 2).exp()
            fresh = torch.stack([torch.randn(x.shape[1:], generator=chance) for chance in chances])
            x = x + deviation * fresh.to(x.device)
    return x


def ddim(model: Noise, x: Tensor, prompt: Any, steps: int) -> Tensor:
    """x <- sqrt(a_before) x^_0 + sqrt(1 - a_before) e (arXiv 2010.02502, equation 12, sigma = 0)."""
    of = ladder(steps)
    for k in reversed(range(steps)):
        x_0, e, _ = _predicted(model, x, prompt, of, k)
        before = of.a_before[k].item()
        x = before**0.5 * x_0 + (1 - before) ** 0.5 * e
    return x


def _predicted(model: Noise, x: Tensor, prompt: Any, of: Ladder, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The image x^_0, the noise e and where the variance lies, r, that a network predicts at step k; each like x."""
    beat()  # a step is the longest that sampling takes without a sign of life
    t = torch.full((len(x),), of.s[k].item() / STEPS, device=x.device)
    e, r = model(x, t, prompt).chunk(2, dim=1)
    a = of.a[k].item()
    return (x - (1 - a) ** 0.5 * e) / a**0.5, e, r


def _bits(x: Tensor) -> list[list[int]]:
    """Two numbers of each sample's noise, as the integers that their bits are."""
    return x.flatten(1)[:, :2].float().cpu().contiguous().view(torch.int32).tolist()
