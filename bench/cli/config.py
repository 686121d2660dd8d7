"""`ditbench config`: every key of a matrix file with its type, default and meaning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import Json, console

if TYPE_CHECKING:
    from bench.config.keys import Key


def _groups(incomplete: str) -> list[str]:
    """Groups of keys with this beginning, for the shell."""
    from bench.config.keys import groups

    return [name for name in groups() if name.startswith(incomplete)]


def config(
    group: Annotated[
        str | None, typer.Argument(help="A group of keys, such as train; all if left out.", autocompletion=_groups)
    ] = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For documentation.")] = False,
) -> None:
    """Print every key of a matrix file with its type, default and meaning.

    Example: ditbench config train
    """
    from bench.config import keys

    chosen = keys.of_group(group)
    if as_json:
        print(json.dumps([_plain(key) for key in chosen], indent=2))
    elif as_markdown:
        print(keys.markdown([group] if group else None), end="")
    else:
        _print_table(chosen)


def _plain(key: Key) -> dict[str, object]:
    from bench.config.keys import REQUIRED

    required = key.default is REQUIRED
    default = {} if required else {"default": key.default}
    return {"key": key.name, "type": key.type, "required": required, **default, "meaning": key.meaning}


def _print_table(chosen: list[Key]) -> None:
    from bench.views.grid import Grid

    rows = [[key.name, key.type, key.default_text, key.meaning] for key in chosen]
    console().print(Grid(["key", "type", "default", "meaning"], rows, words=frozenset(range(4))))
