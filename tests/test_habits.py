"""Habits that no linter holds: how long functions and modules are, what tests measure, which versions are tested."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "architectures").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CLOCK = re.compile(r"(time\.)?(monotonic|perf_counter|time)(_ns)?\(\)")  # not the processor's time of one process
FUNCTION, USUAL, MOST = 60, 300, 400  # lines

# Modules above the usual length, each with what holds it together.
LONG = {
    "bench/run/loop.py": "one launch: all ways in which a cell starts, ends, moves and is waited for",
    "bench/run/plan.py": "a cell from its place in a matrix to its id: all that is worked out once for many cells",
    "architectures/layers.py": "the parts every block is composed of, one class each",
    "architectures/modulation.py": "one family of placements, side by side",
    "architectures/scheme.py": "the contract: facts, hooks, and what a scheme is given",
    "architectures/sublayer.py": "one update rule and all that its parts may be",
    "bench/config/schema.py": "the one table of keys",
    "bench/data/painter.py": "one renderer: a table for each attribute and how it is painted",
    "bench/data/scenes.py": "grammar, captions and sampling of one data set",
    "bench/store/metrics.py": "the one table of metrics",
    "bench/views/diagram/render.py": "one figure, part by part",
}


def long_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION:
                yield f"{node.name}: {lines} lines"


def too_long(lines: int, reason: str | None) -> bool:
    return lines > (MOST if reason else USUAL)


def durations(source: str) -> Iterator[str]:
    """Differences of two moments on the clock on the wall: what a busy machine makes of any length."""
    nodes = list(ast.walk(ast.parse(source)))
    reads = [node for node in nodes if isinstance(node, ast.Assign) and CLOCK.fullmatch(ast.unparse(node.value))]
    moments = {ast.unparse(target) for node in reads for target in node.targets}
    for node in nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and not isinstance(node.right, ast.Constant):
            minuend = ast.unparse(node.left)
            if CLOCK.fullmatch(minuend) or minuend in moments:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def pinned(text: str) -> dict[str, str]:
    """Package -> version; anything but `name==version` and comments is refused."""
    pins = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line)
            assert pin, f"not a released version of a package: {line!r}"
            pins[pin[1]] = pin[2]
    return pins


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(text) for group in groups for text in group]
    return [one for one in every if one.name != project["name"]]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_and_modules_are_short(path: Path) -> None:
    source, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    assert not list(long_functions(source))
    assert not too_long(len(source.splitlines()), LONG.get(name)), f"{name} is too long"


def test_the_list_of_long_modules_is_current() -> None:
    short = [name for name in LONG if len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 0.9 * USUAL]
    assert not short, f"far below {USUAL} lines, so no exception any more: {short}"


def test_length_is_measured() -> None:
    body = "    pass\n" * FUNCTION
    assert list(long_functions(f"def f():\n{body}")) == [f"f: {FUNCTION + 1} lines"]
    assert not list(long_functions(f"def f():\n{body[9:]}"))
    assert too_long(USUAL + 1, None) and too_long(MOST + 1, "a reason") and not too_long(MOST, "a reason")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_no_test_measures_how_long_something_took(path: Path) -> None:
    """`assert longest < 1.5` was 2.17 s on a busy machine: count calls, tries and waits, or have it never return."""
    assert not list(durations(path.read_text(encoding="utf-8")))


def test_a_duration_is_found() -> None:
    direct = "import time\nbegin = time.monotonic()\nf()\nassert time.monotonic() - begin < 1"
    assert list(durations(direct)) == ["line 4: time.monotonic() - begin"]
    assert list(durations("a = perf_counter()\nf()\nb = perf_counter()\nlongest = max(0, b - a)"))
    limits = "end = time.monotonic() + 60\nwhile time.monotonic() < end: pass\nold = time.time() - 100"
    assert not list(durations(limits + "\nbefore = time.process_time()\nassert time.process_time() - before < 5"))


def test_constraints_name_a_version_of_every_dependency() -> None:
    pins = pinned((ROOT / "constraints.txt").read_text())
    names = {canonicalize_name(one.name) for one in requirements()}
    assert names == set(pins)
    for one in requirements():
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), f"constraints.txt contradicts {one}"


@pytest.mark.parametrize(
    "line", ["torch==2.11.0+cu128", "torch @ https://example.org/torch.whl", "-e .", "--index-url x", "torch>=2"]
)
def test_constraints_hold_no_address(line: str) -> None:
    with pytest.raises(AssertionError, match="not a released version"):
        pinned(line)
