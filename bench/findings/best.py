"""What is bold in a table: the best of a column, and all rows that are not shown to be worse. Imports no torch.

The best is chosen from the numbers that it is compared by, so that a row is shown to be worse only at a level that
holds for every two rows at once: by Tukey's studentized range where the variance is pooled, else by Bonferroni over all
pairs. A correction over the comparisons with the best alone decides something in 8 % of columns of 5 rows that are
alike, and in 26 % of 30 (`tests/test_best.py`). Arms are no candidates: one is given the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bench.findings import peers as peering
from bench.findings.compare import decided, difference, together
from bench.findings.contrasts import Rule
from bench.findings.difference import Difference
from bench.findings.statistics import LEVEL, range_p
from bench.findings.summary import VariantSummary
from bench.store.metrics import Measurement
from bench.store.table import Table


def bold(table: Table, rows: Sequence[VariantSummary], column: Measurement) -> set[str]:
    """The rows that are bold in a column, by the rule of the table, among those that are compared (`peers.groups`)."""
    rule, groups = peering.rule_of(table), peering.groups(table, rows)
    if rule == "paired":
        return set().union(*(not_worse(group, column) for group in groups))
    return set().union(*(_not_shown_worse(group, column, rule) for group in groups))


def not_worse(rows: Sequence[VariantSummary], column: Measurement) -> set[str]:
    """The rows that are bold in a column: the best by its mean, and all that are not significantly worse than it.

    Paired by seed, corrected over all pairs of rows, of schemes whose every seed finished. None where that decides
    nothing, as with one seed each, and none among rates of different runs.
    """
    whole = [row for row in peering.schemes(rows) if row.complete and row.planned > 1 and row.by_seed.get(column.key)]
    return _bold(whole, whole, column, "paired")


def _not_shown_worse(rows: Sequence[VariantSummary], column: Measurement, rule: Rule) -> set[str]:
    """Every scheme that is not shown to be worse than the best, also one that lacks seeds; the best lacks none.

    Nothing where none is shown to be worse.
    """
    valued = [row for row in peering.schemes(rows) if row.by_seed.get(column.key)]
    return _bold(valued, [row for row in valued if row.complete and row.planned > 1], column, rule)


def _bold(
    rows: Sequence[VariantSummary], best_of: Sequence[VariantSummary], column: Measurement, rule: Rule
) -> set[str]:
    means = {name: one.mean for name, one in peering.samples(column, best_of).items()}
    if not column.better or len(rows) < 2 or not means or not together(rows, column.key):
        return set()
    sign = 1 if column.better == "lower" else -1
    best = min((row for row in best_of if row.name in means), key=lambda row: sign * means[row.name])
    others = [difference(row, best, column.key, rule, rows) for row in rows if row is not best]
    judged = [decided(replace(one, corrected=_over_all_pairs(one, len(rows)))) for one in others]
    worse = {one.a for one in judged if one.verdict == "worse"}
    return {row.name for row in rows} - worse if worse else set()


def _over_all_pairs(one: Difference, rows: int) -> float | None:
    """The p of a difference, corrected for all pairs of so many rows.

    Tukey's lies between p and Bonferroni's, and is worked out where these do not agree about the level.
    """
    if one.p is None:
        return None
    found, most = one.contrast, min(1.0, one.p * math.comb(rows, 2))
    if found is not None and found.pooled and found.error and one.p <= LEVEL < most:
        return range_p(abs(found.gap) / found.error * math.sqrt(2), rows, found.freedom)
    return most
