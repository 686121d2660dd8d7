"""The command line as a user meets it: its help, its completion, what it says of this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
import typer
from synthetic import generate
from tiny import ditbench, planned, run_all

from bench.cli import app as cli
from bench.cli import doctor
from bench.cli.common import complete_matrix, complete_scheme
from bench.config.load import load
from bench.config.matrix import expand, row
from bench.store.folders import Store
from bench.views.records import newest_records

ROOT = Path(__file__).parent.parent
HELP = ROOT / "tests" / "help.txt"


def described() -> Iterator[str]:
    """Every command with its arguments, options and help, one a line: what a changed flag changes."""
    group: Any = typer.main.get_command(cli.app)
    for name, command in sorted(group.commands.items()):
        yield f"ditbench {name}"
        yield from (f"    {line}".rstrip() for line in (command.help or "").splitlines())
        for one in command.params:
            words = " ".join([*getattr(one, "opts", []), *getattr(one, "secondary_opts", [])])
            kind = "argument" if isinstance(one, click.Argument) or one.param_type_name == "argument" else "option"
            default = "" if one.default in (None, False, ()) or callable(one.default) else f" [{one.default}]"
            yield f"  {kind} {words}{default}  {getattr(one, 'help', '') or ''}".rstrip()
        yield ""


def test_the_help_is_the_committed_one() -> None:
    """DITBENCH_UPDATE=1 writes it again; the change then shows in review."""
    text = "\n".join(described())
    if os.environ.get("DITBENCH_UPDATE"):
        HELP.write_text(text)
    assert text == HELP.read_text()


def test_every_command_has_an_example_that_names_it() -> None:
    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        assert f"Example: ditbench {name}" in command.help, name


def examples() -> dict[str, list[str]]:
    """The words of every command's first example, its name left out."""
    group: Any = typer.main.get_command(cli.app)
    lines = {name: re.findall("Example: ditbench (.+)", one.help) for name, one in group.commands.items()}
    return {name: shlex.split(found[0])[1:] for name, found in lines.items()}


def test_what_examples_name_exists() -> None:
    """`compare adaln-zero adaln quickstart` named no row, and `choices tune-tasks` no matrix."""
    matrices = {path.stem: path for path in (ROOT / "configs").glob("*.yaml")}
    said = examples()
    for name in ("report", "status", "sync", "dashboard", "choices", "record", "sample"):
        assert said[name][0] in matrices, name
    for word in (word for words in said.values() for word in words if word.startswith(("configs/", "results/"))):
        assert (ROOT / word).exists(), word
    a, b, name = said["compare"]
    assert {a, b} <= {row(cell, "").name for cell in expand(load(matrices[name]))}


def test_completion_knows_schemes_matrices_and_variants(tmp_path: Path) -> None:
    generate(tmp_path, variants=2, seeds=1, steps=100, name="made")
    assert complete_scheme("adaln-zero") == ["adaln-zero", "adaln-zero-cross"]

    class Context:
        params: ClassVar = {"root": tmp_path}

    assert complete_matrix(Context(), "ma") == ["made"]  # type: ignore[arg-type]
    assert complete_matrix(Context(), "made/") == ["made/variant-00", "made/variant-01"]  # type: ignore[arg-type]


def found(store: Store) -> dict[str, doctor.Finding]:
    return {one.item: one for one in doctor.examine(store)}


def test_the_doctor_finds_a_sound_machine_sound(tmp_path: Path) -> None:
    items = json.loads(ditbench("doctor", "--json", cwd=tmp_path).stdout)
    assert {one["item"] for one in items} >= {"Python", "torch", "GPU", "extractor", "MLflow store", "disk", "clock"}
    assert {one["state"] for one in items if one["item"] != "disk"} <= {"ok", "note"}


def test_the_doctor_names_what_is_wrong_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SUPPORTED", ((3, 7), (3, 8)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("DITBENCH_INCEPTION_WEIGHTS", str(tmp_path / "absent.pth"))
    items = found(Store(tmp_path / "runs"))
    assert items["Python"].state == "bad" and "3.11" in items["Python"].remedy
    assert items["disk"].state == "bad" and "--root" in items["disk"].remedy
    assert items["MLflow store"].state == "bad" and "does not answer" in items["MLflow store"].text
    assert items["extractor"].state == "bad" and "absent.pth" in items["extractor"].text
    assert items["torch"].state == "ok", "one bad item hides no other"


def test_the_doctor_examines_plugin_files_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.setenv("DITBENCH_PLUGINS", str(tmp_path / "broken.py"))
    item = found(Store(tmp_path / "runs"))["plugins"]
    assert item.state == "bad" and "nothing_of_that_name" in item.text


def test_the_doctor_says_that_mlflow_is_missing_before_there_is_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said that the first run creates the store, which that cannot."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert found(Store(tmp_path))["MLflow store"].text == "not there yet; the first run creates it"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    item = found(Store(tmp_path))["MLflow store"]
    assert item.state == "note" and "not installed" in item.text and "ditbench[track]" in item.remedy


