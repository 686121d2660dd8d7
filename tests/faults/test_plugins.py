"""A plugin that exits, hangs, floods or takes a name harms its own cells alone, and is named."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import GuardedLaunch, Launch, also
from tiny import matrix_file, planned

import architectures
from architectures import PluginError, guarded, registry
from bench.config.schema import ConfigError
from bench.run import plugins
from bench.store.folders import Store

GOOD = """
from architectures import register
from architectures.conditioning.adaln import AdaLN

@register("{name}")
class Mine(AdaLN):
    '''adaLN under another name.'''
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    state = registry._registry
    before = dict(state.schemes), dict(state.origins), dict(state.files), list(sys.meta_path)
    yield
    state.schemes, state.origins, state.files, sys.meta_path[:] = before


def written(folder: Path, text: str, file: str = "mine.py") -> Path:
    (folder / file).write_text(text)
    return folder / file


ENDS = {
    "import sys; sys.exit(0)": r"it called sys\.exit\(0\)",
    "import sys; sys.exit('bye')": r"it called sys\.exit\('bye'\)",
    "raise SystemExit": r"it called sys\.exit\(\)",
    "raise GeneratorExit('x')": "GeneratorExit: x",
    "class Odd(BaseException): pass\nraise Odd('x')": "Odd: x",
    "class Odd(Exception):\n    def __str__(self): raise self\nraise Odd": "Odd",
    "1 / 0": "ZeroDivisionError: division by zero",
    "raise MemoryError": "MemoryError",
    "raise RecursionError('deep')": "RecursionError: deep",
    "import nothing_of_that_name": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "x = (": "SyntaxError",
    "x = '\\0'\0": "SyntaxError|ValueError",
    GOOD.format(name="adaln"): "'adaln' of file .*mine.py is the name of a built-in scheme",
    "from architectures import register\nregister(5)(object)": "scheme name 5",
}


@pytest.mark.parametrize("text", ENDS)
def test_however_a_plugin_ends_it_is_a_sentence_with_its_name(tmp_path: Path, text: str) -> None:
    """`sys.exit(0)` at import ended `ditbench run` with code 0 and nothing done."""
    with pytest.raises(PluginError, match=f"mine.py.*{ENDS[text]}|{ENDS[text]}"):
        architectures.load_plugin(written(tmp_path, text))
    assert not [name for name in sys.modules if name.startswith("ditbench_plugin_") and "mine" in name]


def test_a_plugin_that_fails_half_way_registers_nothing(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        architectures.load_plugin(written(tmp_path, GOOD.format(name="half-way") + "1 / 0"))
    assert "half-way" not in architectures.schemes()


@pytest.mark.parametrize(
    "text", ["import time; time.sleep(60)", "while True: pass", "try:\n  while True: pass\nexcept Exception: pass"]
)
def test_a_plugin_that_hangs_is_ended_at_a_limit(tmp_path: Path, monkeypatch: Any, text: str) -> None:
    """There was no limit: it hung for ever."""
    monkeypatch.setenv("DITBENCH_PLUGIN_TIMEOUT", "0.3")
    with pytest.raises(PluginError, match=r"mine\.py: it was not done after 0\.3 s \(DITBENCH_PLUGIN_TIMEOUT"):
        architectures.load_plugin(written(tmp_path, text))


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch: Any, limit: str) -> None:
    monkeypatch.setenv("DITBENCH_PLUGIN_TIMEOUT", limit)
    with pytest.raises(PluginError, match="seconds above 0"), guarded("x"):
        pass


def test_guarding_passes_on_what_is_ours_and_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), guarded("x"):
        raise KeyboardInterrupt
    with pytest.raises(ConfigError, match="as it is"), guarded("x", passing=(ConfigError,)):
        raise ConfigError("as it is")
    caught: list[BaseException] = []

    def beside() -> None:
        try:
            with guarded("x"):
                sys.exit(1)
        except PluginError as error:
            caught.append(error)

    thread = threading.Thread(target=beside)  # a thread has no alarm
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_a_plugin_that_prints_a_gigabyte_is_cut_short(tmp_path: Path, capsys: Any) -> None:
    text = GOOD.format(name="loud") + "for _ in range(3000):\n    print('x' * 1000)\n"
    assert architectures.load_plugin(written(tmp_path, text)) == ["loud"]
    printed = capsys.readouterr()
    assert not printed.out and len(printed.err) < 12_000 and "printed more than 10,000 characters" in printed.err


