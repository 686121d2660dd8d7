"""The documentation is true to the repository: its pages are there, its links resolve, its commands parse."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tiny import ditbench

from bench.cli import scaffold
from bench.cli.app import app
from bench.config.load import load
from bench.config.matrix import expand

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FILES = (*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md"))
TEXTS = sorted(path.relative_to(ROOT).as_posix() for path in FILES if path.name != "CHANGELOG.md")
FOLDERS = r"(?:architectures|bench|configs|docs|results|tests)"


def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = hooks()


def pages() -> dict[str, str]:
    """Every page as it is built: its name and its Markdown with all that is put in."""
    own = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
    return {name: HOOKS.on_page_markdown(text, None, None, None) for name, text in own.items()}


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    return pages()


def nav(entries: Any) -> Iterator[str]:
    """The files that a navigation names."""
    if isinstance(entries, str):
        yield entries
        return
    for entry in entries.values() if isinstance(entries, dict) else entries:
        yield from nav(entry)


def test_the_navigation_holds_every_page_and_no_other(built: dict[str, str]) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(nav(config["nav"])) == sorted(built)


def anchors(text: str) -> set[str]:
    return {HOOKS.slug(line.lstrip("# ")) for _, line in HOOKS.lines_outside_code(text) if re.match(r"#+ ", line)}


def test_links_between_pages_resolve(built: dict[str, str]) -> None:
    for name, text in built.items():
        prose = "\n".join(line for _, line in HOOKS.lines_outside_code(text))
        for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", prose):
            if target.startswith("http"):
                continue
            file, _, anchor = target.partition("#")
            page = (Path(name).parent / file).as_posix() if file else name
            assert page in built, f"{name} links to {target}"
            assert not anchor or anchor in anchors(built[page]), f"{name} links to {target}"


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_paths_into_the_repository_resolve(name: str) -> None:
    """Links of every Markdown file, and paths in backticks; capitals are placeholders, <...> and {...} too."""
    path, text = ROOT / name, (ROOT / name).read_text()
    prose = "\n".join(line for _, line in HOOKS.lines_outside_code(text))
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", prose):
        assert target.startswith("http") or (path.parent / target).exists(), target
    for word in re.findall(rf"`({FOLDERS}/[^`\s]*)`", prose):
        if not re.search(r"[A-Z<>{{}}*]", word.replace("README.md", "").replace("CLAIMS.md", "")):
            assert (ROOT / word).exists(), f"{name} names {word}"


def test_every_figure_of_a_report_is_explained() -> None:
    from bench.views.figures.catalogue import FIGURES

    explained = re.findall(r"^\| ([^|]+) \|", (DOCS / "report.md").read_text(), re.MULTILINE)
    assert {one.title for one in FIGURES} <= set(explained)


# --- commands ---------------------------------------------------------------------------------------------------------

GROUP: Any = typer.main.get_command(app)


def shown(text: str) -> Iterator[list[str]]:
    """Commands within fences, a list of words each; a line may hold several, and end with a remark."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if re.match(r" *(\$ )?ditbench ", line):
                for part in re.split(r";|&&", re.sub(r"\s#.*$", "", line)):
                    words = shlex.split(part)
                    if words and words[0] == "ditbench":
                        yield words[1:]


def typed(text: str) -> Iterator[list[str]]:
    """Commands within fences and within backticks, but those with a placeholder in capitals."""
    prose = "\n".join(line for _, line in HOOKS.lines_outside_code(text))
    inline = [shlex.split(one)[1:] for one in re.findall(r"`(ditbench [^`]+)`", prose) if one.count("'") % 2 == 0]
    for words in [*shown(text), *inline]:
        if not any(word.isupper() for word in words):
            yield words


def check(words: list[str]) -> None:
    """Parses a command as the command line would, and runs nothing."""
    if words[0].startswith("-"):
        assert words[0] in {name for one in GROUP.params for name in one.opts}, words
        return
    assert words[0] in GROUP.commands, words
    with GROUP.commands[words[0]].make_context(words[0], list(words[1:])):
        pass


