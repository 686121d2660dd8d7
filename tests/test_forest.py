"""The figure of claims: factors where a metric is compared on its logarithm, differences of control, else shares."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from PIL import Image
from synthetic import generate_tasks

from bench.findings.compare import Difference
from bench.store.table import Table, collect
from bench.views import claimfigure
from bench.views.claimfigure import claim_lines
from bench.views.figures import forest as plotted
from bench.views.figures.forest import Line, forest


def line(metric: str, gap: float, low: float, high: float, **more: Any) -> Line:
    margin, both = more.pop("margin", None), more.pop("both", False)
    values = {"a": "sd3 task=bind", "b": "adaln-zero task=bind", "seeds": (0, 1, 2), "mean_a": 0.3, "mean_b": 0.2}
    return Line(Difference(metric, gap=gap, low=low, high=high, **(values | more)), margin, both)


def test_each_metric_has_its_scale() -> None:
    excess = line("excess_error", 0.4, 0.3, 0.5, margin=0.25, both=True)
    assert excess.scale == "factor" and excess.ends == (0.4, 0.3, 0.5) and excess.marks == [1.25, 0.8]
    local = line("local_template_512", 0.87, 0.81, 0.93, margin=0.05)
    assert local.scale == "difference" and local.ends == (0.87, 0.81, 0.93) and local.marks == [-0.05]
    loss = line("heldout_loss", 0.01, -0.002, 0.02, margin=0.03)
    assert loss.scale == "share" and loss.ends == pytest.approx((5, -1, 10)) and loss.marks == pytest.approx([3])
    assert excess.label(True) == "bind, excess ↓: sd3 against adaln-zero (3 seeds)"
    assert excess.label(False) == "bind: sd3 against adaln-zero (3 seeds)"
    one = Difference("excess_error", "a level=hard", "b level=hard", (0, 1), 0.2, 0.3, 0.7, low=0.6, high=0.8)
    assert Line(one, task="clock").label(False) == "clock hard: a against b (2 seeds)"
    assert line("score", 0, 0, 1, b="sd3 task=scene").label(False).startswith("sd3 task=bind against sd3 task=scene")


def test_a_panel_a_scale_and_factors_on_a_logarithmic_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plotted, "render", lambda figure: (seen.append(figure), plt.close(figure), b"png")[2])
    lines = [
        line("excess_error", 0.4, 0.3, 0.5),
        line("excess_error", 1.05, 0.8, 1.3),
        line("local_template_512", 0.87, 0.81, 0.93),
    ]
    assert forest(lines) == b"png"
    factor, control = seen[0].axes
    assert factor.get_xscale() == "log" and control.get_xscale() == "linear"
    assert "factor of the excess" in factor.get_xlabel() and factor.get_xlabel().endswith("left is better")
    assert control.get_xlabel().endswith("right is better")
    neutral = [one.get_xdata()[0] for axis in (factor, control) for one in axis.lines if one.get_color() == "black"]
    assert neutral == [1.0, 0.0]
    filled = [one.get_markerfacecolor() for one in factor.lines if one.get_marker() == "o"]
    assert filled == ["white", plotted.COLOUR], "the best for the first row is on top"


def claimed(table: Table, tests: list[dict[str, Any]]) -> Table:
    table.manifest["config"]["claim"] = {"says": "x", "tests": tests}
    return table


def test_lines_of_a_claim_on_tasks(tmp_path: Path) -> None:
    store = generate_tasks(tmp_path, schemes=("sd3", "adaln-zero"), tasks=("bind",))
    rows = {"variant": "sd3 task=bind", "beats": "adaln-zero task=bind"}
    table = claimed(
        collect(store, "tasks"),
        [
            {"metric": "excess_error", **rows},
            {"metric": "local", **rows},
            {"metric": "highest_lr", **rows},
            {"metric": "local", "variant": "sd3 task=bind", "above": 0.1},
        ],
    )
    lines = claim_lines(table)
    assert [one.scale for one in lines] == ["factor", "difference"], "no cell has a ladder, and a bound has no rival"
    image = Image.open(io.BytesIO(forest(lines)))
    assert image.width > 900


def test_of_a_comparison_that_was_made_again_the_one_of_most_seeds_is_shown() -> None:
    few, many, other = (
        line("excess_error", 0.5, low, 0.6, seeds=tuple(range(count)), b=b)
        for low, count, b in ((0.1, 3, "b"), (0.4, 8, "b"), (0.2, 3, "c"))
    )
    assert (
        claimfigure.of_most_seeds([few, other, many]) == [many, other] == claimfigure.of_most_seeds([many, few, other])
    )
    again = line("excess_error", 0.5, 0.3, 0.6, seeds=tuple(range(8, 16)), b="b")
    assert claimfigure.of_most_seeds([many, again]) == [again], "of as many the last"
    less = line("local_template_128", 0.3, 0.2, 0.4, a="sd3 task=bind", b="adaln-zero task=bind")
    more = line("local_template_512", 0.3, 0.2, 0.4, a="sd3", b="adaln-zero", seeds=(0, 1, 2, 3, 4))
    more = Line(more.difference, task="bind")
    assert claimfigure.of_most_seeds([less, more]) == [more], "whatever its rows are named, of however many samples"


def test_a_line_is_apart_where_its_interval_excludes_no_difference() -> None:
    assert line("excess_error", 0.5, 0.4, 0.6).apart and line("excess_error", 1.5, 1.1, 2.0).apart
    assert not line("excess_error", 0.9, 0.7, 1.1).apart, "1 is no difference of a factor"
    assert line("local", 0.2, 0.1, 0.3).apart and not line("local", 0.2, -0.1, 0.3).apart


def test_the_readme_s_figure_is_of_the_older_claims_until_there_is_one_on_tasks(tmp_path: Path) -> None:
    assert claimfigure.result_text(Path(__file__).parent.parent) in (claimfigure.ON_SCENES, claimfigure.ON_TASKS)
    for name, config, text in (
        ("claim-01", "{claim: {}, backbone: {width: 96}}", claimfigure.ON_SCENES),
        ("old", "{claim: {says: x}, backbone: {width: 96}, data: {source: scenes}}", claimfigure.ON_SCENES),
        ("new", "{claim: {says: x}, data: {source: task}}", claimfigure.ON_TASKS),
    ):
        folder = tmp_path / "results" / name / "one"
        folder.mkdir(parents=True)
        (folder / "cells.json").write_text("{}")
        (folder / "config.yaml").write_text(config)
        assert claimfigure.result_text(tmp_path) == text
