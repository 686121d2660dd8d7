"""DDPM as DiT was trained, beside the flow: noise is predicted, and with it a variance (`train.process: ddpm`).

    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps      s = 0 .. 999; a_s = prod (1 - b_k), b from 1e-4 to 0.02 (linear)
    [e ; r] = f(x_s, s, prompt)                  twice the channels: noise, and where in its range the variance lies
    loss = |e - eps|^2 + L_vlb                   L_vlb in bits a dimension, of e without its gradient

After Ho et al., arXiv 2006.11239; L_vlb and the variance exp(r' log b_s + (1 - r') log b~_s), r' = (r + 1) / 2, after
Nichol and Dhariwal, arXiv 2102.09672, equations 15 and 16. The network gets t = s / 1000.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.training.flow import StepNoise, sample_noise

STEPS = 1000
BETAS = 1e-4, 0.02
Noise = Callable[[Tensor, Tensor, Any], Tensor]  # [e ; r](x, t, prompt), (B, 2C, H, W)


@dataclass(frozen=True)
class Ladder:
    """The steps of a process, all 1,000 or some of them, as float64 (n,); step k leads to step k - 1, step 0 to data.

    Attributes:
        s: of the 1,000. a: prod (1 - b) up to each. a_before: up to the one before, 1 at the first.
    """

    s: Tensor
    a: Tensor
    a_before: Tensor

    @property
    def b(self) -> Tensor:
        """Betas of these steps."""
        return 1 - self.a / self.a_before

    @property
    def log_least(self) -> Tensor:
        """log b~, the variance of q(x_before | x, x_0); that of the second step at the first, where it is 0."""
        least = self.b * (1 - self.a_before) / (1 - self.a)
        return torch.cat([least[1:2], least[1:]]).log() if len(least) > 1 else self.b.log()

    @property
    def of_data(self) -> Tensor:
        """Weight of x_0 in the mean of q(x_before | x, x_0)."""
        return self.b * self.a_before.sqrt() / (1 - self.a)

    @property
    def of_x(self) -> Tensor:
        """Weight of x in it."""
        return (1 - self.a_before) * (1 - self.b).sqrt() / (1 - self.a)


def unfit(count: int) -> str:
    """Why images are not sampled in so many steps, or empty: one would be the last, which is from hardly any noise."""
    return "" if 2 <= count <= STEPS else f"of DDPM choose 2 to {STEPS:,}"


@functools.lru_cache(maxsize=64)
def ladder(count: int = STEPS) -> Ladder:
    """`count` of the 1,000 steps, from the first to the last at equal distances, rounded (as DiT samples with 250)."""
    s = torch.linspace(0, STEPS - 1, count, dtype=torch.float64).round().long()
    a = (1 - torch.linspace(*BETAS, STEPS, dtype=torch.float64)).cumprod(0)[s]
    return Ladder(s, a, torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]]))


@functools.lru_cache(maxsize=8)
def _tables(device: torch.device) -> dict[str, Tensor]:
    """What a training step looks up, float32 (1000,) on a device."""
    full = ladder()
    found = {name: getattr(full, name) for name in ("a", "log_least", "of_data", "of_x")} | {"log_b": full.b.log()}
    return {name: table.float().to(device) for name, table in found.items()}


@dataclass(frozen=True)
class Ddpm:
    """The process with its loss; it has no settings."""

    name: ClassVar[str] = "ddpm"
    outputs: ClassVar[int] = 2  # channels of the output, in those of x

    def chance(self, seed: int, step: int, shape: Sequence[int], *, drop: float, device: Any) -> StepNoise:
        """What chance decides at a training step: t uniform in [0, 1), whose step is s = floor(1000 t)."""
        uniform = functools.partial(torch.rand, shape[0], device=device)
        return sample_noise(seed, step, shape, lambda g: uniform(generator=g), drop=drop, device=device)

    def noisy(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_s, with t (B,)."""
        a = _at("a", t)
        return a.sqrt() * x_0 + (1 - a).sqrt() * noise

    def loss(self, model: Noise, x_0: Tensor, noise: Tensor, t: Tensor, prompt: Any) -> Tensor:
        """|e - eps|^2 + L_vlb for each image, (B,)."""
        x = self.noisy(x_0, noise, t)
        e, r = model(x, _step(t) / STEPS, prompt).float().chunk(2, dim=1)
        return (e - noise).square().flatten(1).mean(1) + bound(x_0, x, e.detach(), r, t)

    def field(self, model: Noise) -> Noise:
        """What a sampler follows, and guidance acts on: the noise."""
        return model


def log_variance(r: Tensor, most: Tensor | float, least: Tensor | float) -> Tensor:
    """The log variance at r, -1 at the least and 1 at the most."""
    share = (r + 1) / 2
    return share * most + (1 - share) * least


def bound(x_0: Tensor, x: Tensor, e: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """L_vlb of a step in bits a dimension, (B,): KL of q and p, and the negative log likelihood of x_0 at step 0.

    At step 0 x_0 is taken for one of 256 values in [-1, 1], as DiT takes latents too.

    Args:
        x_0: (B, C, H, W).
        x: x_s.
        e: predicted noise.
        r: where the log variance lies in its range, -1 least, 1 most.
        t: (B,).
    """
    a, of_data, of_x = (_at(name, t) for name in ("a", "of_data", "of_x"))
    least = _at("log_least", t)
    log_p = log_variance(r, _at("log_b", t), least)
    guess = (x - (1 - a).sqrt() * e) / a.sqrt()
    apart = of_data * (x_0 - guess)  # of the means: x has the same weight in both
    mean = of_data * guess + of_x * x
    kl = (log_p - least + (least - log_p).exp() + apart.square() * (-log_p).exp() - 1) / 2
    nll = -_log_likelihood(x_0, mean, log_p / 2)
    each = torch.where((_step(t) == 0)[:, None, None, None], nll, kl)
    return each.flatten(1).mean(1) / math.log(2)


def _log_likelihood(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log P of the bin of width 2 / 255 around x under a normal distribution; the outer bins are open."""
    scale = (-log_sigma).exp()
    above, below = (x - mean + 1 / 255) * scale, (x - mean - 1 / 255) * scale
    high, low = torch.special.ndtr(above), torch.special.ndtr(below)
    inner = (high - low).clamp(min=1e-12).log()
    upper = torch.where(x > 0.999, torch.special.log_ndtr(-below), inner)
    return torch.where(x < -0.999, torch.special.log_ndtr(above), upper)


def _step(t: Tensor) -> Tensor:
    return (t * STEPS).long().clamp(max=STEPS - 1)


def _at(name: str, t: Tensor) -> Tensor:
    return _tables(t.device)[name][_step(t)][:, None, None, None]
