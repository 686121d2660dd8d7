"""Verdicts on cells with known truth: intervals cover what they say, and nothing is found where nothing is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config.claim import ClaimError, check
from bench.findings import claims, compare, fairness, peers, statistics
from bench.findings.analysis import analyse
from bench.findings.ladder import choices, ladders
from bench.findings.summary import find_row, summaries
from bench.store.folders import Row
from bench.store.metrics import Measurement, find
from bench.store.result import Result
from bench.store.table import CellRecord, Table
from bench.views.records import newest_records
from bench.views.sheets import sheets
from bench.views.text import claims_markdown

FID, KID, LOCAL = "fid_efficientnet_lite0_400", "kid_efficientnet_lite0_400", "local_judge1_400"


def cell(
    variant: str, seed: int, numbers: dict[str, float] | None, axes: dict[str, Any] | None = None, **provenance: Any
) -> CellRecord:
    """A finished cell with these numbers, or one that diverged."""
    row = Row(f"{variant}-{seed}-{len(axes or {})}", variant, variant, seed, {}, axes or {}, "DiT-S/2", "scenes")
    if numbers is None:
        return CellRecord(row, "diverged", "the loss is nan at step 7", None)
    digests = {
        "initial_backbone_weights": f"w{seed}",
        "batch": f"b{seed}",
        "chance": f"c{seed}",
        "data": "d",
        "prompts": "p",
    }
    about = {
        "commit": "a" * 40,
        "dirty": False,
        "hardware": {"device": "cpu", "cpu": "EPYC", "cores": 2, "memory_bytes": 2**34},
        "threads": 2,
        "versions": {"torch": "2.11"},
        "seeds": {"train": seed, "evaluate": 1},
        "digests": digests,
        "measured": {"extractor": "efficientnet-lite0", "samples": 400},
        "attempts": 1,
        "started": 0.0,
        "ended": 1.0,
    } | provenance
    config = {"scheme": variant, "options": {}, "seed": seed, "train": {"steps": 100, "lr": 1e-3}}
    return CellRecord(row, "done", "", Result(row.cell, numbers, {}, config, about))


def table(cells: list[CellRecord], **config: Any) -> Table:
    return Table("made", cells, {"config": config, "command": "test"})


def two(a: list[float], b: list[float], key: str = FID) -> Table:
    return table([cell(n, s, {key: v}) for n, vs in (("a", a), ("b", b)) for s, v in enumerate(vs)])


def verdicts(made: Table) -> tuple[list[str], list[list[str]]]:
    return compare.verdict_table(compare.baseline(made), compare.against(made))


def test_rates_of_two_launches_of_one_command_are_timed_in_different_runs() -> None:
    """A record of a ditbench that noted no launches is still known by its command."""
    rate, values = "train_images_per_second", [700.0, 710.0, 690.0]

    def why(*launches: str | None) -> str:
        noted = [{"launch": one} if one else {} for one in launches]
        cells = [
            cell(name, seed, {rate: value * (2 - k)}, command="ditbench run m.yaml", **noted[k])
            for k, name in enumerate("ab")
            for seed, value in enumerate(values)
        ]
        return compare.compare(table(cells), "a", "b", [rate])[0].why

    assert why("1a2b", "3c4d") == why("1a2b", None) == why("1a2b", "1a2b + 3c4d") == compare.APART
    assert why("1a2b", "1a2b") == why(None, None) == ""


# --- statistics with known truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_t_interval_covers_what_it_says(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    hits = 0
    for values in rng.normal(7.0, 2.0, (600, seeds)):
        low, high = statistics.interval(values.tolist())  # type: ignore[misc]
        hits += low <= 7.0 <= high
    assert 0.92 < hits / 600 < 0.98


def bootstrap(values: np.ndarray, chance: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of the mean over 2,000 resamples."""
    means = chance.choice(values, (2000, len(values))).mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def test_bootstrap_over_three_seeds_covers_less_than_it_says_and_over_many_as_much() -> None:
    coverage = {}
    for seeds in (3, 20):
        rng = np.random.default_rng(seeds)
        intervals = [bootstrap(v, rng) for v in rng.normal(0, 1, (150, seeds))]
        coverage[seeds] = np.mean([low <= 0 <= high for low, high in intervals])
    assert coverage[3] < 0.85 < 0.88 < coverage[20], coverage


