"""Text from outside is inert wherever it is shown, and an error of any type is one sentence with an exit code."""

from __future__ import annotations

import csv
import errno
import html.parser
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import MAIN, Launch
from many import many_cells
from tiny import ditbench

from architectures import registry
from bench.cli import app, errors, screen
from bench.findings.analysis import Analysis, analyse
from bench.store.files import write_json
from bench.store.folders import Store
from bench.store.inert import one_line, plain
from bench.store.table import collect
from bench.views import report
from bench.views.escape import csv_value, markdown_code, markdown_text
from bench.views.figures import catalogue
from bench.views.text import as_csv, latex, terminal

NASTY = [
    "[/red]",
    "[/x/y] cannot be imported",
    "[bold red]loud[/]",
    ":smile:",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;a title\x07",
    "\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m",
    "over\rwritten",
    "back\b\bspace",
    "nothing\x00",
    "right \u202e tfel",
    "isolated \u2067 text \u2069",
    "zero\u200bwidth",
    "line\u2028separator",
    "private \ue000 use \ue001",
    "half of a surrogate \ud800",
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% raw %}",
    "[a link](javascript:alert(1))",
    "![an image](http://example.com/x.png)",
    "[ref]: javascript:alert(1)",
    "a | b | c",
    "`code` ``more``",
    "*bold* _low_ ~~gone~~",
    "# a heading",
    "two\nlines\n\n| and | a table |",
    r"\input{/etc/passwd} \write18{ls}",
    "100 % & $x^2$ #1 _y_ {z} ~ ^ \\",
    "$unbalanced",
    "$\\nosuchmacro{$",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "@SUM(A1)",
    "-2+3",
    "\t=1",
    "comma, \"quote\" and 'apostrophe'",
    "красное кольцо 红色的戒指 حلقة",
    "e\u0301 \U0001f468\u200d\U0001f469",
    "x" * 3000,
]
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028\ud800-\udfff\ue000-\uf8ff]")


def nasty_store(root: Path, texts: list[str]) -> Store:
    """A matrix whose variants, axes, reasons, commits and commands are these."""
    store = many_cells(root, len(texts), seeds=1)
    manifest = store.manifest("many")
    for k, (row, text) in enumerate(zip(manifest["cells"], texts, strict=True)):
        row["axes"], row["backbone"] = {f"prompt.{text}": text}, text
        if k % 2:
            store.cell(row["cell"]).result_file.unlink()
            store.cell(row["cell"]).write_state("failed", text)
    manifest["command"], manifest["config"]["backbone"]["name"] = texts[0], texts[-1]
    write_json(store.matrix_folder("many") / "manifest.json", manifest)
    return store


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(collect(nasty_store(tmp_path_factory.mktemp("nasty"), NASTY), "many"))


# --- terminal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("width", ["20", "40", "80", "200"])
def test_a_terminal_is_not_steered(nasty: Analysis, encoding: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason with `[/red]` ended `status` with a MarkupError; escape sequences reached the terminal."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", width)
    out = screen.console()
    out.print(terminal(nasty))
    for text in NASTY:
        out.print(text)
        screen.say(text)
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert not STEERING.search(shown)
    assert "[/red]" in shown and "\\x1b]0;a title\\x07" in shown


@pytest.mark.thorough
def test_status_shows_nasty_reasons(tmp_path: Path) -> None:
    """The command as a user runs it, in ASCII, with a width of nothing."""
    texts = [text for text in NASTY if "\ud800" not in text]
    nasty_store(tmp_path / "runs", texts)
    env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "0", "LANG": "C"}
    done = ditbench("status", "many", cwd=tmp_path, code=0, **env)
    assert done.stdout.isascii() and "[/x/y]" in done.stdout and "\x1b" not in done.stdout
    assert len(json.loads(ditbench("status", "many", "--json", cwd=tmp_path, code=0).stdout)["cells"]) == len(texts)


