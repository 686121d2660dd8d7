"""Capability by scheme: pivoted, void where a reference fails, first in the report, whole on a narrow terminal."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import t
from synthetic import generate, generate_tasks

from bench.cli import screen
from bench.findings.analysis import Analysis, analyse
from bench.findings.statistics import half_width, half_width_of_means
from bench.findings.summary import VariantSummary
from bench.findings.verdicts import ClaimVerdict
from bench.store.metrics import Measurement
from bench.store.table import collect
from bench.views import claimfigure, firstfigure, rates, record, records, report
from bench.views.answers import _of_tasks, _Point, answers, brief
from bench.views.capability import Capability, Task, _void, at_level, capability, short, shown_level, value_text
from bench.views.figures.adherence import PLANE
from bench.views.figures.capability import CAPABILITY, CAPABILITY_NARROW, CONTROL, EVERY_LEVEL, LEARNING
from bench.views.figures.quality import QUALITY_COST
from bench.views.figures.tasksheet import GAP, TILE, task_sheet
from bench.views.limits import OF_FORMER_TASKS, OF_SMALL_SCENES, OF_TASKS, limits
from bench.views.readme import claims_line, claims_page, readme_table
from bench.views.sheets import sheets
from bench.views.short import short_names
from bench.views.text import capability_markdown, means, terminal, written

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Five schemes and two arms on four tasks, of which `labels` is void."""
    return analyse(collect(generate_tasks(tmp_path_factory.mktemp("tasks"), void="labels"), "tasks"))


def test_schemes_down_tasks_across(matrix: Analysis) -> None:
    table = capability(matrix)
    assert table is not None and len(table.schemes) == 5 and table.arms == {"blind": "blind", "oracle": "oracle"}
    assert [task.name for task in table.tasks] == ["scene", "bind", "labels", "grain"]
    row = matrix.row("sd3 task=bind")
    assert table.value("sd3", Task("bind")) == (row.mean("score"), row.interval("score"))
    assert list(table.void) == [Task("labels")] and ".30" in table.void[Task("labels")]
    means = [table.value("sd3", task) for task in table.tasks if task.name != "labels"]
    assert table.mean("sd3")[0] == pytest.approx(np.mean([mean[0] for mean in means if mean]))  # type: ignore[index]
    rates = [matrix.row(f"sd3 task={task.name}").mean("train_images_per_second") for task in table.tasks]
    assert table.cost("sd3", "train_images_per_second") == pytest.approx(np.mean(rates))  # type: ignore[arg-type]


@pytest.mark.thorough
@pytest.mark.parametrize(("tasks", "seeds"), [(26, 3), (9, 5), (4, 3)])
@pytest.mark.parametrize("widest", [1.0, 30.0])
def test_the_interval_of_a_mean_over_tasks_covers_it_95_times_in_100(tasks: int, seeds: int, widest: float) -> None:
    """Half-widths in quadrature keep the t of three seeds, 4.3, also where there are 50 degrees of freedom: 99.98 %."""
    rng, covered, wide = np.random.default_rng(tasks), 0, 0
    truth, spreads = rng.uniform(0, 1, (tasks, 1)), np.geomspace(0.01, 0.01 * widest, tasks)[:, None]
    for values in rng.normal(truth, spreads, (1000, tasks, seeds)):
        rows = {
            ("a", Task(f"t{k}")): VariantSummary(f"a task=t{k}", [], {"score": dict(enumerate(own))})
            for k, own in enumerate(values.tolist())
        }
        table = Capability("score", ["a"], {}, [task for _, task in rows], rows, {})
        mean, half = table.mean("a")  # type: ignore[misc]
        covered += abs(mean - truth.mean()) <= half
        wide += abs(mean - truth.mean()) <= sum(row.interval("score") ** 2 for row in rows.values()) ** 0.5 / tasks
    assert 0.93 < covered / 1000 < 0.975, covered
    if (tasks, widest) == (26, 1.0):
        assert wide > 995, wide


