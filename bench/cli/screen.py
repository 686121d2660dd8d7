"""The one place where text reaches the terminal: inert, in signs that it has, as wide as it is.

Nothing printed here is read as rich's markup. What steers a terminal (escape sequences, marks of direction) is shown
as an escape; see `bench/store/inert.py`.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bench.store.inert import plain
from bench.views.grid import ASCII, encodable

NARROWEST, OF_A_FILE = 20, 160  # columns


class Screen(Console):
    """A console that prints text as it is: no markup, no emoji, no control sequence that is not its own."""

    def __init__(self, *, stderr: bool = False, **more: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(
            stderr=stderr, width=_width(stream), markup=False, emoji=False, highlight=False, safe_box=True, **more
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, made inert at last, whatever made it."""
        for segment in super().render(self._shown(renderable), options):
            yield segment if segment.control else Segment(self._inert(segment.text), segment.style)

    def _shown(self, renderable: RenderableType) -> RenderableType:
        """Text before it is measured, so that an escape has its room."""
        if isinstance(renderable, Text) and renderable.plain != self._inert(renderable.plain) and not renderable.spans:
            shown = renderable.copy()
            shown.plain = self._inert(renderable.plain)
            return shown
        return renderable

    def _inert(self, text: str) -> str:
        return encodable(plain(text), self.encoding)


def console() -> Screen:
    """Where tables are printed: as wide as the terminal, or COLUMNS, or 160 columns of a file."""
    return Screen()


def say(text: object) -> None:
    """A line on stdout, at once."""
    print(encodable(plain(text), sys.stdout.encoding), flush=True)


def warn(text: object) -> None:
    """A warning, on stderr."""
    print(encodable(f"ditbench: {plain(text)}", sys.stderr.encoding), file=sys.stderr, flush=True)


def prepare() -> None:
    """Has nothing that is printed anywhere fail for a sign that the terminal's encoding lacks."""
    codecs.register_error("ditbench", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ditbench")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(ASCII.get(s, s.encode("ascii", "backslashreplace").decode()) for s in signs), error.end


def _width(stream: Any) -> int | None:
    """Columns: of COLUMNS, of the terminal, or of a file."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return max(NARROWEST, int(given))
    if not (hasattr(stream, "isatty") and stream.isatty()):
        return OF_A_FILE
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(NARROWEST, columns or 80)
