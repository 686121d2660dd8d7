"""Differences of two rows without pairs: an estimate, its standard error and degrees of freedom. Imports no torch.

Two rows are compared with the variance *pooled* over all rows of their comparison, after a check of equal variances;
where it refuses, with Welch's interval. The check is Bartlett's test over all rows, and an F test of the two against
the others, since what harms is two rows that vary more than those that lend them degrees of freedom. Both refuse at
p < .20: that costs nothing where variances are equal, and keeps the worst error of a 5 % test at 8 % with three seeds
and 6 % with five. Not Levene's: of three values the median is one, whose deviation is zero, and the test hardly ever
refuses. `tests/test_statistics.py` measures all of this.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.findings.statistics import LEVEL, MOST_SEEDS, POWER, quantile

Rule = Literal["paired", "pooled", "welch"]
EQUAL = 0.20  # below it variances count as unequal: to pool wrongly costs more than Welch's fewer degrees of freedom


@dataclass(frozen=True)
class Sample:
    """The values of one row, on the scale compared.

    Attributes:
        least: the variance of a value is at least this, where values are read of a finite number of samples.
    """

    values: tuple[float, ...]
    least: float = 0.0

    @property
    def mean(self) -> float:
        """Of one value or more."""
        return statistics.fmean(self.values)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of its variance."""
        return max(0, len(self.values) - 1)

    @property
    def variance(self) -> float:
        """Between seeds; `least` for a single value."""
        return max(self.least, _variance(self.values)) if self.freedom else self.least


@functools.lru_cache(1 << 16)
def _variance(values: tuple[float, ...]) -> float:
    """Exact, and slow: a row is a peer in every comparison of its metric."""
    return statistics.variance(values)


@dataclass(frozen=True)
class Contrast:
    """An estimate of a - share * b.

    Attributes:
        error: its standard error. freedom: degrees of freedom.
        spread: variance of the estimate times the seeds of a row.
        tail: degrees of freedom that a further seed brings, of the rows compared alone: the check of equal variances
            refuses one comparison in three, so that to count on pooled ones promises too much.
        method: in words. pooled: whether the variance is that of all rows of the comparison.
    """

    gap: float
    error: float
    freedom: float
    spread: float
    tail: float
    method: str
    pooled: bool = False

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The (1 - level) t-interval."""
        half = quantile(1 - level / 2, self.freedom) * self.error
        return self.gap - half, self.gap + half

    def p(self, null: float = 0.0) -> float:
        """Two-sided, of the estimate being `null`."""
        return 2 * min(self.above(null), self.below(null))

    def above(self, null: float = 0.0) -> float:
        """One-sided p: small where the estimate is above `null`."""
        if self.error == 0:
            return 0.0 if self.gap > null else 0.5 if self.gap == null else 1.0
        return _sf((self.gap - null) / self.error, self.freedom)

    def below(self, null: float = 0.0) -> float:
        """One-sided p: small where the estimate is below `null`."""
        return 1 - self.above(null) if self.error or self.gap != null else 0.5

    def at(self, seeds: int) -> tuple[float, float]:
        """Standard error and degrees of freedom with so many seeds a row."""
        return math.sqrt(self.spread / seeds), self.tail * (seeds - 1)


def _sf(value: float, freedom: float) -> float:
    """The upper tail of the t distribution; `scipy.special`, as `scipy.stats` takes a hundred times as long a value."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -value))


# --- variances --------------------------------------------------------------------------------------------------------


def pooled_variance(samples: Sequence[Sample]) -> tuple[float, int]:
    """The variance within rows and its degrees of freedom, the sum of (n - 1)."""
    freedom = sum(one.freedom for one in samples)
    return (sum(one.freedom * one.variance for one in samples) / freedom if freedom else 0.0), freedom


def bartlett(samples: Sequence[Sample]) -> float:
    """Bartlett's p of equal variances; 1 where fewer than two rows have a spread, 0 where some have none.

    SciPy's takes no variance that is at least something; without one this is the same (`tests/test_statistics.py`).
    """
    known = [one for one in samples if one.freedom]
    variance, freedom = pooled_variance(known)
    if len(known) < 2 or variance == 0:
        return 1.0
    if any(one.variance == 0 for one in known):
        return 0.0
    from scipy.special import chdtrc

    apart = freedom * math.log(variance) - sum(one.freedom * math.log(one.variance) for one in known)
    scale = 1 + (sum(1 / one.freedom for one in known) - 1 / freedom) / (3 * (len(known) - 1))
    return float(chdtrc(len(known) - 1, max(0.0, apart / scale)))  # of equal variances it is 0 but for rounding


def wider(these: Sequence[Sample], others: Sequence[Sample]) -> float:
    """One-sided p of an F test: small where the variance of `these` rows is above that of the others; 1 if unknown."""
    (ours, free), (theirs, rest) = pooled_variance(these), pooled_variance(others)
    if not free or not rest or not ours:
        return 1.0
    if not theirs:
        return 0.0
    from scipy.special import fdtrc

    return float(fdtrc(free, rest, ours / theirs))


