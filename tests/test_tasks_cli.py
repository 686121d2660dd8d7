"""Commands about tasks: what they print, what a stranger's first task is, and what of it is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ditbench

from bench.cli import scaffold
from bench.data.tasks import registry

BROKEN = """
import torch
from bench.data.tasks.grain import Grain
from bench.data.tasks.registry import register

@register("broken-grain")
class Broken(Grain):
    def modes(self, words):
        return super().modes((words + 1) % torch.tensor(self.counts))
"""


def test_the_list_names_every_task_and_its_origin(tmp_path: Path) -> None:
    about = json.loads(ditbench("tasks", "--json", cwd=tmp_path, code=0).stdout)
    assert list(about) == list(registry.NAMES)
    assert about["bind"]["predicts"] == "attention binds, modulation swaps"
    (tmp_path / "broken.py").write_text(BROKEN)
    assert "broken-grain" in ditbench("tasks", "--plugin", "broken.py", cwd=tmp_path, code=0).stdout


def test_a_task_is_described_with_its_sheet(tmp_path: Path) -> None:
    words = ("describe-task", "bind", "--level", "hard", "--out", "bind.png")
    text = ditbench(*words, cwd=tmp_path, code=0).stdout
    assert "15.56 bits" in text and "K = 16" in text and "swapped" in text
    assert (tmp_path / "bind.png").read_bytes()[:4] == b"\x89PNG"
    about = json.loads(ditbench("describe-task", "labels", "labels=512", "--json", cwd=tmp_path, code=0).stdout)
    assert about["bits"] == {"image": 11.0, "prompt": 9.0, "hidden": 2.0}
    assert about["knobs"]["labels"] | {"meaning": ""} == {
        "value": 512,
        "default": 128,
        "levels": {"easy": 64, "medium": 128, "hard": 256},
        "range": "2 to 200000",
        "meaning": "",
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("describe-task", "bnid"), "did you mean 'bind'?"),
        (("describe-task", "bind", "--level", "hrad"), "did you mean 'hard'?"),
        (("describe-task", "bind", "color=3"), "did you mean 'colours'?"),
        (("check-task", "nothing.py"), "no such file"),
        (("check-task", "empty.py"), "registers no task"),
        (("new-task", "bind"), "is there already"),
        (("new-task", "My"), "lower-case"),
    ],
)
def test_what_is_not_there_is_one_sentence(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    said = ditbench(*words, cwd=tmp_path, code=2).stderr
    assert sentence in said and len(said.strip().splitlines()) == 1, said


def test_a_law_that_is_broken_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    done = ditbench("check-task", "broken.py", "--level", "easy", "--count", "64", cwd=tmp_path, code=1)
    assert "broken-grain (easy) breaks the law 'prompt is honest': z is one of modes" in done.stderr
    assert "is deterministic" not in done.stderr


def test_a_new_task_obeys_every_law_as_written(tmp_path: Path) -> None:
    assert [path.name for path in scaffold.new_task("my-rows", tmp_path, package=False)] == [
        "my_rows.py",
        "test_my_rows.py",
    ]
    found = json.loads(ditbench("check-task", "my_rows.py", "--json", cwd=tmp_path, code=0).stdout)
    assert list(found) == ["my-rows (easy)", "my-rows (medium)", "my-rows (hard)"]
    with pytest.raises(ValueError, match="my_rows.py is there already"):
        scaffold.new_task("my-rows", tmp_path, package=False)


@pytest.mark.parametrize("package", [False, True])
def test_what_is_written_is_linted_and_formatted(package: bool, tmp_path: Path) -> None:
    scaffold.new_task("my-rows", tmp_path, package=package)
    ruff = Path(sys.executable).with_name("ruff")
    for words in (("check", "--select", "E,F,I,B,UP"), ("format", "--check")):
        done = subprocess.run(
            [ruff, *words, "--isolated", "--line-length", "120", "."], capture_output=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout.decode()
