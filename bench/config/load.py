"""YAML and `key=value` become typed, complete values, or are refused with a sentence. The only door to OmegaConf."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from architectures import few, nearest
from bench.config import secrets
from bench.config.check import Place, checked
from bench.config.claim import with_numbers
from bench.config.matrix import typed_axes
from bench.config.schema import ConfigError, Data, Matrix
from bench.config.settled import Layer, holds, without_absent, without_written
from bench.config.tuned import read_tuned, refuse_both
from bench.config.written import NotPlain, read_yaml

LARGEST_FILE = 1_000_000  # bytes: a matrix is written by hand
Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Prints a sentence where warnings go."""
    print(f"ditbench: {text}", file=sys.stderr)


def load(
    path: Path | str, overrides: list[str] | None = None, *, say: Say = to_stderr, note: Say | None = None
) -> Matrix:
    """Reads a matrix: defaults < the file that its `base` names < the file < `key=value`.

    Args:
        path: of the file.
        overrides: `key=value`, as typed.
        say: called with a sentence for what is read otherwise than it is written.
        note: the same, for what the command line takes the place of: tuned values, a claim, a baseline; null: `say`.

    Raises:
        ConfigError: for a file that is missing, too large or no YAML of plain values, a base of itself, an unknown key
            (with the nearest known one), a value of the wrong type or outside its range, a secret, in one sentence
            that names key and origin.
    """
    path = Path(path)
    with _only_the_environment():
        files = _layers(path, say)
        typed = [(f"{override!r} on the command line", _parse_override(override)) for override in overrides or []]
        layers = files + typed
        plain = _resolved([given for _, given in layers], str(path))
    plain = without_written(plain, layers, note or say)

    def origin(place: Place) -> str:
        return _origin(place, layers)

    matrix = checked(Matrix, _with_knobs(plain), origin)
    matrix = replace(matrix, axes=typed_axes(matrix), claim=with_numbers(matrix.claim))
    matrix = without_absent(matrix, files, typed, note or say)
    secrets.refuse(matrix, origin)
    return matrix


# --- interpolation ----------------------------------------------------------------------------------------------------


@contextmanager
def _only_the_environment() -> Iterator[None]:
    """While a config is read, OmegaConf knows one resolver: `oc.env`, of variables that may be logged."""
    before, BaseContainer._resolvers = BaseContainer._resolvers, {}
    OmegaConf.register_resolver("oc.env", secrets.environment, annotation_validation="off")
    try:
        yield
    finally:
        BaseContainer._resolvers = before


def _resolved(layers: list[dict[str, Any]], where: str) -> Any:
    """The layers as one tree, the higher over the lower, without `${...}`."""
    try:
        return OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.create, layers)), resolve=True)
    except UnsupportedInterpolationType as error:
        raise ConfigError(f"{where}: {error.full_key}: of OmegaConf's resolvers only oc.env is allowed") from error
    except (OmegaConfBaseException, ValueError, TypeError, KeyError, RecursionError) as error:
        own = next((one for one in _causes(error) if isinstance(one, ConfigError)), None)
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{where}: {f'{key}: ' if key else ''}{own or _first_line(error)}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _with_knobs(plain: Any) -> Any:
    """The same with the keys of a task's data that are no fields as its knobs."""
    data = plain.get("data") if isinstance(plain, dict) else None
    if not isinstance(data, dict) or data.get("source") != "task" or not isinstance(data.get("knobs", {}), dict):
        return plain
    own = {one.name for one in fields(Data)}
    kept = {key: value for key, value in data.items() if key in own}
    knobs = {key: value for key, value in data.items() if key not in own}
    return {**plain, "data": {**kept, "knobs": {**data.get("knobs", {}), **knobs}}}


# --- layers -----------------------------------------------------------------------------------------------------------


def _origin(place: Place, layers: list[Layer]) -> str:
    """The highest layer that holds a value at a place; the file, where none does."""
    files = [where for where, _ in layers if not where.endswith("on the command line")]
    return next((where for where, given in reversed(layers) if holds(given, place)), files[-1])