@pytest.mark.parametrize("name", TEXTS)
def test_commands_that_are_shown_parse(name: str) -> None:
    for words in shown((ROOT / name).read_text()):
        check(words)


@pytest.mark.parametrize("name", TEXTS)
def test_commands_within_sentences_exist(name: str) -> None:
    prose = "\n".join(line for _, line in HOOKS.lines_outside_code((ROOT / name).read_text()))
    for inline in re.findall(r"`ditbench ([^`]+)`", prose):
        words = inline.split()
        if words[0].isupper():  # a placeholder
            continue
        params = GROUP.params if words[0].startswith("-") else GROUP.commands[words[0]].params
        known = {name for one in params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known, inline


RUNS = sorted({tuple(w[1:]) for name in TEXTS for w in typed((ROOT / name).read_text()) if w[0] == "run" and w[1:]})
ELSEWHERE = ("imagenet256", "data.source=latents")  # whose images are not here
LARGE = ("configs/tasks.yaml",)  # thousands of cells


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the texts write: plugins, and the matrix of a task of one's own."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "configs").symlink_to(ROOT / "configs")
    (code,) = [
        one for one in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "@reg" in one
    ]
    (folder / "added.py").write_text(code)
    scaffold.new_scheme("my-gate", folder, package=False)
    scaffold.new_task("my-rows", folder, package=False)
    (mine,) = re.findall(r"```yaml\n(name: mine.*?)```", (DOCS / "add-a-task.md").read_text(), re.S)
    (folder / "mine.yaml").write_text(mine)
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words",
    [pytest.param(one, marks=[pytest.mark.slow] if set(LARGE) & set(one) else [], id=" ".join(one)) for one in RUNS],
)
def test_a_run_that_is_shown_can_be_planned(
    words: tuple[str, ...], described: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those whose images are not here the cells alone are made."""
    monkeypatch.setenv("DITBENCH_ROOT", "runs")
    if any(one in word for word in words for one in ELSEWHERE):
        monkeypatch.chdir(described)
        monkeypatch.setenv("DITBENCH_IMAGENET256", "latents")
        assert expand(load(words[0], [word for word in words[1:] if "=" in word]))
        return
    own = list(words)
    if "--root" in own:
        del own[own.index("--root") : own.index("--root") + 2]
    few = "evaluate.points=16"  # of a task's optima, which a first plan computes
    done = ditbench("run", *dict.fromkeys([*own, "--dry-run"]), few, cwd=described, code=0)
    assert "are left to train" in done.stdout and "cannot be run" not in done.stdout


def test_commands_that_are_planned_are_of_the_pages_that_show_how() -> None:
    shown_to_measure = [one for one in RUNS if any(word.startswith("variants=[adaln-zero, ") for word in one)]
    assert {word for one in shown_to_measure for word in one if word.endswith(".py")} == {"added.py", "my_gate.py"}
    assert len(RUNS) > 8


@pytest.mark.parametrize("words", [["nonsense"], ["run"], ["new-scheme"], ["report", "--nonsense"]])
def test_a_command_that_does_not_parse_is_found(words: list[str]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - typer's own usage errors differ between its versions
        check(words)


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_after_make_the_command_is_put_on_the_path(name: str) -> None:
    """`make` installs into .venv: a first block of commands without that would not find `ditbench`."""
    block = next(one for one in (ROOT / name).read_text().split("```")[1::2] if "\nditbench " in one)
    assert block.startswith("\nsource .venv/bin/activate ")


@pytest.mark.slow
def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest is not None
    assert newest.groups() == (version, str(cited["date-released"]))
    assert cited["version"] == version


def test_every_promise_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`: `(\w+)`", (DOCS / "promises.md").read_text())
    assert len(named) > 25
    missing = [f"{file}::{test}" for file, test in named if f"def {test}" not in (ROOT / file).read_text()]
    assert missing == []
