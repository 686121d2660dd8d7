"""How a value that was written is read as the type of its key; pydantic calls these, none is called here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from architectures import as_number, as_truth, as_word


class Numeric:
    """A number, also one in text such as `1e3` or `1_000`; not `true`, which Python takes for 1, and not `007`."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Callable[[Any], Any]) -> Any:
        return _before(_number, handler(source))


class Truth:
    """True or false, also by a word for it such as `no`; not 1 or 0."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Callable[[Any], Any]) -> Any:
        return _before(_truth, handler(source))


class Switch:
    """A choice whose words may be written as something else: `on` as true, `32` as a number, `null` as none at all."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Callable[[Any], Any]) -> Any:
        schema = handler(source)
        choices = schema.get("expected", ())
        null = {None: "null"} if "null" in choices else {}
        return _before(lambda value: null[value] if value is None and null else as_word(value, choices), schema)


SWITCH = Switch()


def _before(function: Callable[[Any], Any], schema: Any) -> Any:
    from pydantic_core import core_schema

    return core_schema.no_info_before_validator_function(function, schema)


def _number(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    number = as_number(value)
    if number is None and value is not None:  # null is of another type, where a key may be null
        raise PydanticCustomError("number", "no number")
    return number


def _truth(value: Any) -> bool:
    from pydantic_core import PydanticCustomError

    truth = as_truth(value)
    if truth is None:
        raise PydanticCustomError("truth", "neither true nor false")
    return truth
