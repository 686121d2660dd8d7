"""Tolerance bands of a record, and the file of values that variants chose."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_compare import FID, cell, climb, table
from typer.testing import CliRunner

from bench.cli.app import app
from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import ConfigError
from bench.findings import bands
from bench.findings.ladder import choices
from bench.findings.tuned import tuned_file
from bench.store.table import Table
from bench.views.records import newest_records

ROOT = Path(__file__).parent.parent
EXCESS = "excess_error"


def made(rng: np.random.Generator, seeds: int, shift: float = 1.0, sigma: float = 0.1) -> Table:
    """Four rows of a task whose excess varies by `sigma` on its logarithm."""
    means = {"a": 0.01, "b": 0.02, "c": 0.1, "d": 0.03 * shift}
    cells = [
        cell(name, seed, {EXCESS: float(mean * np.exp(sigma * rng.normal())), "score": float(rng.normal(0.5, 0.02))})
        for name, mean in means.items()
        for seed in range(seeds)
    ]
    return table(cells, data={"source": "task"})


def test_numbers_of_the_same_truth_lie_inside_all_bands_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    whole = sum(all(one.inside for one in bands.bands(made(rng, 2), made(rng, 5))) for _ in range(150)) / 150
    assert whole > 0.89, whole


def test_a_number_of_another_truth_lies_outside_and_is_named() -> None:
    rng = np.random.default_rng(1)
    found = bands.bands(made(rng, 3, shift=2.0), made(rng, 5))
    assert [(one.row, one.metric) for one in found if one.inside is False] == [("d", EXCESS)]
    said = bands.closing(found, ["hardware: Xeon (record: EPYC)"])
    assert said == (
        "1 of 8 of your numbers lie outside the record's bands: d excess. What differs: hardware: Xeon (record: EPYC)."
    )
    inside = bands.bands(made(rng, 3), made(rng, 5))
    assert bands.closing(inside, []).startswith("Your numbers are those of the record: all 8 lie inside its bands.")


def test_sigma_is_of_the_logarithm_of_an_excess_and_pooled_over_rows() -> None:
    one = bands.sigmas(made(np.random.default_rng(2), 200))["a"][EXCESS]
    assert one.log and one.rows == 4 and one.freedom == 4 * 199 and one.value == pytest.approx(0.1, rel=0.1)


def test_an_arm_and_a_row_that_varies_more_have_a_sigma_of_their_own() -> None:
    """`blind` varies as no scheme does, and made all bands of its task those of one row."""
    rng = np.random.default_rng(5)
    alike = made(rng, 5)
    arm = [cell("blind", seed, {EXCESS: float(np.exp(3 * rng.normal()))}) for seed in range(5)]
    wild = [cell("e", seed, {EXCESS: float(0.02 * np.exp(0.5 * rng.normal()))}) for seed in range(5)]
    sigma = {
        name: one[EXCESS] for name, one in bands.sigmas(table([*alike.cells, *arm], data={"source": "task"})).items()
    }
    assert sigma["blind"].rows == 1 and {sigma[name].rows for name in "abcd"} == {4}
    sigma = {
        name: one[EXCESS] for name, one in bands.sigmas(table([*alike.cells, *wild], data={"source": "task"})).items()
    }
    assert sigma["e"].rows == 1 and sigma["e"].value > 0.25


def test_a_record_of_one_seed_has_no_band_and_says_so() -> None:
    rng = np.random.default_rng(3)
    found = bands.bands(made(rng, 3), made(rng, 1))
    assert {one.inside for one in found} == {None}
    assert "shows no spread" in bands.closing(found, [])


def test_what_differs_is_named_by_key_version_machine_and_commit() -> None:
    ours, theirs = (table([cell("a", seed, {FID: 10.0 + seed}) for seed in range(3)]) for _ in range(2))
    assert bands.differing(ours, theirs) == []
    ours = copy.deepcopy(ours)
    for one in ours.cells:
        assert one.result is not None
        one.result.config["train"]["lr"] = 2e-3
        one.result.provenance.update({"versions": {"torch": "2.12"}, "commit": "c" * 40, "hardware": {"cpu": "Xeon"}})
    assert bands.differing(ours, theirs) == [
        "config: train.lr 0.002 (record: 0.001)",
        "versions: torch 2.12 (record: 2.11)",
        "hardware: Xeon (record: EPYC)",
        "commit cccccccc (record: aaaaaaaa)",
    ]


def test_rows_or_metrics_that_nothing_shares_are_refused() -> None:
    ours = table([cell("a", seed, {FID: 1.0 + seed}) for seed in range(2)])
    with pytest.raises(ValueError, match="no row in common: a here and b in the record"):
        bands.bands(ours, table([cell("b", 0, {FID: 1.0})]))
    with pytest.raises(ValueError, match="no metric in common"):
        bands.bands(ours, table([cell("a", 0, {"heldout_loss": 1.0})]))


@pytest.mark.parametrize("name", ["systems", "claim-01-local-global"])
def test_every_record_lies_inside_its_own_bands_on_the_command_line(name: str, monkeypatch: Any) -> None:
    """Old records too, which hold no file of sigmas: they are computed of the cells."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    folder = newest_records(ROOT / "results")[name]
    found = CliRunner().invoke(app, ["compare", "--to", f"results/{name}", str(folder)], catch_exceptions=False)
    assert found.exit_code == 0 and max(map(len, found.output.splitlines()[1:-4])) <= 100
    words = " ".join(found.output.split())
    assert "OUTSIDE" not in words and "Config, versions and hardware are the record's" in words
    assert "Your numbers are those of the record" in words


