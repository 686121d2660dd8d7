"""What a format takes for its own signs, escaped: a name or a reason is shown as it is and does nothing."""

from __future__ import annotations

import re
from typing import Any

from bench.store.inert import plain

# Signs of Markdown where they mean something: `_` within a word, `< 0.05` and `[0.1, 0.2]` mean nothing.
_MARKS = re.compile(
    r"[\\`*~|$]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)|\[(?![-+\d., infa]*\])|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
)
_LINE_START = re.compile(r"^\s*(?:#+(?=\s)|[+-](?=[\s-]|$)|>|=+\s*$|\d+[.)](?=\s))")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def markdown_text(text: str) -> str:
    """Text from outside for a cell of a table of Markdown, or within a line; HTML in it is text too."""
    line = " ".join(plain(text).split("\n"))
    return _MARKS.sub(lambda m: _ENTITIES.get(m[0], f"\\{m[0]}"), line)


def markdown_line(text: str) -> str:
    """The same where it starts a line or a list's entry, which some signs would make a heading or a list."""
    line = markdown_text(text)
    return _LINE_START.sub(lambda m: f"{m[0][:-1]}\\{m[0][-1]}", line)


def markdown_code(text: str) -> str:
    """Text from outside as code within a line of Markdown."""
    line = " ".join(plain(text).split("\n"))
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[:1] in ("`", " ") or line[-1:] in ("`", " ") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def csv_value(value: Any) -> Any:
    """A value for a cell of CSV: text that a spreadsheet would compute gets an apostrophe before it."""
    if not isinstance(value, str):
        return plain(value) if isinstance(value, list | dict) else value
    text = plain(value)
    return f"'{text}" if text.lstrip(" \"'").startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
