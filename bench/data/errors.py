"""What is wrong with data, and short words for what other libraries raise."""

from __future__ import annotations


class DataError(ValueError):
    """Data that is missing, damaged or not as the config says; the message names it."""


def short(error: BaseException) -> str:
    """The first 200 characters of an error on one line, or its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def listed(items: list[str] | tuple[str, ...], most: int = 10) -> str:
    """Names with commas; a long list or name is cut, and what a terminal would obey is written out."""
    return ", ".join(map(shown, items[:most])) + (f", ... ({len(items)} in all)" if len(items) > most else "")


def shown(name: str, most: int = 60) -> str:
    """A name from outside, as it may be printed."""
    cut = name if len(name) <= most else f"{name[:most]}..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)
