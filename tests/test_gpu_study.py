"""The study of a GPU, as far as a CPU shows it: turns, rows that resume where they stopped, parts that are cut off."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import architectures
from bench.studies.gpu import __main__ as gpu
from bench.studies.gpu import everything, rows
from bench.studies.gpu.turns import Turns

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("fork")  # the functions of a test cannot be found by name
TINY = """
name: step
variants: [adaln-zero, sd3]
seeds: [0]
backbone: {name: DiT-XS/4, width: 48, depth: 2, heads: 2}
data: {source: scenes, image_size: 32, train_count: 64, heldout_count: 32, unseen_count: 32}
train: {steps: 30, batch: 8, device: cpu}
"""


def counts(turns: Turns, count: Any) -> None:
    turns.join()
    while True:
        count.value += 1


def waits_alone(turns: Turns, count: Any, seen: Any) -> None:
    turns.join()
    while not count.value:
        time.sleep(0.01)
    with turns.alone():
        time.sleep(0.2)  # a signal that is under way
        seen[0] = count.value
        time.sleep(0.5)
        seen[1] = count.value
    before = count.value
    while count.value == before:  # the other continues
        time.sleep(0.01)
    seen[2] = 1


def test_who_measures_is_alone() -> None:
    turns, count, seen = Turns(CONTEXT, 2), CONTEXT.Value("q", 0, lock=False), CONTEXT.Array("q", 3)
    other = CONTEXT.Process(target=counts, args=(turns, count))
    one = CONTEXT.Process(target=waits_alone, args=(turns, count, seen))
    for process in (other, one):
        process.start()
    one.join(120)
    turns.end()
    other.join(120)
    assert seen[0] == seen[1] > 0 and seen[2] == 1
    assert not other.is_alive()


def study(folder: Path, *words: str) -> list[dict[str, Any]]:
    """The rows of the file after a run of the study."""
    (folder / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "bench.studies.gpu", "--config", str(folder / "tiny.yaml"), "--steps", "12"]
    done = subprocess.run(
        [*command, "--out", str(folder / "step.json"), *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads((folder / "step.json").read_text())["steps"]
    return rows


@pytest.mark.slow
def test_the_study_resumes_where_it_stopped(tmp_path: Path) -> None:
    first = study(tmp_path, "--mode", "eager", "--workers", "1", "--set", "variants=[sd3]")
    both = study(tmp_path, "--mode", "eager", "--workers", "2")
    assert first[0] == both[0] and [row["scheme"] for row in both] == ["sd3", "adaln-zero"]
    for row in both:
        assert "failed" not in row and row["over_bare"] > 0 and row["samples_per_second"] > 0


def planned(*variants: str) -> list[rows.Row]:
    """The rows of a tiny study, whatever its command."""
    given = argparse.Namespace(config=ROOT / "configs/step-gpu.yaml", batch=[], mode=["eager"])
    given.changes = ["train.device=cpu", *([f"variants=[{', '.join(variants)}]"] if variants else [])]
    return gpu.planned(given)[::3]  # of three sizes


def test_two_variants_of_a_scheme_are_two_rows() -> None:
    """The second was taken for the first, whose numbers were there, and dropped."""
    one, two = planned("adaln-zero", "{name: open, scheme: adaln-zero, gate: one}")
    there = json.loads(json.dumps([one.key | {"step_seconds": 1.0}]))
    assert gpu.among(one, there) and not gpu.among(two, there)
    assert not gpu.among(one, [one.key | {"failed": "it does not fit"}])


def test_details_go_on_where_they_stopped_and_no_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were of rows measured in the same run alone, so that an interruption lost them, whatever time was left."""
    first, second, third = planned("adaln-zero", "sd3", "ldm")
    monkeypatch.setattr(gpu, "detailed", lambda row, folder: {"of": row.config.scheme})
    report = {"steps": [first.key, second.key, third.key | {"failed": "it does not fit"}], "details": [first.key]}
    late = time.monotonic() + 60
    assert [one["of"] for one in gpu.details([first, second, third], report, ROOT, late)] == ["sd3"]
    assert list(gpu.details([first, second, third], report, ROOT, time.monotonic())) == []


def test_the_study_has_every_scheme_but_the_controls() -> None:
    controls = {"registers", "oracle"}
    assert {row.config.scheme for row in planned()} == set(architectures.schemes()) - controls


def test_a_part_is_cut_off_and_one_that_ended_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(text: str) -> everything.Part:
        return everything.Part(1.0, lambda out, minutes: ["-c", text])

    parts = {"long": part("import time; time.sleep(60)"), "short": part("print('said')"), "bad": part("1 / 0")}
    parts["absent"] = everything.Part(1.0, lambda out, minutes: [], needs="no_such_package")
    monkeypatch.setattr(everything, "PARTS", parts)
    assert "resumes" in everything.run("long", tmp_path, 1.0)
    assert everything.run("short", tmp_path, 60.0) == "ended with exit code 0; short.log has what it said"
    assert everything.run("short", tmp_path, 60.0) == "was done"
    assert "exit code 1" in everything.run("bad", tmp_path, 60.0)
    assert "not installed" in everything.run("absent", tmp_path, 60.0)
    assert (tmp_path / "short.log").read_text() == "said\n" and not (tmp_path / "bad.ended").exists()
