"""Coverage, error rates and power of each rule on synthetic truth: what a verdict says happens as often as it says.

Each check runs on thousands of synthetic comparisons at once where numpy can, and on some hundreds through the code
itself; `-m slow` has ten times as many.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bench.findings import contrasts, jumps
from bench.findings.contrasts import Rule, Sample, bartlett, contrast, pooled_variance
from bench.findings.peers import floor
from bench.findings.statistics import holm, paired_p
from bench.store.metrics import Measurement

MANY = [pytest.param(1, id="quick"), pytest.param(10, id="more", marks=pytest.mark.slow)]


def samples(rng: np.random.Generator, means: np.ndarray, spreads: np.ndarray, seeds: int) -> list[Sample]:
    """A comparison of rows with these true means and standard deviations."""
    values = rng.normal(means[:, None], spreads[:, None], (len(means), seeds))
    return [Sample(tuple(row.tolist())) for row in values]


def rate(count: int, found: Callable[[], bool]) -> float:
    return sum(found() for _ in range(count)) / count


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", MANY)
@pytest.mark.parametrize("rule", ["pooled", "welch", "paired"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_95_percent_interval_covers_the_truth_95_times_in_100(rule: Rule, seeds: int, more: int) -> None:
    rng = np.random.default_rng(seeds)
    means, spreads = np.array([1.0, 0.2, 3.0, 3.0, 0.0, 5.0]), np.full(6, 0.7)

    def covered() -> bool:
        rows = samples(rng, means, spreads, seeds)
        found = contrast(rows[0], rows[1], rows, rule)
        assert found is not None
        low, high = found.interval()
        return low <= 0.8 <= high

    share = rate(800 * more, covered)
    assert 0.93 < share < (0.985 if rule == "welch" else 0.97), share  # Welch's is wide with three seeds


@pytest.mark.parametrize("more", MANY)
@pytest.mark.parametrize(
    "spreads",
    [
        pytest.param((3, 1, 1, 1, 1, 1), id="one of the two is three times as wide"),
        pytest.param((5, 1, 1, 1, 1, 1), id="five times"),
        pytest.param((3, 3, 1, 1, 1, 1), id="both are"),
        pytest.param((10, 10, 1, 1, 1, 1), id="both, ten times"),
        pytest.param((1, 1, 1, 1, 1, 10), id="another row is"),
    ],
)
def test_unequal_variances_are_noticed_before_they_are_pooled(spreads: tuple[float, ...], more: int) -> None:
    """The worst error of a 5 % test is 8 % with three seeds; of pooling without a check it is over 20 %."""
    rng, errors = np.random.default_rng(7), {"checked": 0, "unchecked": 0}
    count = 800 * more
    for _ in range(count):
        rows = samples(rng, np.zeros(6), np.array(spreads, float), 3)
        found = contrast(rows[0], rows[1], rows, "pooled")
        assert found is not None
        errors["checked"] += found.p() < 0.05
        variance, freedom = pooled_variance(rows)
        t = (rows[0].mean - rows[1].mean) / math.sqrt(variance * 2 / 3)
        errors["unchecked"] += 2 * stats.t.sf(abs(t), freedom) < 0.05
    assert errors["checked"] / count < 0.11, errors
    if spreads[0] > 1:
        assert errors["unchecked"] / count > 0.14, errors


def test_equal_variances_are_pooled_and_that_finds_more_than_welch() -> None:
    rng, found = np.random.default_rng(3), {"pooled": 0, "welch": 0}
    for _ in range(800):
        rows = samples(rng, np.array([3.0, 0, 0, 0, 0, 0, 0, 0]), np.ones(8), 3)
        for rule in ("pooled", "welch"):
            one = contrast(rows[0], rows[1], rows, rule)
            assert one is not None
            found[rule] += one.p() < 0.05
    assert found["pooled"] > found["welch"] + 0.07 * 800, found


def test_bartletts_is_scipys_and_levenes_never_refuses_three_seeds() -> None:
    rng = np.random.default_rng(1)
    refused = {"bartlett": 0, "levene": 0}
    for _ in range(300):
        rows = samples(rng, np.zeros(5), np.array([5.0, 1, 1, 1, 1]), 3)
        values = [one.values for one in rows]
        assert bartlett(rows) == pytest.approx(stats.bartlett(*values).pvalue, rel=1e-9)
        refused["bartlett"] += bartlett(rows) < 0.05
        refused["levene"] += stats.levene(*values).pvalue < 0.05
    assert refused["bartlett"] > 120 and refused["levene"] < 15, refused


def test_bartletts_knows_rows_of_unequal_length_and_without_spread() -> None:
    rows = [Sample((1.0, 2.0, 4.0)), Sample((0.0, 0.5)), Sample((3.0,)), Sample((1.0, 1.5, 1.2, 0.0))]
    assert bartlett(rows) == pytest.approx(stats.bartlett(*(r.values for r in rows if len(r.values) > 1)).pvalue)
    assert bartlett([Sample((1.0, 1.0)), Sample((1.0, 2.0))]) == 0.0
    assert bartlett([Sample((1.0, 1.0)), Sample((2.0, 2.0))]) == 1.0
    assert bartlett([Sample((1.0, 2.0))]) == 1.0
    assert bartlett([Sample((1.0, 1.0, 1.0), 0.5 / 256**2)] * 30) == 1.0, "rounding made it nan"


def test_welchs_is_scipys_and_pooled_is_students_for_two_rows() -> None:
    a, b = Sample((1.0, 2.0, 4.0, 3.5)), Sample((0.0, 0.5, 1.8))
    for rule, equal in (("welch", False), ("pooled", True)):
        found = contrast(a, b, [a, b], rule)  # type: ignore[arg-type]
        assert found is not None
        known = stats.ttest_ind(a.values, b.values, equal_var=equal)
        ends = known.confidence_interval()
        assert found.p() == pytest.approx(known.pvalue)
        assert found.interval() == pytest.approx((ends.low, ends.high))


def test_paired_is_scipys_and_a_share_of_b_is_its_own_contrast() -> None:
    a, b = Sample((1.0, 2.0, 4.0)), Sample((0.0, 0.5, 1.8))
    found = contrast(a, b, [], "paired", share=1.1)
    assert found is not None
    assert found.p() == pytest.approx(stats.ttest_rel(a.values, [1.1 * y for y in b.values]).pvalue)


def test_a_row_of_one_seed_borrows_its_spread_and_no_row_has_any_where_none_does() -> None:
    one, rest = Sample((5.0,)), [Sample((1.0, 1.2, 0.9)), Sample((2.0, 2.1, 1.8))]
    found = contrast(one, rest[0], [one, *rest], "pooled")
    assert found is not None and found.freedom == 4
    assert contrast(one, rest[0], [one, *rest], "welch") is None
    assert contrast(one, Sample((1.0,)), [one, Sample((1.0,))], "pooled") is None


@pytest.mark.thorough
@pytest.mark.parametrize("count", [12, 100, 400])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_shares_of_samples_are_found_to_differ_at_most_as_often_as_the_level_says(
    count: int, share: float, seeds: int
) -> None:
    """Also at the levels that Holm leaves; without a floor three differences that are equal by chance give p = 0."""
    rng = np.random.default_rng(count)
    values = rng.binomial(count, share, (4_000, 2, seeds)) / count
    least = math.sqrt(2 * floor(Measurement.parse(f"tone_judge1_{count}")))
    gaps, known = values[:, 0] - values[:, 1], dict[tuple[float, ...], float]()
    for level in (0.05, 0.001):
        wrong = 0
        for gap in np.sort(gaps, axis=1).round(9).tolist():
            key = tuple(gap)
            known[key] = known[key] if key in known else paired_p(gap, least) or 0.0
            wrong += known[key] <= level
        assert wrong / len(gaps) < 1.2 * level + 0.002, level
    if share == 0.99 and count > 12 and seeds == 3:
        assert np.mean([paired_p(gap) == 0 for gap in gaps[:2000].round(9).tolist()]) > 0.005, "none would be wrong"


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", MANY)
def test_of_families_without_any_difference_one_in_twenty_shows_one(more: int) -> None:
    """Holm over the differences of seven rows to one, with the variance pooled over all eight."""
    rng = np.random.default_rng(11)

    def wrong() -> bool:
        rows = samples(rng, np.zeros(8), np.ones(8), 3)
        found = [contrast(row, rows[0], rows, "pooled") for row in rows[1:]]
        ps = holm([one.p() if one else None for one in found])
        return any(p is not None and p <= 0.05 for p in ps)

    assert rate(300 * more, wrong) < 0.09


# --- equivalence ------------------------------------------------------------------------------------------------------


def equivalent(rows: list[Sample], margin: float) -> bool:
    """Two one-sided tests of the first two rows."""
    one = contrast(rows[0], rows[1], rows, "pooled")
    assert one is not None
    return max(one.above(-margin), one.below(margin)) <= 0.05


@pytest.mark.parametrize("more", MANY)
@pytest.mark.parametrize("seeds", [3, 5])
def test_at_the_margins_edge_equivalence_is_found_at_most_one_time_in_twenty(seeds: int, more: int) -> None:
    rng = np.random.default_rng(seeds)
    for gap, allowed in ((3.0, (0.02, 0.075)), (4.0, (0.0, 0.02))):
        means = np.array([gap, 0, 1, 2, 3, 4])
        share = sum(equivalent(samples(rng, means, np.ones(6), seeds), 3.0) for _ in range(800 * more)) / (800 * more)
        assert allowed[0] <= share < allowed[1], (gap, share)


def test_alike_rows_are_found_equivalent_as_often_as_the_power_says() -> None:
    rng, means = np.random.default_rng(2), np.array([0.1, 0, 1, 2])
    margin, seeds = 1.5, 8
    found = rate(800, lambda: equivalent(samples(rng, means, np.ones(4), seeds), margin))
    truth = contrasts.Contrast(0.1, 1.0, 1.0, 2.0, 4.0, "")
    said = contrasts.equivalence_power(truth, truth, (-margin, margin), seeds, 0.05)
    assert abs(found - said) < 0.08, (found, said)


# --- power ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", MANY)
@pytest.mark.parametrize(
    ("rule", "effect", "seeds"), [("pooled", 1.2, 12), ("welch", 1.2, 12), ("paired", 0.9, 12), ("pooled", 2.5, 4)]
)
def test_the_seeds_that_are_advised_decide_four_times_in_five(rule: Rule, effect: float, seeds: int, more: int) -> None:
    """With the true gap and spread; pooled decides somewhat more often, as it is planned without what it pools."""
    rng, rows = np.random.default_rng(5), 6
    spread, tail = (1.0, 1.0) if rule == "paired" else (2.0, 2.0)
    one = contrasts.Contrast(effect, 1.0, 1.0, spread, tail, "")
    assert 2 + (contrasts.more_seeds(one, 2) or 0) == seeds
    assert contrasts.power(one, seeds) >= 0.8 > contrasts.power(one, seeds - 1)
    means, width = (
        np.array([effect, *[0.0] * (rows - 1)]),
        math.sqrt(spread / 2) if rule != "paired" else math.sqrt(0.5),
    )

    def decides() -> bool:
        every = samples(rng, means, np.full(rows, width), seeds)
        found = contrast(every[0], every[1], every, rule)
        assert found is not None
        return found.p() <= 0.05

    share = rate(500 * more, decides)
    assert 0.75 < share < 0.92, share  # seeds are whole: 80 % or somewhat more


def test_no_seeds_are_advised_where_there_are_enough_or_none_would_do() -> None:
    def of(gap: float) -> contrasts.Contrast:
        return contrasts.Contrast(gap, 0.1, 10.0, 2.0, 2.0, "")

    assert [contrasts.more_seeds(of(gap), 5) for gap in (5.0, 0.0, 1e-6)] == [None, None, None]
    assert contrasts.more_seeds(of(0.2), 5) == stats_needed(0.2) - 5


def stats_needed(effect: float) -> int:
    """Seeds a row by the tables of two-sample t-tests (statsmodels: 393.4 for 0.2)."""
    assert effect == 0.2
    return 394


# --- what is learned at once ------------------------------------------------------------------------------------------


def test_five_against_five_decide_and_three_against_three_never_can() -> None:
    assert jumps.fisher_p([1] * 5, [0] * 5) == pytest.approx(0.0079, abs=1e-4)
    assert jumps.fisher_p([1] * 3, [0] * 3) == pytest.approx(0.1)
    assert jumps.rank_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(0.0079, abs=1e-4)
    assert jumps.too_few(5, 5, 0.05) == ""
    assert jumps.too_few(3, 3, 0.05) == "3 against 3 seeds can never decide (least p 0.1); 4 against 4 can"
    assert "6 against 6 can" in jumps.too_few(5, 5, 0.05 / 10), "Holm over ten tests leaves less"


def test_the_least_p_of_unequal_rows_is_that_of_the_test_in_question() -> None:
    """Without a mirrored outcome Fisher's is half of that of ranks, so that 2 against 6 can decide."""
    for n, m in ((2, 6), (6, 2), (3, 5), (4, 4), (1, 30)):
        known = [stats.fisher_exact([[i, n - i], [j, m - j]]).pvalue for i in range(n + 1) for j in range(m + 1)]
        assert jumps.least_p(n, m, jumps.FISHER) == pytest.approx(min(known))
        assert jumps.least_p(n, m) == pytest.approx(jumps.rank_p(range(n), range(n, n + m)))
    assert jumps.too_few(2, 6, 0.05, jumps.FISHER) == ""
    assert "2 against 6 seeds can never decide (least p 0.071)" in jumps.too_few(2, 6, 0.05, jumps.RANKS)


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.9])
def test_fishers_error_is_at_most_its_level(chance: float) -> None:
    """Summed over all outcomes of five against five: exact, no simulation."""
    size = sum(
        stats.binom.pmf(i, 5, chance) * stats.binom.pmf(j, 5, chance)
        for i in range(6)
        for j in range(6)
        if jumps.fisher_p([1] * i + [0] * (5 - i), [1] * j + [0] * (5 - j)) <= 0.05
    )
    assert size <= 0.05


