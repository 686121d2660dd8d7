"""The table of a plan: units that show something, a row for cells that differ by seed or by task alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.planned import plan_grid, recorded_time
from bench.config.schema import Train
from bench.config.spec import CellConfig
from bench.store.folders import Row
from bench.views.records import load_record, newest_records

RESULTS = Path(__file__).parent.parent / "results"


def cell(variant: str, *, seed: int = 0, lr: float = 0.1, macs: float = 1e6, reason: str = "", **axes: Any) -> Any:
    config = CellConfig(variant, train=Train(lr=lr, batch=10, steps=100))
    named = {key.replace("_", "."): value for key, value in axes.items()}
    cost = dict(parameters_total=2e6, parameters_modulation=1e6, parameters_prompt=0.0, macs_forward=macs)
    cost["flops_train_per_image"] = 6 * macs
    row = Row(f"{variant}-{seed}", variant, variant, seed, {}, named, "DiT-S/2", "scene")
    spec = SimpleNamespace(config=config)
    return SimpleNamespace(row=row, spec=spec, cost={} if reason else cost, reason=reason, budget="", label="")


def grid(*cells: Any) -> tuple[list[str], list[list[str]]]:
    matrix = SimpleNamespace(name="m", train=Train(steps=100), budget=SimpleNamespace(match=None))
    made = plan_grid(SimpleNamespace(matrix=matrix, cells=list(cells)))  # type: ignore[arg-type]
    return list(made.headings), [list(row) for row in made.rows]


@pytest.mark.parametrize(
    ("macs", "mac", "flop"),
    [
        (983_000.0, ("kMAC an image", "983"), ("training GFLOP", "5.9")),
        (1.05e6, ("MMAC an image", "1.05"), ("training GFLOP", "6.3")),
        (6.17e9, ("GMAC an image", "6.17"), ("training TFLOP", "37")),
        (1.2e12, ("TMAC an image", "1.2"), ("training PFLOP", "7.2")),
        (6e15, ("PMAC an image", "6"), ("training PFLOP", "36,000")),
    ],
)
def test_a_cost_has_the_unit_that_shows_it(macs: float, mac: tuple[str, str], flop: tuple[str, str]) -> None:
    """A matrix on two cores was GMAC 0.001 and PFLOP 0.000 in sixty rows."""
    headings, [row] = grid(cell("adaln", macs=macs))
    shown = dict(zip(headings, row, strict=True))
    assert (mac[0], shown[mac[0]]) == mac and (flop[0], shown[flop[0]]) == flop


def test_cells_of_several_seeds_and_tasks_are_one_row_with_the_range_of_their_costs() -> None:
    cells = [
        cell("adaln", seed=seed, macs=macs, data_task=task)
        for seed in (0, 1)
        for task, macs in (("a", 1e6), ("b", 2e6))
    ]
    headings, [row] = grid(*cells)
    shown = dict(zip(headings, row, strict=True))
    assert (shown["row"], shown["cells"], shown["MMAC an image"]) == ("adaln", "4", "1 to 2")
    assert (shown["parameters"], shown["modulation"]) == ("2.00 M", "50.0%"), "what is equal is said once"


def test_rows_of_one_task_keep_its_name_and_other_axes_keep_rows_apart() -> None:
    _, rows = grid(cell("adaln", data_task="a", train_steps=1), cell("adaln", data_task="a", train_steps=2))
    assert [row[0] for row in rows] == ["adaln task=a steps=1", "adaln task=a steps=2"]


def test_the_rate_that_a_row_is_trained_at_is_shown_and_what_cannot_be_run_is_a_row_of_its_own() -> None:
    cells = [cell("adaln", lr=0.006), cell("sd3", lr=0.012), cell("sd3", seed=1, lr=0.003), cell("x", reason="no file")]
    headings, rows = grid(*cells)
    rate = headings.index("train.lr")
    assert [row[rate] for row in rows] == ["0.006", "0.003 to 0.012", "0.1"]
    assert rows[2][rate + 1 : -1] == [""] * 5 and headings[-1] == "cannot be run" and rows[2][-1] == "no file"


def test_the_time_is_that_of_the_same_rows_of_the_record_and_else_none() -> None:
    recorded = [one for one in load_record(newest_records(RESULTS)["quickstart"]).done if one.result]
    cells: Any = []
    for one in recorded:
        assert one.result is not None
        train = Train(steps=one.result.config["train"]["steps"], batch=one.result.config["train"]["batch"])
        spec = SimpleNamespace(config=CellConfig(one.row.scheme, train=train))
        cells.append(SimpleNamespace(row=one.row, spec=spec, cost=one.result.cost))
    costs = [one.result.cost for one in recorded if one.result]
    minutes = sum(cost["train_seconds"] + cost["evaluate_seconds"] for cost in costs) / 2 / 60
    matrix: Any = SimpleNamespace(name="quickstart", run=SimpleNamespace(jobs=2))
    assert recorded_time(matrix, cells, RESULTS).startswith(
        f"estimate: {minutes:.2g} minutes, 2 at a time, from the same"
    )
    assert recorded_time(matrix, [], RESULTS) == "", "nothing is left"
    cells[0].cost = cells[0].cost | {"macs_forward": 1.0}
    assert recorded_time(matrix, cells, RESULTS) == "", "another model than the recorded one"
    matrix.name = "none"
    assert recorded_time(matrix, cells[1:], RESULTS) == ""
