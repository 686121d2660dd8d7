"""The Bayes-optimal denoiser of a mixture: x_0 = m_k + s_k eps with k among K, x_t = (1 - t) x_0 + t noise.

p(x_t | k)      = N((1 - t) m_k, ((1 - t)^2 s_k^2 + t^2) I)
E[x_0 | x_t, k] = m_k + g_k (x_t - (1 - t) m_k),   g_k = (1 - t) s_k^2 / ((1 - t)^2 s_k^2 + t^2)
E[x_0 | x_t]    = sum_k softmax_k(log p(x_t | k)) E[x_0 | x_t, k]

All in float64: at small t the distances are differences of large numbers over a small variance.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from bench.data.tasks.contract import Task

CHUNK = 2**21  # numbers at once: memory of this size is used again, larger blocks are asked of the system each time
LEAST = 1e-10  # variance; t = 0 without grain is no division by zero


def mixture(task: Task, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """E[x_0 | x_t, prompt] of a task whose modes can be listed: x_t (B, 3, S, S), t (B,), words (B, L), as x_t."""
    each = max(1, CHUNK // (task.modes(words[:1]).shape[1] * x_t[0].numel()))
    parts = []
    for rows in torch.arange(len(x_t)).split(each):
        z = task.modes(words[rows])  # (b, K, M)
        x, time, means = x_t[rows].flatten(1).double(), t[rows].double(), task.paint(z).flatten(2).double()
        parts.append(_mixture(x, time, means, task.grain(z).double())[0])
    return torch.cat(parts).view_as(x_t).to(x_t.dtype)


def mixture_blind(task: Task, x_t: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t], where the prompt is not known, of a task whose images can be listed; the same shapes."""
    z = task.world()
    means, std = task.paint(z).flatten(1).double(), task.grain(z).double()  # (W, P), (W,)
    alike = [(_with_norms(means[std == one]), one) for one in std.unique()]
    parts = []
    for rows in torch.arange(len(x_t)).split(max(1, CHUNK // len(z))):
        parts.append(_shared_mixture(x_t[rows].flatten(1).double(), t[rows, None].double(), alike))
    return torch.cat(parts).view_as(x_t).to(x_t.dtype)


def _with_norms(means: Tensor) -> Tensor:
    """(W, P) -> (W, P + 1): each mode and its |m|^2."""
    return torch.cat([means, means.square().sum(1, keepdim=True)], 1)


def denoise_timeless(task: Task, x_t: Tensor, words: Tensor, times: int = 64) -> Tensor:
    """E[x_0 | x_t, prompt] where t is not known but for its distribution, sigmoid(N(0, 1)): `times` quantiles of it."""
    quantiles = torch.special.ndtri((torch.arange(times, dtype=torch.float64) + 0.5) / times).sigmoid()
    z = task.modes(words)
    x, means, std = x_t.flatten(1).double(), task.paint(z).flatten(2).double(), task.grain(z).double()
    found = [_mixture(x, t.expand(len(x)), means, std) for t in quantiles]
    weights = torch.stack([likelihood for _, likelihood in found]).softmax(0)  # (T, B)
    return torch.einsum("tb,tbp->bp", weights, torch.stack([one for one, _ in found])).view_as(x_t).to(x_t.dtype)


def _mixture(x: Tensor, t: Tensor, means: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, P), t (B,), means (B, K, P), std (B, K) -> (B, P), and log p(x_t) (B,) but for a constant."""
    keep, variance, gain = _spread(t[:, None], std)
    distance = (x[:, None] - keep[..., None] * means).square().sum(2)
    likelihood = -distance / (2 * variance) - x.shape[1] / 2 * variance.log()  # (B, K)
    weights = likelihood.softmax(1)
    pulled = weights * (1 - gain * keep)
    mean = torch.einsum("bk,bkp->bp", pulled, means) + (weights * gain).sum(1, keepdim=True) * x
    return mean, likelihood.logsumexp(1)


def _shared_mixture(x: Tensor, t: Tensor, alike: list[tuple[Tensor, Tensor]]) -> Tensor:
    """x (B, P), t (B, 1), and for each grain s its modes (W, P + 1) `_with_norms` -> (B, P).

    log p(x_t | k) = (1 - t) / v (x_t . m_k) - (1 - t)^2 / 2v |m_k|^2 + what modes of one grain share
    """
    grains = [(modes, *_spread(t, std)) for modes, std in alike]  # what t gives is (B, 1)
    logits = []
    for modes, keep, variance, _ in grains:
        own = torch.cat([keep / variance * x, -keep.square() / (2 * variance)], 1) @ modes.T
        if len(grains) > 1:
            own -= x.square().sum(1, keepdim=True) / (2 * variance) + x.shape[1] / 2 * variance.log()
        logits.append(own)
    weights = torch.cat(logits, 1).softmax(1).split([len(modes) for modes, _ in alike], 1)
    mean = torch.zeros_like(x)
    for (modes, keep, _, gain), own in zip(grains, weights, strict=True):
        mean += (1 - gain * keep) * (own @ modes[:, :-1]) + gain * own.sum(1, keepdim=True) * x
    return mean


def _spread(t: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 - t, the variance of x_t given a mode, and the gain g."""
    keep = (1 - t).expand(torch.broadcast_shapes(t.shape, std.shape))
    variance = ((keep * std).square() + t.square()).clamp(min=LEAST)
    return keep, variance, keep * std.square() / variance


def nearest(task: Task, x: Tensor, least: float = 0.05) -> Tensor:
    """The most likely z (B, M) of images (B, 3, S, S), grain of at least `least`."""
    z, means, norms, std = _templates(task, least)
    found, one_grain = [], _alike(std)
    for rows in torch.arange(len(x)).split(max(1, CHUNK // len(z))):
        flat = x[rows].flatten(1)
        distance = torch.addmm(norms, flat, means.T, alpha=-2)  # but for |x|^2
        if not one_grain:
            distance = (distance + flat.square().sum(1, keepdim=True)) / (2 * std.square()) + flat.shape[1] * std.log()
        found.append(distance.argmin(1))
    return z[torch.cat(found)]


def _alike(std: Tensor) -> bool:
    """Whether all images have one grain (W,)."""
    return bool((std == std[0]).all())


@lru_cache(maxsize=1)
def _templates(task: Task, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every readable z (W, M), its image (W, P), the squared norm of that, and its grain; painted once for a task."""
    z = task.readable()
    means = task.paint(z).flatten(1)
    return z, means, means.square().sum(1), task.grain(z).clamp(min=least)


def sample_exact(task: Task, words: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) of prompts (B, L), by Euler steps of the exact denoiser from noise."""
    x = torch.randn(len(words), 3, task.size, task.size, generator=generator)
    for k in range(task.steps, 0, -1):
        t, later = k / task.steps, (k - 1) / task.steps
        x_0 = task.denoise(x, torch.full((len(x),), t), words)
        x = x_0 + (x - x_0) * later / t
    return x
