"""The Frechet distance between two sets of features, from their moments, in float64.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

The last trace is the sum of the square roots of the eigenvalues of L^T S2 L with S1 = L L^T: symmetric, so one Cholesky
and one symmetric eigenproblem instead of the square root of an unsymmetric matrix. Of fewer samples than features it is
the sum of the singular values of X1 X2^T / sqrt((n - 1)(m - 1)), with X1 (n, d) and X2 (m, d) centred: the same number
from a smaller matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

ROWS = 4096  # held in float64 at once


@dataclass(frozen=True)
class Moments:
    """count, mean (d,), covariance (d, d) of a set of features, in float64."""

    count: int
    mean: torch.Tensor
    covariance: torch.Tensor


class Running:
    """Moments of features that come in parts, none of which is kept: sums of differences from the first rows' mean."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, features: np.ndarray) -> None:
        """Takes features (n, d) in."""
        for rows in torch.from_numpy(np.asarray(features)).split(ROWS):
            x = rows.double()
            if not self.count:
                self.near = x.mean(0)
                self.total, self.products = torch.zeros_like(self.near), x.new_zeros(x.shape[1], x.shape[1])
            x = x - self.near
            self.total += x.sum(0)
            self.products.addmm_(x.T, x)
            self.count += len(x)

    def moments(self) -> Moments:
        """Those of all that was added.

        Raises:
            ValueError: for fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"moments need at least two samples, got {self.count}")
        shift = self.total / self.count
        covariance = (self.products - self.count * shift.outer(shift)) / (self.count - 1)
        return Moments(self.count, self.near + shift, covariance)


def moments(features: np.ndarray) -> Moments:
    """Moments of features (n, d).

    Raises:
        ValueError: for fewer than two.
    """
    running = Running()
    running.add(features)
    return running.moments()


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two sets."""
    factor = _factor(a.covariance)
    eigenvalues = torch.linalg.eigvalsh(factor.T @ b.covariance @ factor)
    root = eigenvalues.clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root
    return float(distance)


def features_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Frechet distance of features (n, d) and (m, d): by the cheaper of both ways to the last trace.

    Raises:
        ValueError: for fewer than two on a side.
    """
    if max(len(a), len(b)) >= a.shape[1]:  # X1 X2^T would be no smaller than a covariance
        return frechet_distance(moments(a), moments(b))
    (x, m_1), (y, m_2) = _root(a), _root(b)
    traces = x.square().sum() + y.square().sum()
    return float((m_1 - m_2).square().sum() + traces - 2 * torch.linalg.svdvals(x @ y.T).sum())


def frechet_interval(
    features: np.ndarray, reference: np.ndarray, *, replicates: int = 200, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of the distance of features (n, d) from a reference (m, d), for the chance of these n.

    The pivotal bootstrap: resampling biases a distance upward once more, so that its percentiles need not even hold the
    estimate; 2 estimate - percentile does. With n < d the eigenvalues are those of an n x n matrix.
    """
    y, mean = _root(reference)
    x = torch.from_numpy(np.asarray(features)).double() - mean
    n = len(x)
    factor = y.T if len(y) < y.shape[1] else _factor(y.T @ y)  # L with L L^T = S
    inner, across = x @ x.T, (x @ factor) @ (x @ factor).T  # (n, n)
    generator = np.random.default_rng(seed)

    def distance(rows: torch.Tensor) -> float:
        plain, projected = inner[rows][:, rows], across[rows][:, rows]
        shift = plain.mean()  # |m1 - m2|^2
        trace = (plain.diagonal().sum() - n * shift) / (n - 1)
        projected = projected - projected.mean(0) - projected.mean(1, keepdim=True) + projected.mean()
        root = torch.linalg.eigvalsh(projected / (n - 1)).clamp(min=0).sqrt().sum()
        return float(shift + trace + y.square().sum() - 2 * root)

    distances = [distance(torch.from_numpy(generator.integers(0, n, n))) for _ in range(replicates)]
    low, high = np.quantile(distances, [0.025, 0.975])
    estimate = distance(torch.arange(n))
    return 2 * estimate - float(high), 2 * estimate - float(low)


def _centred(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, d) less their mean, and the mean (d,)."""
    if len(features) < 2:
        raise ValueError(f"moments need at least two samples, got {len(features)}")
    x = torch.from_numpy(np.asarray(features)).double()
    mean = x.mean(0)
    return x - mean, mean


def _root(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """X (n, d) with X^T X = S, and the mean (d,)."""
    centred, mean = _centred(features)
    return centred / (len(centred) - 1) ** 0.5, mean


def _factor(covariance: torch.Tensor) -> torch.Tensor:
    """L with L L^T = S: Cholesky's, or where S lacks full rank, from its eigenvectors with negatives clipped."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()
