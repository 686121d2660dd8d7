"""What an option of a scheme may be: typed, with its choices, in words that a user reads before choosing.

    gate: Annotated[str, GATE] = "zero"        # GATE = Option("how ...", ("zero", "gaussian(1e-3)", ...))
    tokens: Annotated[int, Option("tokens a signal")] = 4

A choice is a name, or a name with an example of its argument: `gaussian(1e-3)` allows `gaussian(0.02)` too.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints


def nearest(word: object, choices: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean 'near'?`, to end a sentence on a wrong word with; `otherwise` where no choice is near it."""
    near = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else otherwise


ARGUMENT = re.compile(r"(?P<name>[^()]+)\((?P<number>[^()]+)\)")


@dataclass(frozen=True)
class Option:
    """One option: what it decides, and its choices where they can be listed.

    Attributes:
        help: what it decides.
        choices: what it may be; empty if only its type is given.
        default, kind: filled in from the signature.
    """

    help: str = ""
    choices: tuple[str, ...] = ()
    default: Any = None
    kind: type = str

    def check(self, name: str, value: Any) -> Any:
        """The value, of the right type.

        Raises:
            ValueError: naming option, value, and the choices with the nearest, or the type.
        """
        if self.choices:
            choose(name, value, self.choices)
        elif self.kind is float and type(value) is int:
            return float(value)
        elif type(value) is not self.kind:
            raise ValueError(f"{name} {value!r}: must be of type {self.kind.__name__}, such as {self.default!r}")
        return value


def choose(option: str, text: Any, choices: tuple[str, ...]) -> tuple[str, float | None]:
    """The name and the argument of a choice: `gaussian(1e-3)` is ("gaussian", 0.001), `zero` is ("zero", None).

    Raises:
        ValueError: with the choices and the nearest.
    """
    plain = {choice for choice in choices if not ARGUMENT.fullmatch(choice)}
    examples = {found["name"]: found["number"] for choice in choices if (found := ARGUMENT.fullmatch(choice))}
    if isinstance(text, str) and text in plain:
        return text, None
    found = ARGUMENT.fullmatch(text) if isinstance(text, str) else None
    if found and found["name"] in examples:
        number = _number(found["number"], whole=examples[found["name"]].isdigit())
        if number is not None:
            return found["name"], number
    near = difflib.get_close_matches(str(text).partition("(")[0], [*plain, *examples], n=1)
    hint = f"; did you mean {next(c for c in choices if c.partition('(')[0] == near[0])!r}?" if near else ""
    raise ValueError(f"{option} {text!r}: choose {', '.join(choices)}{hint}")


def _number(text: str, whole: bool) -> float | None:
    """A positive number, a whole one where the example is whole; None for anything else."""
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def of(cls: type) -> dict[str, Option]:
    """The options of a class: the keyword-only arguments of its `__init__`, with annotation and default."""
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return {
        p.name: _option(hints.get(p.name, type(p.default)), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY
    }


def _option(hint: Any, default: Any) -> Option:
    option = next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Option)), Option())
    kind = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    if get_origin(kind) is Literal:
        return replace(option, choices=option.choices or get_args(kind), default=default, kind=type(default))
    return replace(option, default=default, kind=kind if isinstance(kind, type) else type(default))
