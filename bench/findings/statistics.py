"""Intervals and tests over seeds. Imports no torch."""

from __future__ import annotations

import bisect
import functools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000


def half_width(values: Sequence[float], level: float = LEVEL, least: float = 0.0) -> float:
    """Half of the (1 - level) t-interval of the mean of two values or more, whose spread is at least `least`."""
    spread = max(least, statistics.stdev(values))
    return quantile(1 - level / 2, len(values) - 1) * spread / len(values) ** 0.5


@functools.cache
def quantile(p: float, freedom: float) -> float:
    """Of the t distribution; a table asks for the same few again and again."""
    from scipy.stats import t

    return float(t.ppf(p, freedom))


def interval(values: Sequence[float], level: float = LEVEL, least: float = 0.0) -> tuple[float, float] | None:
    """The (1 - level) t-interval of the mean; None for fewer than two values. `least` as in `paired_p`."""
    if len(values) < 2:
        return None
    mean, half = statistics.fmean(values), half_width(values, level, least)
    return mean - half, mean + half


def half_width_of_means(rows: Sequence[Sequence[float]], level: float = LEVEL) -> float | None:
    """Half of the (1 - level) t-interval of the mean over several rows of their means; None if no row has two values.

    The variances of the means add up, with Welch and Satterthwaite's degrees of freedom: half-widths of few values do
    not, whose t is that of each alone. A row of one value has the variance of the others.
    """
    known = [(statistics.variance(one), len(one) - 1) for one in rows if len(one) > 1]
    if not known:
        return None
    total = sum(freedom for _, freedom in known)
    usual = sum(variance * freedom for variance, freedom in known) / total
    parts = [(statistics.variance(one) / len(one), len(one) - 1) if len(one) > 1 else (usual, total) for one in rows]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    return float(quantile(1 - level / 2, freedom) * variance**0.5 / len(rows))


def paired_p(differences: Sequence[float], least: float = 0.0) -> float | None:
    """Two-sided p of a paired t-test; None for fewer than two values.

    Args:
        differences: one a pair.
        least: the standard deviation is at least this, where values are counted or rounded: of three shares of 400
            samples all differences can be equal by chance, and p would be 0 (`ttest_1samp` has no such floor).
    """
    n = len(differences)
    if n < 2:
        return None
    mean, spread = statistics.fmean(differences), max(least, statistics.stdev(differences))
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(mean) * n**0.5 / spread, n - 1))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P values corrected for all that are compared at once (Holm 1979); None stays and does not count."""
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for p, k, left in _in_order(ps):
        largest = max(largest, min(1.0, p * left))
        corrected[k] = largest
    return corrected


def levels(ps: Sequence[float | None]) -> list[float | None]:
    """The level that Holm's correction leaves for each p: 5 % over as many as are not smaller; None of None."""
    found: list[float | None] = [None] * len(ps)
    for _, k, left in _in_order(ps):
        found[k] = LEVEL / left
    return found


def _in_order(ps: Sequence[float | None]) -> list[tuple[float, int, int]]:
    """Each p from the smallest on, its place, and how many are left to test, itself among them."""
    order = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    return [(p, k, len(order) - rank) for rank, (p, k) in enumerate(order)]


def range_p(apart: float, rows: int, freedom: float) -> float:
    """How likely the means of so many rows that are alike lie this far apart (Tukey's studentized range).

    To two ten-thousandths, by Gauss's quadrature over the lowest mean and the spread: SciPy's takes 50 ms a value.

    Args:
        apart: the distance of the highest and the lowest mean, in standard errors of one mean.
        rows: how many.
        freedom: degrees of freedom of the variance that is pooled over them.
    """
    import numpy as np
    from scipy.special import chdtri, ndtr

    points, weights = _nodes(64)
    spreads = np.sqrt(chdtri(freedom, (1 - points) / 2) / freedom)
    means, shares = _nodes(96)
    lowest, shares = 8 * means[:, None], 8 * shares[:, None] * np.exp(-32 * means[:, None] ** 2) / (2 * np.pi) ** 0.5
    within = rows * (shares * (ndtr(lowest + apart * spreads) - ndtr(lowest)) ** (rows - 1)).sum(0)
    return float(min(1.0, max(0.0, (weights * (1 - within)).sum() / 2)))


@functools.cache
def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's points and weights in [-1, 1]."""
    import numpy as np

    return np.polynomial.legendre.leggauss(count)


def power(effect: float, seeds: int, level: float = LEVEL) -> float:
    """The chance that a paired t-test over `seeds` differences decides.

    Their mean is `effect` times their standard deviation.
    """
    from scipy.stats import nct, t

    critical, shift = float(t.ppf(1 - level / 2, seeds - 1)), effect * seeds**0.5
    return float(nct.sf(critical, seeds - 1, shift) + nct.cdf(-critical, seeds - 1, shift))


def seeds_needed(effect: float) -> int | None:
    """The fewest seeds that give 80 % power; None beyond `MOST_SEEDS`."""
    if power(abs(effect), MOST_SEEDS) < POWER:
        return None
    return 2 + bisect.bisect_left(range(2, MOST_SEEDS), POWER, key=lambda seeds: power(abs(effect), seeds))


def more_seeds(differences: Sequence[float], least: float = 0.0) -> int | None:
    """How many more seeds give 80 % power, if mean and spread stay; None if they have it, or beyond `MOST_SEEDS`.

    Not corrected for anything else. `least` as in `paired_p`.
    """
    if len(differences) < 2 or not statistics.fmean(differences):
        return None
    spread = max(least, statistics.stdev(differences))
    if not spread:
        return None
    needed = seeds_needed(statistics.fmean(differences) / spread)
    return needed - len(differences) if needed and needed > len(differences) else None


def more_seeds_text(more: int) -> str:
    """`more_seeds` for people."""
    return f"{more} more seed{'s give' if more > 1 else ' gives'} {POWER:.0%} power, if mean and spread stay".replace(
        "80%", "80 %"
    )
