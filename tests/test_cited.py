"""Commits that texts and records cite: each is in the history, and what a rule's commit is said to hold is in it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("README.md", "results/README.md", *(p.relative_to(ROOT).as_posix() for p in ROOT.glob("results/*/README.md")))
HASH = re.compile(r"(?<![\w.,])(?=[0-9a-f]*[0-9])(?!20\d{6}\b)[0-9a-f]{7,40}(?!\w|[.,]\d)")  # and no date
RULES = re.compile(r"^\| `(t-\d\d)`(?:(,| to) `(t-\d\d)`)? \| ([0-9a-f]{7,40}) \|", re.MULTILINE)
REWRITTEN = {"eb2f6d91"}  # of results/gpu's first record, which says so: before it was pushed


def git(*words: str, given: str = "") -> str:
    return subprocess.run(["git", *words], cwd=ROOT, input=given, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", autouse=True)
def history() -> None:
    """Skips where there is no whole history to compare with."""
    try:
        shallow = git("rev-parse", "--is-shallow-repository").strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no clone: commits that texts cite cannot be looked up")
    if shallow != "false":
        pytest.skip("this clone is shallow: commits that texts cite may lie beyond it")


def unknown(hashes: Iterable[str]) -> set[str]:
    """Those that name no commit of this history, but for the rewritten one."""
    asked = sorted({one for one in hashes if not one.startswith(tuple(REWRITTEN))})
    found = git("cat-file", "--batch-check", given="".join(f"{one}^{{commit}}\n" for one in asked)).splitlines()
    return {one for one, line in zip(asked, found, strict=True) if " commit " not in line}


def quoted(text: str) -> set[str]:
    """What of a text has the form of a commit."""
    return set(HASH.findall(text))


def rules(text: str) -> dict[tuple[str, ...], str]:
    """The claims of a row of the tables of rules -> the commit that it names."""
    rows = {}
    for first, joined, last, commit in RULES.findall(text):
        low, high = int(first[2:]), int((last or first)[2:])
        numbers: Collection[int] = range(low, high + 1) if "to" in joined else {low, high}
        rows[tuple(f"t-{number:02d}" for number in sorted(numbers))] = commit
    return rows


@pytest.mark.parametrize("name", TEXTS)
def test_a_commit_that_a_text_quotes_is_in_the_history(name: str) -> None:
    assert not unknown(quoted((ROOT / name).read_text(encoding="utf-8")))


def test_every_rule_was_committed_when_the_page_of_records_says_and_before_its_record() -> None:
    rows = rules((ROOT / "results" / "README.md").read_text(encoding="utf-8"))
    files = {path.name[:4]: path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/claims/t-*.yaml")}
    assert {claim for claims in rows for claim in claims} == files.keys()
    for claims, commit in rows.items():
        held = git("ls-tree", "-r", "--name-only", commit, "--", "configs/claims").split()
        assert not {files[claim] for claim in claims} - set(held), commit
        for claim in claims:
            for record in ROOT.glob(f"results/claim-{claim}-*/*"):
                measured = record.name.rpartition("-")[2]
                assert git("merge-base", commit, measured) == git("rev-parse", f"{commit}^{{commit}}"), claim


def test_the_commit_of_every_record_is_in_the_history() -> None:
    files = [*ROOT.glob("results/*/*/environment.json"), *ROOT.glob("results/*/*.json"), *ROOT.glob("results/*.json")]
    cited = {}
    for path in files:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        cited |= {one: path for one in (loaded.get("commit"), *loaded.get("commits", ())) if one}
    assert len(cited) > 10
    assert not {one: cited[one] for one in unknown(cited)}
    folders = {path.name.rpartition("-")[2] for path in ROOT.glob("results/*/*/")}
    assert not unknown(folders)
    assert any(one.startswith("eb2f6d91") for one in cited), "the exception is of no record any more"


def test_a_wrong_commit_would_be_found() -> None:
    text = "at 0325072e and 380b3314, 1,234,567 of 20261127, a seed 12345678.5; real: 03250725, 8906167 (`380b331`)."
    assert quoted(text) == {"0325072e", "380b3314", "03250725", "8906167", "380b331"}
    assert unknown(quoted(text)) == {"0325072e", "380b3314"}
    assert rules("| `t-01` to `t-03` | 052ac499 |\n| `t-05`, `t-07` | 349003d |\n| `t-09` | 93a74a6 |\n") == {
        ("t-01", "t-02", "t-03"): "052ac499",
        ("t-05", "t-07"): "349003d",
        ("t-09",): "93a74a6",
    }
