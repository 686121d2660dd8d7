"""Tables on terminals of any width and encoding: a number is whole or not there, and what is not there is named."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import MAIN, also
from rich.cells import cell_len
from synthetic import generate

from bench.cli import screen
from bench.views.grid import ASCII, Grid, encodable

NUMBER = r"-?\d[\d,.]*%?(?: (?:±|\+/-) \d[\d,.]*%?)?"


def printed(grid: Grid, width: int, encoding: str = "utf-8") -> str:
    """What a terminal of this width shows."""
    stream, kept = io.TextIOWrapper(io.BytesIO(), encoding=encoding), (sys.stdout, os.environ.get("COLUMNS"))
    sys.stdout, os.environ["COLUMNS"] = stream, str(width)
    try:
        screen.console().print(grid)
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    finally:
        sys.stdout = kept[0]
        os.environ.pop("COLUMNS")
        if kept[1] is not None:
            os.environ["COLUMNS"] = kept[1]


HEADINGS = [
    "variant",
    "seeds",
    "FID (efficientnet-lite0, 400) ↓",
    "validation loss ↓",
    "peak memory, MiB",
    "images/s ↑",
]
ROWS = [
    ["adaln-zero", "3", "453.6 ± 102.8", "0.4536 ± 0.1028", "1,248 ± 1,384", "203 ± 44"],
    ["a-scheme-with-a-long-name lr=0.0001", "2/3 (1 diverged)", "1,443.1 ± 22.7", "0.4431 ± 0.0227", "", "20 ± 1"],
]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [*range(27, 200, 7), 40, 80])
@pytest.mark.parametrize("droppable", [True, False])
def test_a_number_is_whole_or_not_there(width: int, encoding: str, droppable: bool) -> None:
    """At 80 columns the table's numbers ran down in pieces, at 40 there were none."""
    text = printed(Grid(HEADINGS, ROWS, "a table", frozenset({0, 1}), droppable), width, encoding)
    known = {encodable(value, encoding) for row in ROWS for value in row[2:] if value}
    shown = [value for value in known if value in text]
    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())
    if "No room for" not in text:
        assert set(shown) == known
    body = text.partition("No room for")[0]
    for value in known - set(shown):
        assert value.split()[0] not in re.findall(NUMBER, body), "a piece of a number"
    if width >= 40:
        assert shown


def test_columns_without_room_are_named() -> None:
    """The reader knows that there is more, and where."""
    text = printed(Grid(HEADINGS, ROWS, "a table", frozenset({0, 1}), True), 80)
    assert "0.4536 ± 0.1028" in text and "No room for 2 columns: peak memory, MiB; images/s ↑." in text
    narrow = printed(Grid(HEADINGS, ROWS, "a table", frozenset({0, 1}), True), 40)
    assert "No room" not in narrow and "203 ± 44" in narrow and "453.6 ± 102.8" in narrow


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=4),
    width=st.integers(20, 120),
    encoding=st.sampled_from(["utf-8", "ascii", "latin-1"]),
)
def test_any_text_in_any_terminal(rows: list[list[str]], width: int, encoding: str) -> None:
    """Huge names, none at all, wide signs, lines: nothing fails, no line is longer than the terminal."""
    text = printed(Grid(["name", "number", "words"], rows, "", frozenset({0, 2})), width, encoding)
    assert all(cell_len(line.rstrip()) <= width for line in text.split("\n"))


@pytest.mark.parametrize("sign", ASCII)
def test_every_sign_has_an_ascii_form(sign: str) -> None:
    """And is left alone where the encoding has it."""
    assert encodable(sign, "ascii").isascii() and encodable(sign, "utf-8") == sign


def on_a_terminal(words: list[str], cwd: Path, columns: int, **env: str) -> tuple[int, str]:
    """Exit code and output of the command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | env
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], cwd=cwd, stdout=theirs, stderr=theirs, stdin=theirs, env=variables
    )
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    return child.wait(60), b"".join(chunks).decode(errors="replace")


@pytest.mark.faults
@pytest.mark.parametrize("columns", [0, 80, *also(1, 40)])
def test_a_real_terminal_of_any_width(tmp_path: Path, columns: int) -> None:
    """Of no width at all too, as some serial lines and CI systems report."""
    generate(tmp_path / "runs", variants=2, seeds=2, steps=100, name="made")
    code, text = on_a_terminal(["status", "made"], tmp_path, columns, TERM="dumb")
    assert code == 0 and "diverged" in text and "Traceback" not in text
    assert "\x1b" not in on_a_terminal(["status", "made"], tmp_path, columns, NO_COLOR="1", TERM="dumb")[1]


@pytest.mark.faults
def test_a_report_on_an_ascii_terminal(tmp_path: Path) -> None:
    """After all training, code 2 on an arrow, and no report written."""
    from tiny import ditbench

    generate(tmp_path / "runs", variants=2, seeds=2, steps=100, name="made")
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "40"}
    done = ditbench("report", "made", cwd=tmp_path, code=0, **env)
    assert done.stdout.isascii() and (tmp_path / "runs/matrices/made/report/report.html").is_file()
    assert "+/-" in done.stdout and max(map(len, done.stdout.splitlines()[:-1])) <= 40