def test_an_unencodable_sign_stops_no_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """After all training, an arrow ended `run` with code 2 and no report."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    screen.prepare()
    print("a → b ± 1, красное")
    stream.flush()
    assert stream.buffer.getvalue().startswith(b"a -> b +/- 1, \\u043a")  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zl", "Zp"])))
def test_inert_text_steers_nothing(text: str) -> None:
    """Whatever it is; and once is enough."""
    for shown in (plain(text), one_line(text)):
        assert not STEERING.search(shown)
        shown.encode()
    assert plain(plain(text)) == plain(text) and "\n" not in one_line(text)


# --- files ------------------------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """Names of the tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_page_holds_no_markup_but_its_own(nasty: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTML, attributes and templates in names and reasons are text."""
    monkeypatch.setattr(catalogue, "FIGURES", ())
    page = report.write_files(nasty, tmp_path).read_text()
    ours = report.write_files(calm(tmp_path / "calm"), tmp_path / "own").read_text()
    own = Tags()
    own.feed(ours)
    seen = Tags()
    seen.feed(page)
    assert seen.tags <= own.tags | {"ul", "li"} and not {"onerror", "onmouseover"} & seen.attributes
    scripts = [re.findall("<script.*?</script>", text, re.DOTALL) for text in (page, ours)]
    assert scripts[0] == scripts[1]
    assert not STEERING.search(page)


def calm(root: Path) -> Analysis:
    """A matrix of ordinary names, with a failed cell."""
    return analyse(collect(nasty_store(root, ["a", "b", "c"]), "many"))


def test_markdown_holds_no_markup_but_its_own(nasty: Analysis) -> None:
    """`report.md` held a raw `<img onerror>` of a file's name, and a pipe broke the table."""
    from markdown import markdown as rendered

    text = report.text(nasty, [])
    assert not STEERING.search(text)
    seen = Tags()
    seen.feed(rendered(text, extensions=["tables", "fenced_code"]))
    assert seen.tags <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "strong"}
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("<>&[]()!|`*_~$\\#+-= \n1.:ajx\"'/")))
def test_any_text_is_text_in_markdown(text: str) -> None:
    """Rendered, no tag is made of it but that of its paragraph."""
    from markdown import markdown as rendered

    for shown in (f"so {markdown_text(text)} it is", f"so {markdown_code(text)} it is"):
        seen = Tags()
        seen.feed(rendered(shown))
        assert seen.tags <= {"p", "code"}, shown


def test_latex_holds_no_command_but_its_own(nasty: Analysis) -> None:
    r"""A name with `_` or `\input` made a table that did not compile, or one that read files."""
    text = latex(nasty)
    table = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    commands = set(re.findall(r"\\[A-Za-z]+", table))
    own = {"toprule", "midrule", "bottomrule", "begin", "end", "textbf", "downarrow", "uparrow", "pm"}
    assert commands <= {f"\\{one}" for one in own} | {r"\textbackslash", r"\textasciitilde", r"\textasciicircum",
        r"\ensuremath"}  # fmt: skip
    assert "\\input" not in table and all(line.startswith(("%", "\\")) or "&" in line for line in text.splitlines())


def test_csv_computes_nothing_and_can_be_read_back(nasty: Analysis) -> None:
    """A spreadsheet runs what starts with `=`, `+`, `-` or `@`."""
    rows = list(csv.reader(io.StringIO(as_csv(nasty.table))))
    assert len(rows) == len(NASTY) + 1 and len({len(row) for row in rows}) == 1
    for value in (value for row in rows for value in row):
        assert not value.startswith(("=", "+", "@", "\t", "-2+")), value
    assert csv_value("-0.5") == "-0.5" and csv_value(-0.5) == -0.5 and csv_value("=1") == "'=1"


def test_figures_show_names_and_never_compute_them(tmp_path: Path) -> None:
    """matplotlib reads `$` as a formula and fails on one that is none."""
    texts = ["$unbalanced", "$\\nosuchmacro{$", "a_b^c $x$ $", "красное 红色", "x" * 200, "\x00\x1b[31m"]
    texts = [text for text in texts for _ in range(2)]  # every other one fails
    analysis, notes = analyse(collect(nasty_store(tmp_path, texts), "many")), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = catalogue.plot_all(analysis, note=notes.append)
    assert {"quality-cost.png", "parameters.png"} <= {figure.file for figure in figures} and not notes, notes


# --- errors -----------------------------------------------------------------------------------------------------------


