"""A stranger's first scheme: what is written works, what the guide shows works, what is wrong is named by its law."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit import warm_command
from tiny import ditbench, matrix_file

from architectures import laws
from bench.cli import scaffold
from bench.store.folders import Store

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "architectures" / "README.md").read_text()

WRONG = """
import torch
from architectures import register
from architectures.conditioning.adaln_zero import AdaLNZero

@register("not-a-number")
class NotANumber(AdaLNZero):
    '''x <- x / 0'''
    def leave(self, h, c):
        return super().leave(h, c) / 0 * 0

@register("too-long")
class TooLong(AdaLNZero):
    '''x <- [x ; c]'''
    def leave(self, h, c):
        return torch.cat([h, c.vector[:, None]], dim=1)

@register("no-block")
class NoBlock(AdaLNZero):
    '''x <- x'''
    def block(self, index, depth):
        return super().block(index)
"""


def test_a_file_and_its_test_work_as_written(tmp_path: Path) -> None:
    assert [p.name for p in scaffold.new_scheme("my-gate", tmp_path, package=False)] == [
        "my_gate.py",
        "test_my_gate.py",
    ]
    code = "import sys, pytest\nsys.path.insert(0, '')\nsys.exit(int(pytest.main(['-q', '-p', 'no:cacheprovider'])))"
    done = warm_command(cwd=tmp_path, code=code, seconds=200)  # as `python -m pytest`
    assert done.returncode == 0 and f"{len(laws.LAWS)} passed" in done.stdout, done.stdout
    with pytest.raises(ValueError, match="my_gate.py is there already"):
        scaffold.new_scheme("my-gate", tmp_path, package=False)


@pytest.mark.parametrize("package", [False, True])
def test_what_is_written_is_linted_and_formatted(package: bool, tmp_path: Path) -> None:
    scaffold.new_scheme("my-gate", tmp_path, package=package)
    ruff = Path(sys.executable).with_name("ruff")
    for words in (("check", "--select", "E,F,I,B,UP"), ("format", "--check")):
        done = subprocess.run(
            [ruff, *words, "--isolated", "--line-length", "120", "."], capture_output=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout.decode()


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name, said in (
        ("adaln", "is there already"),
        ("pixart", "is there already"),
        ("My", "lower-case"),
        ("../x", "."),
        ("2d", "letter first"),
    ):
        with pytest.raises(ValueError, match=said):
            scaffold.new_scheme(name, tmp_path, package=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_check_distinguishes_sound_from_wrong_and_speaks_to_scripts(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    env = {"DITBENCH_PLUGINS": str(tmp_path / "wrong.py")}
    checked = json.loads(ditbench("check", "not-a-number", "--json", cwd=tmp_path, code=1, **env).stdout)
    assert checked["origin"]["kind"] == "file" and len(checked["origin"]["sha256"]) == 64
    assert next(law for law in checked["laws"] if law["outcome"] == "broken")["law"] == "numbers"
    done = ditbench("check", "adaln-zero", "gate=tnah", cwd=tmp_path, code=2)
    assert "did you mean 'tanh'" in done.stderr


@pytest.mark.thorough
def test_a_matrix_names_the_law_that_a_plugin_breaks_and_runs_the_others(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    path = matrix_file(
        tmp_path,
        variants=["adaln", "not-a-number", "too-long", "no-block", "mine"],
        plugins=["wrong.py", "broken.py"],
        train__steps=2,
        train__warmup=1,
    )
    done = ditbench("run", str(path), "--no-track", cwd=tmp_path, code=1)
    text = "".join(done.stdout.split())  # whatever the width at which it was folded
    assert "broken.py" in text and "nothing_of_that_name" in text
    store = Store(tmp_path / "runs")
    states = {row.variant: store.cell(row.cell).status() for row in store.rows("tiny")}
    assert states["adaln"][0] == "done", done.stdout
    assert "the law 'numbers'" in states["not-a-number"][1] and "NaN" in states["not-a-number"][1]
    assert states["mine"][0] == "failed" and "nothing_of_that_name" in states["mine"][1]
    assert "the law 'shapes'" in states["too-long"][1]
    assert "the law 'builds'" in states["no-block"][1] and "depth" in states["no-block"][1]


def test_the_guide_s_smallest_scheme_obeys_every_law(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "added.py").write_text(code)
    checked = json.loads(ditbench("check", "added", "--plugin", "added.py", "--json", cwd=tmp_path, code=0).stdout)
    assert {law["outcome"] for law in checked["laws"]} == {"holds"}


def test_the_guide_names_every_choice_there_is() -> None:
    from architectures import describe

    for name, option in describe("adaln-zero-cross").options.items():
        row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{choice}`" in row for choice in option.choices), name


@pytest.mark.slow
def test_a_package_is_installed_by_pip_and_is_in_every_list(tmp_path: Path) -> None:
    scaffold.new_scheme("my-gate", tmp_path / "made", package=True)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*words, str(tmp_path / "made")], check=True, timeout=250)
    found = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    assert "my-gate  (package ditbench-my-gate)" in ditbench("schemes", cwd=tmp_path, PYTHONPATH=found).stdout
    ditbench("check", "my-gate", cwd=tmp_path, code=0, PYTHONPATH=found)
    test = [sys.executable, "-m", "pytest", "-q", str(tmp_path / "made" / "tests")]
    subprocess.run(test, check=True, timeout=250, env=os.environ | {"PYTHONPATH": found})