@pytest.mark.parametrize("seeds", [3, 5])
def test_nothing_is_found_where_nothing_is(seeds: int) -> None:
    """Of matrices whose variants are alike, at most one in twenty shows any verdict (Holm over all of them)."""
    rng = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(300):
        shared = rng.normal(0, 5, seeds)  # what the seed does to both, which pairing takes out
        cells = [
            cell(name, s, {LOCAL: 10 + shared[s] + rng.normal(), KID: 10 + shared[s] + rng.normal()})
            for name in ("base", "one", "two", "three")
            for s in range(seeds)
        ]
        found = compare.against(table(cells))
        wrong += any(one.verdict != "undecided" for row in found.values() for one in row)
    assert wrong / 300 < 0.08, wrong


def test_pairing_finds_what_unpaired_spread_would_hide() -> None:
    shared = [100.0, 140.0, 60.0, 120.0]
    (one,) = compare.compare(
        two([x - 8 + e for x, e in zip(shared, (0.1, -0.2, 0.3, 0), strict=True)], shared), "a", "b"
    )
    assert one.verdict == "better" and one.effect is not None and one.effect < -10


def test_holm_is_holms() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert statistics.holm([]) == []
    assert statistics.levels([0.01, 0.04, 0.9, None]) == pytest.approx([0.05 / 3, 0.025, 0.05, None])


def test_a_gap_of_fid_that_seeds_alone_make_is_undecided() -> None:
    (one,) = compare.compare(two([100.0, 100.1, 99.9], [101.0, 101.1, 100.9]), "a", "b")
    assert one.corrected < 0.05 and one.verdict == "undecided" and "1.3%" in one.why and one.more is None
    (same,) = compare.compare(two([1.0, 1.001, 0.999], [1.01, 1.011, 1.009], KID), "a", "b")
    assert same.verdict == "better"  # only FID has the margin


def test_a_gap_of_control_is_no_share_since_its_zero_is_chance() -> None:
    found = two([0.3, 0.31, 0.32], [0.01, 0.02, 0.03], LOCAL)
    (one,) = compare.compare(found, "a", "b")
    assert compare.lines([one])[0][4] == "", "no percentage of what may be zero"
    assert "%" not in verdicts(found)[1][0][1]
    assert compare.lines(compare.compare(two([1.0, 1.1], [2.0, 2.2], KID), "a", "b"))[0][4] == "-50.0%"


@pytest.mark.parametrize("per", [None, "parameters_total"])
def test_equal_gaps_of_counted_shares_decide_nothing(per: str | None) -> None:
    """Two samples of 400 in each of three seeds: by the spread alone p is 0."""
    a, b = [0.995, 0.990, 0.995], [1.0, 0.995, 1.0]
    (one,) = compare.compare(two(a, b, "tone_judge1_400"), "a", "b")
    assert 0.05 < one.p < 0.1 and one.verdict == "undecided" and one.high > 0 and one.more is not None
    cells = [
        cell(name, seed, {"tone_judge1_400": value, "parameters_total": 2e6})
        for name, values in (("a", a), ("b", b))
        for seed, value in enumerate(values)
    ]
    test = {"metric": "tone", "variant": "b", "beats": "a"} | ({"per": per} if per else {})
    verdict = claimed(table(cells), test)
    assert verdict.verdict == "undecided" and verdict.tests[0].p == pytest.approx(one.p)
    assert "[-0.00" in verdict.tests[0].gap, "the interval is as wide as the test says"


def test_recall_that_seeds_share_decides_nothing() -> None:
    """One image of 400 in each of three seeds was better with p = 0, and a band of no width."""
    key = "recall_efficientnet_lite0_400"
    (one,) = compare.compare(two([0.0025] * 3, [0.0] * 3, key), "a", "b")
    assert one.verdict == "undecided" and one.p > 0.05 and one.low < 0 < one.high


def test_losses_of_two_targets_get_no_verdict() -> None:
    """A predicted image's loss is another quantity than a velocity's: the ablation's page said +743 %, worse."""
    made = two([0.1, 0.1, 0.101], [0.9, 0.91, 0.9], "heldout_loss")
    for one in made.cells[:3]:
        one.result.config["train"] |= {"target": "data", "clamp": 0.3}
    (pair,) = compare.compare(made, "a", "b")
    assert (pair.verdict, pair.why) == ("undecided", compare.LOSSES)
    assert verdicts(made)[1][0][1] == "n/a" and compare.lines([pair])[0][3:6] == ["", "", ""], "no gap is shown"
    for one in made.cells[3:]:
        one.result.config["train"] |= {"target": "data", "clamp": 0.3}
    assert compare.compare(made, "a", "b")[0].verdict == "better"


