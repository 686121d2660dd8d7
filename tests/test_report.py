"""Tables, figures, records: spread beside means, failures as rows, nothing said that was not measured."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic import write_page

from bench.config.load import load
from bench.config.schema import as_dict
from bench.data import scenes
from bench.findings import best
from bench.findings.analysis import Analysis, analyse, columns, summaries
from bench.store.files import write_json
from bench.store.folders import Store
from bench.store.journal import Journal
from bench.store.metrics import ATTRIBUTES, Measurement, numbers
from bench.store.result import Result
from bench.store.table import collect
from bench.views import record, records, report
from bench.views.figures import catalogue as figures
from bench.views.figures import samples
from bench.views.readme import (
    BEGIN,
    CLAIMS,
    CLAIMS_FILE,
    END,
    claims_line,
    claims_page,
    newest_analyses,
    readme_section,
    readme_table,
    update_readme,
)
from bench.views.sheets import sheets
from bench.views.text import as_csv, latex, terminal
from bench.views.text import markdown as padded

COMMIT = "c0ffee" + "0" * 34


def markdown(analysis: Analysis) -> str:
    """The table of means, without the spaces that align its columns."""
    return re.sub(r" +", " ", padded(analysis))


def made(root: Path, values: dict[str, list[float | None]], *, commit: str = COMMIT, dirty: bool = False) -> Store:
    """A results directory with a row a variant and a KID a seed; None is a cell that diverged."""
    store, rows = Store(root / "runs"), []
    for variant, kids in values.items():
        for seed, kid in enumerate(kids):
            folder = store.cell(f"{variant}-{seed:012x}")
            journal = Journal(folder.journal)
            for step in range(50, 501, 50):
                journal.metrics(step, {"loss": 1 / step + seed})
            journal.close()
            folder.write_state("done" if kid is not None else "diverged", "" if kid is not None else "the loss is nan")
            if kid is not None:
                result(folder.id, kid, seed, root, commit, dirty).write(folder.result_file)
                folder.samples.mkdir()
                np.save(folder.samples / "grid.npy", np.full((4, 16, 16, 3), 60 * seed, np.uint8))
                write_json(folder.samples / "grid.json", {"prompts": ["a small red ring at the top left; night"] * 4})
            row = {"cell": folder.id, "variant": variant, "scheme": variant, "seed": seed, "options": {}, "axes": {}}
            rows.append(row | {"backbone": "DiT-S/2", "data": "scenes"})
    config = {
        "backbone": {"name": "DiT-S/2"},
        "data": {"source": "huggingface", "image_size": 32, "path": str(root / "my data")},
        "train": {"steps": 500, "batch": 8, "lr": 1e-3, "ema": 0.9},
        "sample": {"sampler": "euler", "steps": 2, "guidance": 2.0},
    }
    manifest = {"name": "made", "config": config, "command": f"ditbench run made.yaml data.path={root / 'data'}"}
    manifest |= {"created": 1.7e9, "launch": "1", "code": [], "data": [], "reasons": {}, "cells": rows}
    write_json(store.matrix_folder("made") / "manifest.json", manifest)
    return store


def analysed(store: Store, name: str) -> Analysis:
    return analyse(collect(store, name))


def result(id: str, kid: float, seed: int, root: Path, commit: str, dirty: bool) -> Result:
    provenance = {
        "commit": commit,
        "dirty": dirty,
        "command": f"ditbench run {root / 'made.yaml'}",
        "hardware": {"device": "cpu", "cpu": "AMD EPYC", "cores": 2, "memory_bytes": 2**34},
        "versions": {"torch": "2.14"},
        "seeds": {"train": seed},
        "scheme": {
            "name": "mine",
            "origin": {"kind": "package", "name": "a-package", "version": "1.2", "sha256": "ab" * 32},
        },
        "digests": {"data": "d", "initial_backbone_weights": "w"},
        "measured": {"extractor": "efficientnet-lite0"},
        "attempts": 1,
        "started": 1.7e9,
        "ended": 1.7e9 + 60,
    }
    quality = {"kid_efficientnet_lite0_400": kid, "fid_efficientnet_lite0_400": 100 * kid, "heldout_loss": kid}
    quality |= {f"heldout_loss_bin{k}": kid + k for k in range(10)}
    cost = {"train_images_per_second": 100.0 - seed, "parameters_total": 2e6, "parameters_modulation": 5e5}
    return Result(id, quality, cost, {"data": {"path": str(root / "my data")}}, provenance)


THREE = {"adaln": [0.5, 0.6, 0.7], "adaln-zero": [0.2, 0.3, 0.4]}


def test_means_have_their_interval(tmp_path: Path) -> None:
    row = summaries(collect(made(tmp_path, THREE), "made"))[0]
    values = [0.5, 0.6, 0.7]
    low, high = stats.t.interval(0.95, 2, loc=statistics.fmean(values), scale=stats.sem(values))
    assert row.mean("kid_efficientnet_lite0_400") == pytest.approx(0.6)
    assert row.interval("kid_efficientnet_lite0_400") == pytest.approx((high - low) / 2)
    assert numbers(collect(made(tmp_path / "b", THREE), "made").done[0].result)["modulation_share"] == 0.25  # type: ignore[arg-type]


def test_the_table_in_markdown(tmp_path: Path) -> None:
    text = markdown(analysed(made(tmp_path, THREE), "made"))
    assert "| adaln | 3 | 0.6000 ± 0.2484 |" in text and "**0.3000 ± 0.2484**" in text
    assert "KID (efficientnet-lite0, 400) ↓" in text and "25.0%" in text


def test_a_rate_is_bold_only_among_those_of_one_run(tmp_path: Path) -> None:
    table = collect(made(tmp_path, THREE), "made")
    rate = Measurement.of("train_images_per_second")
    for cell in table.done:
        assert cell.result is not None
        cell.result.cost[rate.key] = 300.0 if cell.row.variant == "adaln" else 200.0
    assert best.not_worse(summaries(table), rate) == {"adaln"}
    table.done[0].result.provenance["command"] = "ditbench run earlier.yaml"  # type: ignore[union-attr]
    kid = next(one for one in columns(summaries(table)) if one.metric.kind == "kid")
    assert not best.not_worse(summaries(table), rate) and best.not_worse(summaries(table), kid)


def test_one_seed_has_no_spread_and_no_best(tmp_path: Path) -> None:
    table = collect(made(tmp_path, {"adaln": [0.5], "adaln-zero": [0.2]}), "made")
    assert "**" not in markdown(analyse(table)) and "±" not in markdown(analyse(table))
    assert "One seed: there is no spread" in analyse(table).notes[0]
    assert any("biased upward" in note for note in analyse(table).notes)


def test_a_failure_is_a_row_and_takes_no_prize(tmp_path: Path) -> None:
    table = collect(made(tmp_path, {"adaln": [0.5, 0.6], "adaln-zero": [0.1, None], "third": [0.8, 0.9]}), "made")
    text = markdown(analyse(table))
    assert "| adaln-zero | 1/2 (1 diverged) | 0.1000 |" in text and "**0.5500" in text
    assert any("adaln-zero, seed 1: diverged: the loss is nan" in note for note in analyse(table).notes)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert len(rows) == 6 and rows[3]["status"] == "diverged" and rows[3]["kid_efficientnet_lite0_400"] == ""


def test_equal_means_share_no_prize(tmp_path: Path) -> None:
    table = collect(made(tmp_path, {"adaln": [0.5, 0.6], "adaln-zero": [0.5, 0.6]}), "made")
    assert "**" not in markdown(analyse(table))


def test_the_terminal_shows_it(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=160, file=io.StringIO())
    console.print(terminal(analysed(made(tmp_path, THREE), "made")))
    assert "adaln-zero" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "values", [THREE, {"adaln": [0.5]}, {"adaln": [None]}, {f"variant-{k}": [0.1 * k] for k in range(1, 10)}]
)
def test_the_report_is_written_whatever_there_is(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write_page(made(tmp_path, values), "made")
    text = path.with_suffix(".md").read_text()
    for name in [line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]:
        assert (path.parent / name).read_bytes()[:4] == b"\x89PNG"
    finished = any(value is not None for kids in values.values() for value in kids)
    assert (path.parent / "samples.png").exists() == finished and ("No cell has a result" in text) != finished
    assert "Where the numbers come from" in text and (path.parent / "cells.csv").exists()


def test_the_page_holds_everything_it_shows(tmp_path: Path) -> None:
    """One file, no network; every figure's numbers are a link; a failure is a row; names are escaped."""
    store = made(tmp_path, {"adaln": [0.5, 0.6], "adaln-zero": [0.2, None], "third": [0.4, 0.5]})
    text = write_page(store, "made").read_text()
    assert len(text) < 5_000_000 and "<script src" not in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "http" not in re.sub(r"data:[^\"]*", "", text)
    links = dict(re.findall(r'download="made-([\w-]+)\.?\w*" href="data:text/\w+;base64,([^"]+)"', text))
    assert {"cells", "loss", "heldout", "quality-cost"} <= set(links)
    points = list(csv.DictReader(io.StringIO(base64.b64decode(links["quality-cost"]).decode())))
    assert float(points[0]["kid_efficientnet_lite0_400"]) == pytest.approx(0.55)
    assert re.search(r'<tr class="failed"><td>adaln-zero</td><td>1/2 \(1 diverged\)</td>', text)
    assert text.index('<table class="means">') < text.index("<img") and "ditbench run made.yaml" in text
    assert "mine of a-package 1.2 sha256 abab" in text
    assert '<td class="bold">0.4500 ± ' in text


