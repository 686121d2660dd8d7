"""Claims about conditioning, tested: a matrix with its hypothesis and its decision rule, fixed before it is run.

    claim:
      says: A shift is dispensable.
      tests:
        - {metric: fid, variant: scale-only, no_worse_than: adaln-zero, within: 0.03}

A test is one of
    variant: A, beats: B              the paired interval of A - B lies on the better side (bench/findings/compare.py)
    variant: A, no_worse_than: B,     it ends before A is worse by the share `within` of B's mean
      within: 0.03
    variant: A, above: X / below: X   the interval of A's mean over seeds lies there
with `per: COST` to divide a metric by a cost first; a variant is a row as the table writes it, axes included. p values
are corrected by Holm over a claim's tests. The metric `highest_lr` is that of a learning-rate ladder: the decimal
logarithm of the highest rate below the first that a seed of the variant does not survive; where the lowest rate loses
one, or none does, such a test is undecided, or by ranks with `compare`.

A claim is *supported* if every test is, *equivalent* if every test is, *contradicted* if one is or if some are
equivalent and all others supported, else *undecided*. A claim with `compare`, about tasks, or about what is learned at
once has more rules: `bench/findings/registered.py`. Imports no torch: it is read from a record alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bench.config.claim import ClaimError, ClaimSpec, ClaimTest, RowFacts, check, hint
from bench.findings import registered
from bench.findings.compare import apart, caveats
from bench.findings.ladder import ladders, off
from bench.findings.mastery import rounding
from bench.findings.origins import origins, same_code
from bench.findings.peers import floor, of_tasks, peers, rule_of
from bench.findings.statistics import LEVEL, holm, more_seeds, more_seeds_text, paired_p
from bench.findings.summary import VariantSummary, find_row, summaries
from bench.findings.trial import Rows, off_the_ladder
from bench.findings.verdicts import ClaimVerdict, TestResult, together
from bench.findings.words import bounds, number, p_value
from bench.store.metrics import LADDER, MASTERED, UNTIL, Measurement, find
from bench.store.table import Table

__all__ = ["ClaimVerdict", "TestResult", "decide"]


@dataclass(frozen=True)
class _Values:
    """A test with its values: of the differences (or of the variant alone), in the metric's better direction.

    Attributes:
        least: the standard deviation of the differences is at least this. why: the reason, where they decide nothing.
    """

    test: ClaimTest
    key: str
    seeds: tuple[int, ...] = ()
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    least: float = 0.0
    p: float | None = None
    why: str = ""

    @property
    def metric(self) -> Measurement:
        return Measurement.parse(self.key)

    @property
    def gaps(self) -> list[float]:
        if self.test.rival is not None:
            return [a - b for a, b in zip(self.ours, self.theirs, strict=True)]
        return [a - self.test.bound for a in self.ours]

    @property
    def in_favour(self) -> list[float]:
        """Numbers whose mean is above zero where the test holds."""
        higher = self.test.above is not None or (self.test.below is None and self.metric.better != "lower")
        room = (self.test.within or 0.0) * abs(statistics.fmean(self.theirs))
        return [(1 if higher else -1) * gap + room for gap in self.gaps]


def decide(table: Table, rows: Sequence[VariantSummary] | None = None) -> ClaimVerdict | None:
    """What became of the claim that a matrix or record holds; None if it holds none.

    Raises:
        ClaimError: if it names a variant or a metric that is not there.
    """
    rows = rows or summaries(table)
    names = [row.name for row in rows]
    claim = check(table.manifest["config"].get("claim") or None, names, _seeds(table), _facts(table))
    if claim is None:
        return None
    values = [_values(table, rows, test) for test in claim.tests]
    if claim.compare or of_tasks(table) or any(one.metric.metric.kind in (MASTERED, UNTIL) for one in values):
        tests = _registered(table, rows, claim, values)
    else:
        tests = [_result(one, p) for one, p in zip(values, holm([one.p for one in values]), strict=True)]
    named = dict.fromkeys(name for test in claim.tests for name in test.rows)
    text = caveats(table, *(name for name in named if name in names)) + _at_chance(values)
    if not set(named) <= set(names):  # a ladder's runs are lost on purpose
        gaps = {one.name: len(one.unknown) for one in ladders(table) if one.name in named and one.unknown}
        text += [f"{name}: of {count} seeds a result below their limit is missing" for name, count in gaps.items()]
        text += [note for note in origins(table.cells, same=same_code(table)) if note not in text]
    return ClaimVerdict(table.name, claim.says, together({test.verdict for test in tests}), tests, text)


def _seeds(table: Table) -> list[int]:
    return sorted({cell.row.seed for cell in table.cells}) or [0]


def _facts(table: Table) -> dict[str, RowFacts]:
    """The attributes that tasks were read for, so that a claim may name them."""
    kinds: dict[str, set[str]] = {}
    for cell in table.done:
        assert cell.result is not None
        found = [Measurement.parse(key) for key in cell.result.quality]
        kinds.setdefault(cell.row.name, set()).update(one.metric.kind for one in found if one.made_by == "template")
    return {name: RowFacts(attributes=tuple(sorted(own))) for name, own in kinds.items() if own}


def _registered(
    table: Table, rows: Sequence[VariantSummary], claim: ClaimSpec, values: Sequence[_Values]
) -> list[TestResult]:
    """The tests of a claim that says how rows are compared, or of tasks."""
    texts = [_sentence(one.test, one.metric, shares=one.metric.metric.relative) for one in values]
    return registered.decide(claim, [_rows(table, rows, one) for one in values], texts, rule_of(table))


def _rows(table: Table, rows: Sequence[VariantSummary], one: _Values) -> Rows:
    """All that a test is about: the rows that it names, and those beside them."""
    test = one.test
    if test.metric == LADDER:
        known = {lad.name: lad for lad in ladders(table)}
        every = {name: {s: math.log10(v) for s, v in lad.highest.items()} for name, lad in known.items()}
        below, beyond = off([known[name] for name in test.rows])
        named, least = {name: every[name] for name in test.rows}, _rung(table, test.variant) ** 2 / 12
        return Rows(one.metric, named, every, least=least, below=below, beyond=beyond)
    if not any(row.by_seed for row in rows):
        return Rows(one.metric, {name: {} for name in test.rows}, {}, apart="no cell has a result yet")
    keys = [key for row in rows for key in row.by_seed]
    per = find(keys, test.per) if test.per else None
    own = [find_row(rows, name) for name in test.rows]
    named = {row.name: _by_seed(row, one.key, per) for row in own}
    beside = {row.name: _by_seed(row, one.key, per) for row in peers(rows, *own)}
    every_seed = sorted({seed for values in named.values() for seed in values})
    why = next((text for row in own[1:] if (text := apart(own[0], row, every_seed, one.key, per or ""))), "")
    least = rounding(own) if one.metric.metric.kind == UNTIL else 0.0
    lost = {row.name: sum(value < 0.5 for value in row.values.get(MASTERED, [])) for row in own}
    return Rows(one.metric, named, beside, why, least, lost)


def _at_chance(values: list[_Values]) -> list[str]:
    """Metrics of adherence on which nothing that is tested has learned anything yet."""
    judged = [one for one in values if one.seeds and one.metric.over_chance and one.metric.better == "higher"]
    low = dict.fromkeys(one.metric for one in judged if max(*one.ours, *one.theirs) <= 0)
    return [f"{one.heading}: no cell is above chance, so training is too short to decide" for one in low]


def _values(table: Table, rows: Sequence[VariantSummary], test: ClaimTest) -> _Values:
    """The numbers that a test is about."""
    known = [key for row in rows for key in row.by_seed]
    if not known:
        return _Values(test, test.metric, why="no cell has a result yet")
    if test.metric == LADDER:
        return _on_the_ladder(table, test)
    try:
        key, per = find(known, test.metric), find(known, test.per) if test.per else None
    except ValueError as error:
        raise ClaimError(f"test {test}: {error}") from error
    ours, theirs = (_by_seed(find_row(rows, name), key, per) for name in (test.variant, test.rival or test.variant))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    one = _Values(test, key, seeds, tuple(ours[s] for s in seeds), tuple(theirs[s] for s in seeds))
    if len(seeds) < 2:
        return replace(one, why="no seed has it" if not seeds else "one seed shows no spread")
    if test.rival is not None:
        one = replace(one, why=apart(find_row(rows, test.variant), find_row(rows, test.rival), seeds, key, per or ""))
    least = _least(key, find_row(rows, test.variant), find_row(rows, test.rival) if test.rival else None, per)
    return one if one.why else replace(one, least=least, p=paired_p(one.in_favour, least))


def _on_the_ladder(table: Table, test: ClaimTest) -> _Values:
    """A test on the learning-rate ladder. Its rungs round: a difference spreads by a rung's width / sqrt 6 at least."""
    by_name = {one.name: one for one in ladders(table)}
    missing = [name for name in test.rows if name not in by_name]
    if missing:
        raise ClaimError(f"test {test}: {missing[0]!r} is on no ladder of train.lr{hint(missing[0], list(by_name))}")
    highest = [{seed: math.log10(value) for seed, value in by_name[name].highest.items()} for name in test.rows]
    seeds = tuple(sorted(set.intersection(*(set(one) for one in highest))))
    ours, theirs = (tuple(one[seed] for seed in seeds) for one in (highest[0], highest[-1]))
    one = _Values(test, LADDER, seeds, ours, theirs)
    if text := off_the_ladder(*off([by_name[name] for name in test.rows])):
        return replace(one, why=f"{text}; a claim with `compare` ranks them")
    if len(seeds) < 2:
        return replace(one, why="fewer than two seeds survive the lowest rate")
    least = _rung(table, test.variant) / 6**0.5
    return replace(one, least=least, p=paired_p(one.in_favour, least))


