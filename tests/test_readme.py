"""The README says what is true: its generated parts are current and its code runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import architectures
from bench.config.load import load
from bench.views import frontpage
from bench.views.limits import OF_TASKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("name", frontpage.PARTS)
def test_a_generated_part_is_current(name: str) -> None:
    """`make readme` writes them."""
    assert frontpage.replace_part(README, name, frontpage.PARTS[name](ROOT)) == README


def test_a_part_without_marks_is_named() -> None:
    with pytest.raises(ValueError, match="tree:begin"):
        frontpage.replace_part("no marks", "tree", "")


def test_the_first_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = [code for code in CODE if "create(" in code]
    small, published = architectures.create, architectures.published
    monkeypatch.setattr(architectures, "published", lambda name: published(name, depth=2, width=64, heads=2))
    monkeypatch.setattr(architectures, "create", small)
    values: dict[str, Any] = {
        "x": torch.randn(2, 3, 32, 32),
        "t": torch.rand(2),
        "labels": torch.tensor([0, 9]),
    }
    exec(first, values)
    assert values["velocity"].shape == (2, 3, 32, 32)


def test_the_scheme_of_the_readme_is_sound(tmp_path: Path) -> None:
    (example,) = [code for code in CODE if "@register" in code]
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    modules = {node.module for node in ast.walk(ast.parse(example)) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"architectures", "architectures.parts"}
    file = tmp_path / "added.py"
    file.write_text(example)
    (name,) = architectures.load_plugin(file)
    verdicts = list(architectures.check(name))
    assert not [one for one in verdicts if one.outcome != "holds"]


def test_the_quickstart_of_readme_and_docs_is_the_one_in_configs() -> None:
    """What it trains, on what, and how many cells."""
    matrix = load(ROOT / "configs" / "quickstart.yaml")
    tasks = matrix.axes["data.task"]
    assert (len(matrix.variants), len(tasks), len(matrix.seeds)) == (5, 4, 3)
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for text in (README, index, (ROOT / "Makefile").read_text(encoding="utf-8")):
        assert "five schemes on four tasks" in text and "about 10 minutes" in text
    assert all(f"`{task}`" in README for task in tasks) and f"{5 * len(tasks) * len(matrix.seeds)} cells" in index
    assert "five schemes" in (ROOT / "configs" / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_the_limits_that_a_report_says() -> None:
    assert all(sentence in README for sentence in OF_TASKS)


def test_images_of_the_readme_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_the_findings_on_the_first_screen_are_those_of_decided_claims() -> None:
    """Every interval before the first figure is in the page of claims, of a supported test."""
    page = (ROOT / "results" / "CLAIMS.md").read_text(encoding="utf-8")
    first = README.partition("<!-- capability:begin -->")[0]
    gaps = re.findall(r"(?:x )?-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", first)
    assert len(gaps) > 1
    for gap in gaps:
        assert re.search(rf"\| supported +\| {re.escape(gap)} ", page), gap
