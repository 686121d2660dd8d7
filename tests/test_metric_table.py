"""A metric is one row of one table: keys and fields are inverses, and a new row is seen by every view of a result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.claim import ClaimError, check
from bench.findings import claims, compare
from bench.findings.analysis import analyse
from bench.findings.caveats import caveats
from bench.store import metrics
from bench.store.folders import Row
from bench.store.metrics import METRICS, Measurement, Metric, find
from bench.store.result import Result
from bench.store.table import CellRecord, Table
from bench.views.text import markdown

ROOT = Path(__file__).parent.parent
COUNTS = st.integers(1, 100_000)
MADE_BY = {
    "": st.just(("", 0)),
    "extractor": st.tuples(st.sampled_from(["inception", "efficientnet_lite0", "dinov2_vit_b_14"]), COUNTS),
    "judge": st.tuples(st.integers(1, 12).map(lambda k: f"judge{k}"), COUNTS),
    "swap": st.tuples(st.just("swap"), COUNTS),
    "bin": st.tuples(st.integers(0, 99).map(str), st.just(0)),
}
SUBSETS = st.sampled_from(["", "unseen", "real", "guidance4", "guidance1.5"])
MEASUREMENTS = st.sampled_from(METRICS).flatmap(
    lambda metric: st.builds(
        lambda made, subset: Measurement(metric, *made, subset if made[1] else ""), MADE_BY[metric.made_by], SUBSETS
    )
)


@given(MEASUREMENTS)
def test_a_key_and_its_fields_are_inverses(one: Measurement) -> None:
    assert Measurement.parse(one.key) == one


def test_every_key_of_every_record_is_of_the_table() -> None:
    keys = set()
    for file in (ROOT / "results").glob("*/*/cells.json"):
        for cell in json.loads(file.read_text())["cells"]:
            if cell["result"]:
                keys |= metrics.numbers(Result(**cell["result"])).keys() | cell["result"].get("sampling", {}).keys()
    assert len(keys) > 150
    for key in keys:
        one = Measurement.parse(key)
        assert (one.metric in METRICS or one.made_by == "template") and one.key == key, key  # or an attribute of a task


def test_a_key_of_no_metric_is_kept_and_judged_by_nobody() -> None:
    one = Measurement.parse("some_number_of_mine")
    assert (one.key, one.heading, one.better, one.section) == ("some_number_of_mine", "some number of mine", "", "cost")


NEW = Metric(
    "sharpness", "sharpness of edges", "higher", ".2f", made_by="extractor", columns=("",), section="quality",
    front=True, margin=0.5,
)  # fmt: skip
KEY = "sharpness_inception_400"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """Two variants, three seeds, with a metric that the table of metrics was given a moment ago."""
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, NEW))
    Measurement.parse.cache_clear()
    cells = []
    for variant, level in (("a", 9.0), ("b", 2.0)):
        for seed in range(3):
            row = Row(f"{variant}-{seed}", variant, variant, seed, {}, {}, "DiT-S/2", "scenes")
            config: dict[str, Any] = {"scheme": variant, "options": {}, "seed": seed}
            about = {"hardware": {"cpu": "EPYC"}, "command": "test", "measured": {"extractor": "inception"}}
            cells.append(CellRecord(row, "done", "", Result(row.cell, {KEY: level + seed / 9}, {}, config, about)))
    yield Table("new", cells, {"config": {"seeds": [0, 1, 2]}, "command": "test"})
    Measurement.parse.cache_clear()


def test_a_new_metric_is_seen_everywhere(table: Table) -> None:
    """Table, comparison, claim check and claim, dashboard section, margin: one row of one file."""
    text = markdown(analyse(table))
    assert "sharpness of edges (inception, 400) ↑" in text and "9.11" in text
    (one,) = compare.compare(table, "a", "b")
    assert (one.metric, one.verdict) == (KEY, "better")
    assert find([KEY], "sharpness") == KEY
    test = {"metric": "sharpness", "variant": "a", "beats": "b"}
    check({"says": "A is sharper.", "tests": [test]}, ["a", "b"], [0, 1, 2])
    table.manifest["config"]["claim"] = {"says": "A is sharper.", "tests": [test]}
    decided = claims.decide(table)
    assert decided is not None and decided.verdict == "supported"
    assert Measurement.parse(KEY).section == "" and metrics.beside_fid([KEY])[0].key == KEY
    headings, rows = compare.verdict_table("a", compare.against(table))
    assert headings[1] == "sharpness of edges (inception, 400)" and rows[0][1].startswith("▼")


def test_without_it_nobody_knows_it() -> None:
    with pytest.raises(ClaimError, match="unknown metric 'sharpness'"):
        check({"says": "x", "tests": [{"metric": "sharpness", "variant": "a", "above": 0}]}, ["a"], [0, 1])
    assert replace(Measurement.of("fid", "inception", 400), metric=NEW).key == KEY


def test_the_caveat_on_few_images_knows_the_extractor() -> None:
    """It is right for every extractor, or says that it does not know."""
    assert "1,280 feature dimensions" in caveats(["fid_efficientnet_lite0_400"])[0]
    assert "384 feature dimensions" in caveats(["fid_dinov2_vit_s_14_400"], {"dinov2_vit_s_14": 384})[0]
    assert not [one for one in caveats(["fid_dinov2_vit_s_14_1k"], {"dinov2_vit_s_14": 384}) if "biased" in one]
    assert "number is not recorded" in caveats(["fid_dinov2_vit_s_14_400"])[0]


@pytest.mark.parametrize(
    ("key", "name", "heading"),
    [
        ("right_template_512", "right", "all attributes correct (template, 512)"),
        ("unseen_local_template_512", "unseen_local", "local adherence, unseen (template, 512)"),
        ("glyph_template_1k", "glyph", "glyph (template, 1k)"),
        ("unseen_the_glyph_template_64", "unseen_the_glyph", "the glyph, unseen (template, 64)"),
        ("excess_error_bin3", "excess_error_bin", "excess, bin 3"),
    ],
)
def test_an_attribute_of_any_task_is_a_metric_read_by_template(key: str, name: str, heading: str) -> None:
    one = Measurement.parse(key)
    assert (one.key, one.name, one.heading) == (key, name, heading)
    assert one.better == ("lower" if "excess" in key else "higher")
    assert one.over_chance == ("template" in key)