# --- the file of values -----------------------------------------------------------------------------------------------


def swept(axes: dict[str, Any], best: dict[str, float], metric: str = EXCESS) -> Table:
    """Variants that are best at these rates, by `variant` or `variant task=name`."""
    rates, cells = [1e-3, 3e-3, 9e-3], []
    for name, rate in best.items():
        variant, _, task = name.partition(" task=")
        for value in rates:
            for seed in (100, 101):
                numbers = {metric: 0.01 * (1 + abs(np.log(value / rate))) + seed * 1e-6, "heldout_loss": value}
                cells.append(cell(variant, seed, numbers, {"train.lr": value} | ({"data.task": task} if task else {})))
    return table(cells, data={"source": "task"}, axes=axes | {"train.lr": rates}, train={"lr": 1e-3}, choose="train.lr")


def test_values_are_chosen_by_excess_on_tasks_and_the_file_can_be_read() -> None:
    made = swept({}, {"adaln-zero": 3e-3, "sd3": 9e-3})
    text, warnings = tuned_file(made, "ditbench choices made --write x.yaml")
    assert yaml.safe_load(text) == {"adaln-zero": {"train.lr": 3e-3}, "sd3": {"train.lr": 9e-3}}
    assert "by excess_error, its mean over seeds 100, 101" in text and "commit aaaaaaaa" in text
    assert "# Written by: ditbench choices made" in text
    assert warnings == ["sd3 chose an end of the range, train.lr 0.009: a better value may lie beyond"]
    by_loss = swept({}, {"adaln-zero": 3e-3})
    by_loss.manifest["config"]["choose_by"] = "heldout_loss"
    assert [one.value for one in choices(by_loss)] == [1e-3]


def test_each_task_has_its_value_and_a_variant_one_for_all() -> None:
    made = swept({"data.task": ["bind", "scene"]}, {"sd3 task=bind": 3e-3, "sd3 task=scene": 9e-3})
    entries = yaml.safe_load(tuned_file(made, "x")[0])
    assert entries["sd3 task=bind"] == {"train.lr": 3e-3} and entries["sd3 task=scene"] == {"train.lr": 9e-3}
    assert entries["sd3"]["train.lr"] in (3e-3, 9e-3)


def test_one_value_each_is_the_best_geometric_mean_over_the_points() -> None:
    made = swept({"data.task": ["bind", "scene"]}, {"sd3 task=bind": 3e-3, "sd3 task=scene": 9e-3, "in-context": 1e-3})
    text, warnings = tuned_file(made, "x", one_each=True)
    assert list(yaml.safe_load(text)) == ["sd3", "in-context"]
    assert re.search(r"# 0.001 [\d.]+, 0.003 [\d.]+, 0.009 [\d.]+ over 2 points", text)
    assert any("in-context chose an end" in one for one in warnings) and not any("task=" in one for one in warnings)


def test_images_are_still_chosen_by_validation_loss() -> None:
    (one,) = choices(climb({"v": 3e-3}))
    assert one.metric == "heldout_loss" and one.value == 1e-3


def test_a_matrix_that_chooses_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'made' chooses nothing; give it `choose: train.lr`"):
        tuned_file(table([cell("a", 0, {FID: 1.0})]), "x")


def test_json_of_a_comparison_with_a_record(monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    folder = newest_records(ROOT / "results")["quickstart"]
    arguments = ["compare", "--to", str(folder), str(folder), "--metric", "heldout_loss", "--json"]
    found = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).output)
    assert {one["metric"] for one in found["bands"]} == {"heldout_loss"} and found["differing"] == []


def test_a_matrix_takes_the_values_of_the_file_and_refuses_a_variant_without(tmp_path: Path) -> None:
    made = swept({"data.task": ["bind", "scene"]}, {"sd3 task=bind": 1e-3, "sd3 task=scene": 9e-3})
    (tmp_path / "rates.yaml").write_text(tuned_file(made, "x")[0])
    matrix = {
        "name": "m", "variants": ["sd3", {"name": "own", "scheme": "sd3", "train.lr": 5e-3}], "seeds": [0],
        "tuned": "rates.yaml", "data": {"source": "task", "task": "bind"}, "axes": {"data.task": ["bind", "scene"]},
    }  # fmt: skip
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(matrix))
    rates = {(one.variant, one.axes["data.task"]): one.config.train.lr for one in expand(load(file))}
    assert rates == {("sd3", "bind"): 1e-3, ("sd3", "scene"): 9e-3, ("own", "bind"): 5e-3, ("own", "scene"): 5e-3}
    file.write_text(yaml.safe_dump(matrix | {"variants": ["sd3", "adaln-zero"]}))
    with pytest.raises(ConfigError, match="tuned rates missing: no entry of 'adaln-zero'"):
        expand(load(file))
    (tmp_path / "more.yaml").write_text("adaln-zero: {train.lr: 0.002}\n")
    file.write_text(yaml.safe_dump(matrix | {"variants": ["sd3", "adaln-zero"], "tuned": ["rates.yaml", "more.yaml"]}))
    assert {one.config.train.lr for one in expand(load(file))} == {1e-3, 9e-3, 2e-3}
    (tmp_path / "more.yaml").write_text("sd3 task=bind: {train.lr: 0.002}\n")
    with pytest.raises(ConfigError, match="more.yaml has 'sd3 task=bind' as .*0.002.*, and a file before it .*0.001"):
        load(file)
    file.write_text(yaml.safe_dump(matrix | {"tuned": "none.yaml"}))
    with pytest.raises(ConfigError, match="none.yaml cannot be read .No such file or directory.; `ditbench choices"):
        load(file)