def test_whether_a_run_mastered_its_task_is_decided_exactly_in_every_table() -> None:
    """Three of three against none of three was better with p = 0 in a table of pairs."""
    (three,), (five,) = (compare.compare(two([1.0] * n, [0.0] * n, "mastered"), "a", "b") for n in (3, 5))
    assert (three.verdict, three.method) == ("undecided", "Fisher's exact test") and "never" in three.why
    assert five.verdict == "better"


def test_one_seed_decides_nothing() -> None:
    (one,) = compare.compare(two([1.0], [2.0]), "a", "b")
    assert (one.verdict, one.why) == ("undecided", "one seed shows no spread")
    assert verdicts(two([1.0], [2.0])) == ([], [])


def test_it_says_how_many_more_seeds_give_power() -> None:
    (one,) = compare.compare(two([10.0, 14.0, 11.0], [12.0, 13.0, 14.0]), "a", "b")
    assert one.verdict == "undecided" and one.more is not None and one.effect is not None
    assert statistics.power(one.effect, 3 + one.more) >= 0.8 > statistics.power(one.effect, 2 + one.more)
    assert f"{one.more} more seeds give 80 % power, if mean and spread stay" in compare.verdict(one)


@pytest.mark.parametrize(("effect", "seeds"), [(0.3, 90), (0.5, 34), (0.8, 15), (-1.2, 8)])
def test_seeds_for_power_are_those_of_the_tables(effect: float, seeds: int) -> None:
    assert statistics.seeds_needed(effect) == seeds


def test_power_is_how_often_a_test_decides() -> None:
    rng = np.random.default_rng(0)
    ps = [statistics.paired_p(values.tolist()) for values in rng.normal(0.8, 1, (600, 15))]
    assert abs(np.mean([p is not None and p < 0.05 for p in ps]) - statistics.power(0.8, 15)) < 0.05


def test_bold_is_what_is_not_significantly_worse_than_the_best() -> None:
    def bold(**rows: list[float]) -> set[str]:
        made = table([cell(n, s, {KID: v}) for n, vs in rows.items() for s, v in enumerate(vs)])
        analysis = analyse(made)
        return analysis.bold[KID]

    near, also, far = [1.0, 1.2, 0.9], [1.1, 1.0, 1.05], [5.0, 5.2, 4.9]
    assert bold(near=near, also=also, far=far) == {"near", "also"}
    assert bold(near=near, also=also) == set(), "nothing is decided, so nothing is bold"
    assert bold(near=near[:1], far=far[:1]) == set(), "one seed decides nothing"
    assert bold(near=near, same=near, far=far) == {"near", "same"}


def test_unequal_numbers_of_samples_are_not_compared() -> None:
    cells = [cell("a", s, {"fid_efficientnet_lite0_400": 1.0 + s}) for s in range(3)]
    cells += [cell("b", s, {"fid_efficientnet_lite0_1k": 1.0 + s}) for s in range(3)]
    found = compare.compare(table(cells), "a", "b")
    assert {one.verdict for one in found} == {"undecided"}
    assert "unequal numbers of images" in found[0].why


def test_missing_cells_dirty_trees_and_commits_are_said() -> None:
    cells = [cell("a", 0, {FID: 1.0}), cell("a", 1, {FID: 2.0}, dirty=True), cell("b", 0, {FID: 1.0}, commit="b" * 40)]
    cells.append(cell("b", 1, None))
    said = " ".join(compare.caveats(table(cells), "a", "b"))
    for words in (
        "b seed 1: diverged: the loss is nan",
        "uncommitted changes",
        "different commits: aaaaaaaa, bbbbbbbb",
    ):
        assert words in said
    (one,) = compare.compare(table(cells), "a", "b")
    assert one.seeds == (0,) and one.verdict == "undecided"


def test_an_unknown_row_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="no row 'bb'; did you mean 'b'"):
        compare.compare(two([1.0], [1.0]), "a", "bb")


