"""What YAML takes for something else, put right as a value is checked; pydantic calls these, none is called here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class NoBool:
    """A number that is not `true` or `false`, which Python takes for 1 and 0."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Callable[[Any], Any]) -> Any:
        return _before(_refuse_bool, handler(source))


class Switch:
    """A choice whose words YAML may read as something else: `on` as true, `32` as a number."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Callable[[Any], Any]) -> Any:
        return _before(_spelled, handler(source))


SWITCH = Switch()


def _before(function: Callable[[Any], Any], schema: Any) -> Any:
    from pydantic_core import core_schema

    return core_schema.no_info_before_validator_function(function, schema)


def _refuse_bool(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    if isinstance(value, bool):
        raise PydanticCustomError("bool", "no number")
    return value


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, int) else value
