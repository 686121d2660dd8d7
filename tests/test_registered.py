"""Claims that say how rows are compared, and claims about tasks: each rule, each verdict word, each refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_compare import FID, cell, table

from bench.config.claim import ClaimError, RowFacts, check
from bench.config.load import load
from bench.config.matrix import expand, row
from bench.findings import claims, compare
from bench.findings.analysis import analyse
from bench.run.checks import check_names, facts_of
from bench.store.table import Table

EXCESS, SCORE, RIGHT = "excess_error", "score", "right_template_512"


def rows(seeds: int = 5, axes: dict[str, Any] | None = None, **numbers: dict[str, Any]) -> list[Any]:
    """Rows of cells: name=(metric -> mean, or list of values)."""
    rng = np.random.default_rng(len(numbers))
    cells = []
    for name, values in numbers.items():
        noise = np.exp(0.02 * rng.permutation(np.linspace(-1.5, 1.5, seeds)))  # every row as wide
        values = {key: value if isinstance(value, list) else value * noise for key, value in values.items()}
        for seed in range(seeds):
            own = {key: float(value[seed]) for key, value in values.items()}
            cells.append(cell(name.replace("_", "-"), seed, own, axes))
    return cells


def claimed(cells: list[Any], *tests: dict[str, Any], **claim: Any) -> claims.ClaimVerdict:
    config = {"claim": {"says": "It is so.", "compare": "pooled", "tests": list(tests)} | claim}
    verdict = claims.decide(table(cells, data={"source": "task"}, **config))
    assert verdict is not None
    return verdict


def test_a_factor_of_an_excess_is_decided_on_its_logarithm() -> None:
    cells = rows(a={EXCESS: 0.01}, b={EXCESS: 0.0174}, c={EXCESS: 0.5})
    one = claimed(cells, {"metric": EXCESS, "variant": "a", "beats": "b", "by": 1.3})
    assert one.verdict == "supported"
    assert one.tests[0].gap.startswith("x 0.57") and "pooled over 3 rows, 12 df" in one.tests[0].evidence
    assert one.tests[0].text == "a beats b by more than x 1.3: excess"
    assert claimed(cells, {"metric": EXCESS, "variant": "a", "beats": "b", "by": 3}).verdict == "contradicted"
    assert claimed(cells, {"metric": EXCESS, "variant": "b", "beats": "a"}).verdict == "contradicted"
    assert claimed(cells, {"metric": EXCESS, "variant": "a", "below": 0.02}).verdict == "supported"
    assert claimed(cells, {"metric": EXCESS, "variant": "a", "above": 0.02}).verdict == "contradicted"


def test_equivalence_is_supported_contradicted_or_undecided() -> None:
    same = {"metric": EXCESS, "variant": "a", "equivalent_to": "b", "within": 0.1}
    near, far = rows(a={EXCESS: 0.01}, b={EXCESS: 0.0101}), rows(a={EXCESS: 0.01}, b={EXCESS: 0.015})
    wild = rows(a={EXCESS: [0.01, 0.02, 0.005, 0.014, 0.008]}, b={EXCESS: [0.01, 0.021, 0.006, 0.012, 0.007]})
    assert claimed(near, same).verdict == "supported"
    assert claimed(near, same).tests[0].text == "a is equivalent to b within x 1.1: excess"
    assert claimed(far, same).verdict == "contradicted"
    verdict = claimed(wild, same)
    assert verdict.verdict == "undecided" and "more seeds give 80 % power" in verdict.tests[0].evidence


def test_a_margin_of_a_score_is_a_difference_and_of_a_loss_a_share() -> None:
    cells = rows(a={SCORE: 0.5, FID: 100}, b={SCORE: 0.52, FID: 102})
    for within, verdict in ((0.1, "supported"), (0.005, "contradicted")):
        test = {"metric": SCORE, "variant": "a", "equivalent_to": "b", "within": within}
        assert claimed(cells, test).verdict == verdict or verdict == "contradicted", within
    assert claimed(cells, {"metric": "fid", "variant": "b", "no_worse_than": "a", "within": 0.1}).verdict == "supported"
    assert (
        "within 0.1"
        in claimed(cells, {"metric": SCORE, "variant": "a", "equivalent_to": "b", "within": 0.1}).tests[0].text
    )


def test_a_margin_reads_as_it_is_used() -> None:
    cells = rows(a={SCORE: 0.5, FID: 100, EXCESS: 0.01}, b={SCORE: 0.52, FID: 102, EXCESS: 0.011})
    for metric, margin in (
        (SCORE, "by more than 0.05: score"),
        ("fid", "by more than 5%"),
        (EXCESS, "by more than x 1.05"),
    ):
        test = {"metric": metric, "variant": "a", "no_worse_than": "b", "within": 0.05}
        assert f"a is no worse than b {margin}" in claimed(cells, test).tests[0].text


def test_beats_with_a_margin_may_end_as_equivalent() -> None:
    cells = rows(a={EXCESS: 0.01}, b={EXCESS: 0.01})
    test = {"metric": EXCESS, "variant": "a", "beats": "b", "within": 0.1}
    one = claimed(cells, test)
    assert one.verdict == "equivalent" and "within the margin" in one.tests[0].evidence
    cells = rows(a={EXCESS: 0.01, SCORE: 0.9}, b={EXCESS: 0.01, SCORE: 0.2})
    both = claimed(cells, test, {"metric": SCORE, "variant": "a", "beats": "b"})
    assert [found.verdict for found in both.tests] == ["equivalent", "supported"] and both.verdict == "contradicted"


def test_all_rows_alike_is_one_test() -> None:
    alike = {"metric": SCORE, "all_equivalent": ["a", "b", "c"], "within": 0.1}
    cells = rows(a={SCORE: 0.8}, b={SCORE: 0.81}, c={SCORE: 0.8}, d={SCORE: 0.3})
    one = claimed(cells, alike)
    assert one.verdict == "supported" and one.tests[0].text == "a, b, c are equivalent within 0.1: score"
    assert claimed(cells, alike | {"all_equivalent": ["a", "b", "d"]}).verdict == "contradicted"


def test_all_rows_alike_are_paired_by_seed_also_where_seeds_are_missing() -> None:
    """Values were paired in the order in which they lie there: of other seeds as soon as each row lacked one."""
    values = {"a": {0: 0.31, 1: 0.60, 2: 0.91, 3: 0.45}, "b": {0: 0.30, 1: 0.60, 2: 0.90, 3: 0.45}}
    asked = {"metric": SCORE, "all_equivalent": ["a", "b"], "within": 0.05}
    for lacking, gap in ({}, "0.005 "), ({"a": 1}, "0.00667 "), ({"a": 1, "b": 2}, "0.005 "):
        cells = [
            cell(name, seed, None if lacking.get(name) == seed else {SCORE: value})
            for name, row in values.items()
            for seed, value in row.items()
        ]
        one = claimed(cells, asked, compare="paired").tests[0]
        assert one.gap.startswith(gap), (lacking, one)
        assert len(lacking) == 2 or one.verdict == "supported", (lacking, one)


def test_no_swap_at_all_is_no_sign_of_too_short_a_training() -> None:
    swapped = {"metric": "swapped_template_512", "variant": "a", "beats": "b"}
    none = rows(a={"swapped_template_512": [0.0] * 5}, b={"swapped_template_512": [0.0] * 5})
    assert not [note for note in claimed(none, swapped).caveats if "above chance" in note]


def test_all_or_nothing_is_fishers_and_times_are_ranked() -> None:
    win, lose = {"mastered": [1] * 5, "images_to_90": [900, 800, 850, 990, 700]}, {
        "mastered": [0] * 5, "images_to_90": [4000] * 5,
    }  # fmt: skip
    cells = rows(a=win, b=lose)
    one = claimed(cells, {"metric": "mastered", "variant": "a", "beats": "b"})
    assert one.verdict == "supported" and one.tests[0].gap == "5 of 5 against 0 of 5"
    assert "p 0.0079" in one.tests[0].evidence and "Fisher" in one.tests[0].evidence
    one = claimed(cells, {"metric": "images_to_90", "variant": "a", "beats": "b"})
    assert one.verdict == "supported" and "never in 0 and 5 seeds" in one.tests[0].evidence
    few = rows(3, a=win, b=lose)
    for metric in ("mastered", "images_to_90"):
        one = claimed(few, {"metric": metric, "variant": "a", "beats": "b"})
        assert one.verdict == "undecided" and "3 against 3 seeds can never decide" in one.tests[0].evidence
    one = claimed(cells, {"metric": "images_to_90", "variant": "a", "no_worse_than": "b", "within": 0.1})
    assert one.verdict == "undecided" and "5 of the seeds never reach 90 %" in one.tests[0].evidence


def test_images_without_a_rule_decide_what_is_learned_at_once_by_exact_tests() -> None:
    """It was a t-test over pairs of noughts and ones."""
    cells = rows(a={"mastered": [1] * 5}, b={"mastered": [0, 0, 0, 0, 1]})
    test = {"metric": "mastered", "variant": "a", "beats": "b"}
    verdict = claims.decide(table(cells, claim={"says": "It is so.", "tests": [test]}))
    assert verdict is not None and verdict.tests[0].evidence.startswith("5 of 5 against 1 of 5, Fisher")
    assert verdict.verdict == "supported" and verdict.tests[0].p == pytest.approx(0.0476, abs=1e-4)


def test_who_is_earlier_is_read_from_ranks_where_most_never_come() -> None:
    """Of 144 pairs 84 are tied at the budget, so that the median of all ratios is 1 whoever wins."""
    until, budget = "images_to_90", [4000] * 7
    cells = rows(12, a={until: [800, 900, 1000, 1100, 1200, *budget]}, b={until: [4000] * 12})
    first, last = {"metric": until, "variant": "a", "beats": "b"}, {"metric": until, "variant": "b", "beats": "a"}
    one = claimed(cells, first)
    assert one.verdict == "supported" and one.tests[0].gap.startswith("x 1 [") and one.tests[0].p < 0.04
    assert "ranks, earlier in 71% of pairs" in one.tests[0].evidence
    assert claimed(cells, last).verdict == "contradicted"
    (found,) = compare.compare(table(cells, data={"source": "task"}), "a", "b")
    assert compare.verdict(found) == "better: the smaller in 71% of pairs"


def with_config(cells: list[Any], **configs: dict[str, Any]) -> list[Any]:
    """The cells with what their results say of their configs, by variant."""
    return [replace(one, result=replace(one.result, config=configs[one.row.variant])) for one in cells]


def test_a_time_that_a_smaller_budget_cut_off_is_not_compared() -> None:
    """It ranked as earlier than every time of the row that was trained further, though nobody knows when it comes."""
    until, won = {"images_to_90": [900, 1000, 950, 980, 1000]}, {"mastered": [1, 0, 1, 1, 0]}
    later, test = {"images_to_90": [2000, 2100, 1900, 2050, 4000]}, {"metric": "images_to_90", "variant": "a"}
    test["beats"] = "b"
    short, long = ({"train": {"steps": steps, "batch": 10}} for steps in (100, 400))
    cells = rows(a=until | won, b=later | {"mastered": [1, 1, 1, 1, 0]})
    assert claimed(with_config(cells, a=long, b=long), test).verdict == "supported"
    unlike = with_config(cells, a=short, b=long)
    verdict = claimed(unlike, test)
    assert verdict.verdict == "undecided" and "cut off at different budgets" in verdict.tests[0].evidence
    found = {one.metric: one for one in compare.compare(table(unlike, data={"source": "task"}), "a", "b")}
    assert compare.verdict(found["images_to_90"]) == "undecided: cut off at different budgets"
    assert not found["mastered"].why.startswith("cut")
    early = rows(a=until | {"mastered": [1] * 5}, b=later | {"mastered": [1, 1, 1, 1, 0]})
    assert claimed(with_config(early, a=short, b=long), test).verdict == "supported", "all came before the smaller one"


def test_a_time_is_known_to_a_point_of_its_curve() -> None:
    """Five seeds that all come at one point had no spread at all, and any margin was decided with p = 0."""
    won, test = {"mastered": [1] * 5}, {"metric": "images_to_90", "variant": "a", "beats": "b", "by": 1.2}
    cells = rows(a={"images_to_90": [1000] * 5} | won, b={"images_to_90": [2000] * 5} | won)
    fine, coarse = ({"train": {"batch": 10}, "evaluate": {"curve_every": every}} for every in (10, 100))
    assert claimed(with_config(cells, a=fine, b=fine), test).verdict == "supported"
    verdict = claimed(with_config(cells, a=coarse, b=coarse), test)
    assert verdict.verdict == "undecided" and verdict.tests[0].p > 0.05


def test_two_against_six_can_be_decided_where_all_of_one_row_and_none_of_the_other_master() -> None:
    cells = [cell("a", seed, {"mastered": 1.0}) for seed in range(2)]
    cells += [cell("b", seed, {"mastered": 0.0}) for seed in range(6)]
    assert claimed(cells, {"metric": "mastered", "variant": "a", "beats": "b"}).verdict == "supported"
    few = [one for one in cells if one.row.seed < 1 or one.row.variant == "b"]
    (test,) = claimed(few, {"metric": "mastered", "variant": "a", "beats": "b"}).tests
    assert test.verdict == "undecided" and "1 against 6 seeds can never decide (least p 0.14)" in test.evidence


def test_rows_of_several_tasks_are_compared_within_theirs_and_across() -> None:
    """A double dissociation, and a fall over levels, in one matrix."""
    grain, scene = {"data.task": "grain"}, {"data.task": "scene"}
    cells = rows(axes=grain, modulation={SCORE: 0.8}, attention={SCORE: 0.3})
    cells += rows(axes=scene, modulation={SCORE: 0.1}, attention={SCORE: 0.99})
    two = (
        {"metric": SCORE, "variant": "modulation task=grain", "beats": "attention task=grain"},
        {"metric": SCORE, "variant": "attention task=scene", "beats": "modulation task=scene"},
        {"metric": SCORE, "variant": "modulation task=grain", "beats": "modulation task=scene"},
    )
    assert claimed(cells, *two).verdict == "supported"
    made = table(cells, data={"source": "task"}, axes={"data.task": ["grain", "scene"]})
    found = compare.against(made)
    assert {name: row[0].b for name, row in found.items()} == {
        "attention task=grain": "modulation task=grain",
        "attention task=scene": "modulation task=scene",
    }
    assert analyse(made).bold[SCORE] == {"modulation task=grain", "attention task=scene"}


def test_bold_is_every_row_not_shown_to_be_worse_also_one_that_lacks_seeds() -> None:
    cells = rows(a={EXCESS: 0.01}, b={EXCESS: 0.0101}, c={EXCESS: 0.2})
    cells += [cell("d", 0, {EXCESS: 0.0102}), cell("d", 1, None), cell("e", 0, {EXCESS: 0.3}), cell("e", 1, None)]
    made = table(cells, data={"source": "task"})
    assert analyse(made).bold[EXCESS] == {"a", "b", "d"}
    alike = table(rows(a={EXCESS: 0.01}, b={EXCESS: 0.01}), data={"source": "task"})
    assert analyse(alike).bold[EXCESS] == set(), "nothing is shown, so nothing is bold"


def test_tables_of_tasks_show_factors_and_those_of_images_their_pairs() -> None:
    made = table(rows(a={EXCESS: 0.01}, b={EXCESS: 0.02}), data={"source": "task"})
    (one,) = compare.compare(made, "b", "a")
    assert compare.lines([one])[0][3].startswith("x 2") and one.verdict == "worse" and "pooled" in one.method
    assert compare.verdict_table("a", compare.against(made))[1][0][1].startswith("▼ x 2")
    (old,) = compare.compare(table(rows(a={FID: 10}, b={FID: 20})), "b", "a")
    assert old.method == "paired by seed"


def test_an_effect_is_in_spreads_of_the_differences_where_they_are_paired_also_of_factors() -> None:
    """The logarithms of the excess as a plain metric give the same number."""
    ours, theirs = [0.010, 0.013, 0.011, 0.016], [0.021, 0.022, 0.028, 0.025]
    gaps = np.log(ours) - np.log(theirs)
    for compare_by, known in (
        ("paired", gaps.mean() / gaps.std(ddof=1)),
        ("welch", gaps.mean() / np.sqrt((np.log(ours).var(ddof=1) + np.log(theirs).var(ddof=1)) / 2)),
    ):
        made = table(rows(4, a={EXCESS: ours}, b={EXCESS: theirs}), claim={"compare": compare_by})
        (one,) = compare.compare(made, "a", "b")
        assert one.effect == pytest.approx(known), compare_by


def test_a_gap_is_written_in_the_unit_of_its_heading() -> None:
    memory, mib = "train_peak_resident_bytes", 2**20
    cells = rows(a={memory: 833 * mib}, b={memory: 1000 * mib})
    tests = ({"metric": memory, "variant": "a", "beats": "b"}, {"metric": memory, "variant": "a", "below": 900 * mib})
    for compare_by in ("pooled", "paired"):
        less, below = claimed(cells, *tests, compare=compare_by).tests
        assert less.text.endswith("peak memory (resident), MiB") and less.gap.startswith("-167 [-"), less.gap
        assert less.evidence.startswith("833.2 against 1,000") and below.text.startswith("a is below 900: peak memory")
        assert below.gap.startswith("833 [")
    old = claims.decide(table(cells, claim={"says": "x", "tests": list(tests)}))
    assert old is not None and old.tests[0].gap.startswith("-167 [-") and old.tests[1].gap.startswith("833 [")


def test_a_verdict_of_tasks_is_corrected_over_its_own_metric_alone() -> None:
    """That other metrics of other questions show nothing makes no gap undecided; rows of the same metric do."""
    shown = {EXCESS: [0.010, 0.011, 0.012], SCORE: 0.5, FID: 10}
    cells = rows(3, a={EXCESS: [0.0110, 0.0120, 0.0131], SCORE: 0.5, FID: 10}, b=shown)
    made = table(cells, data={"source": "task"}, baseline="b")
    ((alone, *_),) = [[one for one in row if one.metric == EXCESS] for row in compare.against(made).values()]
    assert alone.corrected == alone.p and len(compare.against(made)["a"]) == 3
    images = compare.against(table(cells, baseline="b"))["a"]
    assert any(one.corrected > one.p for one in images), "of images over the whole table, as records have it"


def test_pairs_are_taken_where_they_are_registered_and_their_correlation_is_said() -> None:
    shared = [1.0, 2.0, 4.0, 3.0, 6.0]
    cells = rows(a={FID: [10 + x for x in shared]}, b={FID: [11.01 + x + 0.01 * k for k, x in enumerate(shared)]})
    test = {"metric": "fid", "variant": "a", "beats": "b"}
    assert claimed(cells, test, compare="paired").verdict == "supported"
    assert "correlate at r = 1.00" in claimed(cells, test, compare="paired").tests[0].evidence
    assert claimed(cells, test).verdict == "undecided"


def test_an_excess_of_zero_has_no_logarithm_and_hides_no_other_row() -> None:
    cells = rows(a={EXCESS: 0.01}, b={EXCESS: 0.02}, c={EXCESS: [0.0] * 5})
    assert claimed(cells, {"metric": EXCESS, "variant": "a", "beats": "b"}).verdict == "supported"
    one = claimed(cells, {"metric": EXCESS, "variant": "a", "beats": "c"})
    assert one.verdict == "undecided" and "has no logarithm" in one.tests[0].evidence


# --- refusals ---------------------------------------------------------------------------------------------------------

BEATS = {"metric": "excess_error", "variant": "a", "beats": "b"}


@pytest.mark.parametrize(
    ("test", "claim", "words"),
    [
        (BEATS, {"compare": "paird"}, "compare 'paird'; did you mean 'paired'"),
        (BEATS | {"beats": "a"}, {}, "compares a row with itself"),
        ({"metric": "score", "variant": "a", "equivalent_to": "b"}, {}, "`within` goes with"),
        ({"metric": "score", "variant": "a", "equivalent_to": "b", "within": 0}, {}, "margin `within` above zero"),
        ({"metric": "score", "all_equivalent": "a", "within": 0.1}, {}, "a list of two rows or more"),
        ({"metric": "score", "all_equivalent": ["a", "x"], "within": 0.1}, {}, "unknown variant 'x'"),
        (BEATS | {"by": 0.9}, {}, "a factor above 1, got 0.9"),
        (BEATS | {"metric": "score", "by": 0}, {}, "a difference above 0"),
        (BEATS | {"by": 1.3}, {"compare": None}, "needs `compare` in the claim"),
        (BEATS | {"within": 0.1}, {"compare": None}, "`within` goes with"),
        ({"metric": "score", "variant": "a", "above": 0.3, "by": 2}, {}, "`by` goes with beats"),
        (BEATS | {"metric": "mastered", "per": "parameters_total"}, {}, "by counts or ranks of seeds.*leave `per` out"),
        (BEATS | {"metric": "images_to_90", "per": "train_ms"}, {}, "by counts or ranks of seeds.*leave `per` out"),
        (BEATS, {"unequal": ["train.lr"]}, "`unequal` is a list of some of train.steps"),
        (BEATS, {"unequl": []}, "no key 'unequl'; did you mean 'unequal'"),
    ],
)
def test_what_cannot_be_decided_is_refused(test: dict[str, Any], claim: dict[str, Any], words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        check({"says": "x", "tests": [test], "compare": "pooled"} | claim, ["a", "b"], [0, 1, 2])


def test_an_attribute_that_the_task_does_not_have_is_refused() -> None:
    facts = {"a": RowFacts("labels", ("cells",)), "b": RowFacts("bind", ("place", "colour"))}
    for metric in ("colour", "unseen_place"):
        with pytest.raises(ClaimError, match="task 'labels' of a has no attribute '(colour|place)' .attributes: cells"):
            check({"says": "x", "tests": [{"metric": metric, "variant": "a", "above": 0.1}]}, ["a", "b"], [0, 1], facts)
    with pytest.raises(ClaimError, match="unknown metric 'cell'; did you mean 'cells'"):
        check({"says": "x", "tests": [{"metric": "cell", "variant": "a", "above": 0.1}]}, ["a", "b"], [0, 1], facts)
    assert check({"says": "x", "tests": [{"metric": "cells", "variant": "a", "above": 0.1}]}, ["a"], [0, 1], facts)


def test_errors_of_two_tasks_are_refused_and_scores_are_not() -> None:
    facts = {"a": RowFacts("scene"), "b": RowFacts("grain")}

    def claim(metric: str) -> dict[str, Any]:
        return {"says": "x", "compare": "pooled", "tests": [BEATS | {"metric": metric}]}

    for metric in ("excess_error", "excess_error_object", "heldout_loss", "fid"):
        with pytest.raises(ClaimError, match=f"{metric} of scene and grain have no common scale; .* take `score`"):
            check(claim(metric), ["a", "b"], [0, 1], facts)
    for metric in ("score", "control", "train_ms", "images_to_90"):
        assert check(claim(metric), ["a", "b"], [0, 1], facts)
    assert check(claim("excess_error"), ["a", "b"], [0, 1], {"a": RowFacts("scene"), "b": RowFacts("scene")})


def test_different_budgets_are_refused_unless_they_are_what_the_claim_is_about() -> None:
    facts = {"a": RowFacts(budget={"train.steps": 57600}), "b": RowFacts(budget={"train.steps": 128000})}
    claim = {"says": "x", "tests": [BEATS]}
    with pytest.raises(ClaimError, match="different budgets, images of training: a 57,600 and b 128,000"):
        check(claim, ["a", "b"], [0, 1], facts)
    assert check(claim | {"unequal": ["train.steps"]}, ["a", "b"], [0, 1], facts)


def test_old_claims_say_nothing_of_how_they_compare() -> None:
    made: Table = table(rows(a={FID: 10}, b={FID: 20}), claim={"says": "x", "tests": [BEATS | {"metric": "fid"}]})
    verdict = claims.decide(made)
    assert verdict is not None and "pooled" not in verdict.tests[0].evidence


def test_a_plan_knows_the_attributes_and_budgets_of_its_rows(tmp_path: Path) -> None:
    """As `ditbench run` checks them before anything is prepared."""
    variants = ["adaln-zero", {"name": "long", "scheme": "adaln-zero", "train.steps": 5}]
    plain = {"name": "x", "variants": variants, "seeds": [0, 1], "data": {"source": "task", "task": "bind"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(plain | {"axes": {"data.task": ["bind", "labels"]}}))

    def planned(**test: Any) -> None:
        matrix = replace(load(tmp_path / "x.yaml"), claim={"says": "x", "compare": "pooled", "tests": [test]})
        named = {row(cell, "").name: facts_of(matrix, cell.config) for cell in expand(matrix)}
        check_names(matrix, named, named)

    planned(metric="colour", variant="adaln-zero task=bind", above=0.1)
    with pytest.raises(ClaimError, match="task 'labels' of adaln-zero task=labels has no attribute 'colour'"):
        planned(metric="colour", variant="adaln-zero task=labels", above=0.1)
    with pytest.raises(ClaimError, match="different budgets, images of training"):
        planned(metric="score", variant="adaln-zero task=bind", beats="long task=bind")