def test_direction_and_names_of_metrics() -> None:
    keys = [FID, LOCAL, "train_ms", "parameters_total", "real_local_judge1_1k"]
    assert [Measurement.parse(key).better for key in keys] == ["lower", "higher", "lower", "", ""]
    keys = [FID, KID, LOCAL, "unseen_local_judge1_200", "guidance4_local_judge1_100", "raw_shape_judge1_400"]
    assert [find(keys, k) for k in ("fid", "local", "unseen_local", "guidance4_local")] == [
        keys[0],
        keys[2],
        keys[3],
        keys[4],
    ]
    assert Measurement.parse("guidance4_local_judge1_100").heading == "local adherence, guidance 4 (judge1, 100)"
    assert Measurement.parse("unseen_global_judge1_200").heading == "global adherence, unseen (judge1, 200)"
    assert Measurement.parse("locality_shape_swap_12").heading == "locality shape (swap, 12)"
    with pytest.raises(ValueError, match="did you mean 'local'"):
        find(keys, "locale")
    with pytest.raises(ValueError, match="any of fid_efficientnet_lite0_400, fid_inception_400"):
        find([FID, "fid_inception_400"], "fid")


# --- claims -----------------------------------------------------------------------------------------------------------

BEATS = {"metric": "fid", "variant": "a", "beats": "b"}


def claimed(made: Table, *tests: dict[str, Any]) -> claims.ClaimVerdict:
    made.manifest["config"]["claim"] = {"says": "A is better.", "tests": list(tests)}
    verdict = claims.decide(made)
    assert verdict is not None
    return verdict


def test_claims_are_supported_contradicted_or_undecided() -> None:
    low, high, wild = [10.0, 11.0, 10.5], [20.0, 21.2, 20.4], [3.0, 30.0, 12.0]
    assert claimed(two(low, high), BEATS).verdict == "supported"
    assert claimed(two(high, low), BEATS).verdict == "contradicted"
    verdict = claimed(two(wild, high), BEATS)
    assert verdict.verdict == "undecided" and "power, if mean and spread stay" in verdict.tests[0].evidence
    assert claimed(two([100, 100.1, 99.9], [101, 101.1, 100.9]), BEATS).verdict == "undecided"  # under the margin


def test_a_claim_of_two_parts_needs_both() -> None:
    cells = [cell("a", s, {FID: 10 + s / 10, LOCAL: 0.9 + s / 100}) for s in range(3)]
    cells += [cell("b", s, {FID: 20 + s / 9, LOCAL: 0.5 + s / 99}) for s in range(3)]
    assert claimed(table(cells), BEATS, BEATS | {"metric": "local"}).verdict == "supported"
    verdict = claimed(table(cells), BEATS, {"metric": "local", "variant": "b", "beats": "a"})
    assert verdict.verdict == "contradicted" and [f.verdict for f in verdict.tests] == ["supported", "contradicted"]


def test_no_worse_than_asks_for_a_margin() -> None:
    near = {"metric": "fid", "variant": "a", "no_worse_than": "b", "within": 0.05}
    assert claimed(two([101.0, 101.2, 100.9], [100.0, 100.1, 100.0]), near).verdict == "supported"
    assert claimed(two([120.0, 121.0, 119.0], [100.0, 100.1, 100.0]), near).verdict == "contradicted"
    assert claimed(two([90.0, 130.0, 101.0], [100.0, 100.1, 100.0]), near).verdict == "undecided"


def test_adherence_that_no_cell_has_yet_is_said_to_show_nothing() -> None:
    asked = {"metric": "local", "variant": "a", "beats": "b"}
    verdict = claimed(two([-0.1, -0.11, -0.12], [-0.2, -0.21, -0.22], LOCAL), asked)
    assert any("no cell is above chance" in note for note in verdict.caveats) and "%" not in verdict.tests[0].evidence
    assert not claimed(two([0.1, 0.11, 0.12], [-0.2, -0.21, -0.22], LOCAL), asked).caveats


