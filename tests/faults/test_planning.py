"""What can be known at once is checked at once, a table is corrected without training, and planning is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import matrix_file, planned

from bench.config.load import load
from bench.config.schema import ConfigError
from bench.measure import cost
from bench.run import checks
from bench.run.manifest import PlanChanged, commit
from bench.run.plan import plan
from bench.store.folders import Store


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate__samples": 4}, "evaluate.samples 4: the metrics need at least 5"),
        ({"evaluate__reference": 3}, "evaluate.reference 3: the metrics need at least 5"),
        ({"data__heldout_count": 4, "evaluate__bins": 2}, "4 held-out images: the metrics need at least 5"),
        ({"evaluate__heldout": 8}, "evaluate.bins 10.*there are 8"),
        ({"evaluate__sweep": [3, 3.0]}, "evaluate.sweep names a guidance scale twice"),
        ({"evaluate__sweep": [3, -1, 1e6]}, r"evaluate.sweep -1, 1e\+06: a scale of guidance is at least 0 and below"),
        (
            {"variants": ["lumina2"], "sample__modulation_guidance": 2},
            "sample.modulation_guidance 2: c of scheme 'lumina2' has no pooled prompt here; leave it at 0, or choose",
        ),
        ({"variants": ["in-context"], "sample__modulation_guidance": 2}, "has no pooled prompt here; leave it at 0"),
        (
            {"variants": ["adaln-zero", "in-context"], "sample__modulation_guidance": 2},
            "^in-context seed=0: sample.modulation_guidance 2: c of scheme 'in-context' has no pooled prompt here",
        ),
        (
            {"variants": ["in-context", "adaln-zero"], "sample__modulation_guidance": 2},
            "^in-context seed=0: sample.modulation_guidance 2",
        ),
        ({"train__warmup": 13}, "train.warmup 13 is longer than train.steps 12"),
        ({"train__cooldown": 13}, "train.cooldown 13 is longer"),
        ({"train__device": "cuda"}, "no CUDA device is available"),
        ({"data__image_size": 18}, "18 is not divisible by the patch 4"),
        ({"backbone__heads": 3}, "32 is not divisible by 3 heads"),
        ({"backbone__name": "DiT-S/0"}, "'DiT-S/0'"),
        ({"baseline": "adaln-zro"}, "baseline 'adaln-zro' is no row.*did you mean 'adaln-zero'"),
        ({"axes": {"train.lr": [0.1, 0.2]}, "baseline": "adaln-zero lr=0.3"}, "no row"),
        ({"evaluate__extractor": "efficientnet"}, "unknown extractor"),
        ({"budget": {"match": "params"}, "axes": {"backbone.width": [32, 64]}}, "sets backbone.width"),
        ({"budget": {"match": "train_flops"}, "axes": {"train.steps": [3, 4]}}, "sets train.steps"),
        (
            {
                "budget": {"match": "params"},
                "variants": ["adaln-zero", {"scheme": "in-context", "name": "deep", "backbone.depth": 4}],
            },
            "variant 'deep' sets backbone.depth: with budget.match params variants differ in scheme and options",
        ),
        (
            {
                "budget": {"match": "train_flops"},
                "variants": ["adaln-zero", {"scheme": "adaln-zero", "name": "large", "train.batch": 16}],
            },
            "variant 'large' sets train.batch: with budget.match train_flops",
        ),
        (
            {
                "budget": {"match": "train_flops"},
                "variants": ["adaln-zero", {"scheme": "adaln-zero", "name": "large", "data.image_size": 32}],
            },
            "variant 'large' sets data.image_size: with budget.match train_flops",
        ),
        *(
            (
                {
                    "budget": {"match": "wall_clock"},
                    "variants": ["adaln-zero", {"scheme": "adaln-zero", "name": "other", key: value}],
                },
                f"variant 'other' sets {key}: with budget.match wall_clock",
            )
            for key, value in {"train.compile": "on", "train.exact": True, "train.microbatch": 4}.items()
        ),
        (
            {
                "budget": {"match": "wall_clock", "to": "adaln"},
                "variants": ["adaln-zero", "adaln"],
                "train__microbatch": 3,
            },
            "train.microbatch 3 does not divide train.batch 8",
        ),
        ({"budget": {"match": "params", "to": "adaln"}}, "budget.to 'adaln'"),
        ({"budget": {"to": "adaln-zero"}}, "needs budget.match"),
        ({"variants": ["pixart", "shared-modulation"]}, "the same cell"),
        ({"axes": {"options.gate": ["one", "two"]}}, "'two': choose"),
        ({"axes": {"options.tokens": [1]}}, "unknown option 'tokens'"),
        ({"variants": [{"scheme": "in-context", "tokens": 2.5}]}, "tokens 2.5: must be a whole number"),
        ({"variants": [{"scheme": "in-context", "tokens": True}]}, "tokens True"),
        ({"variants": ["in-context"], "axes": {"options.tokens": [1, "1"]}}, "the same cell"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(tmp_path: Path, changes: Any, said: str) -> None:
    """Too few images, an unknown baseline and the like were found out after all training."""
    with pytest.raises(ValueError, match=said):
        planned(tmp_path, **changes)
    assert not (tmp_path / "runs" / "matrices").exists()


def test_weights_that_cannot_be_loaded_are_found_out_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "weights.pth").write_bytes(b"<html>not found</html>")
    monkeypatch.setenv("DITBENCH_INCEPTION_WEIGHTS", str(tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match=r"inception.*its weights cannot be loaded"):
        planned(tmp_path, evaluate__extractor="inception")
    monkeypatch.setenv("DITBENCH_INCEPTION_WEIGHTS", str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match="no such file"):
        planned(tmp_path, evaluate__extractor="inception")


def test_a_compiler_that_is_missing_is_found_out_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.compile on needs a C\+\+ compiler"):
        planned(tmp_path, train__compile="on")
    with pytest.raises(ConfigError, match=r"variant 'adaln-zero': train\.compile on needs a C\+\+ compiler"):
        both = ["adaln-zero", "adaln"]  # the first is timed before it is checked
        planned(tmp_path, train__compile="on", variants=both, budget={"match": "wall_clock", "to": "adaln"})


def test_what_is_hardly_meant_is_said(tmp_path: Path) -> None:
    two = ["adaln-zero", "adaln"]
    made, _ = planned(tmp_path, variants=two, train__drop=0, train__log_every=100, sample__modulation_guidance=2)
    for key in ("guidance", "modulation_guidance"):
        assert any(f"the null prompt is never trained, and sample.{key} 2" in warning for warning in made.warnings)
    assert len([warning for warning in made.warnings if "no curve" in warning]) == 1, "once, of all rows"


def test_an_axis_of_extractors_is_not_overwritten(tmp_path: Path) -> None:
    """Every cell was measured by the matrix's own extractor, under the name of the axis's."""
    made, _ = planned(tmp_path, evaluate__extractor="auto", axes={"evaluate.extractor": ["efficientnet-lite0"]})
    assert made.cells[0].spec.config.evaluate.extractor == "efficientnet-lite0"
    assert made.cells[0].row.axes == {"evaluate.extractor": "efficientnet-lite0"}


def test_options_of_an_axis_are_named_as_the_scheme_takes_them(tmp_path: Path) -> None:
    made, _ = planned(tmp_path, variants=["in-context"], axes={"options.tokens": ["2", 1.0]})
    assert [cell.row.axes["options.tokens"] for cell in made.cells] == [2, 1]
    assert [cell.spec.config.options["tokens"] for cell in made.cells] == [2, 1]


# --- the table -----------------------------------------------------------------------------------------------


def again(folder: Path, said: list[str], **changes: Any) -> Store:
    store = Store(folder / "runs")
    made = plan(load(matrix_file(folder, **changes)), store, command="test", progress=lambda *_: None)
    commit(made, store, say=said.append)
    return store


def test_a_wrong_baseline_is_corrected_without_training_again(tmp_path: Path) -> None:
    """It was a changed plan: with `--fresh`, or everything again under another name."""
    said: list[str] = []
    two = {"variants": ["adaln", "adaln-zero"]}
    store = again(tmp_path, said, **two)
    ids = [row.cell for row in store.rows("tiny")]
    again(tmp_path, said, **two, baseline="adaln-zero")
    assert len(said) == 1 and "no cell is trained again" in said[0] and "baseline: adaln-zero" in said[0]
    assert [row.cell for row in store.rows("tiny")] == ids
    assert store.manifest("tiny")["config"]["baseline"] == "adaln-zero"
    assert len(store.manifest("tiny")["revised"]) == 1
    renamed = {"variants": ["adaln", {"scheme": "adaln-zero", "name": "zero"}]}
    again(tmp_path, said, **renamed, baseline="zero")
    assert [row.variant for row in store.rows("tiny")] == ["adaln", "zero"]
    with pytest.raises(PlanChanged, match="--fresh"):
        again(tmp_path, said, **renamed, baseline="zero", train__lr=0.5)


def test_a_claim_is_not_changed_once_a_cell_is_trained(tmp_path: Path) -> None:
    """A hypothesis is written before the run; until then it can be corrected."""
    said: list[str] = []

    def claim(above: float) -> dict[str, Any]:
        return {"says": "x", "tests": [{"metric": "fid", "variant": "adaln-zero", "above": above}]}

    store = again(tmp_path, said, seeds=[0, 1], claim=claim(1))
    again(tmp_path, said, seeds=[0, 1], claim=claim(2))
    assert len(said) == 1
    store.cell(store.rows("tiny")[0].cell).result_file.write_text("{}")
    with pytest.raises(PlanChanged, match="another claim than before, and 1 of its cells"):
        again(tmp_path, said, seeds=[0, 1], claim=claim(3))
    again(tmp_path, said, seeds=[0, 1], claim=claim(2))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"config": 5}', '{"config": {}, "cells": []}'])
def test_a_damaged_manifest_is_written_again(tmp_path: Path, damage: str) -> None:
    """A truncated manifest ended `run` of the matrix that it belongs to."""
    said: list[str] = []
    store = again(tmp_path, said)
    path = store.matrix_folder("tiny") / "manifest.json"
    path.write_text(damage)
    again(tmp_path, said)
    assert "is damaged" in said[0] and json.loads(path.read_text())["name"] == "tiny"


# --- speed ---------------------------------------------------------------------------------------------------


def test_planning_counts_each_model_once_and_shows_how_far_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    """2,000 cells took 172 CPU s and were not done: the cost was counted again for each seed."""
    counted: list[Any] = []
    count = cost.count
    monkeypatch.setattr(cost, "count", lambda config, prompt: counted.append(config) or count(config, prompt))
    tried: list[str] = []
    monkeypatch.setattr("bench.run.plan.check_extractor", tried.append)
    path = matrix_file(
        tmp_path,
        variants=["adaln", "adaln-zero"],
        seeds=list(range(50)),
        axes={"train.lr": [k / 1000 for k in range(1, 11)], "backbone.qk_norm": [False, True]},
    )
    shown: list[tuple[str, int, int]] = []
    made = plan(load(path), Store(tmp_path / "runs"), command="test", progress=lambda *now: shown.append(now))
    assert len(made.cells) == 2000 and len(counted) == 4 and len(tried) == 1
    cells = [done for what, done, total in shown if what == "plan cells" and total == 2000]
    assert cells == sorted(cells) and cells[-1] == 2000 and len(cells) >= 20


def test_the_cost_of_a_process_is_its_own(tmp_path: Path) -> None:
    """DDPM puts out twice the channels; a row of it had the cost of the same scheme's before it."""
    other = {"scheme": "adaln-zero", "name": "noise", "train.process": "ddpm", "sample.sampler": "ddim"}
    flow, ddpm = planned(tmp_path, variants=["adaln-zero", other])[0].cells
    assert ddpm.cost["parameters_total"] > flow.cost["parameters_total"]