@pytest.mark.thorough
def test_the_page_of_a_committed_record_needs_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    folder = sorted((root / "results").glob("*/*/cells.json"))[0].parent
    absent = "('torch', 'mlflow', 'lightning', 'datasets', 'omegaconf')"  # SciPy looks into sys.modules
    code = "import sys, importlib.machinery as machinery\nfind = machinery.PathFinder.find_spec\n"
    code += f"hide = lambda name, *more: None if name.partition('.')[0] in {absent} else find(name, *more)\n"
    code += "machinery.PathFinder.find_spec = staticmethod(hide)\n"
    code += "sys.argv = ['ditbench', 'report', sys.argv[1], '-o', sys.argv[2]]\nfrom bench.cli import main\nmain()"
    subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path)], check=True, cwd=root, capture_output=True)
    text = (tmp_path / "report.html").read_text()
    assert "Samples" in text and "Validation loss by timestep" in text and len(text) < 5_000_000


def test_the_table_in_latex(tmp_path: Path) -> None:
    text = latex(analysed(made(tmp_path, THREE), "made"))
    assert r"\textbf{0.3000 $\pm$ 0.2484}" in text and r"25.0\%" in text and r"\bottomrule" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    analysis = analysed(made(tmp_path / "odd", {"adaln": [0.5]}), "made")
    odd = latex(replace(analysis, rows=[replace(analysis.rows[0], name=r"a_b & 5%~{}^$#\ ")]))
    assert r"a\_b \& 5\%\textasciitilde{}\{\}\^{}\$\#\textbackslash{}" in odd and r"$\downarrow$" in odd