def test_a_task_of_one_seed_has_the_spread_of_the_others() -> None:
    rows = [[0.1, 0.2, 0.3], [0.5, 0.7], [0.4]]
    one, two = np.var(rows[0], ddof=1), np.var(rows[1], ddof=1)
    usual = (2 * one + two) / 3
    variance = one / 3 + two / 2 + usual
    freedom = variance**2 / ((one / 3) ** 2 / 2 + (two / 2) ** 2 + usual**2 / 3)
    assert half_width_of_means(rows) == pytest.approx(t.ppf(0.975, freedom) * variance**0.5 / 3)
    assert half_width_of_means([[0.1], [0.2]]) is None and half_width_of_means([[0.1, 0.1], [0.2, 0.2]]) == 0.0
    assert half_width_of_means([[0.1, 0.2, 0.4]]) == pytest.approx(half_width([0.1, 0.2, 0.4]))


def test_levels_lie_within_their_task(tmp_path: Path) -> None:
    store = generate_tasks(tmp_path, schemes=("sd3",), tasks=("bind", "place"), levels=("hard", "easy"), seeds=1)
    table = capability(analyse(collect(store, "tasks")))
    assert table is not None and [str(task) for task in table.tasks] == [
        "bind, easy", "bind, hard", "place, easy", "place, hard",
    ]  # fmt: skip
    assert table.value("sd3", Task("bind", "hard"))[1] is None, "one seed has no interval"  # type: ignore[index]


def test_a_matrix_without_tasks_has_none(tmp_path: Path) -> None:
    analysis = analyse(collect(generate(tmp_path, variants=3, seeds=2, steps=100), "synthetic"))
    assert capability(analysis) is None and CAPABILITY.plot(analysis) is None and task_sheet(analysis) is None
    assert [one.word for one in answers(analysis)] == ["front", "front"]


def test_one_seed_has_no_front(tmp_path: Path) -> None:
    """It has no interval by which a row could be better: rows stood in front by gaps that it cannot establish."""
    assert not answers(analyse(collect(generate(tmp_path, variants=3, seeds=1, steps=100), "synthetic")))


def test_the_figures_show_every_value(matrix: Analysis) -> None:
    for spec in (CAPABILITY, CAPABILITY_NARROW, CONTROL):
        plot = spec.plot(matrix)
        assert plot is not None and plot[0][:4] == b"\x89PNG" and len(plot[1]) == 28
        assert {row["task"] for row in plot[1] if row["void"]} == {"labels"}
    plot = LEARNING.plot(matrix)
    assert plot is not None and {row["images"] for row in plot[1]} == set(range(6400, 128001, 6400))
    narrow, wide = (Image.open(io.BytesIO(spec.plot(matrix)[0])) for spec in (CAPABILITY_NARROW, CAPABILITY))  # type: ignore[index]
    assert narrow.width < 0.6 * wide.width


def test_the_curves_are_of_every_scheme(tmp_path: Path) -> None:
    names = tuple(f"scheme-{k:02d}" for k in range(16))
    plot = LEARNING.plot(analyse(collect(generate_tasks(tmp_path, schemes=names, tasks=("bind",)), "tasks")))
    assert plot is not None and {row["scheme"] for row in plot[1]} == set(names)


def test_what_is_void_by_a_little_says_by_how_much(matrix: Analysis) -> None:
    table, key = capability(matrix), "score"
    assert table is not None
    row = table.rows["oracle", Task("bind")]
    near = replace(row, by_seed={**row.by_seed, key: dict.fromkeys(row.by_seed[key], 0.8997)})
    found = _void(replace(table, rows={**table.rows, ("oracle", Task("bind")): near}))
    assert found[Task("bind")] == "oracle scores .8997, not above .90"


