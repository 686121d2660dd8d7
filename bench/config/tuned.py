"""The file of values that variants chose on seeds of their own, as `ditbench choices --write` leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def entry(tuned: Mapping[str, Any] | None, row: str, variant: str, scheme: str) -> dict[str, Any]:
    """What a row is tuned to: its own entry, else its variant's, else its scheme's.

    Raises:
        ConfigError: if there is none, or it is no mapping.
    """
    if tuned is None:
        return {}
    found = next((tuned[name] for name in (row, variant, scheme) if name in tuned), None)
    if not isinstance(found, dict):
        known = nearest(variant, list(tuned), f" (entries: {', '.join(tuned)})")
        raise ConfigError(f"tuned rates missing: no entry of {variant!r}{known}; tune it, with `choose: train.lr`")
    return dict(found)
