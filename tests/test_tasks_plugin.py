"""A stranger's task in a matrix: its file beside a scheme's, its code in the id of its cells, its faults by name."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import cell_launch
from tiny import PLUGIN, ditbench, matrix_file, planned, run_all

import architectures.registry
from bench.cli import errors, scaffold
from bench.config.identity import CodeChanged, check_code
from bench.config.schema import ConfigError
from bench.data.tasks import registry

SMALL: dict[str, Any] = {
    "train__steps": 2,
    "train__warmup": 1,
    "evaluate__extractor": "none",
    "evaluate__points": 16,
    "evaluate__samples": 16,
    "evaluate__reference": 16,
    "evaluate__heldout": 16,
    "backbone__name": "DiT-XS/4",
}


@pytest.fixture(autouse=True)
def _none_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})
    monkeypatch.setattr(architectures.registry, "_registry", type(architectures.registry._registry)())


def write(folder: Path, name: str = "my-rows", more: str = "") -> None:
    folder.mkdir(exist_ok=True)
    scaffold.new_task(name, folder, package=False)
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(file.read_text() + more)


def data(task: str) -> dict[str, Any]:
    return {"source": "task", "task": task, "heldout_count": 32, "colours": 3}


def test_one_file_brings_a_scheme_and_a_task_that_train_together(tmp_path: Path) -> None:
    write(tmp_path, more=PLUGIN)
    made, store = planned(
        tmp_path, variants=["adaln-zero", "added"], plugins=["my_rows.py"], data=data("my-rows"), **SMALL
    )
    files = {cell.row.variant: [Path(file).name for file in cell.spec.plugins] for cell in made.cells}
    assert files == {"adaln-zero": ["my_rows.py"], "added": ["my_rows.py"]}
    states = run_all(made, store)
    assert [one.status for one in states] == ["done", "done"], states


def test_a_plugin_that_fails_after_it_registered_its_task_leaves_none(tmp_path: Path) -> None:
    """Its module is gone, so the task of another file of that name is none of its own."""
    write(tmp_path, more="\nraise ValueError('late')\n")
    with pytest.raises(architectures.PluginError, match="late"):
        registry.load_plugin(tmp_path / "my_rows.py")
    assert "my-rows" not in registry.tasks()
    with pytest.raises(ConfigError, match="no cell of this matrix can be run: task 'my-rows' is missing: .*late"):
        planned(tmp_path, plugins=["my_rows.py"], data=data("my-rows"), **SMALL)
    assert not registry._added


def test_the_code_of_a_task_is_in_the_id_of_its_cells_and_of_its_data(tmp_path: Path) -> None:
    found = []
    for more in ("", "\nADDED = 1\n"):
        registry._added.clear()
        folder = tmp_path / str(len(found))
        write(folder, more=more)
        made, _ = planned(folder, plugins=["my_rows.py"], data=data("my-rows"), **SMALL)
        found.append(made.cells[0])
    assert found[0].row.cell != found[1].row.cell
    assert found[0].spec.digests["data"] != found[1].spec.digests["data"]
    with pytest.raises(CodeChanged, match="the plugin of its task 'my-rows'"):
        check_code(found[0].spec.digests, "adaln-zero")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_that_name", "task 'my-rows' is missing: plugin"),
        ("raise SystemExit(3)", "sys.exit(3)"),
    ],
)
def test_a_task_whose_plugin_fails_is_named_and_other_cells_run(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "my_rows.py").write_text(text)
    axes = {"data.task": ["tone", "my-rows"]}
    own = {"source": "task", "task": "tone", "heldout_count": 32}
    made, _ = planned(tmp_path, plugins=["my_rows.py"], data=own, axes=axes, **SMALL)
    reasons = {cell.spec.config.data.task: cell.reason for cell in made.cells}
    assert reasons["tone"] == "" and sentence in reasons["my-rows"]


def test_a_law_that_a_task_breaks_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    more = "\n    def layout(self, words):\n        return super().ids(words)[:, None, :1].expand(-1, 9, -1) * 0\n"
    write(tmp_path, more=more)
    axes = {"data.task": ["tone", "my-rows"]}
    own = {"source": "task", "task": "tone", "heldout_count": 32}
    made, _ = planned(tmp_path, plugins=["my_rows.py"], data=own, axes=axes, **SMALL)
    reasons = {cell.spec.config.data.task: cell.reason for cell in made.cells}
    assert reasons["tone"] == "" and "task 'my-rows' breaks the law 'layout says as much'" in reasons["my-rows"]


# --- of an installed package ------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package that `new-task --package` writes, as pip would lay it out on sys.path: its module."""
    scaffold.new_task("my-rows", tmp_path / "source", package=True)
    about = tomllib.loads((tmp_path / "source/pyproject.toml").read_text())["project"]
    site, version = tmp_path / "site", about["version"]
    info = site / f"ditbench_my_rows-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {version}\n")
    lines = [f"{name} = {place}" for name, place in about["entry-points"]["ditbench.tasks"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ditbench.tasks]", *lines]) + "\n")
    (info / "RECORD").write_text("ditbench_my_rows.py,,\n")
    module = site / "ditbench_my_rows.py"
    module.write_text((tmp_path / "source/ditbench_my_rows.py").read_text())
    monkeypatch.syspath_prepend(str(site))
    yield module
    sys.modules.pop("ditbench_my_rows", None)


def test_a_task_of_a_package_is_listed_described_checked_and_planned(installed: Path, tmp_path: Path) -> None:
    """No `--plugin` anywhere: its entry point is enough."""
    origin = {"kind": "package", "name": "ditbench-my-rows", "version": registry.origin("my-rows")["version"]}
    assert registry.of_package("my-rows") and registry.origin("my-rows") == origin
    listed = json.loads(ditbench("tasks", "--json", cwd=tmp_path, code=0).stdout)
    assert list(listed)[-1] == "my-rows" and listed["my-rows"]["origin"] == origin
    about = json.loads(ditbench("describe-task", "my-rows", "--json", cwd=tmp_path, code=0).stdout)
    assert about["origin"] == origin and about["knobs"]["colours"]["value"] == 4
    held = ditbench("check-task", "my-rows", "--level", "easy", "--count", "64", "--json", cwd=tmp_path, code=0).stdout
    assert all(one["holds"] for one in json.loads(held)["my-rows (easy)"])
    wrong = ditbench("describe-task", "my-row", cwd=tmp_path, code=2).stderr
    assert "did you mean 'my-rows'?" in wrong and len(wrong.strip().splitlines()) == 1

    made, _ = planned(tmp_path, data=data("my-rows"), **SMALL)
    assert not made.cells[0].reason and made.cells[0].spec.plugins == []


@pytest.mark.slow
def test_a_cell_on_a_task_of_a_package_runs(installed: Path, tmp_path: Path) -> None:
    """In a process of its own: one that was started before the package was written believes none of its files."""
    made, store = planned(tmp_path, data=data("my-rows"), **SMALL)
    folder = store.cell(made.cells[0].row.cell)
    cell_launch(folder, PYTHONPATH=os.pathsep.join([str(installed.parent), *sys.path])).ended(0)
    result = folder.result()
    assert result is not None and "score" in result.quality


def test_the_code_of_a_package_s_task_is_in_the_id_of_its_cells(installed: Path, tmp_path: Path) -> None:
    found = []
    for text in (installed.read_text(), installed.read_text() + "\nADDED = 1\n"):
        installed.write_text(text)
        sys.modules.pop("ditbench_my_rows", None)
        (tmp_path / str(len(found))).mkdir()
        made, _ = planned(tmp_path / str(len(found)), data=data("my-rows"), **SMALL)
        found.append(made.cells[0])
    assert found[0].row.cell != found[1].row.cell
    assert found[0].spec.digests["data"] != found[1].spec.digests["data"]


def test_an_error_of_a_package_s_task_is_the_package_s(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called an error of ditbench, since an installed package counts as a library."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"purelib": str(installed.parent)})
    installed.write_text(installed.read_text() + "\n\ndef late():\n    raise KeyError('boom')\n")
    registry.task_class("my-rows")
    with pytest.raises(KeyError) as error:
        sys.modules["ditbench_my_rows"].late()
    said, code = errors.explain(error.value)
    assert code == errors.THEIRS and said.startswith("plugin ") and "ditbench_my_rows.py, line " in said
    installed.write_text("raise ValueError('half')\n")
    sys.modules.pop("ditbench_my_rows")
    own = {"source": "task", "task": "tone", "heldout_count": 32}
    made, _ = planned(tmp_path, data=own, axes={"data.task": ["tone", "my-rows"]}, **SMALL)
    reasons = {cell.spec.config.data.task: cell.reason for cell in made.cells}
    assert reasons["tone"] == "" and reasons["my-rows"] == "task 'my-rows': ValueError: half"


def test_a_package_s_task_that_is_none_is_named(installed: Path) -> None:
    installed.write_text("MyRows = 3\n")
    with pytest.raises(registry.TaskError, match="task 'my-rows' is no subclass of .*Task, but 3"):
        registry.task_class("my-rows")


def test_what_is_understood_of_a_plugin_s_task_is_shown(tmp_path: Path) -> None:
    """`ditbench data` knew no task of a matrix's plugins, and took no `--plugin`."""
    write(tmp_path)
    for plugins, option in (["my_rows.py"], ()), ([], ("--plugin", "my_rows.py")):
        path = matrix_file(tmp_path, variants=["adaln"], plugins=plugins, data=data("my-rows"), **SMALL)
        (shown,) = json.loads(ditbench("data", str(path), *option, "--json", cwd=tmp_path, code=0).stdout)
        assert shown["image_size"] == 12 and (tmp_path / shown["sheet"]).is_file()
