"""From a matrix to cells: which, in what order, and what makes two of them the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import matrix_file, planned

from bench.config.identity import code_files, identity
from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import ConfigError, as_dict
from bench.config.spec import CellConfig
from bench.findings.compare import baseline
from bench.findings.summary import find_row, summaries
from bench.run.manifest import commit
from bench.store.table import collect


def cells(folder: Path, **changes):
    return expand(load(matrix_file(folder, **changes)))


def test_product_of_variants_seeds_and_axes(tmp_path: Path) -> None:
    made = cells(tmp_path, variants=["adaln", "adaln-zero"], seeds=[0, 1], axes={"train.lr": [0.1, 0.2]})
    assert len(made) == 8
    assert [cell.label for cell in made[:3]] == [
        "adaln lr=0.1 seed=0",
        "adaln-zero lr=0.1 seed=0",
        "adaln lr=0.2 seed=0",
    ]
    assert made[2].config.train.lr == 0.2 and made[2].axes == {"train.lr": 0.2}


def test_a_row_keeps_its_name_on_disk_and_is_found_whatever_the_order_of_its_axes(tmp_path: Path) -> None:
    """JSON with sorted keys gave the rows of two axes other names, and their baseline was none of them."""
    changes = {"train.warmup": [0, 1], "train.lr": [0.1]}
    made, store = planned(tmp_path, axes=changes, baseline="adaln-zero warmup=1 lr=0.1")
    commit(made, store)
    named = [cell.row.name for cell in made.cells]
    assert named[0].endswith(" warmup=0 lr=0.1") and [row.name for row in store.rows("tiny")] == named
    rows = summaries(collect(store, "tiny"))
    assert baseline(collect(store, "tiny"), rows) == named[1]
    assert find_row(rows, named[0].replace("warmup=0 lr=0.1", "lr=0.1 warmup=0")).name == named[0]
    with pytest.raises(ValueError, match="did you mean"):
        find_row(rows, named[0].replace("warmup=0", "warmup=2"))


def test_values_of_an_axis_are_typed_as_their_key_is(tmp_path: Path) -> None:
    made = cells(tmp_path, axes={"train.lr": [1], "train.precision": [32]})[0]
    assert (made.config.train.lr, made.config.train.precision) == (1.0, "32")
    assert type(made.config.train.lr) is float, "a cell of lr 1 and one of lr 1.0 are the same cell"


def test_seeds_come_last_so_that_drift_is_spread(tmp_path: Path) -> None:
    made = cells(tmp_path, variants=["adaln", "in-context"], seeds=[3, 5])
    assert [cell.config.seed for cell in made] == [3, 3, 5, 5]


def test_options_of_a_variant_and_of_an_axis(tmp_path: Path) -> None:
    variants = [{"scheme": "adaln-zero", "name": "open", "gate": "one"}]
    made = cells(tmp_path, variants=variants, axes={"options.norm": ["rms"]})
    assert made[0].config.options == {"gate": "one", "norm": "rms"} and made[0].variant == "open"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": []}, "no variants"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [1, 1]}, "a seed twice"),
        ({"variants": ["adaln", "adaln"]}, "'adaln' is there twice"),
        ({"variants": [{"name": "a"}]}, "`scheme`"),
        ({"variants": [{"scheme": "adaln", "name": "../up"}]}, "'../up'"),
        ({"axes": {"train.stepz": [1]}}, "did you mean 'train.steps'"),
        ({"axes": {"train.lr": []}}, "no values"),
        (
            {"variants": [{"scheme": "adaln-zero", "gate": "one"}], "axes": {"options.gate": ["zero", "tanh"]}},
            "variant 'adaln-zero': options.gate is an axis of this matrix, so no variant can set it",
        ),
        ({"axes": {"train.lr": [0.1, -1]}}, "axis 'train.lr' of matrix 'tiny': train.lr must be"),
        ({"axes": {"train.steps": ["many"]}}, "a whole number above 0, got 'many'"),
    ],
)
def test_refused(tmp_path: Path, changes, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        cells(tmp_path, **changes)


def test_a_cell_is_what_defines_it(tmp_path: Path) -> None:
    config = cells(tmp_path)[0].config
    ours = identity(config, data="d", code="c")
    assert ours.startswith("adaln-zero-")
    assert identity(CellConfig.from_dict(as_dict(config)), data="d", code="c") == ours
    assert identity(config.changed({"data.path": "elsewhere"}), data="d", code="c") == ours, (
        "where the data lies is not what it is"
    )
    for other in (replace(config, seed=1), config.changed({"options.gate": "one"}), config.changed({"train.lr": 0.5})):
        assert identity(other, data="d", code="c") != ours
    assert len({ours, identity(config, data="e", code="c"), identity(config, data="d", code="x")}) == 3


def test_code_that_measures_and_only_that() -> None:
    names = {path.name for path in code_files("architectures.conditioning.adaln_zero")}
    assert {
        "adaln_zero.py",
        "backbone.py",
        "painter.py",
        "batches.py",
        "module.py",
        "evaluate.py",
        "seeds.py",
        "cell.py",
    } <= names
    assert not names & {"adaln.py", "report.py", "mlflow.py", "app.py", "claims.py", "observation.py", "core.py"}
    assert "named.py" not in names, "a new name is no reason to train what has another"
