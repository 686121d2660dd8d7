"""Labels of any type as classes 0, 1, ...: one rule, and the map from values to classes kept as class names.

Whole numbers are sorted by value, texts by name (or by value if all are whole numbers), `false` before `true`; classes
that the files name (ClassLabel) keep their order. Gaps and negative numbers are mapped, never a table of them all.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.errors import DataError, listed, shown

Label = int | str | bool
Say = Callable[[int], str]  # a row's number -> its place in words


@dataclass(frozen=True)
class LabelMap:
    """Values and the classes that they are.

    Attributes:
        names: of the classes.
        classes: value -> class.
    """

    names: list[str]
    classes: dict[Label, int]

    def ids(self, values: list[Label | None], place: Say) -> NDArray[np.int64]:
        """Classes (n,) of values; -1 where a value is missing.

        Raises:
            DataError: for a value that is no class of the map, naming it and its row.
        """
        strange = {value: row for row, value in reversed(list(enumerate(values))) if not self.knows(value)}
        if strange:
            first = min(strange.values())
            raise DataError(
                f"{place(first)}: label {shown(repr(values[first]))} is not among the training labels "
                f"({listed(self.names)}); unknown are {listed([repr(value) for value in strange])}"
                + (" (-1 often marks a split without labels)" if -1 in strange else "")
            )
        return np.array([-1 if value is None else self.classes[value] for value in values], dtype=np.int64)

    def knows(self, value: Label | None) -> bool:
        """Whether a value has a class, or is missing."""
        return value is None or value in self.classes


def plain(values: Iterable[Any], place: Say) -> tuple[list[Label | None], int]:
    """Labels as whole numbers, texts or booleans, None where one is missing; and how many came in a list of one.

    Raises:
        DataError: for a fraction, a list of several or anything else, naming its row and value.
    """
    found: list[Label | None] = []
    unwrapped = 0
    for row, value in enumerate(values):
        if isinstance(value, list | tuple) and len(value) == 1:
            value, unwrapped = value[0], unwrapped + 1
        try:
            found.append(_plain(value))
        except ValueError as error:
            raise DataError(f"{place(row)}: {error}") from None
    kinds = {type(value): row for row, value in reversed(list(enumerate(found))) if value is not None}
    if len(kinds) > 1:
        (a, row_a), (b, row_b) = sorted(kinds.items(), key=lambda one: one[1])[:2]
        raise DataError(
            f"{place(row_b)}: label {found[row_b]!r} is {_word(b)}, "
            f"and that of row {row_a}, {found[row_a]!r}, is {_word(a)}"
        )
    return found, unwrapped


def _word(kind: type) -> str:
    return {bool: "a boolean", int: "a whole number"}.get(kind, "a text")


def _plain(value: Any) -> Label | None:
    """One label, or None.

    Raises:
        ValueError: if it is none; the sentence has the value.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | Decimal | np.floating):
        return _whole(float(value))
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        readable = value.encode("utf-8", errors="replace").decode("utf-8")  # a file's name may be no text
        return " ".join(unicodedata.normalize("NFC", readable).split()) or None
    if isinstance(value, list | tuple):
        raise ValueError(f"{len(value)} labels {str(value)[:60]}; one label an image is needed")
    raise ValueError(f"label {str(value)[:60]!r} is a {type(value).__name__}, neither a number nor a text")


def _whole(value: float) -> int | None:
    if math.isnan(value):
        return None
    if not value.is_integer():
        raise ValueError(f"label {value!r} is no whole number; a class is needed (is {value!r} a score?)")
    return int(value)


_SCORE = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def fit(values: Iterable[Label | None], names: list[str] | None, place: Say) -> LabelMap:
    """The map of a training split's labels.

    Args:
        values: of `plain`.
        names: class names that the files carry, of the numbers 0, 1, ...; or None.
        place: of a row, for messages.

    Raises:
        DataError: for a number outside the names.
    """
    values = list(values)
    present = {value for value in values if value is not None}
    if names is not None:
        outside = {value for value in present if not isinstance(value, int) or not 0 <= value < len(names)}
        if outside:
            row = next(row for row, value in enumerate(values) if value in outside)
            raise DataError(
                f"{place(row)}: label {shown(repr(values[row]))} lies outside 0 to {len(names) - 1} ({listed(names)})"
            )
        return LabelMap(names, {index: index for index in range(len(names))})
    texts = [value for value in present if isinstance(value, str)]
    _refuse_scores(texts, values, place)
    if texts and all(_NUMBER.fullmatch(text) for text in texts):
        order: list[Label] = sorted(texts, key=lambda text: (int(text), text))
    else:
        order = sorted(present)
    names = [str(value).lower() if isinstance(value, bool) else str(value) for value in order]
    return LabelMap(names, {value: index for index, value in enumerate(order)})


def _refuse_scores(texts: list[str], values: list[Label | None], place: Say) -> None:
    """Refuses texts that are numbers, one of them a fraction: a column of scores in a table of text."""
    if texts and all(_SCORE.fullmatch(text) for text in texts):
        fractions = {text for text in texts if not float(text).is_integer()}
        if fractions:
            row = next(row for row, value in enumerate(values) if value in fractions)
            raise DataError(
                f"{place(row)}: label {values[row]!r} is no whole number; a class is needed (is it a score?)"
            )
