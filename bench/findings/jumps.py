"""Exact tests for what is learned at once: mastered or not (Fisher), and when (ranks, censored at the budget)."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import statistics
from collections.abc import Sequence

MOST_EXACT = 100  # values of both rows together, beyond which orders are sampled
ORDERS = 50_000  # that are sampled; a p is then never below 1 in this
RANKS, FISHER = "ranks", "Fisher"


def fisher_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of Fisher's exact test; values above one half count as yes."""
    from scipy.stats import fisher_exact

    counts = [[sum(value > 0.5 for value in one), sum(value <= 0.5 for value in one)] for one in (a, b)]
    return float(fisher_exact(counts).pvalue)


def rank_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney test, exact also with ties: twice the smaller tail over all orders of the values.

    Values that a budget cut off are ties at the top, as rows of one budget are cut at the same value; then this is
    Gehan's test for censored times. SciPy's `exact` knows no ties, its log-rank test is asymptotic, and its normal
    approximation gives .035 where 4 of 11 against none of 11 have .090.
    """
    ranks = _ranks([*a, *b])
    found = sum(ranks[: len(a)])
    low, high = (_exact if len(ranks) <= MOST_EXACT else _sampled)(tuple(sorted(ranks)), len(a), found)
    return min(1.0, 2 * min(low, high))


def ahead(a: Sequence[float], b: Sequence[float]) -> float:
    """The share of pairs in which the value of a is the smaller, ties as half: what ranks compare, .5 if nothing.

    The factor of `ratio` is 1 as soon as most pairs are tied at the budget, also where one row is clearly earlier.
    """
    return statistics.fmean((x < y) + 0.5 * (x == y) for x in a for y in b)


def _ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, ties at their mean: whole numbers from 0."""
    order = sorted(values)
    return [bisect.bisect_left(order, value) + bisect.bisect_right(order, value) - 1 for value in values]


@functools.lru_cache(1 << 12)
def _exact(ranks: tuple[int, ...], count: int, found: int) -> tuple[float, float]:
    """The chances that `count` of the ranks, all choices alike, sum to `found` at most, and at least.

    Each rank is taken with chance 1/2, and sums of `count` are kept: so no number is as large as that of all choices.
    """
    import numpy as np

    most = sum(ranks[-count:])
    chances = np.zeros((count + 1, most + 1))  # (taken, sum)
    chances[0, 0] = 1.0
    for rank in ranks:
        taken = np.zeros_like(chances)
        taken[1:, rank:] = chances[:-1, : most + 1 - rank]
        chances = (chances + taken) / 2
    sums = chances[count] / chances[count].sum()
    return float(sums[: found + 1].sum()), float(sums[found:].sum())


def _sampled(ranks: tuple[int, ...], count: int, found: int) -> tuple[float, float]:
    """The same of orders that are sampled with one seed, the one found among them."""
    import numpy as np

    rng, values = np.random.default_rng(0), np.array(ranks)
    sums = np.array([rng.permutation(values)[:count].sum() for _ in range(ORDERS)])
    return float((1 + (sums <= found).sum()) / (1 + ORDERS)), float((1 + (sums >= found).sum()) / (1 + ORDERS))


def least_p(n: int, m: int, test: str = RANKS) -> float:
    """The smallest p that a test can give for n against m: all of one row beyond all of the other.

    Ranks take the smaller tail twice. Fisher's counts what is no likelier: with n = m the mirrored outcome, too.
    """
    if test == FISHER and n and m:
        return fisher_p([1.0] * n, [0.0] * m)
    return min(1.0, 2 / math.comb(n + m, n))


def fewest_seeds(level: float) -> int:
    """The fewest seeds a row, as many of both, that can be decided at a level by either test."""
    return next(n for n in itertools.count(1) if least_p(n, n) <= level)


def too_few(n: int, m: int, level: float, test: str = RANKS) -> str:
    """Why n against m can never decide by a test at a level; empty if they can."""
    least = least_p(n, m, test)
    if least <= level:
        return ""
    few = fewest_seeds(level)
    return f"{n} against {m} seeds can never decide (least p {least:.2g}); {few} against {few} can"


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
