"""What is bold: the best of a column is chosen from the numbers it is compared by, and arms are no candidates."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import studentized_range
from test_compare import KID, cell, table

from bench.findings import best, compare, peers
from bench.findings.analysis import analyse
from bench.findings.contrasts import Rule
from bench.findings.statistics import holm, range_p
from bench.findings.summary import VariantSummary, summaries
from bench.store.metrics import Measurement
from bench.store.table import CellRecord, Table
from bench.views.capability import capability

COLUMN, SCORE, EXCESS = Measurement.parse(KID), "score", "excess_error"
MANY = [pytest.param(1, id="quick"), pytest.param(10, id="more", marks=pytest.mark.slow)]


@cache
def cells(name: str, seeds: int) -> list[CellRecord]:
    return [cell(name, seed, {KID: 1.0}) for seed in range(seeds)]


def rows(values: np.ndarray) -> list[VariantSummary]:
    """Rows of a column with these values, (rows, seeds)."""
    names = [f"row-{k}" for k in range(len(values))]
    numbers = [{KID: dict(enumerate(own))} for own in values.tolist()]
    return [VariantSummary(n, cells(n, values.shape[1]), own) for n, own in zip(names, numbers, strict=True)]


def decided(found: list[VariantSummary], rule: Rule) -> bool:
    shown = best.not_worse(found, COLUMN) if rule == "paired" else best._not_shown_worse(found, COLUMN, rule)
    return bool(shown)


# --- a comparison with the best of the same numbers ---------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [2, 5, 18, 40])
@pytest.mark.parametrize("freedom", [2, 8, 36, 200])
def test_the_range_is_scipys(rows: int, freedom: int) -> None:
    for level in (0.5, 0.05, 0.01):
        assert range_p(studentized_range.ppf(1 - level, rows, freedom), rows, freedom) == pytest.approx(level, abs=2e-4)
    assert range_p(0.0, rows, freedom) == 1.0 and range_p(1e6, rows, freedom) < 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("more", MANY)
@pytest.mark.parametrize("rule", ["pooled", "welch", "paired"])
@pytest.mark.parametrize(("count", "seeds"), [(5, 3), (5, 5), (30, 3)])
def test_of_columns_of_rows_that_are_alike_one_in_twenty_shows_a_best(
    count: int, seeds: int, rule: Rule, more: int
) -> None:
    rng, many = np.random.default_rng(count + seeds), (400 if count < 30 else 120) * more
    shared = rng.normal(0, 3, (many, 1, seeds)) if rule == "paired" else 0.0
    wrong = sum(decided(rows(one), rule) for one in rng.normal(0, 1, (many, count, seeds)) + shared)
    assert wrong / many < 0.05 + 3 * (0.05 * 0.95 / many) ** 0.5, wrong / many


def test_a_correction_over_the_others_alone_decides_a_quarter_of_columns_of_30_rows_that_are_alike() -> None:
    """The rule that was: it takes the best for a row that was named before."""
    rng, wrong = np.random.default_rng(0), 0
    for values in rng.normal(0, 1, (60, 30, 3)):
        found = rows(values)
        first = min(found, key=lambda row: row.mean(KID) or 0.0)
        others = [compare.difference(row, first, KID, "pooled", found) for row in found if row is not first]
        wrong += any(p is not None and p <= 0.05 for p in holm([one.p for one in others]))
    assert wrong / 60 > 0.12, wrong / 60


@pytest.mark.parametrize("rule", ["pooled", "paired"])
def test_a_best_that_is_far_ahead_is_found(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    gaps = np.array([0.0, 0.0, 20.0, 21.0, 25.0])[:, None]
    found = 0
    for noise in rng.normal(0, 0.3, (40, 5, 5)):
        one = rows(gaps + noise)
        shown = best.not_worse(one, COLUMN) if rule == "paired" else best._not_shown_worse(one, COLUMN, rule)
        found += shown == {"row-0", "row-1"}
    assert found > 36


# --- arms -------------------------------------------------------------------------------------------------------------


def suite(*, arms: bool, **claim: object) -> Table:
    """Three schemes and two arms on a task, the oracle the best of all and the blind the worst."""
    rng, found = np.random.default_rng(3), []
    means = {"sd3": 0.9, "adaln": 0.89, "film": 0.5} | ({"oracle": 0.99, "blind": 0.001} if arms else {})
    noise = rng.normal(0, 0.01, (5, 4))
    for k, (name, mean) in enumerate(means.items()):
        for seed in range(4):
            wide = 0.1 if name in ("oracle", "blind") else 1.0
            value = mean + wide * float(noise[k, seed])
            one = cell(f"{name}s" if name == "blind" else name, seed, {SCORE: value, EXCESS: 1.01 - value})
            assert one.result is not None
            one.result.config["prompt"] = {"arm": name if wide < 1 else "none"}
            one.result.config["data"] = {"task": "bind"}
            found.append(one)
    return table(found, data={"source": "task", "task": "bind"}, **claim)


def test_an_arm_is_neither_bold_nor_what_schemes_are_judged_against() -> None:
    plain, bounded = analyse(suite(arms=False)), analyse(suite(arms=True))
    assert plain.bold[SCORE] == bounded.bold[SCORE] == {"sd3", "adaln"}
    assert plain.verdicts == bounded.verdicts, "neither Holm's family nor the pooled variance knows of arms"
    assert bounded.table.cells[-1].row.variant == "blinds" and bounded.row("blinds").arm == "blind", "whatever its name"
    known = capability(bounded)
    assert known is not None and known.arms == {"oracle": "oracle", "blinds": "blind"}


def test_an_arm_that_is_named_is_compared_and_lends_schemes_nothing() -> None:
    plain, bounded = suite(arms=False), suite(arms=True)
    assert compare.compare(plain, "sd3", "film") == compare.compare(bounded, "sd3", "film")
    (score, _) = compare.compare(bounded, "oracle", "sd3", [SCORE, EXCESS])
    assert score.verdict == "better"
    beside = [row.name for row in peers.peers(summaries(bounded), analyse(bounded).row("oracle"))]
    assert beside == ["sd3", "adaln", "film", "oracle"]
    claim = {"says": "x", "tests": [{"metric": SCORE, "variant": "sd3", "beats": "film"}]}
    tests = [analyse(suite(arms=arms, claim=claim)).claim.tests for arms in (False, True)]  # type: ignore[union-attr]
    assert tests[0] == tests[1]


def test_the_first_row_that_is_no_arm_is_the_baseline() -> None:
    made = suite(arms=True)
    made.cells.sort(key=lambda one: one.row.variant != "oracle")
    assert compare.baseline(made) == "sd3" and set(compare.against(made)) == {"adaln", "film"}
    made.manifest["config"]["baseline"] = "oracle"
    assert set(compare.against(made)) == {"sd3", "adaln", "film"}


def test_a_row_without_a_result_is_an_arm_by_its_name() -> None:
    assert [row.arm for row in summaries(table([cell("oracle", 0, None), cell("sd3-blind", 0, None)]))] == [
        "oracle",
        "",
    ]


def test_the_best_of_a_factor_is_that_of_the_logarithms() -> None:
    """One seed of eight that learned nothing made another row the best, so that a row shown to be worse was bold."""
    rng = np.random.default_rng(0)
    values = {"a": 0.037 * np.exp(0.05 * rng.normal(size=8)), "b": 0.001 * np.exp(0.05 * rng.normal(size=8))}
    values["b"][7] = 0.3
    values["c"] = 0.4 * np.exp(0.05 * rng.normal(size=8))
    made = [cell(name, s, {"excess_error": float(v)}) for name, row in values.items() for s, v in enumerate(row)]
    of_tasks = table(made, data={"source": "task"})
    rows = summaries(of_tasks)
    worse = {one.a for one in compare.judged([compare.difference(rows[0], rows[1], "excess_error", "pooled", rows)])
             if one.verdict == "worse"}  # fmt: skip
    assert worse == {"a"}
    assert best.bold(of_tasks, rows, Measurement.parse("excess_error")) == {"b"}