def _rung(table: Table, name: str) -> float:
    """The widest step of a ladder, in decades."""
    rungs = sorted(rung.value for one in ladders(table) if one.name == name for rung in one.rungs)
    return max(math.log10(b / a) for a, b in pairwise(rungs))


def _by_seed(row: VariantSummary, key: str, per: str | None) -> dict[int, float]:
    """Seed -> the metric, divided by a cost where one is given."""
    values = row.by_seed.get(key, {})
    if per is None:
        return values
    costs, scale = row.by_seed.get(per, {}), _per(per)[0]
    return {seed: value / (costs[seed] / scale) for seed, value in values.items() if costs.get(seed)}


def _least(key: str, row: VariantSummary, rival: VariantSummary | None, per: str | None) -> float:
    """The least standard deviation of a row's values, or of its differences to a rival's, in the unit of the test."""
    shares = [row] if rival is None else [row, rival]
    scale = _per(per)[0] if per else 1.0
    units = [statistics.fmean(one.values[per]) / scale if per else 1.0 for one in shares]
    return math.sqrt(sum(floor(Measurement.parse(key)) / unit**2 for unit in units))


def _per(key: str) -> tuple[float, str]:
    """Scale and name of a cost that a metric is divided by."""
    one = Measurement.parse(key)
    return one.metric.per or (1.0, one.heading)