def test_a_task_whose_reference_never_finished_is_void(matrix: Analysis) -> None:
    """It counted as valid: no score of an arm was below its limit."""
    table = capability(matrix)
    assert table is not None
    row = table.rows["oracle", Task("bind")]
    for status, void in (("diverged", "oracle finished in no seed (diverged)"), ("planned", None), ("running", None)):
        cells = [replace(cell, status=status, result=None) for cell in row.cells]
        rows = {**table.rows, ("oracle", Task("bind")): replace(row, cells=cells, by_seed={})}
        assert _void(replace(table, rows=rows)).get(Task("bind")) == void


def test_costs_are_means_over_the_tasks_that_all_schemes_have(matrix: Analysis) -> None:
    """A scheme whose slowest task was not trained yet looked faster than it is."""
    table, key = capability(matrix), "train_images_per_second"
    assert table is not None
    rows = {place: row for place, row in table.rows.items() if place != ("sd3", Task("scene"))}
    fewer = replace(table, rows=rows)
    rates = [fewer.rows["adaln-zero", Task(name)].mean(key) for name in ("bind", "labels", "grain")]
    assert fewer.cost("adaln-zero", key) == pytest.approx(np.mean(rates))  # type: ignore[arg-type]
    assert fewer.cost("adaln-zero", key) != table.cost("adaln-zero", key)
    none = replace(table, rows={place: row for place, row in table.rows.items() if place[0] != "sd3"})
    assert none.cost("sd3", key) is None and none.cost("adaln-zero", key) == table.cost("adaln-zero", key)


def test_the_interval_of_the_largest_memory_is_that_of_its_row(matrix: Analysis) -> None:
    table, key = capability(matrix), "train_peak_resident_bytes"
    assert table is not None
    points = {point.name: point for point in _of_tasks(table, key)}
    for name in table.schemes:
        rows = [row for (scheme, _), row in table.rows.items() if scheme == name]
        largest = max(rows, key=lambda row: row.mean(key) or 0.0)
        assert points[name].cost == (-table.cost(name, key), largest.interval(key))  # type: ignore[operator]


def test_the_readme_s_table_of_scores_has_the_notes_of_scores(matrix: Analysis, tmp_path: Path) -> None:
    """It shows no bold, so that a note on bold would say that nothing is decided."""
    text = readme_table(matrix, "x")
    assert "score S" in text and "Bold:" not in text and "FID over" not in text
    plain = analyse(collect(generate(tmp_path, variants=3, seeds=2, steps=100), "synthetic"))
    assert "score S" not in readme_table(plain, "x") and plain.column_notes[0] in readme_table(plain, "x")


def test_the_first_sentence_says_what_cells_had_and_not_what_the_matrix_begins_with(matrix: Analysis) -> None:
    cells = [replace(cell) for cell in matrix.table.cells]
    for k, cell in enumerate(cells):
        assert cell.result is not None
        backbone, train = {"width": 24 * 2 ** (k % 3)}, {**cell.result.config["train"], "lr": 1e-3 * (1 + k % 2)}
        result = replace(cell.result, config={**cell.result.config, "backbone": backbone, "train": train})
        cells[k] = replace(cell, result=result)
    config = {**matrix.table.manifest["config"], "backbone": {"name": "DiT-XS", "width": 48, "depth": 3}}
    table = replace(matrix.table, cells=cells, manifest={**matrix.table.manifest, "config": config})
    said = report._what(table)
    assert "of width 24 to 96, depth 3 on " in said and "2,000 steps of 64, learning rate 0.001 to 0.002, EMA" in said


def test_what_rounds_to_nothing_has_no_sign() -> None:
    row = VariantSummary("a", [], {"local_template_128": {0: -0.0001, 1: -0.0002}, "score": {0: -0.2, 1: -0.4}})
    assert written(row, Measurement.parse("local_template_128")).startswith("0.000 ±")
    assert written(row, Measurement.parse("score")).startswith("-0.3")


