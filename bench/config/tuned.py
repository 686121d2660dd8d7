"""The file of values that variants chose on seeds of their own, as `ditbench choices --write` leaves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from architectures import nearest
from bench.config.schema import ConfigError
from bench.config.written import NotPlain, read_yaml

Entries = dict[str, dict[str, Any]]


def read_tuned(paths: Sequence[Path], where: str) -> Entries:
    """Row, variant or scheme -> dotted key of a cell -> value, of several files together.

    Raises:
        ConfigError: for a file that is missing or holds anything else, or two that do not agree.
    """
    together: Entries = {}
    for path in paths:
        own = _read(path, where)
        for name in together.keys() & own.keys():
            if together[name] != own[name]:
                raise ConfigError(
                    f"{where}: tuned: {path} has {name!r} as {own[name]}, and a file before it {together[name]}"
                )
        together |= own
    return together


def _read(path: Path, where: str) -> Entries:
    try:
        entries = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{where}: tuned: {path} cannot be read ({error.strerror}); `ditbench choices NAME --write FILE` writes one"
        ) from error
    except (NotPlain, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: tuned: {path}: {error}") from error
    if not isinstance(entries, dict) or not entries or not all(isinstance(one, dict) for one in entries.values()):
        raise ConfigError(f"{where}: tuned: {path} holds no entries such as `adaln-zero: {{train.lr: 0.002}}`")
    return entries


def refuse_both(entries: Entries, holds: Callable[[list[str]], bool], where: str) -> None:
    """Refuses a file that names tuned values and writes one of their keys itself: which of them is meant is not said.

    Args:
        entries: of `tuned`.
        holds: whether the file has a value at a place, such as ["train", "lr"].
        where: the file.

    Raises:
        ConfigError: naming the key.
    """
    for key in sorted(keys_of(entries)):
        if holds(key.split(".")):
            raise ConfigError(
                f"{where}: {key} is written here and tuned: gives each variant its own; leave out one of the two, "
                f"or write {key} into the variants that it is meant for"
            )


def keys_of(tuned: Mapping[str, Any]) -> set[str]:
    """The dotted keys that any entry gives a value."""
    return {key for values in tuned.values() if isinstance(values, dict) for key in values}


def found(tuned: Mapping[str, Any], row: str, variant: str, scheme: str) -> Any:
    """The entry of a row, else of its variant, else of its scheme; None where there is none."""
    return next((tuned[name] for name in (row, variant, scheme) if name in tuned), None)


def entry(
    tuned: Mapping[str, Any] | None, row: str, variant: str, scheme: str, *, own: Set[str] = frozenset()
) -> dict[str, Any]:
    """What a row is tuned to: its own entry, else its variant's, else its scheme's.

    Args:
        tuned: all entries; None where nothing is tuned.
        row: its name.
        variant: its variant's name.
        scheme: of that.
        own: keys that the row has values of its own for; with all that are tuned among them it needs no entry.

    Raises:
        ConfigError: if there is none and it needs one, or it is no mapping.
    """
    if tuned is None:
        return {}
    one = found(tuned, row, variant, scheme)
    if isinstance(one, dict):
        return dict(one)
    keys = sorted(keys_of(tuned) or {"train.lr"})
    if one is None and own >= set(keys):
        return {}
    near = nearest(variant, list(tuned))
    listed = "" if near else f" (entries: {', '.join(tuned)})"
    values = ", ".join(f"{key}: VALUE" for key in keys)
    raise ConfigError(
        f"tuned rates missing: no entry of {variant!r}{listed}; give it a value of its own "
        f"({{name: {variant}, scheme: {scheme}, {values}}}), or choose one in a matrix with `choose: {keys[0]}` and "
        f"`ditbench choices NAME --write FILE`, or give up all tuned values with tuned=null{near}"
    )
