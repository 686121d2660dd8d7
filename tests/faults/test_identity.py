"""A number is of the code, the config and the plugin that its id names: checked by the cell that makes it."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import cell_launch
from tiny import matrix_file, planned

import architectures
from architectures import registry
from bench.config.identity import CodeChanged, check_code, code_table
from bench.config.spec import CellSpec
from bench.store import provenance
from bench.store.folders import Store

REPOSITORY = Path(__file__).parents[2]
SCHEME = """
from architectures import register
from architectures.conditioning.adaln import AdaLN
{imports}

@register("{name}")
class Mine(AdaLN):
    '''adaLN under another name.'''
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What a test registers and imports is forgotten after it."""
    state = registry._registry
    before = dict(state.schemes), dict(state.origins), dict(state.files), list(sys.meta_path), set(sys.modules)
    yield
    state.schemes, state.origins, state.files, sys.meta_path[:] = before[0], before[1], before[2], before[3]
    for name in set(sys.modules) - before[4]:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(
            ("/tmp", str(Path(os.environ.get("TMPDIR", "/tmp"))))
        ):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def digest(file: Path, name: str = "mine") -> str:
    assert name in architectures.load_plugin(file)
    return architectures.origin(name)["sha256"]


# --- plugins ----------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "a module beside": ("import helper_one", {"helper_one.py": ""}),
    "a name of one": ("from helper_two import x", {"helper_two.py": "x = 1"}),
    "a module of a module": ("import helper_three", {"helper_three.py": "import helper_four", "helper_four.py": ""}),
    "inside a function": ("def f():\n    import helper_five", {"helper_five.py": ""}),
    "in a package beside": (
        "from helper_six.inner import deep",
        {"helper_six/__init__.py": "", "helper_six/inner/__init__.py": "", "helper_six/inner/deep.py": ""},
    ),
    "by a relative import there": (
        "import helper_seven.a",
        {"helper_seven/__init__.py": "", "helper_seven/a.py": "from . import b", "helper_seven/b.py": ""},
    ),
    "in a folder that is no package": ("import helper_eight.a", {"helper_eight/a.py": ""}),
    "by a name made at run time": (
        "import importlib\nimportlib.import_module('helper_' + 'nine')",
        {"helper_nine.py": ""},
    ),
    "by its file": (
        "from pathlib import Path\nexec((Path(__file__).parent / 'helper_ten.txt').read_text())",
        {"helper_ten.txt": ""},
    ),
    "a table that it reads": (
        "from pathlib import Path\nPath(__file__).with_name('table.json').read_text()",
        {"table.json": "{}"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_digest_covers_what_a_plugin_file_imports(tmp_path: Path, layout: str) -> None:
    """A helper was changed and the cell's id stayed: old results were shown for new code."""
    imports, files = LAYOUTS[layout]
    write(tmp_path, files | {"mine.py": SCHEME.format(imports=imports, name="mine"), "other_scheme.py": ""})
    before = digest(tmp_path / "mine.py")
    write(tmp_path, {"notes.txt": "x", "runs/result.json": "{}"})
    if layout not in ("by a name made at run time", "by its file"):
        write(tmp_path, {"other_scheme.py": "# nothing imports it"})
    assert digest(tmp_path / "mine.py") == before, "what it does not import is not part of it"
    for name in files:
        if name.endswith("__init__.py") and "inner" not in name:
            continue
        write(tmp_path, {name: (tmp_path / name).read_text() + " \n"})
        after = digest(tmp_path / "mine.py")
        assert after != before, name
        before = after