@pytest.mark.parametrize("name", ["torch", "json", "numpy", "random", "architectures", "bench"])
def test_a_plugin_named_like_a_module_shadows_nothing(tmp_path: Path, name: str) -> None:
    written(tmp_path, "raise RuntimeError('shadowed')", f"{name}_helper.py")
    plugin = written(tmp_path, f"import json, random, torch, numpy\n{GOOD.format(name='shadow')}", f"{name}.py")
    for other in ("json", "random", "torch", "numpy"):
        if other != name:
            written(tmp_path, "raise RuntimeError('shadowed')", f"{other}.py")
    assert architectures.load_plugin(plugin) == ["shadow"]
    assert not str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path))


# --- in the planner ---------------------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os; os._exit(0)", r"it ended the process with exit code 0 while it was imported"),
        ("import sys; sys.exit(3)", r"it called sys\.exit\(3\)"),
        *also(
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended the process by SIGSEGV"),
            ("raise KeyboardInterrupt", "it ended the process"),
        ),
    ],
)
def test_a_plugin_that_ends_its_process_is_found_out_in_another(tmp_path: Path, text: str, said: str) -> None:
    """`os._exit(0)` cannot be caught: the planner would be gone, with code 0."""
    found = plugins.load_plugins([str(written(tmp_path, text))], tmp_path / "known", lambda *_: None)
    (sentence,) = found.wrong
    assert "mine.py" in sentence
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(sentence)


@pytest.mark.faults
def test_a_plugin_that_came_back_once_is_not_tried_again(tmp_path: Path, monkeypatch: Any) -> None:
    file = str(written(tmp_path, GOOD.format(name="comes-back")))
    once = plugins.load_plugins([file], tmp_path / "known", lambda *_: None)
    assert (once.files, once.wrong) == ({"comes-back": file}, [])
    monkeypatch.setattr(plugins, "_probe", lambda file: pytest.fail("tried again"))
    assert plugins.load_plugins([file], tmp_path / "known", lambda *_: None) == once


def planned_with(folder: Path, text: str, **changes: Any) -> Any:
    file = written(folder, text)
    return planned(folder, variants=["adaln", "mine"], plugins=[str(file)], **changes)[0]


def test_a_plugin_that_cannot_be_imported_costs_its_own_cells_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    made = planned_with(tmp_path, "import sys; sys.exit(0)", seeds=[0, 1])
    reasons = {(cell.row.variant, cell.row.seed): cell.reason for cell in made.cells}
    assert reasons["adaln", 0] == reasons["adaln", 1] == ""
    assert "'mine' is missing" in reasons["mine", 0] and "sys.exit(0)" in reasons["mine", 1]
    assert any("mine.py" in warning for warning in made.warnings)


BUILDS = {
    "import sys; sys.exit(0)": r"sys\.exit\(0\)",
    "raise KeyError('a')": "KeyError: 'a'",
    "raise ValueError('mine')": "mine",
    "raise BaseException('b')": "BaseException: b",
    "raise StopIteration": "StopIteration",
    "assert False": "AssertionError",
}


@pytest.mark.parametrize("hook", ["__init__", "block"])
@pytest.mark.parametrize("text", BUILDS)
def test_any_error_while_a_scheme_is_built_is_its_variants_reason(
    tmp_path: Path, monkeypatch: Any, text: str, hook: str
) -> None:
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    body = f"    def {hook}(self, *given, **named):\n        {text}\n"
    made = planned_with(tmp_path, GOOD.format(name="mine") + body)
    reasons = {cell.row.variant: cell.reason for cell in made.cells}
    assert reasons["adaln"] == "" and "'mine'" in reasons["mine"]
    with pytest.raises(AssertionError, match=BUILDS[text]):
        raise AssertionError(reasons["mine"])