def ended(command: Any, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Exit code, and what was said on stderr."""
    with pytest.raises(SystemExit) as exit:
        errors.guarded(command)
    return exit.value.code, capsys.readouterr().err


def plugin(tmp_path: Path, body: str) -> Any:
    """A function of somebody else's file."""
    file = tmp_path / "their_gate.py"
    file.write_text(f"import sys\ndef work():\n    {body}\n")
    scope: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    return scope["work"]


@pytest.mark.parametrize(
    "body",
    [
        "{}['absent']",
        "None.attribute",
        "raise RuntimeError('a reason with [/red] and \\x1b[31m')",
        "raise Exception",
        "raise BaseException('of the base')",
        "sys.exit(0)",
        "sys.exit('a word')",
        "raise SystemExit",
        "raise GeneratorExit",
        "assert False",
        "1 / 0",
        "work()",
        "raise MemoryError",
        "import nowhere",
        "raise OSError(28, 'No space left on device')",
        "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
        "raise ValueError('x' * 10**7)",
        "raise ExceptionGroup('several', [ValueError('one')])",
    ],
)
def test_an_error_of_a_plugin_of_any_type_names_it(
    tmp_path: Path, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TypeError, RuntimeError and SystemExit passed: a traceback, or code 0 with nothing done."""
    code, said = ended(plugin(tmp_path, body), capsys)
    assert code == 2 and "their_gate.py, line 3" in said and "Traceback" not in said
    assert len(said) < 3000 and "\x1b" not in said


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("a sentence"), 2, "a sentence"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/file"), 2, "/a/file: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/a"), 2, "/a: Is a directory"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left"),
        (FileNotFoundError("no such cell"), 2, "no such cell"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "utf-8"),
        (MemoryError(), 2, "not enough memory"),
        (ModuleNotFoundError("no", name="mlflow"), 2, "ditbench[track]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("key"), 70, "an error of its own: KeyError: 'key'"),
        (TypeError("unexpected"), 70, "DITBENCH_DEBUG=1"),
        (RecursionError("deep"), 70, "please report"),
        (ModuleNotFoundError("no", name="nowhere"), 70, "nowhere"),
        (StopIteration(), 70, "StopIteration"),
    ],
)
def test_an_error_of_any_type_is_a_sentence(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ours says so, with another exit code; what is the user's has 2."""
    monkeypatch.setattr(errors, "_author", lambda trace: "")  # this file is not ours either
    if isinstance(error, ModuleNotFoundError) and error.name == "nowhere":
        error = ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    def command() -> None:
        raise error

    found, said = ended(command, capsys)
    assert found == code and words in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("body", ["facts = None", "def block(self, index): return None", "def embed(self): sys.exit()"])
def test_what_a_plugin_breaks_in_our_code_is_the_plugins(tmp_path: Path, body: str) -> None:
    """Nothing of its own is on the stack when it returned nonsense: the scheme that was asked is named."""
    head = "import sys\nfrom architectures import Scheme, register\n@register('broken-gate')\nclass Gate(Scheme):\n"
    (tmp_path / "my_gate.py").write_text(f"{head}    'x'\n    {body}\n")
    said = ditbench("describe", "broken-gate", "--plugin", "my_gate.py", cwd=tmp_path, code=2).stderr
    assert "my_gate.py" in said and "Traceback" not in said and len(said.splitlines()) == 1


def test_debugging_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error itself, for a debugger or a report."""
    monkeypatch.setenv("DITBENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        errors.guarded(plugin(tmp_path, "1 / 0"))


def test_our_own_exit_codes_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """`run` ends with 1 where a cell lacks its result; nothing is said of that."""
    for code in (0, 1, 3, True, None):

        def command(code: Any = code) -> None:
            app.config.console()
            sys.exit(code)

        monkey = pytest.MonkeyPatch()
        monkey.setattr(errors, "_author", lambda trace: "")
        assert ended(command, capsys) == ((0 if code is None else code), "")
        monkey.undo()


def test_a_library_is_no_plugin() -> None:
    """An error within a library that our code called is not blamed on an installed package."""
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert caught.value.__traceback__ is not None and caught.value.__traceback__.tb_next is not None
    assert errors._author(caught.value.__traceback__.tb_next) == ""


@pytest.mark.parametrize("work", [partial(analyse, None), partial(terminal, None), partial(registry.origin, [])])
def test_an_error_of_our_own_is_said_to_be_ours(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In any room; nobody else is named for it."""
    code, said = ended(work, capsys)
    assert code == 70 and "an error of its own" in said and "plugin" not in said


@pytest.mark.parametrize("words", [("[/red]",), ("status", "[/red]"), ("status", "--\x1b[31m"), ("describe", "[/x]")])
def test_mistyped_words_are_inert(tmp_path: Path, words: tuple[str, ...]) -> None:
    """typer prints usage errors itself."""
    done = ditbench(*words, cwd=tmp_path, code=2)
    assert "Traceback" not in done.stderr and "\x1b[31m" not in done.stderr


def test_a_reader_that_leaves_and_a_full_disk_end_quietly(tmp_path: Path) -> None:
    """`ditbench config | head -1` says nothing; `> /dev/full` is one sentence."""
    script = f"{sys.executable} -c '{MAIN}' config"
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(f"{script} | head -1", shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    done = subprocess.run(f"{script} > /dev/full", shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.faults
def test_ctrl_c_is_a_word(tmp_path: Path) -> None:
    """Code 130, as a shell expects; typer alone says nothing."""
    launch = Launch("describe", "--all", "--backbone", "DiT-XL/2", cwd=tmp_path)
    launch.wait_for(lambda: "torch" in Path(f"/proc/{launch.child.pid}/maps").read_text())
    launch.disturb(signal.SIGINT)
    assert "interrupted" in launch.ended(130)


def test_a_table_with_a_claim_and_nothing_in_it_is_shown(nasty: Analysis) -> None:
    """No row, no column: still a table."""
    terminal(replace(nasty, rows=[], columns=[], bold={}))
