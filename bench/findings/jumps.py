"""Exact tests for what is learned at once: mastered or not (Fisher), and when (ranks, censored at the budget)."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Sequence

MOST_ORDERS = 200_000  # beyond which ranks are compared by their normal approximation


def fisher_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of Fisher's exact test; values above one half count as yes."""
    from scipy.stats import fisher_exact

    counts = [[sum(value > 0.5 for value in one), sum(value <= 0.5 for value in one)] for one in (a, b)]
    return float(fisher_exact(counts).pvalue)


def rank_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney test, exact also with ties.

    Values that a budget cut off are ties at the top, as rows of one budget are cut at the same value; then this is
    Gehan's test for censored times. SciPy's `exact` knows no ties and its log-rank test is asymptotic.
    """
    from scipy.stats import PermutationMethod, mannwhitneyu

    few = math.comb(len(a) + len(b), len(a)) <= MOST_ORDERS
    method = PermutationMethod(n_resamples=MOST_ORDERS) if few else "asymptotic"
    return float(mannwhitneyu(a, b, method=method).pvalue)


def least_p(n: int, m: int) -> float:
    """The smallest p that either test can give for n against m: all of one row beyond all of the other."""
    return min(1.0, 2 / math.comb(n + m, n))


def fewest_seeds(level: float) -> int:
    """The fewest seeds a row that can be decided at a level."""
    return next(n for n in itertools.count(1) if least_p(n, n) <= level)


def too_few(n: int, m: int, level: float) -> str:
    """Why n against m can never decide at a level; empty if they can."""
    if least_p(n, m) <= level:
        return ""
    few = fewest_seeds(level)
    return f"{n} against {m} seeds can never decide (least p {least_p(n, m):.2g}); {few} against {few} can"


def ratio(a: Sequence[float], b: Sequence[float], level: float) -> tuple[float, float | None, float | None]:
    """The factor between two rows of positive values with its interval, of all ratios of a pair (Hodges, Lehmann).

    The interval's ends are None where so few values have none at that level.
    """
    logs = sorted(math.log(x / y) for x in a for y in b)
    k = _cut(len(a), len(b), level)
    middle = math.exp(statistics.median(logs))
    return (middle, math.exp(logs[k - 1]), math.exp(logs[-k])) if k else (middle, None, None)


@functools.cache
def _cut(n: int, m: int, level: float) -> int:
    """How many of the smallest ratios lie outside the interval, plus one; 0 where there is no interval.

    By the distribution of Mann and Whitney's U without ties.
    """
    ways = [[[1] if not i or not j else [] for j in range(m + 1)] for i in range(n + 1)]
    for i, j in itertools.product(range(1, n + 1), range(1, m + 1)):
        counts = [0] * (i * j + 1)
        for u, count in enumerate(ways[i - 1][j]):  # the largest is of the first row: it beats j
            counts[u + j] += count
        for u, count in enumerate(ways[i][j - 1]):
            counts[u] += count
        ways[i][j] = counts
    total, tail = math.comb(n + m, n), 0
    for u, count in enumerate(ways[n][m]):
        tail += count
        if tail / total > level / 2:
            return u
    return 0