@pytest.mark.parametrize("cut", range(11))
def test_the_rank_tests_error_is_at_most_its_level_also_where_the_budget_cuts(cut: int) -> None:
    """Over all orders of five against five, the last `cut` of them equal as the budget makes them: no simulation."""
    times = [float(min(k, 10 - cut)) for k in range(10)]
    known: dict[tuple[float, ...], float] = {}
    wrong = 0
    for ours in itertools.combinations(range(10), 5):
        a = tuple(times[k] for k in ours)
        if a not in known:
            b = [times[k] for k in range(10) if k not in ours]
            known[a] = known[tuple(b)] = jumps.rank_p(a, b)  # two-sided
        wrong += known[a] <= 0.05
    assert wrong / math.comb(10, 5) <= 0.05
    low, high = times[:5], times[5:]
    assert jumps.rank_p(low, high) == jumps.rank_p(high, low) == known[tuple(low)]


@pytest.mark.parametrize("seeds", [11, 12, 20])
@pytest.mark.parametrize("early", [4, 8])
def test_the_rank_tests_error_is_at_most_its_level_where_the_budget_cuts_most_seeds(seeds: int, early: int) -> None:
    """Of `early` times among two rows that are alike, by how many are of the first: summed, and each order sampled."""
    rng, size = np.random.default_rng(early), 0.0
    for count in range(early + 1):
        share = math.comb(early, count) * math.comb(2 * seeds - early, seeds - count) / math.comb(2 * seeds, seeds)
        wrong = 0
        for _ in range(20):
            times = rng.permutation(early).tolist()
            a, b = (times[:count] + [early] * (seeds - count)), (times[count:] + [early] * (seeds - early + count))
            wrong += jumps.rank_p(a, b) <= 0.05
        size += share * wrong / 20
    assert size <= 0.05


