"""YAML and `key=value` become typed, complete values, or are refused with a sentence. The only door to OmegaConf."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from architectures import nearest
from bench.config.schema import ConfigError, Matrix
from bench.store.files import slug

LARGEST_FILE = 1_000_000  # bytes: a matrix is written by hand
ENVIRONMENT = "DITBENCH_"  # only such variables may be read from a config: its values are logged


def load(path: Path | str, overrides: list[str] | None = None) -> Matrix:
    """Reads a matrix: defaults < the file that its `base` names < the file < `key=value`.

    Raises:
        ConfigError: for a file that is missing, too large or no YAML of plain values, a base of itself, an unknown key
            (with the nearest known one), a value of the wrong type or outside its range, in one sentence that names key
            and origin.
    """
    path = Path(path)
    tree = OmegaConf.structured(Matrix)
    for where, given in _layers(path):
        tree = _merge(tree, given, where)
    for override in overrides or []:
        tree = _merge(tree, _parse_override(override), f"{override!r} on the command line")
    try:
        plain = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    assert isinstance(plain, Matrix)
    _check(plain, path)
    return plain


def to_yaml(config: dict[str, Any]) -> str:
    """Plain values as YAML, keys in their order."""
    return yaml.safe_dump(config, sort_keys=False, width=100)


def _layers(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, Any]]:
    """A file and what it stands on, the lowest first. A `base` is seen from the folder of the file that names it."""
    if path.resolve() in above:
        raise ConfigError(f"{path} is a base of itself")
    given = _read(path)
    base = given.pop("base", None)
    if base is None:
        return [(str(path), given)]
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base names one file, got {base!r}")
    try:
        below = _layers(path.parent / base, (*above, path.resolve()))
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return [*below, (str(path), given)]


def _read(path: Path) -> Any:
    if not path.is_file():
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{nearest(path, beside)}")
    if path.stat().st_size > LARGEST_FILE:
        raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; a matrix has at most {LARGEST_FILE:,}")
    try:
        text = path.read_text(encoding="utf-8")
        return _load_yaml(text, str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error.reason})") from error


def _load_yaml(text: str, where: str) -> Any:
    for name in re.findall(r"\$\{\s*oc\.env\s*:\s*([A-Za-z0-9_]*)", text):
        if not name.startswith(ENVIRONMENT):
            raise ConfigError(
                f"{where}: ${{oc.env:{name}}} would be logged; only variables named {ENVIRONMENT}... are read"
            )
    if re.search(r"\$\{\s*oc\.(?!env)", text):
        raise ConfigError(f"{where}: of OmegaConf's resolvers only oc.env is allowed")
    try:
        tree = OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML of plain values: {_first_line(error)}") from error
    if not OmegaConf.is_dict(tree):
        raise ConfigError(f"{where}: a matrix is a mapping of keys to values")
    return tree


def _parse_override(override: str) -> Any:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{override!r}: write key=value, such as train.steps=100")
    _load_yaml(f"key: {value}" if "oc." in value else "key: 0", repr(override))
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{override!r}: {_first_line(error)}") from error


def pairs(words: list[str]) -> dict[str, Any]:
    """`gate=one` and the like as a mapping, values as YAML reads them.

    Raises:
        ConfigError: for a word without `=`.
    """
    found: dict[str, Any] = {}
    for word in words:
        plain: Any = OmegaConf.to_container(_parse_override(word))
        found |= plain
    return found


def _merge(tree: Any, given: Any, where: str) -> Any:
    for key, choices in _unknown_keys(OmegaConf.to_container(given), Matrix, ""):
        hint = nearest(key.rpartition(".")[2], choices, f" (keys: {', '.join(choices)})")
        raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    try:
        return OmegaConf.merge(tree, given)
    except (OmegaConfBaseException, TypeError) as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{where}: {key}: {_first_line(error)}") from error


def _unknown_keys(given: Any, kind: type, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Keys that `kind` lacks, with the keys it has."""
    if not isinstance(given, dict):
        return
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key, value in given.items():
        if key not in fields:
            yield f"{prefix}{key}", list(fields)
            continue
        inner = fields[key].default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from _unknown_keys(value, inner, f"{prefix}{key}.")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _check(matrix: Matrix, path: Path) -> None:
    """Ranges, which types do not say."""
    try:
        slug(matrix.name, "name")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    positive = {
        "data": ("image_size", "train_count", "heldout_count", "unseen_count"),
        "prompt": ("length",),
        "train": ("steps", "batch", "lr", "log_every", "probe_every", "checkpoint_every", "clip"),
        "sample": ("steps", "batch", "grid", "grid_every"),
        "evaluate": ("samples", "reference", "heldout", "bins", "unseen", "sweep_samples", "swaps"),
        "run": ("jobs", "timeout"),
    }
    for group, keys in positive.items():
        for key in keys:
            value = getattr(getattr(matrix, group), key)
            if value is not None and not value > 0:
                raise ConfigError(f"{path}: {group}.{key} must be above 0, got {value}")
    for group, key in (("train", "drop"), ("train", "ema")):
        value = getattr(getattr(matrix, group), key)
        if not 0 <= value < 1:
            raise ConfigError(f"{path}: {group}.{key} must lie in [0, 1), got {value}")
    if len(matrix.train.betas) != 2 or not all(0 <= beta < 1 for beta in matrix.train.betas):
        raise ConfigError(f"{path}: train.betas must be two numbers in [0, 1), got {matrix.train.betas}")
    if not 1 <= matrix.data.objects <= 3:
        raise ConfigError(f"{path}: data.objects must lie in 1 to 3, got {matrix.data.objects}")
    if matrix.choose is not None and matrix.choose not in matrix.axes:
        known = ", ".join(matrix.axes) or "none"
        raise ConfigError(f"{path}: choose {matrix.choose!r} is no axis of this matrix (axes: {known})")
    if matrix.data.source == "huggingface" and not matrix.data.path:
        raise ConfigError(f"{path}: data.path is needed: a dataset's name, folder or file (data.path=...)")
