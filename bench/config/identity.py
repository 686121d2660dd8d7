"""What names a cell: the hash of its resolved config, its data and the code that makes its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import architectures
from bench.config.schema import as_dict
from bench.config.spec import CellConfig, cell_id
from bench.store.files import file_digest
from bench.store.provenance import changed_since_start

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("data", "training", "measure")  # of bench: whatever is in them makes numbers ...
FILES = ("run/cell.py", "run/work.py", "run/outcome.py", "store/seeds.py")  # ... and so do these; nothing else does
OBSERVERS = (
    "catalogue_page.py",
    "named.py",
    "observation.py",
    "parts.py",
)  # of architectures: they only observe, or say what a config has written out


class CodeChanged(ValueError):
    """The code that a cell imported is not the code that it was planned with."""


def identity(config: CellConfig, *, data: str, code: str, plugin: str = "") -> str:
    """The id of a cell: its scheme's name and the hash of what defines it.

    Args:
        config: resolved.
        data: digest of the data.
        code: digest of the code that makes numbers.
        plugin: digest of the files that the scheme comes from.
    """
    return cell_id(as_dict(config), {"data": data, "code": code, "plugin": plugin})


def plugin_digest(scheme: str, task: str) -> str:
    """The digest of the plugins that a cell's scheme and its task come from; empty if both are built in."""
    return "+".join(part for part in (scheme, f"task:{task}" if task else "") if part)


def code_files(scheme_module: str | None) -> Iterator[Path]:
    """The sources that can change a cell's numbers.

    They are those of `ROOMS` and `FILES`; of `architectures` the shared parts and the scheme's own file.
    """
    bench = Path(__file__).resolve().parents[1]
    architectures = bench.parent / "architectures"
    yield from sorted(file for file in architectures.glob("*.py") if file.name not in OBSERVERS)
    if scheme_module and scheme_module.startswith("architectures."):
        yield architectures.parent / (scheme_module.replace(".", "/") + ".py")
    for room in ROOMS:
        yield from sorted(file for file in (bench / room).rglob("*") if file.suffix in (".py", ".safetensors"))
    yield from (bench / file for file in FILES)


def code_digest(scheme_module: str | None) -> str:
    """A hash over `code_files`."""
    total = hashlib.sha256()
    for file in code_files(scheme_module):
        total.update(_name(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def code_table(scheme_module: str | None) -> dict[str, str]:
    """The digest of each of `code_files`, by its name."""
    return {_name(file): file_digest(file) for file in code_files(scheme_module)}


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name


# --- what a process imported ------------------------------------------------------------------------------------------


def check_code(digests: Mapping[str, str], scheme: str, planned: Path | None = None) -> None:
    """Checks that the code of this process is what a cell was planned with; call it once all of it is imported.

    A file that was changed after this process started may have been imported before or after: neither is believed,
    also if it is by now what it was.

    Args:
        digests: `code` and `plugin` of the cell's spec.
        scheme: the cell's.
        planned: the file of `code_table` at planning, which lets the sentence name the file; may be missing.

    Raises:
        CodeChanged: naming what changed.
    """
    origin = architectures.origin(scheme)
    module = origin["name"] if origin["kind"] == "built-in" else None
    plugin = "" if module else origin.get("sha256", "")
    theirs, _, task = digests["plugin"].partition("task:")
    if plugin != theirs.rstrip("+"):
        raise CodeChanged(_sentence(f"its plugin {origin['name']}, or a module that this imports"))
    if task:
        _check_task(task)
    if code_digest(module) != digests["code"]:
        raise CodeChanged(_sentence(_different(planned, module)))
    package = architectures.plugin_files(scheme) if origin["kind"] == "package" else {}
    for file in (*code_files(module), *package.values()):
        if changed_since_start(file):
            raise CodeChanged(_sentence(f"{_name(file)}, changed while the cell started"))
        if architectures.drop_stale(file):
            raise CodeChanged(
                _sentence(f"{_name(file)}, which Python had compiled from another text of its size and time")
            )


def _check_task(planned: str) -> None:
    """Checks a plugin's task, `NAME:DIGEST`, as its scheme is checked."""
    from bench.data.tasks import registry  # not at the top: this room imports no torch

    name, _, expected = planned.rpartition(":")
    if registry.digest(name) != expected:
        raise CodeChanged(_sentence(f"the plugin of its task {name!r}, or a module that this imports"))
    package = registry.plugin_files(name) if registry.of_package(name) else {}  # a file is imported by the cell itself
    for file in package.values():
        if changed_since_start(file):
            raise CodeChanged(_sentence(f"{file}, changed while the cell started"))


def _sentence(what: str) -> str:
    return f"the code of this cell changed since it was planned ({what}); run again to plan it with the code as it is"


def _different(planned: Path | None, module: str | None) -> str:
    try:
        before = json.loads(planned.read_text()) if planned else {}
    except (OSError, ValueError):
        before = {}
    now = code_table(module) if before else {}
    return ", ".join(sorted(name for name in before | now if before.get(name) != now.get(name))) or "of bench"
