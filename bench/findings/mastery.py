"""`images_to_90` of whole rows: cut off at a budget, and read off a grid of points. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.findings.summary import VariantSummary
from bench.store.metrics import MASTERED, UNTIL
from bench.store.result import Result

CUT = "cut off at different budgets"


def cut_early(a: VariantSummary, b: VariantSummary) -> bool:
    """Whether a seed was cut off where seeds of the other budget trained further: which is earlier is then unknown."""
    every = [(row.by_seed.get(MASTERED, {}), seed, _images(one)) for row in (a, b) for seed, one in row.results.items()]
    most = max((budget for _, _, budget in every), default=0.0)
    return any(0 < budget < most and mastered.get(seed, 1.0) < 0.5 for mastered, seed, budget in every)


def rounding(rows: Sequence[VariantSummary]) -> float:
    """The least variance of a logarithm of these times, each rounded up to the next point of its curve.

    That of a uniform distribution as wide as the space before the earliest time, taken from its middle.
    """
    widths = [
        space / (until - space / 2)
        for row in rows
        for seed, until in row.by_seed.get(UNTIL, {}).items()
        if seed in row.results and 0 < (space := _space(row.results[seed])) <= until
    ]
    return max(widths, default=0.0) ** 2 / 12


def _images(result: Result) -> float:
    """The budget of a cell; 0 where its record does not say."""
    return _number(result, "train", "steps") * _number(result, "train", "batch")


def _space(result: Result) -> float:
    """Images between two points of a cell's curves."""
    return _number(result, "evaluate", "curve_every") * _number(result, "train", "batch")


def _number(result: Result, section: str, key: str) -> float:
    values = result.config.get(section)
    found = values.get(key) if isinstance(values, dict) else None
    return float(found) if isinstance(found, int | float) else 0.0
