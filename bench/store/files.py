"""Writing files so that a reader never sees half of one, and naming them so that none leaves its folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


def slug(name: str, what: str = "name") -> str:
    """`name` itself, if it may become a file's name.

    Raises:
        ValueError: if it is not lower-case letters, digits, `.`, `_` and `-`, or holds `..`.
    """
    if not _SLUG.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{what} {name!r}: use 1 to 80 lower-case letters, digits, '.', '_' and '-'; the first a letter or digit"
        )
    return name


def write_atomic(path: Path, data: str | bytes) -> None:
    """Writes `path` whole or not at all: a temporary file beside it, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        publish(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Moves a finished file of the same folder under its final name, durably."""
    os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` at the end, or vanishes if anything goes wrong."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of `value`'s canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