def test_each_task_says_who_is_better_than_the_baseline_and_who_worse(matrix: Analysis) -> None:
    """By the excess error, Holm over the schemes: each but the baseline once, better where its factor is below 1."""
    said = {one.text.partition(",")[0]: one for one in answers(matrix) if "excess error beside" in one.text}
    assert list(said) == ["scene", "bind", "grain"], "labels is void"
    others = {"cross-attention", "in-context", "sd3", "shared-modulation"}
    for one in said.values():
        found = re.findall(r"([\w-]+) \(x ([\d.e-]+)\)", one.text)
        assert {name for name, _ in found} == others and len(found) == 4 and "adaln-zero: " in one.text
        for part in re.findall(r"(better|worse): ([^;]+)", one.text.partition("adaln-zero: ")[2]):
            factors = [float(factor) for factor in re.findall(r"\(x ([\d.e-]+)\)", part[1])]
            assert all(factor <= 1 if part[0] == "better" else factor >= 1 for factor in factors)
    assert "Holm's correction over the schemes" in said["grain"].text


def test_of_many_tasks_one_sentence_counts_and_the_middle_level_is_shown(tmp_path: Path) -> None:
    tasks, levels = ("scene", "bind", "labels", "grain", "tone"), ("easy", "medium", "hard")
    store = generate_tasks(tmp_path, schemes=("adaln-zero", "sd3", "flux"), tasks=tasks, levels=levels, void="tone")
    analysis = analyse(collect(store, "tasks"))
    (said,) = [one for one in answers(analysis) if "excess error beside" in one.text]
    counts = {
        name: list(map(int, numbers.split("/"))) for name, numbers in re.findall(r"(sd3|flux) ([\d/]+)", said.text)
    }
    assert "adaln-zero on 12 tasks and levels" in said.text and all(sum(own) == 12 for own in counts.values())
    table = capability(analysis)
    assert table is not None
    for name, (better, worse, _) in counts.items():
        rows = [
            (table.rows[name, task].mean("excess_error"), table.rows["adaln-zero", task].mean("excess_error"))
            for task in table.tasks
            if task not in table.void
        ]
        assert better <= sum(a < b for a, b in rows) and worse <= sum(a > b for a, b in rows)  # type: ignore[operator]
    first, every = CAPABILITY.plot(analysis), EVERY_LEVEL.plot(analysis)
    assert first is not None and {(row["task"], row["level"]) for row in first[1]} == {(t, "medium") for t in tasks}
    assert every is not None and {row["level"] for row in every[1]} == {*levels}
    heights = [Image.open(io.BytesIO(png)).height for png, _ in (first, every)]
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.1)
    few = at_level(table, "easy")
    assert not shown_level(few) and len(few.rows) == 5 * 5


def test_a_test_is_said_shortly() -> None:
    assert (
        brief("sd3 task=bind level=hard beats adaln task=bind level=hard: score") == "bind hard: sd3 beats adaln: score"
    )
    for other in ("sd3 beats adaln: score", "sd3 task=bind beats adaln task=scene: score"):
        assert brief(other) == other


