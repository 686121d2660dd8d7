"""What an option of a scheme may be: typed, with its choices, in words that a user reads before choosing.

    gate: Annotated[str, GATE] = "zero"        # GATE = Option("how ...", ("zero", "gaussian(1e-3)", ...))
    tokens: Annotated[int, Option("tokens a signal")] = 4

A choice is a name, or a name with an example of its arguments: `gaussian(1e-3)` allows `gaussian(0.02)` too, and
`low-rank(D/4)`, of channels, `low-rank(16)` as well as `low-rank(D/8)`, an eighth of the width.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def nearest(word: object, choices: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean 'near'?`, to end a sentence on a wrong word with; `otherwise` where no choice is near it."""
    near = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else otherwise


# --- values as they are written -------------------------------------------------------------------------------------

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)
WORDS = {True: ("on", "yes", "true"), False: ("off", "no", "false")}


def as_number(value: Any) -> int | float | None:
    """A number, or a text that is one in decimal notation; None for all else, such as `true`, `007` and `12:30`."""
    if isinstance(value, str):
        if WHOLE.fullmatch(value) and len(value) < 400:
            return int(value)
        if DECIMAL.fullmatch(value):
            return float(value)
        return float(value.replace(".", "")) if NOT_FINITE.fullmatch(value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_word(value: Any, choices: Iterable[Any]) -> Any:
    """The choice that YAML may have taken for something else: `on` for true, `32` for a number; else the value."""
    choices = list(choices)
    truth = value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if value in choices or (truth is None and not isinstance(value, int)):
        return value
    spelt = (str(value),) if truth is None else WORDS[truth]
    found = [choice for choice in choices if choice in spelt]
    return found[0] if len(found) == 1 else value


def as_truth(value: Any) -> bool | None:
    """True or false, also by a word for it; None for all else, 1 and 0 too."""
    if isinstance(value, str):
        return next((truth for truth, words in WORDS.items() if value.lower() in words), None)
    return value if isinstance(value, bool) else None


# --- options --------------------------------------------------------------------------------------------------------

ARGUMENT = re.compile(r"(?P<name>[^()]+)\((?P<numbers>[^()]+)\)")
SHARE = re.compile(r"(?P<times>[1-9][0-9]{0,2})?D(/(?P<over>[1-9][0-9]{0,2}))?")  # of the width: D, D/8, 5D/3


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
    kind: Any = str

    @property
    def allowed(self) -> str:
        """What it may be, in short."""
        kind = self.kind.__name__ if isinstance(self.kind, type) else _words(self.kind)
        return " | ".join(map(str, self.choices)) or kind

    def check(self, name: str, value: Any) -> Any:
        """The value, of the right type.

        Raises:
            ValueError: naming option, value, and the choices with the nearest, or the type.
        """
        if not all(isinstance(choice, str) for choice in self.choices):
            return self._listed(name, value)
        if self.choices:
            value = as_word(value, self.choices)
            choose(name, value, self.choices)
            return value
        found = _typed(value, self.kind)
        if found is _WRONG:
            raise ValueError(f"{name} {value!r}: must be {_words(self.kind)}, such as {self.default!r}")
        return found

    def _listed(self, name: str, value: Any) -> Any:
        """The one of choices that are not all words."""
        for choice in self.choices:
            if _typed(value, type(choice)) == choice:
                return choice
        raise ValueError(f"{name} {value!r}: choose {', '.join(map(repr, self.choices))}")


_WRONG = object()
_READ: dict[type, Callable[[Any], Any]] = {
    bool: as_truth,
    int: lambda value: _whole(as_number(value)),
    float: lambda value: None if (number := as_number(value)) is None else float(number),
    str: lambda value: str(value) if not isinstance(value, bool) and isinstance(value, str | int | float) else None,
}


def _typed(value: Any, kind: Any) -> Any:
    """The value as one of a kind: a plain type, a list or tuple of one, or several; `_WRONG` if it is none."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return next((found for one in get_args(kind) if (found := _typed(value, one)) is not _WRONG), _WRONG)
    if kind is NoneType:
        return None if value is None else _WRONG
    if get_origin(kind) in (list, tuple):
        return _sequence(value, get_origin(kind), get_args(kind))
    if kind in _READ:
        found = _READ[kind](value)
        finite = not isinstance(found, float) or math.isfinite(found)
        return _WRONG if found is None or not finite else found
    return value if kind is Any or isinstance(value, get_origin(kind) or kind) else _WRONG


def _sequence(value: Any, container: Any, kinds: tuple[Any, ...]) -> Any:
    """The value as a `list[int]`, a `tuple[float, ...]` or a `tuple[int, str]`."""
    if not isinstance(value, list | tuple):
        return _WRONG
    if container is list or kinds[-1] is ...:
        kinds = (kinds[0],) * len(value)
    found = [_typed(one, kind) for one, kind in zip(value, kinds, strict=False)]
    return container(found) if len(kinds) == len(value) and _WRONG not in found else _WRONG


def _whole(number: float | None) -> int | None:
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def _words(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return " or ".join(_words(one) for one in get_args(kind))
    return plain.get(kind) or f"of type {getattr(kind, '__name__', kind)}"


def choose(option: str, text: Any, choices: tuple[str, ...]) -> tuple[str, float | None]:
    """The name and the argument of a choice: `gaussian(1e-3)` is ("gaussian", 0.001), `zero` is ("zero", None).

    Raises:
        ValueError: with the choices and the nearest.
    """
    name, arguments = choose_all(option, text, choices)
    return name, arguments[0] if arguments else None


def choose_all(
    option: str, text: Any, choices: tuple[str, ...], width: int | None = None
) -> tuple[str, tuple[float, ...]]:
    """The name and all arguments of a choice: `approximator(64, 2)` is ("approximator", (64, 2)).

    Args:
        option: its name.
        text: what was written.
        choices: what it may be.
        width: D, of which an argument may be a share; without it such an argument is 1.

    Raises:
        ValueError: with the choices and the nearest.
    """
    plain = {choice for choice in choices if not ARGUMENT.fullmatch(choice)}
    examples = {found["name"]: found["numbers"] for choice in choices if (found := ARGUMENT.fullmatch(choice))}
    if isinstance(text, str) and text in plain:
        return text, ()
    found = ARGUMENT.fullmatch(text) if isinstance(text, str) else None
    if found and found["name"] in examples:
        numbers = _numbers(found["numbers"], examples[found["name"]], width or 1)
        if numbers is not None:
            return found["name"], numbers
    near = difflib.get_close_matches(str(text).partition("(")[0], [*plain, *examples], n=1)
    hint = f"; did you mean {next(c for c in choices if c.partition('(')[0] == near[0])!r}?" if near else ""
    raise ValueError(f"{option} {text!r}: choose {', '.join(choices)}{hint}")


def _numbers(text: str, example: str, width: int) -> tuple[float, ...] | None:
    """As many numbers as the example has, each above 0, or from 0 on where its own is 0; None for anything else."""
    texts, examples = text.split(","), [one.strip() for one in example.split(",")]
    read = [_number(one, like, width) for one, like in zip(texts, examples, strict=False)]
    numbers = tuple(number for number in read if number is not None)
    return numbers if len(numbers) == len(texts) == len(examples) else None


def _number(text: str, example: str, width: int) -> float | None:
    """A number, a whole one where the example is whole, or a share of the width; None for anything else."""
    channels = SHARE.fullmatch(example) is not None
    if channels and (share := SHARE.fullmatch(text.strip())):
        return max(1, round(width * int(share["times"] or 1) / int(share["over"] or 1)))
    try:
        number = int(text) if channels or example.isdigit() else float(text)
    except ValueError:
        return None
    zero = not channels and float(example) == 0
    return number if 0 < number < float("inf") or (zero and number == 0) else None


def of(cls: type) -> dict[str, Option]:
    """The options of a class: the keyword-only arguments of its `__init__`, with annotation and default."""
    return dict(_declared(cls.__init__))  # type: ignore[misc]


@functools.cache
def _declared(function: Callable[..., Any]) -> dict[str, Option]:
    """Read once: annotations are texts that are compiled each time, and every model that is built asks for them."""
    hints, parameters = get_type_hints(function, include_extras=True), inspect.signature(function).parameters.values()
    return {
        p.name: _option(hints.get(p.name, type(p.default)), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY
    }


options_of = of  # its name outside of this module


def _option(hint: Any, default: Any) -> Option:
    option = next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Option)), Option())
    kind = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    if get_origin(kind) is Literal:
        return replace(option, choices=option.choices or get_args(kind), default=default, kind=type(default))
    return replace(option, default=default, kind=Any if kind is NoneType else kind)


def few(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
