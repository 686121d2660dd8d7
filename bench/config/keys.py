"""The keys of a matrix as a list: name, type in words, default and meaning, read from `bench.config.schema`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from architectures import nearest
from bench.config.schema import LARGEST, ConfigError, Matrix

REQUIRED = dataclasses.MISSING


@dataclass(frozen=True)
class Key:
    """One key of a matrix file.

    Attributes:
        name: dotted, such as `train.lr`.
        type: in words, such as `a number above 0`.
        default: a plain value, or `REQUIRED`.
        meaning: one sentence.
    """

    name: str
    type: str
    default: Any
    meaning: str

    @property
    def default_text(self) -> str:
        """The default as YAML writes it."""
        if self.default is REQUIRED:
            return "required"
        return self.default if isinstance(self.default, str) else json.dumps(self.default)


@functools.cache
def adapter(kind: Any) -> Any:
    """Pydantic's validator of a class of the schema, built once."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@functools.cache
def keys(kind: type = Matrix) -> tuple[Key, ...]:
    """All keys of a class of the schema, groups unfolded, in the order of their definition."""
    schema = adapter(kind).json_schema()
    return tuple(_keys(kind, schema, schema.get("$defs", {}), ""))


def groups() -> dict[str, type]:
    """The groups of keys of a matrix, such as `train`."""
    return {one.name: one.default_factory for one in dataclasses.fields(Matrix) if _is_group(one)}  # type: ignore[misc]


def of_group(group: str | None) -> list[Key]:
    """The keys of one group, or all.

    Raises:
        ValueError: for a group that a matrix does not have, with the nearest.
    """
    if group is None:
        return list(keys())
    if group not in ("matrix", *groups()):
        known = ["matrix", *groups()]
        raise ConfigError(f"no group of keys {group!r}{nearest(group, known, f' (groups: {_listed(known)})')}")
    return [key for key in keys() if key.name.startswith(f"{group}.") or (group == "matrix" and "." not in key.name)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def markdown(names: Sequence[str] | None = None, level: int = 3) -> str:
    """The keys of groups, or of all, as tables below headings."""
    names = names or ["matrix", *groups()]
    parts = [f"{'#' * level} `{name}`\n\n{_summary(name)}\n\n{_table(of_group(name))}" for name in names]
    return "\n".join(parts)


def _summary(group: str) -> str:
    return inspect.cleandoc(groups().get(group, Matrix).__doc__ or "")


def _table(rows: list[Key]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{key.name}` | {key.type} | `{key.default_text}` | {key.meaning} |" for key in rows]
    return "\n".join(lines) + "\n"


def _is_group(one: dataclasses.Field[Any]) -> bool:
    return isinstance(one.default_factory, type) and dataclasses.is_dataclass(one.default_factory)


def _keys(kind: type, node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Key]:
    for one in dataclasses.fields(kind):
        if _is_group(one):
            inner: Any = one.default_factory
            yield from _keys(inner, definitions[inner.__name__], definitions, f"{prefix}{one.name}.")
            continue
        about = node["properties"][one.name]
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        yield Key(f"{prefix}{one.name}", words(about), default, " ".join(about.get("description", "").split()))


PLAIN = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}


def words(node: dict[str, Any]) -> str:
    """A type of JSON schema in words, such as `a list of two numbers in [0, 1)`."""
    if "anyOf" in node:
        return " or ".join(words(one) for one in node["anyOf"])
    if "enum" in node or "const" in node:
        values = node.get("enum", [node.get("const")])
        return f"one of {', '.join(values)}" if len(values) > 1 else f"{values[0]}"
    kind = node.get("type")
    if kind == "null":
        return "null"
    if kind == "object" or "$ref" in node:
        return "a mapping of keys to values"
    if kind == "array":
        many = "two " if node.get("minItems") == node.get("maxItems") == 2 else ""
        return f"a list of {many}{_plural(node['items'])}"
    return PLAIN.get(str(kind), "a value") + _range(node)


def _plural(item: dict[str, Any]) -> str:
    what = {"integer": "whole numbers", "number": "numbers", "string": "texts"}.get(str(item.get("type")), "values")
    return what + _range(item)


def _range(node: dict[str, Any]) -> str:
    low, high = node.get("ge", node.get("minimum")), node.get("le", node.get("maximum"))
    above, below = node.get("gt", node.get("exclusiveMinimum")), node.get("lt", node.get("exclusiveMaximum"))
    if low is not None and below is not None:
        return f" in [{low:g}, {below:g})"
    if low is not None and high is not None and high != LARGEST:
        return f" from {low:g} to {high:g}"
    if above is not None:
        return f" above {above:g}"
    return f" from {low:g} on" if low is not None else ""