def test_numbers_as_they_are_written() -> None:
    assert [short(v) for v in (0.954, -0.031, 1.0, 0.0, -0.001, -12.34)] == [
        ".95",
        "-.03",
        "1.00",
        ".00",
        ".00",
        "-12.3",
    ]
    assert value_text((0.951, 0.02)) == ".95 ±.02" and value_text((0.5, None)) == ".50" and value_text(None) == "-"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_s_table_never_wraps(
    matrix: Analysis, width: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is a line of at most 100 columns, every number whole; what has no room is named."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    screen.console().print(terminal(matrix))
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    table = text.partition("- Mean over seeds")[0].partition("No room")[0].splitlines()
    assert all(cell_len(line.rstrip()) <= min(width, 100) for line in table)
    rows = [line for line in table if re.search(r"(adaln-zero|cross-attention|shared-modulation|oracle) ", line)]
    assert len(rows) == 4 and all(re.search(r"\d?\.\d\d(±|\+/-)\.\d\d", row) for row in rows)
    headings = [" ".join(table), text.partition("No room")[2]]
    for heading in ("scene", "bind", "grain", "images/s"):
        assert any(heading in part for part in headings), heading
    assert "void: labels: blind scores" in (whole := " ".join(text.split()))
    assert "decided: bind, excess error beside adaln-zero" in whole
    assert "Bold:" not in text and "FID over" not in text, "it shows neither"
    if width >= 100 and encoding == "utf-8":
        assert "No room" not in text and "params" in text


def test_the_sheet_is_crisp(matrix: Analysis) -> None:
    """Each pixel of 12 x 12 is a square of six, the true image is the first row."""
    sheet = task_sheet(matrix)
    assert sheet is not None
    page = np.asarray(Image.open(io.BytesIO(sheet)))
    cell = matrix.first_cells["adaln-zero task=scene"]
    assert cell.grid is not None
    for file, row in (("true.npy", 0), ("grid.npy", 1)):
        tile = np.load(cell.grid.with_name(file))[0].repeat(TILE // 12, 0).repeat(TILE // 12, 1)
        x, top = 150, next(y for y in range(len(page)) if (page[y : y + TILE, 150 : 150 + TILE] == _true(matrix)).all())
        y = top + row * (TILE + GAP)
        assert (page[y : y + TILE, x : x + TILE] == tile).all()


def _true(matrix: Analysis) -> np.ndarray:
    grid = matrix.first_cells["adaln-zero task=scene"].grid
    assert grid is not None
    return np.load(grid.with_name("true.npy"))[0].repeat(TILE // 12, 0).repeat(TILE // 12, 1)  # type: ignore[no-any-return]


def test_the_first_screen_answers_and_the_rest_is_folded(matrix: Analysis, tmp_path: Path) -> None:
    text = report.write_files(matrix, tmp_path).read_text()
    first = text.partition("<details")[0]
    assert first.count("<img") == 2 and "labels: blind scores .30" in first and "mean score against images/s" in first
    assert text.index("<h2>Samples") < text.index("<h2>Means over seeds"), "what anyone can read comes before numbers"
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text), "one file"
    assert '<details class="part"><summary><h2>Means over seeds' in text and (tmp_path / "capability.png").is_file()
    assert "aria-sort" in text and "Choose columns" in text


def test_a_record_of_tasks_holds_its_capability(matrix: Analysis, tmp_path: Path) -> None:
    """`report.md` shows the figure first, then what is found and its limits; README and record agree on the table."""
    root = tmp_path / "results"
    folder = root / "tasks" / "one"
    folder.mkdir(parents=True)
    record._write(matrix.table, folder)
    assert {path.name for path in folder.glob("*.png")} == {"capability.png", "samples.png"}
    text = (folder / "report.md").read_text()
    places = [text.index(part) for part in ("(capability.png)", "**front**", OF_TASKS[0], "## Means over seeds")]
    assert places == sorted(places) and "capability-narrow" not in text
    again = analyse(records.load_record(folder))
    in_readme = readme_table(again, "x")
    assert capability_markdown(again) in text and capability_markdown(again) in in_readme
    assert "![Capability by scheme](x/capability.png)" in in_readme and (folder / "capability.png").is_file()
    assert again.table.cells[0].curves["right"] == matrix.table.cells[0].curves["right"], "of `learning`"
    shown = firstfigure.front_text(tmp_path)
    assert f"]({firstfigure.FILE})" in shown and "(results/tasks/one/report.md)" in shown
    assert (
        "7 schemes" not in shown and "5 schemes" in shown and "`bind`" in shown and "84 cells of 2,000 steps" in shown
    )
    assert all(sentence in shown for sentence in OF_TASKS)


def test_claims_on_tasks_come_first_and_the_older_under_what_their_size_could_not_show(matrix: Analysis) -> None:
    older = analyse(records.load_record(next(ROOT.glob("results/claim-10*/*"))))
    assert limits(older) == [OF_SMALL_SCENES] and limits(matrix) == list(OF_TASKS)
    newer = replace(matrix, claim=ClaimVerdict("t-x", "Attention binds.", "supported", [], []))
    both = {"old": older, "new": newer, "none": matrix}
    page, line = claims_page(both), claims_line(both, "CLAIMS.md")
    places = [page.index(part) for part in ("(new/report.md)", "could not show", OF_SMALL_SCENES, "(old/report.md)")]
    assert places == sorted(places) and "none/report.md" not in page
    assert "1 pre-registered claim at 30-170 thousand parameters: 1 supported" in line.splitlines()[0]
    assert line.splitlines()[-1].startswith("1 older claim at 1 M parameters on 32 px scenes: 0 supported")
    assert "- **supported** [Attention binds.](new/report.md)\n" in line
    assert newer.claim is not None
    undecided = replace(newer, claim=replace(newer.claim, verdict="undecided"))
    assert "\n- " not in claims_line({"new": undecided}, "CLAIMS.md")


def test_claims_on_tasks_that_were_void_are_apart_and_out_of_the_figure_of_claims(matrix: Analysis) -> None:
    void = analyse(records.load_record(next(ROOT.glob("results/claim-t-13*/*"))))
    assert limits(void) == [*OF_TASKS, OF_FORMER_TASKS]
    newer = replace(matrix, claim=ClaimVerdict("t-x", "Attention binds.", "supported", [], []))
    page, line = claims_page({"void": void, "new": newer}), claims_line({"void": void, "new": newer}, "CLAIMS.md")
    places = [
        page.index(part) for part in ("(new/report.md)", "void could not show", OF_FORMER_TASKS, "(void/report.md)")
    ]
    assert places == sorted(places)
    assert (
        "1 pre-registered claim at" in line
        and "void/report.md" not in line
        and "1 claim on tasks that were void" in line
    )
    shown = [folder.parent.name for folder in claimfigure._newer(ROOT)]
    assert "claim-t-11-bind" in shown and "claim-t-13-time" not in shown and "claim-10-late-gates" not in shown


@pytest.mark.thorough
def test_the_first_figure_is_of_the_suite_else_of_the_quickstart_and_of_one_level(tmp_path: Path) -> None:
    assert firstfigure.NONE in firstfigure.front_text(tmp_path)
    five, three = ("bind", "scene", "labels", "grain", "tone"), ("easy", "medium", "hard")
    for name, tasks, levels in (("quickstart", ("bind",), ()), ("tasks", five, three)):
        store = generate_tasks(tmp_path / "runs", schemes=("sd3",), seeds=2, tasks=tasks, levels=levels, name=name)
        folder = tmp_path / "results" / name / "one"
        folder.mkdir(parents=True)
        table, before = collect(store, name), firstfigure.front_record(tmp_path / "results")
        kept = [one for one in table.cells if one.row.seed == 0]
        record._write(replace(table, cells=kept), folder)
        assert firstfigure.front_record(tmp_path / "results") == before, "one seed has no spread"
        shutil.rmtree(tmp_path / "results" / name)
        folder = tmp_path / "results" / name / "two"
        folder.mkdir(parents=True)
        record._write(table, folder)
        found = firstfigure.front_record(tmp_path / "results")
        assert found is not None and found[0] == folder
    assert found[1] is firstfigure.front_record(tmp_path / "results")[1], "read once"  # type: ignore[index]
    assert "bind (easy, medium, hard)" in capability_markdown(found[1])
    assert "at the levels easy, medium, hard (shown: medium)" in firstfigure.front_text(tmp_path)
    plot = CAPABILITY.plot(found[1])
    assert plot is not None and firstfigure.front_figure(found[1]) == plot[0]


def test_a_large_file_of_a_record_is_packed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "LARGE", 1000)
    monkeypatch.setattr(record, "write_record_files", lambda *_: (tmp_path / "cells.csv").write_text("a" * 1000))
    store = generate_tasks(tmp_path / "runs", schemes=("sd3",), seeds=1, tasks=("bind",))
    table = collect(store, "tasks")
    record._write(table, tmp_path)
    packed = tmp_path / "cells.json.gz"
    assert packed.is_file() and (tmp_path / "cells.csv.gz").is_file() and not (tmp_path / "cells.csv").exists()
    assert len(records.load_record(tmp_path).done) == len(table.done)
    first = packed.read_bytes()
    record._write(table, tmp_path)
    assert packed.read_bytes() == first


def test_a_tuned_matrix_names_the_rate_of_each_row_and_shows_tuned_beside_untuned(tmp_path: Path) -> None:
    store = generate_tasks(tmp_path, schemes=("sd3", "sd3-plain", "adaln-zero"), tasks=("bind",), seeds=2)
    table = collect(store, "tasks")
    rates_of = {"sd3": 0.006, "sd3-plain": 0.003, "adaln-zero": 0.0015}
    for cell in table.cells:
        assert cell.result is not None
        cell.result.config["train"]["lr"] = rates_of.get(cell.row.variant, 0.003)
        cell.result.config["scheme"] = cell.row.variant.removesuffix("-plain")
    table.manifest["config"]["tuned"] = {
        name: {"train.lr": rates_of.get(name, 0.003)} for name in ("sd3", "adaln-zero")
    }
    cells = [replace(one, row=replace(one.row, scheme=one.row.variant.removesuffix("-plain"))) for one in table.cells]
    kept = [one for one in cells if one.row.variant not in ("blind", "oracle")]
    analysis = analyse(replace(table, cells=kept))
    assert [(one.name, other.name) for one, other in rates.pairs(analysis)] == [
        ("sd3 task=bind", "sd3-plain task=bind")
    ]
    (sheet,) = [one for one in sheets(analysis)[1] if one.title == "Tuned vs untuned"]
    assert [row[:2] for row in sheet.rows] == [
        ["sd3 task=bind, tuned", "0.006"],
        ["sd3-plain task=bind, untuned", "0.003"],
    ]
    table_of_means = means(analysis)
    assert table_of_means.headings[:3] == ["variant", "seeds", "learning rate"]
    assert [row[2] for row in table_of_means.rows] == ["0.006", "0.003", "0.0015"]
    assert " 0.0015 |" in capability_markdown(analysis)
    stream = io.StringIO()
    Console(file=stream, width=100).print(terminal(analysis))
    assert "rate" in stream.getvalue() and "0.0015" in stream.getvalue()
    assert "learning rates tuned on other seeds" in report.text(analysis, [])


def test_quality_against_cost_is_a_point_a_scheme_not_one_a_scheme_and_task(matrix: Analysis) -> None:
    plot = QUALITY_COST.plot(matrix)
    table = capability(matrix)
    assert plot is not None and table is not None
    assert [row["variant"] for row in plot[1]] == table.schemes
    assert (plot[1][0]["score"], plot[1][0]["score_ci95"]) == table.mean(table.schemes[0])
    assert PLANE.plot(matrix) is None, "tasks do not share their attributes: `control` shows them"


def test_the_front_needs_more_than_noise() -> None:
    best, near, worse = (
        _Point(n, q, (100.0, 1.0)) for n, q in (("a", (0.9, 0.05)), ("b", (0.88, 0.05)), ("c", (0.5, 0.05)))
    )
    assert best.beats(worse) and not best.beats(near) and not near.beats(best) and not worse.beats(best)


def test_two_of_one_name_say_what_made_them() -> None:
    names = short_names(["fid_inception_tf1_5k", "kid_inception_tf1_5k", "train_images_per_second", "score"])
    assert list(names.values()) == ["FID", "KID", "images/s", "score"]
    both = short_names(["fid_inception_tf1_5k", "fid_efficientnet_lite0_400"])
    assert list(both.values()) == ["FID inception-tf1 5k", "FID efficientnet-lite0 400"]