def test_above_and_per() -> None:
    cells = [cell("a", s, {"opening_order": 0.8 + s / 50, LOCAL: 0.5, "parameters_total": 1e6}) for s in range(3)]
    assert claimed(table(cells), {"metric": "opening_order", "variant": "a", "above": 0}).verdict == "supported"
    assert claimed(table(cells), {"metric": "opening_order", "variant": "a", "below": 0.5}).verdict == "contradicted"
    cells += [cell("b", s, {LOCAL: 0.6 + s / 1000, "parameters_total": 3e6}) for s in range(3)]
    verdict = claimed(table(cells), {"metric": "local", "per": "parameters_total", "variant": "a", "beats": "b"})
    assert verdict.verdict == "supported" and "per M parameters" in verdict.tests[0].text
    assert verdict.tests[0].evidence.startswith("0.5 against 0.2"), verdict.tests[0].evidence


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (BEATS | {"beats": "c"}, "unknown variant 'c' .choose from a, b"),
        (BEATS | {"metric": "fidd"}, "unknown metric 'fidd'; did you mean 'fid'"),
        (BEATS | {"beat": "b"}, "unknown key 'beat'; did you mean 'beats'"),
        ({"metric": "fid", "variant": "a"}, "one of beats, no_worse_than, above, below"),
        ({"metric": "fid", "variant": "a", "no_worse_than": "b"}, "`within` goes with no_worse_than"),
        ("fid", "write a mapping"),
    ],
)
def test_what_cannot_be_tested_is_refused(test: Any, words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        check({"says": "x", "tests": [test]}, ["a", "b"], [0, 1, 2])


def test_a_claim_of_one_seed_is_refused_and_one_finished_seed_decides_nothing() -> None:
    with pytest.raises(ClaimError, match="two seeds or more"):
        check({"says": "x", "tests": [BEATS]}, ["a", "b"], [0])
    made = table([cell("a", 0, {FID: 1.0}), cell("a", 1, None), cell("b", 0, {FID: 2.0}), cell("b", 1, {FID: 2.0})])
    verdict = claimed(made, BEATS)
    assert verdict.verdict == "undecided" and verdict.tests[0].evidence == "one seed shows no spread"
    assert any("diverged" in note for note in verdict.caveats)


def test_the_claims_table_holds_a_link() -> None:
    said = claims_markdown([(claimed(two([1.0, 1.1], [2.0, 2.2]), BEATS), "results/x/report.md")])
    assert "**[A is better.](results/x/report.md)**" in said
    cells = [cell("a", s, {"opening_order": 0.8 + s / 50}) for s in range(3)]
    verdict = claimed(table(cells), {"metric": "opening_order", "variant": "a", "above": 0})
    assert verdict.tests[0].gap.startswith("0.82 [0.77") and verdict.tests[0].gap in claims_markdown([(verdict, "")])


def test_the_newest_record_is_the_one_whose_cells_ended_last(tmp_path: Path) -> None:
    for name, ended in (("20260101-cpu2-epyc-aaaa", 9.0), ("20260101-cpu2-epyc-ffff", 5.0)):
        (tmp_path / "m" / name).mkdir(parents=True)
        cells = {"cells": [{"result": {"provenance": {"ended": ended}}}, {"result": None}]}
        (tmp_path / "m" / name / "cells.json").write_text(json.dumps(cells))
    assert newest_records(tmp_path) == {"m": tmp_path / "m" / "20260101-cpu2-epyc-aaaa"}


# --- ladders and choices ----------------------------------------------------------------------------------------------


def climb(limits: dict[str, float], rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2), seeds: int = 3) -> Table:
    """Variants that train best at a third of their limit, and not at all above it."""
    cells = []
    for name, limit in limits.items():
        for rate in rates:
            for seed in range(seeds):
                loss = (
                    None
                    if rate > 10 * limit
                    else 5.0
                    if rate > limit
                    else 0.2 + 0.01 * abs(math.log10(rate * 3 / limit))
                )
                numbers = None if loss is None else {"heldout_loss": loss + seed / 1000, FID: 100.0}
                cells.append(cell(name, seed, numbers, {"train.lr": rate}))
    return table(cells, axes={"train.lr": list(rates)}, train={"lr": 1e-3}, choose="train.lr")


def test_ladder_says_how_far_up_a_variant_trains() -> None:
    found = {one.name: one for one in ladders(climb({"calm": 1.0, "wild": 2e-3, "lost": 1e-4}))}
    assert [found[n].limit for n in ("calm", "wild", "lost")] == [1e-2, 1e-3, 1e-4]
    assert found["calm"].unlost == 3 and found["wild"].unlost == 0
    assert [rung.lost for rung in found["wild"].rungs] == [0, 0, 3]
    beats, rates = {"metric": "highest_lr", "variant": "a", "beats": "b"}, (1e-4, 1e-3, 1e-2, 1e-1)
    assert claimed(climb({"a": 2e-2, "b": 1e-4}, rates), beats).verdict == "supported"
    verdict = claimed(climb({"a": 2e-2, "b": 2e-3}, rates), beats)
    assert verdict.verdict == "undecided", "one rung: its rounding counts as spread"
    assert not verdict.caveats, "the logarithm of a rate is below zero without being under chance"


