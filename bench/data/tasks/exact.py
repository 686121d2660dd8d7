"""The Bayes-optimal denoiser of a mixture: x_0 = m_k + s_k eps with k among K, x_t = (1 - t) x_0 + t noise.

p(x_t | k)      = N((1 - t) m_k, ((1 - t)^2 s_k^2 + t^2) I)
E[x_0 | x_t, k] = m_k + g_k (x_t - (1 - t) m_k),   g_k = (1 - t) s_k^2 / ((1 - t)^2 s_k^2 + t^2)
E[x_0 | x_t]    = sum_k softmax_k(log p(x_t | k)) E[x_0 | x_t, k]
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.tasks.contract import Task

CHUNK = 2**26  # numbers at once


def denoise(task: Task, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """E[x_0 | x_t, prompt]: x_t (B, 3, S, S), t (B,), words (B, L) -> (B, 3, S, S)."""
    each = max(1, CHUNK // (task.modes(words[:1]).shape[1] * x_t[0].numel()))
    parts = []
    for rows in torch.arange(len(x_t)).split(each):
        z = task.modes(words[rows])  # (b, K, M)
        parts.append(_mixture(x_t[rows].flatten(1), t[rows], task.paint(z).flatten(2), task.grain(z)))
    return torch.cat(parts).view_as(x_t)


def denoise_blind(task: Task, x_t: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t] where the prompt is not known, the same shapes."""
    z = task.world()
    means, std = task.paint(z).flatten(1), task.grain(z)  # (W, P), (W,)
    each = max(1, CHUNK // len(z))
    parts = [_shared_mixture(x_t[rows].flatten(1), t[rows], means, std) for rows in torch.arange(len(x_t)).split(each)]
    return torch.cat(parts).view_as(x_t)


def _mixture(x: Tensor, t: Tensor, means: Tensor, std: Tensor) -> Tensor:
    """x (B, P), t (B,), means (B, K, P), std (B, K) -> (B, P)."""
    keep, variance, gain = _spread(t[:, None], std)
    distance = (x[:, None] - keep[..., None] * means).square().sum(2)
    weights = torch.softmax(-distance / (2 * variance) - x.shape[1] / 2 * variance.log(), 1)  # (B, K)
    pulled = weights * (1 - gain * keep)
    return torch.einsum("bk,bkp->bp", pulled, means) + (weights * gain).sum(1, keepdim=True) * x


def _shared_mixture(x: Tensor, t: Tensor, means: Tensor, std: Tensor) -> Tensor:
    """x (B, P), t (B,), means (W, P), std (W,) of all -> (B, P)."""
    keep, variance, gain = _spread(t[:, None], std[None])
    distance = x.square().sum(1)[:, None] - 2 * keep * (x @ means.T) + keep.square() * means.square().sum(1)
    weights = torch.softmax(-distance / (2 * variance) - x.shape[1] / 2 * variance.log(), 1)  # (B, W)
    return (weights * (1 - gain * keep)) @ means + (weights * gain).sum(1, keepdim=True) * x


def _spread(t: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 - t, the variance of x_t given a mode, and the gain g."""
    keep = (1 - t).expand(torch.broadcast_shapes(t.shape, std.shape))
    variance = (keep * std).square() + t.square()
    return keep, variance, keep * std.square() / variance


def nearest(task: Task, x: Tensor, least: float = 0.05) -> Tensor:
    """The most likely z (B, M) of images (B, 3, S, S), grain of at least `least`."""
    z = task.world()
    means, std = task.paint(z).flatten(1), task.grain(z).clamp(min=least)
    found = []
    for rows in torch.arange(len(x)).split(max(1, CHUNK // len(z))):
        flat = x[rows].flatten(1)
        distance = flat.square().sum(1)[:, None] - 2 * flat @ means.T + means.square().sum(1)
        found.append((distance / (2 * std.square()) + flat.shape[1] * std.log()).argmin(1))
    return z[torch.cat(found)]
