"""The process held fixed: rectified flow, its loss, and samplers of its ODE with classifier-free guidance.

x_t = (1 - t) x_0 + t eps          t = 0 data, t = 1 noise
v   = eps - x_0                    what the model learns
dx/dt = v(x, t, prompt)            followed from t = 1 to 0 to draw
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from architectures import FeatureBatch, PromptKind

Velocity = Callable[[Tensor, Tensor, Any], Tensor]  # v(x, t, prompt)


def derive(*key: int | str) -> int:
    """A seed from a key, the same on every machine."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a key: what is drawn from it does not depend on what was drawn before."""
    return torch.Generator(device).manual_seed(derive(*key))


@dataclass(frozen=True)
class Draw:
    """What chance decides at one training step: t (B,), noise (B, C, H, W), dropped prompts (B,)."""

    t: Tensor
    noise: Tensor
    dropped: Tensor


def draw(seed: int, step: int, shape: Sequence[int], *, t_mean: float, t_std: float, drop: float, device: Any) -> Draw:
    """The draw of a step, a function of (seed, step) alone; so two schemes see the same, and so does a resumed run."""
    g = generator(seed, "step", step, device=device)
    t = torch.sigmoid(t_mean + t_std * torch.randn(shape[0], generator=g, device=device))
    noise = torch.randn(*shape, generator=g, device=device)
    dropped = torch.rand(shape[0], generator=g, device=device) < drop
    return Draw(t, noise, dropped)


def interpolate(x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t, with t (B,)."""
    t = t[:, None, None, None]
    return (1 - t) * x_0 + t * noise


def flow_loss(model: Velocity, x_0: Tensor, noise: Tensor, t: Tensor, prompt: Any) -> Tensor:
    """Mean squared error of the velocity for each picture, (B,)."""
    v = model(interpolate(x_0, noise, t), t, prompt)
    return (v.float() - (noise - x_0)).square().flatten(1).mean(1)


# --- samplers -------------------------------------------------------------------------------------------------------


def guided(model: Velocity, kind: PromptKind, guidance: float) -> Velocity:
    """v_null + w (v - v_null): classifier-free guidance of weight w, both in one pass; w = 1 needs no second half."""
    if guidance == 1.0:
        return model

    def velocity(x: Tensor, t: Tensor, prompt: Any) -> Tensor:
        both = _join(prompt, kind.null(len(x), x.device))
        v, v_null = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return v_null + guidance * (v - v_null)

    return velocity


def _join(a: Any, b: Any) -> Any:
    if isinstance(a, FeatureBatch):
        return FeatureBatch(*(torch.cat([p, q.to(p.dtype)]) for p, q in zip(a, b, strict=True)))
    return torch.cat([a, b])


def euler(velocity: Velocity, x: Tensor, prompt: Any, steps: int) -> Tensor:
    """x at t = 0 from x at t = 1, one evaluation a step: x <- x + (t' - t) v(x, t)."""
    for t, t_next in _times(steps):
        x = x + (t_next - t) * velocity(x, _full(x, t), prompt)
    return x


def heun(velocity: Velocity, x: Tensor, prompt: Any, steps: int) -> Tensor:
    """x at t = 0 from x at t = 1, two evaluations a step: the mean slope of both ends."""
    for t, t_next in _times(steps):
        v = velocity(x, _full(x, t), prompt)
        v_next = velocity(x + (t_next - t) * v, _full(x, t_next), prompt)
        x = x + (t_next - t) * (v + v_next) / 2
    return x


SAMPLERS = {"euler": euler, "heun": heun}


def _times(steps: int) -> Iterator[tuple[float, float]]:
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    return zip(times[:-1], times[1:], strict=True)


def _full(x: Tensor, t: float) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def starting_noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Noise (n, C, H, W) of the samples `indices`, each a function of (seed, index): not of batch size or scheme."""
    return torch.stack([torch.randn(*shape, generator=generator(seed, "sample", index)) for index in indices])


def to_pictures(x: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def from_pictures(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> (B, C, H, W) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def sample(
    model: Velocity, kind: PromptKind, prompt: Any, noise: Tensor, *, sampler: str, steps: int, guidance: float
) -> Tensor:
    """Pictures uint8 (B, H, W, C) for prompts and noise (B, C, H, W)."""
    return to_pictures(SAMPLERS[sampler](guided(model, kind, guidance), noise, prompt, steps))