def to_yaml(config: dict[str, Any]) -> str:
    """Plain values as YAML, keys in their order."""
    text: str = yaml.safe_dump(config, sort_keys=False, width=100)
    return text


def _layers(path: Path, say: Say, above: tuple[Path, ...] = ()) -> list[Layer]:
    """A file and its bases, the lowest first. A `base` is relative to the folder of the file that names it."""
    if path.resolve() in above:
        raise ConfigError(f"{path} is a base of itself")
    given = _read(path)
    _place_plugins(given, path, say)
    files = [given["tuned"]] if isinstance(given.get("tuned"), str) else given.get("tuned")
    if isinstance(files, list) and all(isinstance(one, str) for one in files):
        given["tuned"] = read_tuned([path.parent / one for one in files], str(path))
        refuse_both(given["tuned"], functools.partial(holds, given), str(path))
    base = _alone(given.pop("base", None), str(path))
    if base is None:
        return [(str(path), given)]
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base names one file, got {base!r}")
    try:
        below = _layers(path.parent / base, say, (*above, path.resolve()))
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return [*below, (str(path), given)]


def _alone(value: Any, where: str) -> Any:
    """A value resolved by itself: it may name the environment, and no other key."""
    return _resolved([{"base": value}], where)["base"]


def _place_plugins(given: dict[str, Any], path: Path, say: Say) -> None:
    """Makes `plugins` relative to the folder of the file that names them, as `base` is."""
    plugins = given.get("plugins")
    if isinstance(plugins, list):
        given["plugins"] = [_place_plugin(one, path, say) if isinstance(one, str) else one for one in plugins]


def _place_plugin(name: str, path: Path, say: Say) -> str:
    if "${" in name or Path(name).expanduser().is_absolute():
        return name
    beside, here = path.parent / name, Path(name)
    if not _is_there(beside) and not _is_there(here):
        return str(beside)
    if not beside.exists() and here.exists():
        say(f"{path}: plugin {name} is not beside this file; the one in the working directory is taken")
        return name
    if beside.exists() and here.exists() and not beside.samefile(here):
        say(f"{path}: plugin {name} is beside this file and in the working directory; the one beside the file is taken")
    return str(beside)


def _is_there(path: Path) -> bool:
    """Whether a path exists, also where its name is longer than a name can be."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any]:
    if not _is_there(path) or not path.is_file():
        if _is_there(path) and path.is_dir():
            raise ConfigError(f"{path}: a folder, not a matrix file{_one_of(_yaml_files(path))}")
        raise ConfigError(f"{path}: no such file{nearest(path, _yaml_files(path.parent))}")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; a matrix has at most {LARGEST_FILE:,}")
        tree = read_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except NotPlain as error:
        raise ConfigError(f"{path}: not YAML of plain values: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a matrix is a mapping of keys to values")
    return tree


def _yaml_files(folder: Path) -> list[str]:
    """The YAML files of a folder, none of a hidden one."""
    found = sorted(folder.glob("*.yaml")) if _is_there(folder) else []
    return [str(file) for file in found if not file.name.startswith(".")]


def _one_of(files: list[str]) -> str:
    return f"; name one of its files: {few(files, 5)}" if files else ", and there is no YAML file in it"


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{override!r}: write key=value, such as train.steps=100")
    tree = OmegaConf.create({})
    try:
        OmegaConf.update(tree, key.strip(), read_yaml(value))
        return _text_keys(OmegaConf.to_container(tree))
    except NotPlain as error:
        raise ConfigError(f"{override!r}: {error}; text with marks of YAML needs quotes of its own") from error
    except Exception as error:  # OmegaConf raises many kinds for a key that is none, such as `[=1`
        raise ConfigError(f"{override!r}: {_first_line(error)}") from error


def _text_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _text_keys(value) for key, value in node.items()}
    return node


def pairs(texts: list[str]) -> dict[str, Any]:
    """`gate=one` and the like as a mapping, values as YAML reads them.

    Raises:
        ConfigError: for a text without `=`.
    """
    values: dict[str, Any] = {}
    for text in texts:
        values |= _parse_override(text)
    return values


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
