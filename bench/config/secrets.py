"""What may not reach a resolved config, for it is written into results, reports and MLflow: secrets.

Of the environment a config reads only variables that are named `DITBENCH_...`, and none whose name says that it is a
secret. A value that holds a password or a token is refused by its key, and never printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from bench.config.schema import ConfigError, Matrix, as_dict

ALLOWED = re.compile(r"DITBENCH_[A-Z0-9_]+")
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|AUTH|(?:^|_)P?KEY(?:_|$)|APIKEY|PRIVATE", re.IGNORECASE)
_UNSET = object()

KINDS = {  # what it is -> how it is recognised
    "a user and password in an address": re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@]+@", re.IGNORECASE),
    "a token in an address": re.compile(
        r"[?&;][a-z0-9_.-]*(?:token|secret|passw|pwd|signature|credential|api[_-]?key|access[_-]?key|sig)[a-z0-9_-]*=",
        re.IGNORECASE,
    ),
    "a token": re.compile(
        r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
        r"|glpat-[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}"
        r"|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,})"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}


def environment(name: str, default: Any = _UNSET) -> Any:
    """The value of a variable that a config may read: the resolver `oc.env`.

    Raises:
        ConfigError: for any other variable, or one that is not set and has no default.
    """
    if not ALLOWED.fullmatch(str(name)) or SECRET_NAME.search(str(name)):
        raise ConfigError(
            f"${{oc.env:{name}}} would be logged; only variables named DITBENCH_... that hold no secret are read"
        )
    if name not in os.environ and default is _UNSET:
        raise ConfigError(f"the variable {name} is not set; set it, or give a default: ${{oc.env:{name},null}}")
    return os.environ.get(name, None if default is _UNSET else default)


def found(text: str) -> str | None:
    """What secret a text holds, in words, or None."""
    return next((what for what, pattern in KINDS.items() if pattern.search(text)), None)


def refuse(matrix: Matrix, origin: Callable[[tuple[str | int, ...]], str]) -> None:
    """Refuses a matrix that holds a secret.

    Args:
        matrix: as it was read, everything resolved.
        origin: who wrote what is at a place.

    Raises:
        ConfigError: naming the key, not the value.
    """
    for place, text in _texts(as_dict(matrix)):
        what = found(text)
        if what:
            where = origin(place).partition("=")[0].lstrip("'\"") if "command line" in origin(place) else origin(place)
            key = ".".join(map(str, place))
            raise ConfigError(
                f"{where}: {key} holds {what}, which every result would repeat; "
                "take it out, and give it to the library that needs it by its own login or environment variable"
            )


def _texts(node: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text of a tree, keys too."""
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield place, str(key)
            yield from _texts(value, (*place, key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _texts(value, (*place, index))
