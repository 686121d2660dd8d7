"""What names a cell: the hash of its resolved config, its data and the code that makes its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from bench.config.schema import as_dict
from bench.config.spec import CellConfig
from bench.store.files import digest

PLACEMENT = {"data": ("path",)}  # keys that say where, not what
ROOMS = ("data", "training", "measure")  # of bench: whatever is in them makes numbers ...
FILES = ("run/cell.py", "store/seeds.py")  # ... and so do these; nothing else does
OBSERVERS = (
    "catalogue_page.py",
    "observation.py",
    "parts.py",
)  # of architectures: they only observe


def identity(config: CellConfig, *, data: str, code: str, plugin: str = "") -> str:
    """The id of a cell: its scheme's name and the hash of what defines it.

    Args:
        config: resolved.
        data: digest of the data.
        code: digest of the code that makes numbers.
        plugin: digest of the file that the scheme comes from.
    """
    defining = as_dict(config)
    for group, keys in PLACEMENT.items():
        for key in keys:
            defining[group].pop(key, None)
    return f"{config.scheme}-{digest([defining, data, code, plugin], 12)}"


def code_files(scheme_module: str | None) -> Iterator[Path]:
    """The sources that can change a cell's numbers.

    They are `bench/data`, `bench/training`, `bench/measure`, `bench/run/cell.py` and `bench/store/seeds.py`; of
    `architectures` the shared parts and the scheme's own file.
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
    root = Path(__file__).resolve().parents[2]
    total = hashlib.sha256()
    for file in code_files(scheme_module):
        total.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]
