"""YAML as it was written: a scalar that reads as a number only by an old rule stays the text that it is.

YAML 1.1 takes `007` for 7, `010` for 8, `12:30:45` for 45045, `no` for false and `2026-01-01` for a date. Here only
`null`, `true`, `false` and numbers that are printed as they are written have a type of their own; all else is text,
and the type of its key reads it (`bench.config.kinds`).
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MOST_VALUES = 100_000  # with every alias written out: a matrix is written by hand
DEEPEST = 40  # levels
_TAG = "tag:yaml.org,2002:"


class NotPlain(ValueError):
    """Text that is no YAML of plain values; the message gives line, column and the whole reason."""


class _Loader(yaml.SafeLoader):
    """Plain values, no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the base's, declared as an instance's

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be text", key.start_mark)
            if key.tag != f"{_TAG}merge":
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
                key.tag = f"{_TAG}str"  # 1, true and null are names here
        return super().construct_mapping(node, deep=deep)

    def construct_float_or_text(self, node: Any) -> float | str:
        text = str(self.construct_scalar(node))
        return float(text) if repr(float(text)) == text else text


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"0|-?[1-9][0-9]{0,17}", list("-0123456789")),
    ("float", r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?", list("-0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_float_or_text)


def read_yaml(text: str) -> Any:
    """The plain values of a text: mappings with text for keys, lists, text, numbers, true, false and null.

    Raises:
        NotPlain: for anything else, a key that is there twice, or more values than a hand would write.
    """
    try:
        return _plain(yaml.load(text, _Loader), [0], 0)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise NotPlain(_sentence(error)) from error
    except yaml.reader.ReaderError as error:
        raise NotPlain(
            f"the character {chr(error.character)!r} at position {error.position} may not be in YAML"
        ) from error
    except RecursionError as error:
        raise NotPlain(f"more than {DEEPEST} levels") from error
    except (yaml.YAMLError, ValueError) as error:
        raise NotPlain(" ".join(str(error).split())) from error


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    parts = [part for part in (error.context, error.problem, error.note) if part]
    tab = mark is not None and mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] == "\t"
    return where + " ".join(" ".join(parts).split()) + ("; indent with spaces, not with a tab" if tab else "")


def _plain(value: Any, count: list[int], depth: int) -> Any:
    count[0] += 1
    if count[0] > MOST_VALUES:
        raise NotPlain(f"more than {MOST_VALUES:,} values")
    if depth > DEEPEST:
        raise NotPlain(f"more than {DEEPEST} levels")
    if isinstance(value, dict):
        return {_text(str(key)): _plain(one, count, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, count, depth + 1) for one in value]
    if value == "???":
        raise NotPlain("??? is no value: OmegaConf takes it for one that is missing")
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise NotPlain(f"{value!r} is a {type(value).__name__}; write it in quotes")


def _text(value: str) -> str:
    """The text with characters that were written as two halves, as JSON writes those above 0xFFFF, as one."""
    try:
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise NotPlain(f"{value!r} holds half a character") from error
