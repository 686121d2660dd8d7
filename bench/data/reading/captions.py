"""Captions of a column: text as it is but for white space; what is no text is refused, or passed by a key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.data.errors import DataError
from bench.data.words import words
from bench.store.seeds import derive

Say = Callable[[int], str]  # a row's number -> its place in words


@dataclass(frozen=True)
class Read:
    """Captions of a column.

    Attributes:
        texts: one a row, each on one line; None where it is missing.
        counts: what was done, in words -> how often.
    """

    texts: list[str | None]
    counts: dict[str, int]


def read(values: Iterable[Any], place: Say, *, seed: int, split: str) -> Read:
    """Captions of a column's values.

    A list of captions gives one, chosen by (seed, split, row). An empty text stays: it is the null prompt. A text
    without a letter, digit or symbol (`...`) is missing, as None is.

    Raises:
        DataError: for anything else than texts, naming its row.
    """
    texts: list[str | None] = []
    counts: dict[str, int] = {}

    def count(what: str) -> None:
        counts[what] = counts.get(what, 0) + 1

    for row, value in enumerate(values):
        try:
            text = _one(value, derive(seed, "caption", split, row), count)
        except ValueError as error:
            raise DataError(f"{place(row)}: {error}") from None
        if text == "":
            count("empty (null prompt)")
        texts.append(text)
    return Read(texts, counts)


def _one(value: Any, chance: int, count: Callable[[str], None]) -> str | None:
    if isinstance(value, list | tuple):
        choices = [one for one in (_text(part) for part in value) if one]
        if len(value) > 1:
            count("one of several captions")
        value = choices[chance % len(choices)] if choices else None
    text = _text(value)
    if text is None or (text and not words(text)):
        return None
    if "\ufffd" in text:
        count("with unreadable characters")
    return text


def _text(value: Any) -> str | None:
    """A caption on one line, or None.

    Raises:
        ValueError: if it is no text; the sentence has the value.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        kinds: dict[type, str] = {dict: "a mapping", list: "a list in a list"}
        kind = kinds.get(type(value), f"of type {type(value).__name__}")
        raise ValueError(
            f"caption {str(value)[:60]!r} is no text but {kind} "
            "(is it a label? data.label_column; or name another column)"
        )
    return " ".join(value.encode("utf-8", errors="replace").decode("utf-8").replace("\0", " ").split())