# --- as text ----------------------------------------------------------------------------------------------------------


def _result(one: _Values, corrected: float | None) -> TestResult:
    """The decision on one test, of the numbers and p after Holm."""
    text = _sentence(one.test, one.metric)
    if corrected is None:
        return TestResult(text, "undecided", one.why)
    gap, evidence = _evidence(one)
    evidence += f", {len(one.seeds)} seeds, p {p_value(corrected)} after Holm"
    margin = one.metric.metric.margin
    if one.test.beats is not None and one.test.per is None and _within(one, margin):
        return TestResult(text, "undecided", f"{evidence}; under the {margin:.1%} of seed noise", gap, corrected)
    if corrected <= LEVEL:
        favourable = statistics.fmean(one.in_favour) > 0
        return TestResult(text, "supported" if favourable else "contradicted", evidence, gap, corrected)
    more = more_seeds(one.in_favour, one.least)
    return TestResult(
        text, "undecided", evidence + (f"; {more_seeds_text(more)}" if more else ""), gap, corrected
    )  # fmt: skip


def _sentence(test: ClaimTest, metric: Measurement, *, shares: bool = True) -> str:
    """A test as a sentence; `shares`: whether a margin of `no_worse_than` is a share of a mean, else a difference."""
    verbs = {"beats": "beats", "no_worse_than": "is no worse than", "above": "is above", "below": "is below"}
    share = f" by more than {test.within:.0%}" if test.within is not None else ""
    per = f" per {_per(test.per)[1]}" if test.per else ""
    of_margin = test.equivalent_to or test.all_equivalent or test.by or (test.beats and test.within)
    if of_margin or (test.no_worse_than and not shares) or metric.metric.log:
        return f"{_asserted(test, metric)}: {metric.heading}{per}"
    than = test.rival or f"{test.bound / metric.metric.scale:g}"
    return f"{test.variant} {verbs[test.rule]} {than}{share}: {metric.heading}{per}"


def _asserted(test: ClaimTest, metric: Measurement) -> str:
    """A test whose margin is a factor or a difference, or that is about equivalence."""

    def size(value: float, above: float) -> str:
        if metric.metric.log or (metric.metric.relative and above):
            return f"x {value + 1 - above:g}"
        return f"{value:.0%}" if metric.metric.relative else f"{value:g}"

    within = f" within {size(test.within, 0)}" if test.within else ""
    by = f" by more than {size(test.by, 1)}" if test.by else ""
    if test.all_equivalent is not None:
        return f"{', '.join(test.rows)} are equivalent{within}"
    if test.equivalent_to is not None:
        return f"{test.variant} is equivalent to {test.rival}{within}"
    if test.beats is not None:
        return f"{test.variant} beats {test.rival}{by}" + (f" (equivalent{within})" if within else "")
    if test.no_worse_than is not None:
        return f"{test.variant} is no worse than {test.rival} by more than {size(test.within or 0.0, 0)}"
    return f"{test.variant} is {test.rule} {test.bound / metric.metric.scale:g}"


def _evidence(one: _Values) -> tuple[str, str]:
    """The gap (or the mean) with its interval, and the same with what it is a gap of."""
    ours, theirs, gaps = ([x / one.metric.metric.scale for x in own] for own in (one.ours, one.theirs, one.gaps))
    least = one.least / one.metric.metric.scale
    if one.test.rival is None:
        gap = f"{number(statistics.fmean(ours))} {bounds(ours, least)}"
        return gap, gap
    base, mean_gap = statistics.fmean(theirs), statistics.fmean(gaps)
    gap = f"{number(mean_gap)} {bounds(gaps, least)}"
    gap += f" ({mean_gap / abs(base):+.1%})" if base and one.metric.metric.relative else ""
    return gap, f"{number(statistics.fmean(ours), 4)} against {number(base, 4)}, gap {gap}"


def _within(one: _Values, margin: float) -> bool:
    base = statistics.fmean(one.theirs)
    return bool(base) and abs(statistics.fmean(one.gaps) / base) <= margin
