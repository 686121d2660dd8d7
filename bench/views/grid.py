"""Tables for a terminal of any width: a number is never broken over lines, a column that has no room is named below.

Imports rich alone. Signs that the terminal's encoding lacks are written in ASCII.
"""

# ruff: noqa: RUF001  (the signs that look like ASCII are what is replaced)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.findings.words import counted
from bench.store.inert import one_line, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

ASCII = {
    "→": "->", "←": "<-", "↓": "v", "↑": "^", "±": "+/-", "▲": "+", "▼": "-", "·": ".", "×": "x", "…": "...", "–": "-",
    "—": "-", "−": "-", "≤": "<=", "≥": ">=", "≈": "~", "≠": "!=", "µ": "u", "μ": "u", "‘": "'", "’": "'", "“": '"',
    "”": '"', "•": "*", "√": "sqrt", "²": "^2", "³": "^3", "∈": "in", "⊙": "*", "σ": "sigma", "γ": "gamma", "β": "beta",
    "α": "alpha", "∥": "||", "‖": "||", "ε": "eps", "θ": "theta", "φ": "phi",
}  # fmt: skip
LEAST = 14  # columns of a cell of words, before a list serves better than a table


def encodable(text: str, encoding: str | None) -> str:
    """The text in signs that an encoding has: others in ASCII, or as escapes."""
    if not encoding or encoding.lower().replace("-", "").startswith("utf"):
        return text
    return "".join(_encodable(sign, encoding) for sign in text) if not text.isascii() else text


def _encodable(sign: str, encoding: str) -> str:
    try:
        sign.encode(encoding)
    except (UnicodeError, LookupError):
        return ASCII.get(sign, sign.encode("ascii", "backslashreplace").decode())
    return sign


@dataclass(frozen=True)
class Grid:
    """A table of text that fits the terminal it is printed on, or a list where there is no room for a table.

    Attributes:
        headings: one a column; the first column names the rows.
        rows: of text, from wherever: it is shown as it is.
        title: above it.
        words: places of the columns that may be wrapped; all others are numbers, which are not.
        droppable: whether columns without room are named below; otherwise all of a row is shown, as a list.
        styles: (row, column) -> style of rich.
        more: where all columns are shown, for the sentence below.
        least: columns of a cell of words that is not broken. fewest: columns that make a table.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: frozenset[int] = frozenset({0})
    droppable: bool = False
    styles: dict[tuple[int, int], str] = field(default_factory=dict)
    more: str = "A wider terminal shows all"
    least: int = LEAST
    fewest: int = 3

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Whatever fits."""
        shown = self._in(options.encoding)
        kept = shown._fitting(options.max_width)
        enough = len(kept) == len(shown.headings) or (self.droppable and len(kept) >= self.fewest)
        if not enough:
            yield from shown._listed(options.max_width)
            return
        yield shown._table(kept, options.max_width)
        if left := [heading for k, heading in enumerate(shown.headings) if k not in kept]:
            yield _text(f"No room for {counted(len(left), 'column')}: {'; '.join(left)}. {self.more}.")

    def _in(self, encoding: str) -> Grid:
        """The same in signs of an encoding, and inert."""

        def shown(text: str, heading: bool = False) -> str:
            return encodable((one_line if heading else plain)(text), encoding)

        rows = [[shown(text) for text in row] for row in self.rows]
        headings = [shown(heading, True) for heading in self.headings]
        return replace(self, headings=headings, rows=rows, title=shown(self.title, True))

    def _widths(self, k: int) -> tuple[int, int]:
        """Columns that column `k` needs at least, and those that it can use."""
        heading = self.headings[k]
        natural = max((_width(line) for row in self.rows for line in row[k].split("\n")), default=0)
        word = max(map(_width, heading.split()), default=0)
        if k in self.words:
            return max(word, min(natural, self.least)), max(natural, _width(heading))
        return max(natural, word), max(natural, _width(heading))

    def _fitting(self, width: int) -> list[int]:
        """The first columns that fit."""
        kept: list[int] = []
        used = 1
        for k in range(len(self.headings)):
            used += self._widths(k)[0] + 3
            if used > width:
                break
            kept.append(k)
        return kept

    def _table(self, kept: list[int], width: int) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        least, most = zip(*(self._widths(k) for k in kept), strict=True)
        widths = _shared(list(least), list(most), width - 3 * len(kept) - 1)
        table = Table(title=Text(self.title) if self.title else None, title_justify="left")
        for k, columns in zip(kept, widths, strict=True):
            right = k not in self.words
            table.add_column(
                Text(self.headings[k]), width=columns, overflow="fold", justify="right" if right else "left"
            )
        for i, row in enumerate(self.rows):
            table.add_row(*(Text(row[k], style=self.styles.get((i, k), "")) for k in kept))
        return table

    def _listed(self, width: int) -> Iterator[RenderableType]:
        """A block a row: its name, then a line a column."""
        if self.title:
            yield _text(self.title, "italic")
        pairs = [(heading, text) for row in self.rows for heading, text in zip(self.headings[1:], row[1:], strict=True)]
        room = max((_width(heading) for heading in self.headings[1:]), default=0)
        if any(room + 4 + _width(text) > width for heading, text in pairs if len(text) < width // 2):
            room = 0  # names as long as they are: aligned numbers would not fit
        for i, row in enumerate(self.rows):
            yield _text(row[0], f"bold {self.styles.get((i, 0), '')}".strip())
            for k, (heading, text) in enumerate(zip(self.headings[1:], row[1:], strict=True), 1):
                if text:
                    yield from _pair(heading, text, room, width, self.styles.get((i, k), ""))


def _pair(heading: str, text: str, room: int, width: int, style: str) -> Iterator[RenderableType]:
    """`heading  value` on one line, or the value below it."""
    from rich.padding import Padding
    from rich.text import Text

    for gap in (max(room, _width(heading)), _width(heading)):
        if 2 + gap + 2 + max(map(_width, text.split("\n"))) <= width and "\n" not in text:
            yield Text(f"  {heading}{' ' * (gap - _width(heading))}  ").append(text, style)
            return
    yield _text(f"  {heading}")
    yield Padding(_text(text, style), (0, 0, 0, 4))


def _shared(least: list[int], most: list[int], width: int) -> list[int]:
    """Widths between the least and the most, the narrowest needs first."""
    widths, spare = list(least), width - sum(least)
    for k in sorted(range(len(widths)), key=lambda k: most[k] - least[k]):
        more = min(spare, most[k] - least[k])
        widths[k] += more
        spare -= more
    return widths


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _text(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    return Text(text, style=style, overflow="fold")