def test_a_report_lies_where_it_was_asked_for(tmp_path: Path) -> None:
    """`--out` was passed over for a matrix that was run, and `--root` for a record."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    generate(tmp_path / "there", variants=1, seeds=1, steps=100, name="made")
    done = ditbench("report", "made", "--root", "there", "--out", "page", cwd=tmp_path, code=0)
    assert (tmp_path / "page" / "report.html").is_file() and "page/report.html" in done.stdout
    assert not (tmp_path / "there" / "matrices" / "made" / "report").exists()
    ditbench("report", "results/claim-t-10-edge", "--root", "there", cwd=tmp_path, code=0)
    assert (tmp_path / "there" / "records" / "claim-t-10-edge" / "report.html").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
def test_a_store_of_another_mlflow_and_none_at_all_are_said_with_the_way_out(tmp_path: Path, empty: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": ""}
    none = ditbench("dashboard", cwd=tmp_path, code=2, **env)
    assert "no matrix was run in runs; start with: ditbench run" in none.stderr
    generate(tmp_path / "runs", variants=1, seeds=1, steps=100, name="made")
    shutil.copy(empty, tmp_path / "runs" / "mlflow.db")
    ditbench("sync", "made", cwd=tmp_path, code=0, **env)
    base = sqlite3.connect(tmp_path / "runs" / "mlflow.db")
    base.execute("UPDATE alembic_version SET version_num = 'of-another-time'")
    base.commit()
    base.close()
    said = ditbench("dashboard", "made", cwd=tmp_path, code=2, **env).stderr
    assert "another MLflow" in said and "mlflow db upgrade" in said and len(said.splitlines()) == 1
    items = json.loads(ditbench("doctor", "--json", cwd=tmp_path, code=1, **env).stdout)
    assert "another MLflow" in next(one["text"] for one in items if one["item"] == "MLflow store")


def test_sample_generates_what_is_typed_and_every_variant_with_the_same_noise(tmp_path: Path) -> None:
    made, store = planned(tmp_path, variants=["adaln-zero", "adaln"], train__steps=2, train__warmup=1)
    made.cells.pop()  # one variant is planned but never trained
    run_all(made, store)
    done = ditbench("sample", "tiny/adaln-zero", "a small red ring, quux", "--count", "2", cwd=tmp_path, code=0)
    assert (tmp_path / "sample.png").read_bytes()[:4] == b"\x89PNG" and "quux" in done.stderr
    wrong = ditbench("sample", "tiny/adaln-zer", "x", cwd=tmp_path, code=2)
    assert "rows: adaln-zero, adaln); did you mean" in wrong.stderr and "Traceback" not in wrong.stderr
    done = ditbench("sample", "tiny", "a small red ring", "--all", "-o", "all.png", cwd=tmp_path, code=0)
    assert (tmp_path / "all.png").read_bytes()[:4] == b"\x89PNG" and "has no checkpoint yet" in done.stderr
    two = ditbench("sample", "tiny", "a", "b", "--all", cwd=tmp_path, code=2)
    assert "takes one prompt" in two.stderr
    old = ditbench("sample", "--published", "dit", "--weights", "x", "207", cwd=tmp_path, code=2)
    assert "ditbench sample-published dit" in old.stderr


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["report"], ["compare", "adaln task=bind", "adaln-zero task=bind"], ["claims"], ["choices"]],
    ids=lambda words: words[0],
)
def test_a_name_that_is_no_matrix_and_no_record_is_said_with_the_nearest(words: list[str], tmp_path: Path) -> None:
    """`report results/quickstar` was answered by "no matrix was run in runs"."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    for wrong in ("results/quickstar", "results/quickstart/nope"):
        said = ditbench(*words, wrong, cwd=tmp_path, code=2).stderr
        assert f"no matrix '{wrong}' in runs (matrices: none), and no record of that name" in said
        assert said.endswith("did you mean 'results/quickstart'?\n") and "no matrix was run" not in said


def test_a_record_is_found_by_its_folder_its_matrix_s_folder_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    newest = newest_records(ROOT / "results")["claim-t-10-edge"]
    known = ditbench("claims", f"results/claim-t-10-edge/{newest.name}", "--json", cwd=tmp_path, code=0).stdout
    for name in ("results/claim-t-10-edge", "claim-t-10-edge"):
        assert ditbench("claims", name, "--json", cwd=tmp_path, code=0).stdout == known
    done = ditbench("report", "results/claim-t-10-edge", "--out", "page", cwd=tmp_path, code=0)
    assert (tmp_path / "page" / "report.html").is_file() and "page/report.html" in done.stdout


def test_of_one_name_what_was_run_is_meant_and_else_the_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    without = ditbench("claims", "claim-t-10-edge", cwd=tmp_path, code=0)
    assert "no matrix 'claim-t-10-edge' was run in runs; its record is read: results/claim-t-10-edge/" in without.stderr
    generate(tmp_path / "runs", variants=1, seeds=1, steps=100, name="claim-t-10-edge")
    mine = ditbench("claims", "claim-t-10-edge", cwd=tmp_path, code=2)
    assert "no claim in claim-t-10-edge" in mine.stderr


# --- describe ---------------------------------------------------------------------------------------------------------


def test_a_name_is_described_by_its_own_equations_and_not_by_its_scheme_s(tmp_path: Path) -> None:
    """`describe flux3` printed c = e_t + prompt of `flux`, where its own c is e_t."""
    said = ditbench("describe", "flux3", cwd=tmp_path, code=0).stdout
    assert "derived from `flux`; equations of `flux`: ditbench describe flux" in said
    assert "    c = e_t\n" in said and "e_t + prompt" not in said and "x <- x + g (a_x + MLP(u))" in said
    assert "c = e_t + prompt" in ditbench("describe", "flux", cwd=tmp_path, code=0).stdout
    assert "did you mean 'flux3'?" in ditbench("describe", "flx3", cwd=tmp_path, code=2).stderr
