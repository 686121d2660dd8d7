"""Matrices whose values were tuned (`tuned:`): the rate of each row, and rows that were run tuned and untuned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.config.tuned import found
from bench.findings.analysis import Analysis
from bench.findings.fairness import flat
from bench.findings.summary import VariantSummary

RATE = "train.lr"


def tuned_values(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """What the matrix's file of tuned values holds; nothing where it names none."""
    return analysis.table.manifest["config"].get("tuned") or {}


def rate(row: VariantSummary) -> float | None:
    """The learning rate that its cells were trained at; None without a result."""
    return next((flat(result.config).get(RATE) for result in row.results.values()), None)


def rate_text(rows: Iterable[VariantSummary]) -> str:
    """The learning rate of rows: `0.003`, `0.0015 to 0.006` where they differ, nothing without results."""
    known = sorted({value for row in rows if (value := rate(row)) is not None})
    return "" if not known else f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"


def pairs(analysis: Analysis) -> list[tuple[VariantSummary, VariantSummary]]:
    """Rows that are the same but for what was tuned: with the tuned values first, then with others."""
    tuned = tuned_values(analysis)
    keys = sorted({key for values in tuned.values() for key in values})
    alike: dict[str, list[VariantSummary]] = {}
    for row in analysis.rows if tuned else []:
        if row.results:
            alike.setdefault(_but(row, keys), []).append(row)
    made = []
    for rows in alike.values():
        best = [row for row in rows if _is_tuned(row, tuned)]
        made += [(one, other) for one in best for other in rows if other not in best]
    return made


def _is_tuned(row: VariantSummary, tuned: dict[str, dict[str, Any]]) -> bool:
    """Whether its cells have the values that the file gives it."""
    cell, config = row.cells[0].row, _config(row)
    values = found(tuned, row.name, cell.variant, cell.scheme)
    return values is not None and all(config.get(key) == value for key, value in values.items())


def _but(row: VariantSummary, keys: list[str]) -> str:
    """All that its first cell was configured with, but for the seed and these dotted keys."""
    return repr(sorted((key, value) for key, value in _config(row).items() if key not in (*keys, "seed")))


def _config(row: VariantSummary) -> dict[str, Any]:
    """Of its first cell with a result, by dotted key."""
    return flat(next(iter(row.results.values())).config)