@pytest.mark.parametrize("missing", [(1e-3,), (1e-4, 1e-3)])
def test_a_rate_without_a_result_is_no_evidence(missing: tuple[float, ...]) -> None:
    """Killed cells made their variant's limit the rung below them, or the loss beside which others are lost."""
    whole, cells = climb({"a": 2e-3, "b": 2e-3}, seeds=5), []
    for one in whole.cells:
        gone = one.row.variant == "b" and one.row.axes["train.lr"] in missing
        cells.append(replace(one, status="killed", result=None) if gone else one)
    made = replace(whole, cells=cells)
    found = {one.name: one for one in ladders(made)}
    assert found["b"].highest == {} and found["b"].unknown == (0, 1, 2, 3, 4) and found["a"].limit == 1e-3
    verdict = claimed(made, {"metric": "highest_lr", "variant": "a", "beats": "b"})
    assert verdict.verdict == "undecided" and verdict.caveats == ["b: of 5 seeds a result below their limit is missing"]


def lost_below(seeds: int, lost: int) -> Table:
    """`a` trains up to the top in every seed, `b` in all but some, which the lowest rate loses."""
    made, never = climb({"a": 1.0, "b": 1.0}, seeds=seeds), climb({"b": 1e-6}, seeds=lost)
    kept = [one for one in made.cells if one.row.variant == "a" or one.row.seed >= lost]
    return table([*kept, *never.cells], **made.manifest["config"])


def test_a_seed_that_the_lowest_rate_loses_is_below_the_ladder_and_not_left_out() -> None:
    beats = {"metric": "highest_lr", "variant": "a", "beats": "b"}
    for lost, limit in ((2, 1e-2), (3, None), (4, None)):
        b = {one.name: one for one in ladders(lost_below(6, lost))}["b"]
        assert (b.below, b.limit, len(b.highest)) == (tuple(range(lost)), limit, 6 - lost)
    made = lost_below(12, 6)
    (sheet,) = [one for one in sheets(analyse(made))[1] if one.title == "Highest stable learning rate"]
    assert sheet.rows[1] == ["b", "below 0.0001 (6 of 12 seeds lost at the lowest) (6 of 12 seeds lost at none)", "12"]
    old = claimed(made, beats)
    assert old.verdict == "undecided" and "6 seeds of b are lost at the lowest rate" in old.tests[0].evidence
    for rule in ("pooled", "welch", "paired"):
        for test, known in ((beats, "supported"), (beats | {"variant": "b", "beats": "a"}, "contradicted")):
            made.manifest["config"]["claim"] = {"says": "x", "compare": rule, "tests": [test]}
            found = claims.decide(made)
            assert found is not None and found.verdict == known and "ranks" in found.tests[0].evidence
    test = {"metric": "highest_lr", "variant": "b", "above": -3}
    made.manifest["config"]["claim"] = {"says": "x", "compare": "pooled", "tests": [test]}
    found = claims.decide(made)
    assert found is not None and found.verdict == "undecided" and "compare by `beats`" in found.tests[0].evidence


def test_seeds_that_no_rate_loses_are_above_the_ladder_and_have_no_mean() -> None:
    """Both at the top were equivalent, with p = 0, however far beyond the ladder each would train."""
    rows, made = {"metric": "highest_lr", "variant": "a"}, climb({"a": 1.0, "b": 1.0}, seeds=8)
    beats = rows | {"beats": "b"}
    for rule in ("pooled", "welch", "paired"):
        for test in (rows | {"equivalent_to": "b", "within": 0.1}, beats | {"by": 1.1}, rows | {"above": -9}):
            made.manifest["config"]["claim"] = {"says": "x", "compare": rule, "tests": [test]}
            found = claims.decide(made)
            assert (
                found is not None
                and found.verdict == "undecided"
                and "lost at none, so that there is no mean" in (found.tests[0].evidence)
            )
    old = claimed(made, beats)
    assert old.verdict == "undecided" and "8 seeds of a and 8 seeds of b are lost at none" in old.tests[0].evidence
    apart = climb({"a": 1.0, "b": 2e-3}, seeds=8)
    sheet = next(one for one in sheets(analyse(apart))[1] if one.title == "Highest stable learning rate")
    assert sheet.rows[0][1] == "0.01 (none of 8 seeds lost at the top)"
    apart.manifest["config"]["claim"] = {"says": "x", "compare": "pooled", "tests": [beats]}
    found = claims.decide(apart)
    assert (
        found is not None
        and found.verdict == "supported"
        and "8 seeds of a are lost at none" in (found.tests[0].evidence)
    )