def test_samples_over_training(tmp_path: Path) -> None:
    store = made(tmp_path, {"adaln": [0.5], "adaln-zero": [0.2]})
    assert samples.training(analyse(collect(store, "made"))) is None
    for row in store.rows("made"):
        for step in (100, 200, 300):
            np.save(store.cell(row.cell).samples / f"step-{step:09d}.npy", np.zeros((4, 16, 16, 3), np.uint8))
    rendered = samples.training(analyse(collect(store, "made")))
    assert rendered is not None and rendered[0][:4] == b"\x89PNG"


def adherence_and_dynamics(level: float) -> tuple[dict[str, float], dict[str, Any]]:
    """What a cell on scenes says besides: adherence along guidance, where prompts land, how its blocks learn."""
    names = ("local", "global", "control", *ATTRIBUTES)
    quality = {f"{start}{name}_judge1_400": level for start in ("", "real_") for name in names}
    quality |= {f"guidance5_{name}_judge1_100": level / 2 for name in ("local", "global")}
    quality |= {f"locality_{name}_swap_8": level for name in ATTRIBUTES}
    swap = {name: np.full((15, 15), level).tolist() for name in scenes.LOCAL}
    swap |= {name: np.full((9, 9), level).tolist() for name in scenes.GLOBAL}
    blocks, branches = ["block00", "block01"], ["block00.mlp", "block01.mlp"]
    heat = {
        kind: {"steps": [0, 1, 100], "rows": blocks, "values": [[0, level, 1]] * 2} for kind in ("open", "gradient")
    }
    heat["gate"] = {"steps": [0, 1, 100], "rows": branches, "values": [[0, level, 1]] * 2}
    times = {kind: {"t": [0.1, 0.5], "rows": branches, "values": [[0, level]] * 2} for kind in ("gate", "scale")}
    return quality, {"swap": swap, "real_swap": swap, "dynamics": heat, "times": times}


