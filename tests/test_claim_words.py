"""What the README says of claims and of its first figure: words that cannot be read backwards, and by rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import generate_tasks

from bench.config.load import load
from bench.findings.analysis import Analysis, analyse
from bench.findings.verdicts import ClaimVerdict, Decision, TestResult
from bench.findings.words import in_letters
from bench.store.table import collect
from bench.views import firstfigure
from bench.views.claimwords import NOT_MEASURED, READ_AS, all_mastered, in_words
from bench.views.readme import claims_line, claims_page

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Two schemes on one task."""
    store = generate_tasks(tmp_path_factory.mktemp("tasks"), schemes=("sd3", "flux"), seeds=3, tasks=("bind",))
    return analyse(collect(store, "tasks"))


def test_the_first_figure_says_which_seeds_it_lacks(matrix: Analysis) -> None:
    assert "planned" not in firstfigure.measured(matrix) and "without a result" not in firstfigure.measured(matrix)
    seeds = {cell.row.seed for cell in matrix.table.cells}
    left = {"seeds": [97, 98], "cells": 56, "ended": 1}
    lacks = replace(matrix, table=replace(matrix.table, manifest=matrix.table.manifest | {"left_out": left}))
    words = (
        f"{in_letters(len(seeds))} of {in_letters(len(seeds) + 2)} planned seeds are complete; the other two are not"
    )
    assert words in firstfigure.measured(lacks).lower() and "56" not in firstfigure.measured(lacks)
    cells = [replace(cell, status="failed") if cell.row.seed == 0 else cell for cell in matrix.table.cells]
    partial = firstfigure.measured(replace(matrix, table=replace(matrix.table, cells=cells)))
    assert "cells without a result: " in partial and "planned seeds" not in partial


def claimed(matrix: Analysis, scores: tuple[float, float], verdict: Decision) -> Analysis:
    """A matrix on `scene` whose claim, that a beats b, came to a verdict, with the scores of the two."""
    test = {"metric": "excess_error", "variant": "a task=scene", "beats": "b task=scene"}
    result = TestResult("a task=scene beats b task=scene: excess", verdict, "", "x 2.1 [1.2, 3.8]")
    own = {"config": matrix.table.manifest["config"] | {"claim": {"says": "A is better.", "tests": [test]}}}
    rows = [
        replace(matrix.rows[0], name=f"{name} task=scene", by_seed={"score": {0: score, 1: score}})
        for name, score in zip("ab", scores, strict=True)
    ]
    table = replace(matrix.table, manifest=matrix.table.manifest | own)
    claim = ClaimVerdict("t-x", "A is better.", verdict, [result], [])
    return replace(matrix, rows=rows, table=table, claim=claim)


def test_a_contradicted_claim_cannot_be_read_backwards(matrix: Analysis) -> None:
    line = claims_line({"new": claimed(matrix, (0.4, 0.8), "contradicted")}, "CLAIMS.md")
    words = "on scene, a has 2.1 times the excess error of b [1.2, 3.8]; tested was: a beats b\n"
    assert f"- **contradicted** [A is better.](new/report.md): {words}" in line and "master" not in line
    line = claims_line({"new": claimed(matrix, (0.4, 0.8), "supported")}, "CLAIMS.md")
    assert "of b [1.2, 3.8]\n" in line and "tested was" not in line


def test_results_of_every_kind_are_named_in_words() -> None:
    assert in_words(["a", "b"], "excess", "x 1 [0.9, 1.1]") == "a has 1.00 times the excess error of b [0.9, 1.1]"
    assert in_words(["a", "b"], "swapped colours (template, 512)", "-0.1 [-0.2, 0]") == (
        "swapped colours: a minus b is -0.1 [-0.2, 0]"
    )
    assert in_words(["a", "b"], "mastered", "5 of 5 against 0 of 5") == "mastered: a against b is 5 of 5 against 0 of 5"
    assert in_words(["a"], "share", "0.2 [0, 0.4]") == "share of a is 0.2 [0, 0.4]"
    assert in_words(["a", "b", "c"], "score", "0.02 [0.01, 0.03]") == (
        "score of a, b, c: the largest minus the least is 0.02 [0.01, 0.03]"
    )


def test_claims_on_tasks_that_all_master_are_apart_with_their_scores(matrix: Analysis) -> None:
    """By a rule, .95 for every row that is compared, and not by hand."""
    easy, hard = claimed(matrix, (0.985, 0.95), "supported"), claimed(matrix, (0.985, 0.949), "supported")
    assert all_mastered(easy) and not all_mastered(hard) and not all_mastered(matrix)
    line = claims_line({"easy": easy, "hard": hard}, "CLAIMS.md")
    places = [line.index(part) for part in ("(hard/report.md)", "The other 1 decided claim", "(easy/report.md)")]
    assert places == sorted(places) and line.count("(both master it: scores .985 and .950)") == 1
    assert "2 pre-registered claims" in line and "master" not in claims_line({"hard": hard}, "CLAIMS.md")


def test_a_claim_that_says_more_than_was_measured_is_named_by_what_was(matrix: Analysis) -> None:
    """Its own sentence stays in the page of claims, with a note."""
    named = claimed(matrix, (0.4, 0.8), "supported")
    named = replace(named, table=replace(named.table, name="claim-t-10-edge"))
    assert named.name == "claim-t-10-edge"
    line, page = claims_line({"x": named}, "CLAIMS.md"), claims_page({"x": named})
    assert "two cores of a server's CPU" in line and "A is better." not in line
    assert "A is better." in page and "No edge device was measured" in page
    written = {load(path).name for path in (ROOT / "configs" / "claims").glob("*.yaml")}
    assert READ_AS.keys() == NOT_MEASURED.keys() and READ_AS.keys() <= written
