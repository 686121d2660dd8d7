"""YAML and `key=value` become typed, complete values, or are refused with a sentence. The only door to OmegaConf."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from architectures import nearest
from bench.config.check import Place, checked
from bench.config.schema import ConfigError, Matrix

LARGEST_FILE = 1_000_000  # bytes: a matrix is written by hand
Layer = tuple[str, Any]  # where something is written, and what
ENVIRONMENT = "DITBENCH_"  # only such variables may be read from a config: its values are logged


def load(path: Path | str, overrides: list[str] | None = None) -> Matrix:
    """Reads a matrix: defaults < the file that its `base` names < the file < `key=value`.

    Raises:
        ConfigError: for a file that is missing, too large or no YAML of plain values, a base of itself, an unknown key
            (with the nearest known one), a value of the wrong type or outside its range, in one sentence that names key
            and origin.
    """
    path = Path(path)
    layers = _layers(path)
    layers += [(f"{override!r} on the command line", _parse_override(override)) for override in overrides or []]
    try:
        plain = OmegaConf.to_container(OmegaConf.merge(*(given for _, given in layers)), resolve=True)
    except (OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    return checked(Matrix, plain, lambda place: _origin(place, layers))


def _origin(place: Place, layers: list[Layer]) -> str:
    """The highest layer that holds a value at a place; the file, where none does."""
    files = [where for where, _ in layers if not where.endswith("on the command line")]
    return next((where for where, given in reversed(layers) if _holds(given, place)), files[-1])


def _holds(given: Any, place: Place) -> bool:
    node = OmegaConf.to_container(given)
    for part in place:
        if isinstance(node, dict):
            if part not in node:
                return False
            node = node[part]
    return bool(place)


def to_yaml(config: dict[str, Any]) -> str:
    """Plain values as YAML, keys in their order."""
    text: str = yaml.safe_dump(config, sort_keys=False, width=100)
    return text


def _layers(path: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """A file and its bases, the lowest first. A `base` is relative to the folder of the file that names it."""
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


def pairs(texts: list[str]) -> dict[str, Any]:
    """`gate=one` and the like as a mapping, values as YAML reads them.

    Raises:
        ConfigError: for a text without `=`.
    """
    values: dict[str, Any] = {}
    for text in texts:
        plain: Any = OmegaConf.to_container(_parse_override(text))
        values |= plain
    return values


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
