"""The process that all cells share unless a matrix says otherwise: rectified flow, its noise and its loss.

    x_t = (1 - t) x_0 + t eps          t = 0 data, t = 1 noise
    v   = eps - x_0                    what the model learns
    dx/dt = v(x, t, prompt)            solved from t = 1 to 0 to sample

After Liu et al., arXiv 2209.03003, with logit-normal t as in Esser et al., arXiv 2403.03206.

What the network's output f(x_t, t, prompt) is, its target, is the velocity or the data:

    velocity: v = f                              |f - (eps - x_0)|^2
    data:     x^ = f,  v = (x_t - x^) / t        |f - x_0|^2 / max(t, clamp)^2

The second is the velocity's loss with its weight clamped: v - (eps - x_0) = (x_0 - x^) / t. So Li and He (JiT, arXiv
2511.13720) train, whose code clamps at 0.05 (`t_eps`), the denominator of prediction and target alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.store.seeds import generator

Velocity = Callable[[Tensor, Tensor, Any], Tensor]  # v(x, t, prompt)
Target = Literal["velocity", "data"]


@dataclass(frozen=True)
class StepNoise:
    """What chance decides at one training step: t (B,), noise (B, C, H, W), dropped prompts (B,)."""

    t: Tensor
    noise: Tensor
    dropped: Tensor


def sample_noise(
    seed: int,
    step: int,
    shape: Sequence[int],
    times: Callable[[torch.Generator], Tensor],
    *,
    drop: float,
    device: Any,
) -> StepNoise:
    """What chance decides at a step, a function of (seed, step) alone: the same for every scheme and a resumed run.

    Args:
        seed: of the run.
        step: of training.
        shape: (B, C, H, W) of the images.
        times: samples t (B,).
        drop: share of prompts that become the null prompt.
        device: of the tensors.
    """
    g = generator(seed, "step", step, device=device)
    t = times(g)
    noise = torch.randn(*shape, generator=g, device=device)
    dropped = torch.rand(shape[0], generator=g, device=device) < drop
    return StepNoise(t, noise, dropped)


@dataclass(frozen=True)
class Flow:
    """The process with its loss.

    Attributes:
        target: what the network's output is. clamp: of the data prediction's weight.
        t_mean, t_std: t is sigmoid(normal(t_mean, t_std)).
    """

    target: Target = "velocity"
    clamp: float = 0.3
    t_mean: float = 0.0
    t_std: float = 1.0
    name: ClassVar[str] = "flow"
    outputs: ClassVar[int] = 1  # channels of the output, in those of x

    def chance(self, seed: int, step: int, shape: Sequence[int], *, drop: float, device: Any) -> StepNoise:
        """What chance decides at a training step, see `sample_noise`."""

        def times(g: torch.Generator) -> Tensor:
            return torch.sigmoid(self.t_mean + self.t_std * torch.randn(shape[0], generator=g, device=device))

        return sample_noise(seed, step, shape, times, drop=drop, device=device)

    def noisy(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, with t (B,)."""
        return interpolate(x_0, noise, t)

    def loss(self, model: Velocity, x_0: Tensor, noise: Tensor, t: Tensor, prompt: Any) -> Tensor:
        """Mean squared error of the velocity for each image, (B,); of a data prediction with its weight clamped."""
        out = model(interpolate(x_0, noise, t), t, prompt).float()
        if self.target == "velocity":
            return (out - (noise - x_0)).square().flatten(1).mean(1)
        return (out - x_0).square().flatten(1).mean(1) / t.clamp(min=self.clamp).square()

    def field(self, model: Velocity) -> Velocity:
        """What a sampler follows, and guidance acts on: the velocity."""
        return velocity(model, self.target)


def interpolate(x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t, with t (B,)."""
    t = t[:, None, None, None]
    return (1 - t) * x_0 + t * noise


def velocity(model: Velocity, target: Target) -> Velocity:
    """v(x_t, t, prompt) of a model with that target; of a data prediction it is defined for t > 0 alone."""
    if target == "velocity":
        return model
    return lambda x, t, prompt: (x - model(x, t, prompt)) / t[:, None, None, None]


def data_prediction(model: Velocity, target: Target) -> Velocity:
    """x^(x_t, t, prompt), the image that a model with that target predicts: x_t - t v, or the output itself."""
    if target == "data":
        return model
    return lambda x, t, prompt: x - t[:, None, None, None] * model(x, t, prompt)