def test_every_figure_is_plotted_of_what_it_shows_and_gives_its_numbers(tmp_path: Path) -> None:
    table = collect(made(tmp_path, {"adaln": [0.5, 0.4], "adaln-zero": [0.2, 0.3]}), "made")
    for cell in table.done:
        assert cell.result is not None
        quality, probes = adherence_and_dynamics(cell.result.quality["heldout_loss"])
        cell.result.quality.update(quality)
        cell.result.probes.update(probes)
        cell.result.sampling.update({"fid_efficientnet_lite0_400": [40.0, 60.0]})
    chance = next(one for one in sheets(analyse(table))[1] if one.title == "Sampling uncertainty")
    assert chance.rows == [["adaln", "40.0 to 60.0"], ["adaln-zero", "40.0 to 60.0"]]
    shown = {figure.file: figure for figure in figures.plot_all(analyse(table))}
    expected = {"plane", "attributes", "guidance", "swap", "opening", "gates", "gates-time", "scales-time", "gradients"}
    assert {f"{name}.png" for name in expected} <= set(shown)
    assert all(figure.png[:4] == b"\x89PNG" for figure in shown.values())
    assert shown["gates-time.png"].data[1] == {"variant": "adaln", "row": "block00.mlp", "t": 0.5, "gate": 0.5}
    assert shown["gradients.png"].data[2]["step"] == 100
    assert all(shown[f"{name}.png"].data for name in expected)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "file").write_text("1")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    return folder


def test_a_record_holds_the_matrix_and_no_place(tmp_path: Path, repository: Path) -> None:
    store = made(tmp_path / "secret-user", THREE)
    folder = record.record(store, "made", repository=repository, destination=tmp_path / "results")
    assert folder.name == "20231114-cpu2-epyc-c0ffee00"
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "report.md",
        "cells.csv",
        "cells.json",
        "config.yaml",
        "environment.json",
        "samples.png",
        "sigma.json",
    }
    for path in folder.iterdir():
        if path.suffix != ".png":
            assert "secret-user" not in path.read_text(), path.name
    diverged = made(tmp_path / "lost", {"adaln": [0.5, None], "adaln-zero": [0.2, 0.3]})
    lost = record.record(diverged, "made", repository=repository, destination=tmp_path / "others")
    assert "diverged: the loss is nan" in (lost / "report.md").read_text()
    (repository / "results").mkdir()
    (repository / "results" / "another").write_text("a record not committed yet")
    (repository / "README.md").write_text("which the README shows")
    record.record(store, "made", repository=repository, destination=tmp_path / "more")
    again = analyse(records.load_record(folder))
    assert markdown(again) == markdown(analysed(store, "made"))
    assert json.loads((folder / "environment.json").read_text())["commit"] == COMMIT
    shown = readme_table(again, folder.relative_to(tmp_path).as_posix())
    assert "results/made/20231114-cpu2-epyc-c0ffee00/report.md" in shown and "| adaln-zero |" in shown
    with pytest.raises(ValueError, match="there already"):
        record.record(store, "made", repository=repository, destination=tmp_path / "results")


def test_records_that_are_refused(tmp_path: Path, repository: Path) -> None:
    def refused(store: Store, said: str, **more: bool) -> None:
        with pytest.raises(ValueError, match=said):
            record.record(store, "made", repository=repository, destination=tmp_path / "results", **more)

    killed = made(tmp_path / "a", {"adaln": [0.5, None]})
    killed.cell("adaln-000000000001").write_state("killed", "stopped")
    refused(killed, "1 of 2 cells of 'made' lack a result")
    refused(made(tmp_path / "b", {"adaln": [None]}), "no finished cell", allow_partial=True)
    refused(made(tmp_path / "c", THREE, dirty=True), "uncommitted changes")
    store = made(tmp_path / "d", THREE)
    result("adaln-000000000000", 0.5, 0, tmp_path, "b" * 40, False).write(store.cell("adaln-000000000000").result_file)
    refused(store, "different commits")
    (repository / "file").write_text("2")
    refused(made(tmp_path / "e", THREE), "the tree has uncommitted changes")
    assert not (tmp_path / "results").exists()
    with pytest.raises(ValueError, match="no record"):
        records.load_record(tmp_path)