def test_the_digest_covers_a_package_s_own_modules_and_no_other_package(tmp_path: Path, monkeypatch: Any) -> None:
    """An installed scheme package: its helpers count, its sibling schemes and other packages do not."""
    site = tmp_path / "site"
    info = "film_pack-1.0.dist-info"
    write(
        site,
        {
            "film_pack/__init__.py": "",
            "film_pack/scheme.py": "from .helpers import x\nfrom film_pack_extra import y\nimport film_other\n",
            "film_pack/helpers.py": "x = 1\n",
            "film_pack/unused.py": "",
            "film_pack_extra.py": "y = 1\n",
            "film_other.py": "",
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: film-pack\nVersion: 1.0\n",
            f"{info}/entry_points.txt": "[ditbench.schemes]\nfilm = film_pack.scheme:Film\n",
            f"{info}/RECORD": "film_pack/__init__.py,,\nfilm_pack/scheme.py,,\nfilm_pack_extra.py,,\n",
        },
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("architectures.sources._installed", lambda: [str(site)])

    def now() -> str:
        return architectures.origin("film")["sha256"]

    before = now()
    write(site, {"film_pack/unused.py": "#", "film_other.py": "#"})
    assert now() == before
    write(site, {"film_pack/helpers.py": "x = 2\n"})
    assert now() != before
    before = now()
    write(site, {"film_pack_extra.py": "y = 2\n"})
    assert now() != before


def test_modules_of_one_name_beside_two_plugins_are_not_mixed(tmp_path: Path) -> None:
    """Python has one module of a name: the second plugin would silently get the first one's helper."""
    for folder in ("a", "b"):
        files = {
            "my_helper.py": f"where = {folder!r}",
            f"{folder}.py": SCHEME.format(imports="import my_helper", name=folder),
        }
        write(tmp_path / folder, files)
    assert architectures.load_plugin(tmp_path / "a" / "a.py") == ["a"]
    with pytest.raises(architectures.PluginError, match=r"b/my_helper\.py, but .*a/my_helper\.py is loaded"):
        architectures.load_plugin(tmp_path / "b" / "b.py")


def test_the_same_file_in_two_places_is_two_owners(tmp_path: Path) -> None:
    """Beside each lies another helper, so they are not the same scheme."""
    for folder in ("a", "b"):
        write(tmp_path / folder, {"mine.py": SCHEME.format(imports="", name="mine")})
    architectures.load_plugin(tmp_path / "a" / "mine.py")
    with pytest.raises(architectures.PluginError, match=r"'mine'.*a/mine\.py.*b/mine\.py"):
        architectures.load_plugin(tmp_path / "b" / "mine.py")


# --- the code that a process imported ---------------------------------------------------------------------------------


def test_a_cell_checks_its_code(tmp_path: Path) -> None:
    made, store = planned(tmp_path)
    digests, table = made.cells[0].spec.digests, store.cache / "code" / f"{made.cells[0].spec.digests['code']}.json"
    check_code(digests, "adaln-zero", table)
    recorded = json.loads(table.read_text())
    assert recorded == code_table("architectures.conditioning.adaln_zero")
    table.write_text(json.dumps(recorded | {"bench/training/flow.py": "other"}))
    with pytest.raises(CodeChanged, match=r"changed since it was planned \(bench/training/flow\.py\); run again"):
        check_code(digests | {"code": "other"}, "adaln-zero", table)
    with pytest.raises(CodeChanged, match="plugin architectures"):
        check_code(digests | {"plugin": "other"}, "adaln-zero")


def test_a_file_that_changed_while_the_process_ran_is_not_believed(tmp_path: Path, monkeypatch: Any) -> None:
    """Edited and restored around its import: the digest on disk is right, and what was imported may not be."""
    made, _ = planned(tmp_path)
    digests = made.cells[0].spec.digests
    monkeypatch.setattr(provenance, "started", lambda: 0.0)
    with pytest.raises(CodeChanged, match=r"\.py, changed while the cell started"):
        check_code(digests, "adaln-zero")


def rewritten(file: Path, text: str) -> None:
    """Another text of the same size under the same time, as `cp -p`, `rsync -t` or a quick second edit leave it."""
    times = file.stat()
    time.sleep(0.02)
    file.write_text(text)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_compiled_code_of_a_restored_file_is_noticed_and_removed(tmp_path: Path) -> None:
    """Python runs the old compiled code for the new text: it compares size and time alone."""
    file = tmp_path / "module.py"
    file.write_text("x = 1\n")
    py_compile.compile(str(file))
    assert not architectures.drop_stale(file)
    rewritten(file, "x = 2\n")
    assert architectures.drop_stale(file) and not architectures.drop_stale(file)
    py_compile.compile(str(file))
    assert not architectures.drop_stale(file)


def test_a_plugin_is_imported_as_its_text_is_now(tmp_path: Path) -> None:
    """It, or a module beside it, was changed with its time kept: the digest was the new one, the code the old one."""
    write(tmp_path, {"my_value.py": "value = 1\n", "mine.py": SCHEME.format(imports="import my_value", name="mine")})
    before = digest(tmp_path / "mine.py")
    py_compile.compile(str(tmp_path / "my_value.py"))
    rewritten(tmp_path / "my_value.py", "value = 2\n")
    assert architectures.plugin_digest(tmp_path / "mine.py") != before
    del sys.modules["my_value"]
    digest(tmp_path / "mine.py")
    assert sys.modules["my_value"].value == 2


@pytest.fixture
def copy(tmp_path: Path) -> dict[str, str]:
    """The environment of a checkout of its own, which a test may edit."""
    for name in ("bench", "architectures"):
        shutil.copytree(REPOSITORY / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "code"), str(REPOSITORY / "tests")])}