def test_a_row_that_is_lost_everywhere_is_decided_against() -> None:
    made = lost_below(5, 5)
    test = {"metric": "highest_lr", "variant": "a", "beats": "b"}
    made.manifest["config"]["claim"] = {"says": "x", "compare": "pooled", "tests": [test]}
    found = claims.decide(made)
    assert found is not None and found.verdict == "supported" and found.tests[0].gap == "higher in 100% of pairs"


def test_a_value_is_chosen_by_heldout_loss_and_its_edge_is_said() -> None:
    (one,) = choices(climb({"v": 3e-3}))
    assert (one.value, one.own_row, one.row, one.edge) == (1e-3, "v lr=0.001", "v lr=0.001", False)
    (edge,) = choices(climb({"v": 3.0}))
    assert edge.value == 1e-2 and edge.edge
    (lowest,) = choices(climb({"v": 3e-4}, rates=(1e-3, 1e-4, 1e-2)))
    assert lowest.value == 1e-4 and lowest.edge, "of an axis in any order"
    assert choices(two([1.0], [1.0])) == []


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_fairness_is_read_from_what_was_used() -> None:
    cells = [cell(name, s, {FID: 1.0}) for name in ("a", "b") for s in range(2)]
    said = {one.what: one for one in fairness.statement(table(cells))}
    assert all(one.verdict == "equal" for one in said.values()), said
    odd = cell(
        "b", 1, {FID: 1.0}, digests={"initial_backbone_weights": "other", "batch": "b1", "data": "d", "prompts": "p"}
    )
    odd.result.config["train"]["lr"] = 5e-3
    said = {one.what: one for one in fairness.statement(table([*cells[:3], odd]))}
    weights = said["initial weights of what all schemes have"]
    assert weights.verdict == "differs" and ("b (seed 1)" in weights.detail or "a (seed 1)" in weights.detail)
    assert said["noise, times and dropped prompts of these steps"].verdict == "unknown"
    assert said["images and prompts of every probed step"].verdict == "equal"
    assert "train.lr (0.001, 0.005)" in said["config but for scheme, options and seed"].detail


def test_fairness_is_asked_within_each_task() -> None:
    def of(name: str, task: str, weights: str, arm: str = "none") -> CellRecord:
        kept = dict.fromkeys(("batch", "chance", "data", "prompts"), task + arm)
        digests = {"initial_backbone_weights": weights, **kept}
        made = cell(name, 0, {FID: 1.0}, {"data.task": task}, digests=digests)
        assert made.result is not None
        made.result.config.update(data={"task": task}, prompt={"arm": arm})
        return made

    cells = [of(name, task, task) for name in ("a", "b", "c") for task in ("bind", "grain")]
    said = {one.what: one for one in fairness.statement(table(cells))}
    assert {one.verdict for one in said.values()} == {"equal"}, said
    assert said["training data"].detail == "one hash for all 6 cells of each of 2 points of the axes"
    known = fairness.statement(table([*cells, of("blind", "bind", "bind", "blind")]))
    assert {one.verdict for one in known} == {"equal"}, "a reference has other prompts on purpose"
    said = {one.what: one for one in fairness.statement(table([*cells[:-1], of("c", "grain", "other")]))}
    weights = said["initial weights of what all schemes have"]
    assert weights.verdict == "differs" and "c task=grain (data.task grain, seed 0)" in weights.detail