def unequal(these: Sequence[Sample], peers: Sequence[Sample]) -> str:
    """Why the variance is not pooled over `peers` to compare `these` of them; empty where it is."""
    others = [one for one in peers if not any(one is own for own in these)]
    for name, p in (("Bartlett", bartlett(peers)), ("F", wider(these, others))):
        if p < EQUAL:
            return f"variances differ, {name} p {p:.2g}"
    return ""


# --- contrasts --------------------------------------------------------------------------------------------------------


def contrast(a: Sample, b: Sample | None, peers: Sequence[Sample], rule: Rule, share: float = 1.0) -> Contrast | None:
    """The estimate of a - share * b, or of a's mean without b; None where no variance is known.

    Args:
        a: a row.
        b: the other; where they are paired, its values are in the order of a's.
        peers: every row of the comparison, a and b among them.
        rule: pooled becomes Welch's where variances differ.
        share: factor of b.
    """
    if rule == "paired" and b is not None:
        return _paired(a, b, share)
    why = unequal([a] if b is None else [a, b], peers) if rule == "pooled" else ""
    if rule == "pooled" and not why:
        return _pooled(a, b, peers, share)
    return _welch(a, b, share, f"Welch ({why})" if why else "Welch")


def _paired(a: Sample, b: Sample, share: float) -> Contrast | None:
    gaps = Sample(tuple(x - share * y for x, y in zip(a.values, b.values, strict=True)), a.least + share**2 * b.least)
    if not gaps.freedom:
        return None
    n, freedom = len(gaps.values), gaps.freedom
    return Contrast(gaps.mean, math.sqrt(gaps.variance / n), freedom, gaps.variance, 1.0, "paired by seed")


def _pooled(a: Sample, b: Sample | None, peers: Sequence[Sample], share: float) -> Contrast | None:
    variance, freedom = pooled_variance(peers)
    if not freedom:
        return None
    gap, inverse = a.mean, 1 / len(a.values)
    if b is not None:
        gap, inverse = gap - share * b.mean, inverse + share**2 / len(b.values)
    rows = sum(one.freedom > 0 for one in peers)
    weight = share**2 if b is not None else 0.0
    spread, tail = variance * (1 + weight), (1 + weight) ** 2 / (1 + weight**2)
    method = f"pooled over {rows} rows, {freedom} df"
    return Contrast(gap, math.sqrt(variance * inverse), freedom, spread, tail, method, pooled=True)


def _welch(a: Sample, b: Sample | None, share: float, method: str) -> Contrast | None:
    if not a.freedom or (b is not None and not b.freedom):
        return None
    parts = [(a.variance, a)] + ([(share**2 * b.variance, b)] if b is not None else [])
    gap = a.mean - (share * b.mean if b is not None else 0.0)
    squares = [(variance / len(one.values), one.freedom) for variance, one in parts]
    total = sum(square for square, _ in squares)
    divisor = sum(square**2 / freedom for square, freedom in squares)
    freedom = total**2 / divisor if divisor else float(a.freedom)
    spread = sum(variance for variance, _ in parts)
    fourth = sum(variance**2 for variance, _ in parts)
    return Contrast(gap, math.sqrt(total), freedom, spread, spread**2 / fourth if fourth else 1.0, method)


# --- power ------------------------------------------------------------------------------------------------------------


def power(one: Contrast, seeds: int, null: float = 0.0, level: float = LEVEL) -> float:
    """The chance that the same contrast over `seeds` a row is shown to differ from `null`, if gap and spread stay."""
    from scipy.stats import nct

    error, freedom = one.at(seeds)
    critical, shift = quantile(1 - level / 2, freedom), (one.gap - null) / error
    return float(nct.sf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift))


def equivalence_power(low: Contrast, high: Contrast, ends: tuple[float, float], seeds: int, level: float) -> float:
    """The chance that two one-sided tests over `seeds` a row both pass: of `low` above and `high` below its end."""
    from scipy.stats import nct

    chances = []
    for one, end, sign in ((low, ends[0], 1), (high, ends[1], -1)):
        error, freedom = one.at(seeds)
        chances.append(float(nct.sf(quantile(1 - level, freedom), freedom, sign * (one.gap - end) / error)))
    return max(0.0, sum(chances) - 1)


def fewest(power_of: functools.partial[float], now: int) -> int | None:
    """How many more seeds a row give 80 % power; None if there is enough now, or beyond `MOST_SEEDS`.

    Args:
        power_of: the power by number of seeds, which grows with it.
        now: seeds a row.
    """
    low = high = now
    while not power_of(seeds=high) >= POWER:  # doubled, as SciPy's non-central t is not a number far out
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(seeds=middle) >= POWER else (middle, high)
    return high - now or None


def more_seeds(one: Contrast, now: int, null: float = 0.0, level: float = LEVEL) -> int | None:
    """How many more seeds a row show it to differ from `null` with 80 % power, if gap and spread stay."""
    if now < 2 or one.error == 0 or one.gap == null:
        return None
    return fewest(functools.partial(power, one, null=null, level=level), now)
