"""The Frechet distance between two sets of features, from their moments, in float64.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

The last trace is the sum of the square roots of the eigenvalues of L^T S2 L with S1 = L L^T: symmetric, so one Cholesky
and one symmetric eigenproblem instead of the square root of an unsymmetric matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Moments:
    """count, mean (d,), covariance (d, d) of a set of features, in float64."""

    count: int
    mean: torch.Tensor
    covariance: torch.Tensor


def moments(features: np.ndarray) -> Moments:
    """Moments of features (n, d).

    Raises:
        ValueError: for fewer than two.
    """
    if len(features) < 2:
        raise ValueError(f"moments need at least two samples, got {len(features)}")
    x = torch.from_numpy(np.asarray(features)).double()
    mean = x.mean(0)
    centred = x - mean
    return Moments(len(x), mean, centred.T @ centred / (len(x) - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two sets."""
    factor = _factor(a.covariance)
    eigenvalues = torch.linalg.eigvalsh(factor.T @ b.covariance @ factor)
    root = eigenvalues.clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root
    return float(distance)


def _factor(covariance: torch.Tensor) -> torch.Tensor:
    """L with L L^T = S: Cholesky's, or where S lacks full rank, from its eigenvectors with negatives clipped."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()
