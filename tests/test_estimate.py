"""GPU hours before a run: the record's utilisation, the arithmetic of the step that was measured, and money."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import ditbench, matrix_file

from architectures import Labels
from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import Backbone, Data, Evaluate, Sample, Train
from bench.config.spec import CellConfig
from bench.measure.cost import count
from bench.run import estimate

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "results" / "gpu" / "20261126-h200-eb2f6d91.json"
WIDTHS = {"DiT-S/2": 384, "DiT-B/2": 768}


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RECORD.read_text())["steps"]
    return found


def planned(config: CellConfig, classes: int = 1000, **more: Any) -> Any:
    cost = count(config, Labels(classes))
    return SimpleNamespace(reason="", cost=cost | more, spec=SimpleNamespace(config=config))


def test_the_table_is_the_records() -> None:
    for backbone, width in WIDTHS.items():
        mfu = [one["mfu"] for one in steps() if one["backbone"] == backbone]
        expected = (min(mfu), sum(mfu) / len(mfu), max(mfu))
        assert estimate.MEASURED[width] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("row", steps(), ids=lambda one: f"{one['scheme']}-{one['backbone']}")
def test_hours_of_the_measured_step_are_those_that_it_took(row: dict[str, Any]) -> None:
    """Within the spread between the schemes of its width."""
    train, sample = Train(steps=1000, batch=256), Sample(guidance=1.0, steps=1, sampler="euler")
    config = CellConfig(
        row["scheme"], backbone=Backbone(row["backbone"]), train=train, sample=sample, evaluate=Evaluate(samples=1)
    )
    cell = planned(config, flops_train_per_image=row["flops_train_per_image"], macs_forward=0.0)
    found, took = estimate.hours(cell), 1000 * row["step_seconds"] / 3600
    assert found is not None and found.low * 0.999 <= took <= found.high * 1.001 and not found.extrapolated


def test_sampling_counts_and_what_was_not_measured_is_said_or_left_out() -> None:
    small = CellConfig("adaln-zero", backbone=Backbone("DiT-S/2"), train=Train(steps=1), evaluate=Evaluate(samples=10))
    plain, guided = (estimate.hours(planned(replace(small, sample=Sample(guidance=w)))) for w in (1.0, 2.0))
    assert plain and guided and guided.mean == pytest.approx(2 * plain.mean, rel=0.5) and guided.mean > plain.mean
    large = estimate.hours(planned(replace(small, backbone=Backbone("DiT-XL/2"))))
    assert large is not None and large.extrapolated and str(large).startswith("~")
    tiny = planned(replace(small, backbone=Backbone("DiT-XS/2")))
    assert estimate.hours(tiny) is None and estimate.summary([tiny], 3.0) == ""
    said = estimate.summary([planned(small)], 3.0)
    assert "H200 hours" in said and "at 3 an hour" in said and "~" not in said
    assert estimate.hours(SimpleNamespace(reason="broken", cost={})) is None  # type: ignore[arg-type]


def test_the_dry_run_shows_hours_and_money(tmp_path: Path) -> None:
    file = str(matrix_file(tmp_path, backbone={"name": "DiT-S/4", "depth": 2}))
    shown = ditbench("run", file, "--dry-run", "run.price_per_gpu_hour=2.5", cwd=tmp_path, code=0).stdout
    assert "H200 hours" in shown and "at 2.5 an hour" in shown and "results/gpu" in shown
    tiny = ditbench("run", str(matrix_file(tmp_path)), "--dry-run", cwd=tmp_path, code=0).stdout
    assert "H200" not in tiny
    wrong = ditbench("run", file, "--dry-run", "run.price_per_gpu_hour=-1", cwd=tmp_path, code=2).stderr
    assert "price_per_gpu_hour" in wrong and len(wrong.splitlines()) == 1


def test_the_papers_ablations_are_planned_as_they_say() -> None:
    """Twelve cells of 400 thousand steps at the paper's parameter counts; twenty that fit an evening of one card."""
    paper = [cell.config for cell in expand(load(ROOT / "configs" / "imagenet256.yaml"))]
    assert len(paper) == 12 and {one.train.steps * one.train.batch for one in paper} == {400_000 * 256}
    latents = Data("latents", path="x", image_size=32, channels=4)
    xl = {one.scheme: count(replace(one, data=latents), Labels(1000)) for one in paper if "XL" in one.backbone.name}
    million = {name: round(cost["parameters_total"] / 1e6) for name, cost in xl.items()}
    assert list(million) == ["in-context", "cross-attention", "adaln", "adaln-zero"]
    assert million["adaln-zero"] == pytest.approx(675, rel=0.01) and million["adaln"] == pytest.approx(600, rel=0.01)
    assert million["in-context"] == pytest.approx(449, rel=0.02) and 590 <= million["cross-attention"] <= 700
    evening = [cell.config for cell in expand(load(ROOT / "configs" / "ablation-1gpu.yaml"))]
    assert len(evening) == 20 and {one.seed for one in evening} == set(range(5))
    found = {one.scheme: estimate.hours(planned(one)) for one in evening if one.seed == 0}
    assert 5 * sum(one.mean for one in found.values() if one) < 10
