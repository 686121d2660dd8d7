"""Whether ranks on the tasks predict ranks on images: the rule on synthetic truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bench.findings.summary import VariantSummary
from bench.studies import validation


def row(name: str, **values: list[float]) -> VariantSummary:
    by_seed = {key: dict(enumerate(seeds)) for key, seeds in values.items()}
    return VariantSummary(name, [], by_seed)


def test_the_correlation_is_spearmans_ties_included() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 5, 9).tolist(), rng.normal(size=9).tolist()
        assert validation.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_a_perfect_order_of_six_has_the_exact_p_of_two_in_720() -> None:
    assert validation.permutation_p(range(6), range(6)) == pytest.approx(2 / 720)
    assert validation.permutation_p(range(6), [5, 4, 3, 2, 1, 0]) == pytest.approx(2 / 720)


def test_ranks_without_a_relation_are_decided_in_one_of_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    decided = 0
    for _ in range(400):
        a, b = rng.normal(size=6).tolist(), rng.normal(size=6).tolist()
        one = validation.Correlation("r", "m", [], validation.spearman(a, b), validation.permutation_p(a, b), None)
        decided += validation.judged([one])[0].verdict != "undecided"
    assert decided / 400 < 0.08


def test_a_lower_loss_is_a_better_rank_and_a_reversed_order_contradicts() -> None:
    names = [f"s{k}" for k in range(8)]
    scores = {name: float(k) for k, name in enumerate(names)}
    better = [row(name, heldout_loss=[1 - k / 10, 1.01 - k / 10]) for k, name in enumerate(names)]
    worse = [row(name, heldout_loss=[k / 10, k / 10]) for k, name in enumerate(names)]
    good, bad = (validation.correlation(scores, rows, "r", "heldout_loss") for rows in (better, worse))
    assert good.rho == pytest.approx(1) and good.agreement == pytest.approx(1)
    assert [one.verdict for one in validation.judged([good, bad])] == ["supported", "contradicted"]


def test_a_scheme_that_lacks_a_task_is_left_out() -> None:
    rows = [row("a task=x level=medium", score=[0.5]), row("a task=y level=medium", score=[0.7])]
    rows += [row("b task=x level=medium", score=[0.9]), row("b task=x level=hard", score=[0.1])]
    assert validation.task_scores(rows, "level=medium", "score") == {"a": pytest.approx(0.6)}


def test_too_few_schemes_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="share 1 schemes"):
        validation.correlation({"a": 1.0}, [row("a", heldout_loss=[1.0])], "systems", "heldout_loss")