def test_with_ties_ranks_are_those_of_all_orders() -> None:
    assert jumps.rank_p([1, 2, 3, 4] + [9] * 7, [9] * 11) == pytest.approx(2 * math.comb(18, 7) / math.comb(22, 11))
    rng, method = np.random.default_rng(1), stats.PermutationMethod(n_resamples=10**5)
    for n, m in ((2, 3), (3, 6), (5, 5), (2, 7)):
        a, b = rng.integers(0, 4, n).tolist(), rng.integers(0, 4, m).tolist()
        assert jumps.rank_p(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method=method).pvalue)
    assert jumps.rank_p([5] * 4, [5] * 6) == 1.0


def test_orders_that_are_sampled_give_the_exact_p() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 9, 40).tolist(), rng.integers(2, 11, 40).tolist()
    ranks = jumps._ranks([*a, *b])
    exact, sampled = (tails(tuple(sorted(ranks)), 40, sum(ranks[:40])) for tails in (jumps._exact, jumps._sampled))
    assert sampled == pytest.approx(exact, abs=0.003)
    many = [rng.normal(shift, 1, 60).tolist() for shift in (0, 1)]
    assert jumps.rank_p(*many) == jumps.rank_p(*many) < 0.001, "one seed"


def test_ranks_without_ties_are_mann_and_whitneys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(0, 1, 4).tolist(), rng.normal(1, 1, 6).tolist()
        assert jumps.rank_p(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)


def test_the_factor_between_times_has_an_interval_that_covers_it() -> None:
    rng, seeds = np.random.default_rng(4), 5

    def covered() -> bool:
        a, b = rng.lognormal(6.0 + math.log(2), 0.4, seeds), rng.lognormal(6.0, 0.4, seeds)
        _, low, high = jumps.ratio(a.tolist(), b.tolist(), 0.05)
        assert low is not None and high is not None
        return low <= 2.0 <= high

    assert 0.945 < rate(800, covered) < 0.99  # exact for U, whose steps are wide with five seeds: 96.8 %
    assert jumps.ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.05)[1:] == (None, None)