def test_rates_of_two_runs_are_distinguished() -> None:
    cells = [cell(name, s, {FID: 1.0}) for name in ("a", "b") for s in range(2)]
    for k, one in enumerate(cells):
        assert one.result is not None
        one.result.provenance["command"] = f"ditbench run {k // 2}.yaml"
    (run,) = (one for one in fairness.statement(table(cells)) if one.what.startswith("run"))
    assert run.verdict == "differs" and run.detail == "ditbench run 0.yaml of a; ditbench run 1.yaml of b"
    test = {"metric": "train_ms", "variant": "a", "beats": "b"}
    for apart in (True, False):
        for k, one in enumerate(cells):
            assert one.result is not None
            one.result.cost["train_images_per_second"] = 200 - 100 * (k // 2) + k % 2
            one.result.provenance["command"] = f"ditbench run {k // 2 if apart else k % 2}.yaml"
        (speed,) = compare.compare(table(cells), "a", "b", ["train_images_per_second"])
        verdict = claimed(table(cells), test)
        assert (speed.verdict, speed.why) == (("undecided", compare.APART) if apart else ("better", ""))
        assert (verdict.verdict, verdict.tests[0].evidence == compare.APART) == (
            ("undecided", True) if apart else ("supported", False)
        )


def test_rows_of_unequal_knobs_are_other_comparisons() -> None:
    cells = [
        cell(name, seed, {KID: seed + 1.0}, axes={"data.knobs": {"labels": labels}})
        for name in ("a", "b")
        for labels in (8, 16)
        for seed in range(2)
    ]
    made = table(cells, data={"source": "task"})
    found = peers.groups(made, summaries(made))
    assert [[row.cells[0].row.axes["data.knobs"]["labels"] for row in group] for group in found] == [[8, 8], [16, 16]]


def test_a_baseline_that_is_a_variant_is_that_variant_at_each_point_of_the_axes() -> None:
    """Sizes on one axis: every row was compared with the baseline's row of one size."""
    values = {("a", "S"): 40.0, ("b", "S"): 20.0, ("a", "XL"): 20.0, ("b", "XL"): 40.0}
    cells = [
        cell(name, seed, {KID: value + 0.01 * seed}, {"backbone.name": size})
        for (name, size), value in values.items()
        for seed in range(4)
    ]
    made = table(cells, baseline="b")
    found = {(one.a, one.b): one.verdict for each in compare.against(made).values() for one in each}
    assert found == {("a name=S", "b name=S"): "worse", ("a name=XL", "b name=XL"): "better"}
    assert compare.verdict_table(compare.base_name(made, summaries(made)), compare.against(made))[0][0] == "against b"
    assert analyse(made).bold[KID] == {"b name=S", "a name=XL"}
    of_a_row = table(cells, baseline="b name=S")
    named = {(one.a, one.b): one.verdict for each in compare.against(of_a_row).values() for one in each}
    assert named[("a name=XL", "b name=S")] == "undecided" and len(named) == 3


def on_data(name: str, seed: int, value: float, content: str | None = None, **data: Any) -> CellRecord:
    made = cell(
        name, seed, {KID: value, "excess_error": value, "score": 1 - value}, {"data.path": data.get("path", "")}
    )
    assert made.result is not None
    made.result.config["data"] = {"source": "huggingface"} | data
    if content:
        made.result.provenance["digests"] = made.result.provenance["digests"] | {"data_content": content}
    return made


def test_errors_on_different_images_have_no_common_scale() -> None:
    """FID of two data sets, the excess error of two tasks: a claim refuses the latter, `compare` decided on it."""

    def why(a: dict[str, Any], b: dict[str, Any], key: str = KID) -> str:
        made = [on_data(n, s, v + s / 100, **d) for n, v, d in (("a", 0.1, a), ("b", 0.5, b)) for s in range(5)]
        rows = summaries(table(made))
        return compare.difference(rows[0], rows[1], key).why

    assert why({"path": "x"}, {"path": "x"}) == ""
    assert why({"path": "x"}, {"path": "y"}) == compare.IMAGES
    assert why({"path": "x", "content": "1"}, {"path": "y", "content": "2"}) == compare.IMAGES
    assert why({"path": "x", "content": "1"}, {"path": "y", "content": "1"}) == "", "a folder that was moved"
    assert why({"path": "x", "train_count": 100}, {"path": "x", "train_count": 900}) == ""
    bind, tone = {"source": "task", "task": "bind"}, {"source": "task", "task": "tone"}
    assert why(bind, tone, "excess_error") == compare.IMAGES and why(bind, tone, "score") == ""
    assert why(bind, bind | {"knobs": {"grid": 3}}, "excess_error") == compare.IMAGES


def test_a_row_is_found_by_its_own_name_before_the_same_words_in_another_order() -> None:
    """Two axes of one short name, as of `train.steps` and `sample.steps`, each with the values 10 and 25."""
    axes = [{"train.steps": a, "sample.steps": b} for a in (10, 25) for b in (10, 25)]
    rows = summaries(table([cell("a", 0, {FID: float(k)}, one) for k, one in enumerate(axes)]))
    names = [row.name for row in rows]
    assert len(set(names)) == 4 and sorted(names[1].split()) == sorted(names[2].split())
    assert [find_row(rows, name).name for name in names] == names
    lone = summaries(table([cell("a", 0, {FID: 1.0}, {"train.lr": 1, "sample.steps": 2})]))
    assert find_row(lone, "a steps=2 lr=1") is lone[0]
