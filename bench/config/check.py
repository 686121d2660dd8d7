"""Plain values become a class of the schema, or are refused in a sentence that names key, origin and choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from architectures import nearest
from bench.config.keys import adapter, keys
from bench.config.schema import ConfigError

T = TypeVar("T")
Place = tuple[str | int, ...]  # where a value is, such as ("train", "betas", 1)
UNKNOWN = "unexpected_keyword_argument"


def checked(kind: Callable[..., T], plain: Any, origin: Callable[[Place], str], *, group: str = "") -> T:
    """The typed value.

    Args:
        kind: a class of the schema.
        plain: what was written: mappings, lists and scalars.
        origin: who wrote what is at a place: a file, an override, an axis.
        group: before the names of keys, where `kind` is a group.

    Raises:
        ConfigError: for the first thing that is wrong, a misspelt key before all others.
    """
    from pydantic import ValidationError

    try:
        value: T = adapter(kind).validate_python(plain)
        return value
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda one: one["type"] != UNKNOWN)
        first: Any = problems[0]
        raise ConfigError(f"{origin(first['loc'])}: {_sentence(kind, first, group and f'{group}.')}") from None


def _sentence(kind: Any, problem: dict[str, Any], prefix: str) -> str:
    place: Place = problem["loc"]
    key = ".".join(part for part in place if isinstance(part, str))
    if problem["type"] == UNKNOWN:
        choices = [one.name for one in dataclasses.fields(_class_at(kind, place[:-1]))]
        hint = nearest(str(place[-1]), choices, f" (keys: {', '.join(choices)})")
        return f"unknown key {prefix + key!r}{hint}"
    known, name = {one.name: one for one in keys(kind)}, f"{prefix}{key}"
    if problem["type"] == "missing":
        return f"{name} is missing: {known[key].meaning}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if key.startswith("axes."):
        return f"{name} must be a list of values, got {problem['input']!r}"
    what = known[key].type if key in known else "a mapping of keys to values"
    if problem["type"] == "less_than_equal" and " to " not in what:
        what += f", at most {problem['ctx']['le']:,}"
    quotes = "; write it in quotes" if isinstance(problem["input"], bool) and what.startswith("text") else ""
    return f"{name or 'it'} must be {what}, got {_short(problem['input'])}{quotes}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _class_at(kind: Any, place: Place) -> Any:
    """The class of the schema whose keys are at a place."""
    for part in place:
        kind = next(one.default_factory for one in dataclasses.fields(kind) if one.name == part)
    return kind