@pytest.mark.faults
def test_code_edited_between_planning_and_a_cell_is_refused_then_restored_and_run(
    tmp_path: Path, copy: dict[str, str]
) -> None:
    """A cell trained with edited code was under the clean code's id, and a rerun took it as done."""
    matrix_file(tmp_path, train__steps=2, train__warmup=1)
    plan = "from pathlib import Path; from tiny import planned; planned(Path('.'), train__steps=2, train__warmup=1)"
    subprocess.run([sys.executable, "-c", plan], cwd=tmp_path, env=os.environ | copy, check=True)
    store = Store(tmp_path / "runs")
    folder, edited = store.cell(store.rows("tiny")[0].cell), tmp_path / "code/bench/training/flow.py"
    clean = edited.read_text()
    edited.write_text(clean + "\n# edited\n")
    cell_launch(folder, **copy).ended(1)
    status, reason = folder.status()
    assert status == "failed" and "changed since it was planned (bench/training/flow.py); run again" in reason
    assert folder.result() is None
    edited.write_text(clean)
    time.sleep(2.5)  # the start of a process is known to a second
    cell_launch(folder, **copy).ended(0)
    assert folder.status()[0] == "done"


# --- the plan of a cell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"seed": 7}, "config.json was changed after it was planned"),
        ("config.json", {"scheme": "adaln"}, "config.json was changed"),
        ("config.json", {"digests": {}}, "is no planned cell"),
        ("order.json", {"digests": {"code": "x"}}, "is no planned cell"),
    ],
)
def test_a_plan_edited_by_hand_is_refused_by_name(tmp_path: Path, file: str, change: dict[str, Any], said: str) -> None:
    """`config.json` edited by hand: the cell was trained so, under the id of the config as it was planned."""
    made, store = planned(tmp_path)
    folder = store.cell(made.cells[0].row.cell)
    assert CellSpec.read(folder) == made.cells[0].spec
    path = folder.path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        CellSpec.read(folder)
    made.cells[0].spec.write(folder)
    assert CellSpec.read(folder) == made.cells[0].spec, "planning again writes it again"


@pytest.mark.parametrize("name", ["data", "prompts", "code", "plugin"])
def test_digests_edited_by_hand_are_refused(tmp_path: Path, name: str) -> None:
    made, store = planned(tmp_path)
    folder = store.cell(made.cells[0].row.cell)
    path = folder.path / "order.json"
    order = json.loads(path.read_text())
    order["digests"][name] = "0123456789abcdef"
    path.write_text(json.dumps(order))
    with pytest.raises(ValueError, match=r"was changed after it was planned"):
        CellSpec.read(folder)
