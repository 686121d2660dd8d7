"""What is typed counts: over tuned values, and over the claim and the baseline of a file whose rows it takes out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny import PLUGIN, ditbench, matrix_file

from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import ConfigError, Matrix

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
OWN = "{scheme: adaln, train.lr: 0.5}"


def typed(*words: str, file: Path = QUICKSTART) -> tuple[Matrix, list[str]]:
    """A matrix with overrides, and the notes on what they take the place of."""
    notes: list[str] = []
    return load(file, list(words), note=notes.append), notes


def rates(matrix: Matrix) -> dict[str, float]:
    return {cell.variant: cell.config.train.lr for cell in expand(matrix)}


def tuned_file(folder: Path, **more: Any) -> Path:
    """A matrix of two variants, of which one has a tuned rate; its own rate lies in a base."""
    (folder / "base.yaml").write_text("train: {lr: 0.001}\n")
    (folder / "rates.yaml").write_text("adaln-zero: {train.lr: 0.002}\n")
    path = matrix_file(folder, base="base.yaml", tuned="rates.yaml", variants=["adaln-zero", "adaln"], **more)
    path.write_text(path.read_text().replace("  lr: 0.001\n", ""))
    return path


# --- tuned values -----------------------------------------------------------------------------------------------------


def test_a_typed_rate_is_every_variant_s_and_said() -> None:
    """`train.lr=3e-4` was ignored in silence wherever a matrix has `tuned:`."""
    matrix, notes = typed("train.lr=3e-4")
    assert set(rates(matrix).values()) == {3e-4} and len(rates(matrix)) == 5
    assert len(notes) == 1 and "'train.lr=3e-4' on the command line is taken instead of tuned values" in notes[0]
    assert set(rates(typed()[0]).values()) == {0.006, 0.012}, "without it they are the tuned ones"


def test_a_variant_s_own_rate_is_over_the_typed_and_the_tuned_one() -> None:
    assert rates(typed("train.lr=3e-4", f"variants=[adaln-zero, {OWN}]")[0]) == {"adaln-zero": 3e-4, "adaln": 0.5}
    assert rates(typed(f"variants=[adaln-zero, {OWN}]")[0]) == {"adaln-zero": 0.012, "adaln": 0.5}


def test_a_rate_of_a_base_is_below_the_tuned_ones_and_one_of_the_same_file_is_refused(tmp_path: Path) -> None:
    file = tuned_file(tmp_path)
    assert rates(typed("variants=[adaln-zero]", file=file)[0]) == {"adaln-zero": 0.002}
    file.write_text(file.read_text().replace("train:\n", "train:\n  lr: 0.01\n"))
    with pytest.raises(ConfigError, match="tiny.yaml: train.lr is written here and tuned: gives each variant its own"):
        load(file)
    (tmp_path / "above.yaml").write_text("base: tuned.yaml\nname: above\ntrain: {lr: 0.01}")
    (tmp_path / "tuned.yaml").write_text("tuned: rates.yaml\nvariants: [adaln-zero]")
    matrix, notes = typed(file=tmp_path / "above.yaml")
    assert rates(matrix) == {"adaln-zero": 0.01} and "above.yaml is taken instead of tuned values" in notes[0]


def test_a_scheme_without_a_tuned_rate_has_three_ways_out_and_each_works(tmp_path: Path) -> None:
    file = tuned_file(tmp_path)
    with pytest.raises(ConfigError) as error:
        expand(load(file))
    for way in (
        "no entry of 'adaln'; give it a value of its own ({name: adaln, scheme: adaln, train.lr: VALUE})",
        "`choose: train.lr` and `ditbench choices NAME --write FILE`",
        "tuned=null; did you mean 'adaln-zero'?",
    ):
        assert way in str(error.value)
    assert rates(typed("tuned=null", file=file)[0]) == {"adaln-zero": 0.001, "adaln": 0.001}
    assert rates(typed(f"variants=[adaln-zero, {OWN}]", file=file)[0]) == {"adaln-zero": 0.002, "adaln": 0.5}
    (tmp_path / "rates.yaml").write_text("adaln-zero: {train.lr: 0.002}\nadaln: {train.lr: 0.003}\n")
    assert rates(load(file)) == {"adaln-zero": 0.002, "adaln": 0.003}


# --- a claim and a baseline of rows that are gone ---------------------------------------------------------------------


def test_a_claim_of_the_file_with_a_row_that_is_gone_is_left_out_whole_and_said() -> None:
    matrix, notes = typed("variants=[adaln-zero, adaln]")
    assert matrix.claim is None and matrix.baseline == "adaln-zero task=scene"
    (note,) = notes
    assert re.search("the claim of .*quickstart.yaml is left out, since there is no row 'cross-attention task=", note)
    assert typed("variants=[cross-attention, adaln-zero]")[0].claim, "all rows of it are there"


def test_a_baseline_of_the_file_that_is_gone_is_the_first_row_and_said() -> None:
    matrix, notes = typed("variants=[adaln, shift-free]")
    assert matrix.baseline is None and "the baseline is 'adaln task=scene', the first row" in notes[1]


def test_what_is_typed_is_never_left_out() -> None:
    claim = "claim={says: x, tests: [{metric: score, variant: a, beats: b}]}"
    matrix, notes = typed("variants=[adaln]", claim, "baseline=adaln-zro")
    assert matrix.claim and matrix.baseline == "adaln-zro" and not notes


# --- a scheme of one's own --------------------------------------------------------------------------------------------


def test_a_plugin_file_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """`run --plugin nothere.py --dry-run` ended with a warning and exit code 0."""
    (tmp_path / "added.py").write_text(PLUGIN)
    file = str(matrix_file(tmp_path))
    wrong = ditbench("run", file, "--plugin", "aded.py", "--dry-run", cwd=tmp_path, code=2).stderr
    assert "plugin aded.py: no such file; did you mean 'added.py'?" in wrong
    (tmp_path / "folder.py").mkdir()
    wrong = ditbench("run", file, "--plugin", "folder.py", "--dry-run", cwd=tmp_path, code=2).stderr
    assert "plugin folder.py: a folder, not a file" in wrong


@pytest.mark.thorough
def test_a_plugin_s_scheme_is_planned_beside_tuned_ones(tmp_path: Path) -> None:
    (tmp_path / "added.py").write_text(PLUGIN)
    words = ("--plugin", "added.py", "--dry-run", "axes={data.task: [scene]}", "name=added")
    without = ditbench("run", str(QUICKSTART), "variants=[adaln-zero, added]", *words, cwd=tmp_path, code=2)
    assert "no entry of 'added'" in without.stderr and "tuned=null" in without.stderr
    own = "variants=[adaln-zero, {scheme: added, train.lr: 0.006}]"
    done = ditbench("run", str(QUICKSTART), own, *words, cwd=tmp_path, code=0)
    assert "the claim of" in done.stdout and "6 are left to train" in done.stdout