def test_hardware_has_a_short_name() -> None:
    assert record.hardware_slug({"gpu": "NVIDIA H200"}) == "h200"
    assert record.hardware_slug({"gpu": "NVIDIA A100-SXM4-80GB"}) == "a100"
    assert record.hardware_slug({"cpu": "Intel(R) Xeon(R) Platinum 8370C", "cores": 8}) == "cpu8-xeon"


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parent.parent / "results").glob("*/*/")), ids=lambda p: p.name
)
def test_committed_records_can_be_read_and_hold_no_place(folder: Path) -> None:
    table = records.load_record(folder)
    assert table.done and padded(analyse(table)) in (folder / "report.md").read_text()
    for path in folder.iterdir():
        assert path.stat().st_size < max(2_000_000, 2_000 * len(table.cells)), "a cell takes less than 2 kB"
        if path.suffix != ".png":
            read = gzip.decompress if path.suffix == ".gz" else bytes
            text = read(path.read_bytes()).decode()
            assert not re.search(r"(?<![\w./:])/(?:[\w.+-]+/)+[\w.+-]+", text), f"a folder in {path.name}"


@pytest.fixture(scope="module")
def newest() -> dict[str, Analysis]:
    """The newest record of each matrix, by its folder as seen from the repository."""
    root = Path(__file__).parent.parent
    return newest_analyses(root / "results", root)


@pytest.mark.thorough
def test_claims_were_decided_by_the_rule_in_configs(newest: dict[str, Analysis]) -> None:
    root = Path(__file__).parent.parent
    written = [load(path) for path in sorted((root / "configs" / "claims").glob("*.yaml"))]
    rules = {one.name: as_dict(one) for one in written}
    records = [one for one in newest.values() if one.name in rules]
    assert records
    for one in records:
        recorded = one.table.manifest["config"]
        for key in ("claim", "variants", "seeds", "axes"):
            assert recorded[key] == rules[one.name][key], f"{one.name}: {key}"


def test_the_readme_shows_the_newest_records(newest: dict[str, Analysis], tmp_path: Path) -> None:
    """The committed README is what `ditbench record` would write, and a README without marks is left alone."""
    root = Path(__file__).parent.parent
    shown = (root / "README.md").read_text().partition(BEGIN)[2].partition(END)[0].lstrip("\n")
    assert shown == readme_section(newest)
    first, last = CLAIMS
    line = (root / "README.md").read_text().partition(first)[2].partition(last)[0].lstrip("\n")
    assert line == claims_line(newest, "results/CLAIMS.md") and "14 older claims at" in line
    page = (root / "results" / CLAIMS_FILE).read_text()
    assert page == claims_page({Path(name).relative_to("results").as_posix(): one for name, one in newest.items()})
    (tmp_path / "README.md").write_text("nothing to fill")
    assert not update_readme(tmp_path / "README.md", root / "results")
    own = tmp_path / "own" / "README.md"
    own.parent.mkdir()
    own.write_text((root / "README.md").read_text())
    assert not update_readme(own, root / "results")  # records that are kept elsewhere


def test_the_readme_shows_records_whose_place_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`record --destination $PWD/results` wrote the record, and ended with "is not in the subpath of ''"."""
    kept = sorted((Path(__file__).parent.parent / "results").glob("claim-t-10*/*/"))[-1]
    shutil.copytree(kept, tmp_path / "results" / kept.parent.name / kept.name)
    monkeypatch.chdir(tmp_path)
    pages = []
    for results in (Path("results"), tmp_path / "results"):
        Path("README.md").write_text(f"{BEGIN}\n{END}\n{CLAIMS[0]}\n{CLAIMS[1]}\n")
        assert update_readme(Path("README.md"), results)
        pages.append(Path("README.md").read_text())
    assert pages[0] == pages[1] and f"(results/{kept.parent.name}/{kept.name}/report.md)" in pages[0]


@pytest.mark.thorough
def test_a_committed_record_shows_every_figure_of_which_it_keeps_the_numbers(tmp_path: Path) -> None:
    """`report.md` links what is there; the page makes the rest again of `cells.json`."""
    folder = sorted((Path(__file__).parent.parent / "results").glob("claim-10*/*/"))[0]
    text = (folder / "report.md").read_text()
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert "samples.png" in links and all((folder / name).is_file() for name in links) and report.MORE in text
    page = report.write_files(analyse(records.load_record(folder)), tmp_path, kept=folder)
    expected = {"plane", "attributes", "guidance", "swap", "gates", "gradients", "loss", "samples", "quality-cost"}
    assert expected <= {path.stem for path in page.parent.glob("*.png")}
    assert not {path.name for path in folder.glob("*.png")} - {"samples.png", "training.png"}