@pytest.mark.faults
def test_a_scheme_that_hangs_while_it_is_built_is_asked_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    monkeypatch.setenv("DITBENCH_PLUGIN_TIMEOUT", "3")
    body = "    def block(self, index):\n        import time; time.sleep(100)\n"
    made = planned_with(tmp_path, GOOD.format(name="mine") + body, seeds=[0, 1, 2])
    assert ["3 s" in cell.reason for cell in made.cells] == [False, True] * 3


def test_a_matrix_of_which_nothing_can_run_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    file = written(tmp_path, "1 / 0")
    with pytest.raises(ConfigError, match=r"no cell of this matrix can be run.*mine\.py: ZeroDivisionError"):
        planned(tmp_path, variants=["mine"], plugins=[str(file)])


WILD = {
    "import torch\ntorch.nn.Linear = None\n": "",
    "import torch\ntorch.set_default_dtype(torch.float64)\n": "",
    "import os\nos.environ['OMP_NUM_THREADS'] = '77'\nos.environ.pop('PATH')\nos.chdir('/')\n": "",
    "import threading\nthreading.Thread(target=__import__('time').sleep, args=(2,)).start()\n": "a thread running",
}


@pytest.mark.parametrize("text", WILD)
def test_what_a_plugin_does_to_its_process_is_not_done_to_other_cells(
    tmp_path: Path, monkeypatch: Any, text: str
) -> None:
    """A plugin that changes torch or the environment changed the numbers of every cell beside its own."""
    import torch

    linear, dtype, before, folder = torch.nn.Linear, torch.get_default_dtype(), dict(os.environ), Path.cwd()
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    try:
        made = planned_with(tmp_path, GOOD.format(name="mine") + text)
    finally:
        torch.nn.Linear = linear
        torch.set_default_dtype(dtype)
    cells = {cell.row.variant: cell for cell in made.cells}
    assert cells["adaln"].reason == "" and cells["adaln"].spec.plugins == []
    assert cells["adaln"].cost["parameters_total"] > 0
    assert WILD[text] in cells["mine"].reason
    assert dict(os.environ) == before and Path.cwd() == folder


RESOLVED = ["{'x': float('nan')}", "{'x': object()}", "5", "{1: {2, 3}}"]


@pytest.mark.parametrize("options", RESOLVED)
def test_options_of_which_no_identity_can_be_made_are_its_variants_reason(
    tmp_path: Path, monkeypatch: Any, options: str
) -> None:
    monkeypatch.setattr(plugins, "_probe", lambda file: None)
    body = f"    @classmethod\n    def resolve(cls, options):\n        return {options}\n"
    made = planned_with(tmp_path, GOOD.format(name="mine") + body)
    assert [cell.reason == "" for cell in made.cells] == [True, False]


@pytest.mark.faults
@pytest.mark.parametrize("text", ["import os; os._exit(0)", *also("import sys; sys.exit(0)")])
def test_ditbench_run_with_a_plugin_that_exits_says_so_and_runs_the_others(tmp_path: Path, text: str) -> None:
    """`run` ended with code 0 and nothing done."""
    written(tmp_path, text)
    matrix_file(tmp_path, variants=["adaln", "mine"], plugins=["mine.py"], train__steps=2, train__warmup=1)
    said = GuardedLaunch("run", "tiny.yaml", "--no-track", cwd=tmp_path).ended(1)
    assert ("mine.py" in said and "while it was imported" in said) or "sys.exit(0)" in said
    store = Store(tmp_path / "runs")
    assert {row.variant: store.cell(row.cell).status()[0] for row in store.rows("tiny")} == {
        "adaln": "done",
        "mine": "failed",
    }


@pytest.mark.faults
def test_the_working_directory_shadows_no_module_of_the_planner(tmp_path: Path) -> None:
    """A local `architectures/`, or a file named like a module, was imported for it."""
    (tmp_path / "architectures").mkdir()
    for name in ("architectures/__init__", "random", "json", "torch", "numpy", "yaml", "typer"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    assert "adaln-zero" in Launch("schemes", "--json", cwd=tmp_path).ended(0)
