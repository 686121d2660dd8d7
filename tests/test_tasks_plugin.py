"""A stranger's task in a matrix: its file beside a scheme's, its code in the id of its cells, its faults by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import PLUGIN, planned, run_all

import architectures.registry
from bench.cli import scaffold
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
