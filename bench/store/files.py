"""Writing files so that a reader never sees half of one, and naming them so that none leaves its folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from bench.store.disk import disk_error, writing

TEMPORARY = ".ditbench-tmp"  # how the name of everything that is not whole yet ends
_UMASK = threading.Lock()
_OURS = re.compile(r"\..+\.[a-z0-9_]{8}" + re.escape(TEMPORARY))
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


class _WatchedFile(io.RawIOBase):
    """A file open for writing that keeps the system's refusal: torch and others report another error instead."""

    def __init__(self, handle: int, name: str) -> None:
        self.name = name
        self.refusal: OSError | None = None
        self.written = 0
        self._file = io.FileIO(handle, "wb")

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Writes all of `data`; the system alone may write a part of it only."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.refusal = error
            raise
        self.written += done
        return done

    def sync(self) -> None:
        """Has it on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes it."""
        self._file.close()
        super().close()


@contextmanager
def atomic_file(path: Path, what: str = "", size: int | None = None, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A temporary file beside `path` to write into, which gets that name once it is whole and on the disk.

    Args:
        path: the name it gets.
        what: it holds, for the sentence of an error; its name if left out.
        size: bytes, where they are known.
        durable: whether it outlives a power cut; not for what is verified when read and easily written again.

    Raises:
        DiskError: if it cannot be written; nothing of it is left.
    """
    with writing(path, what, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=TEMPORARY)
        try:
            with _WatchedFile(handle, name) as file:
                try:
                    yield cast(IO[bytes], file)
                    if durable:
                        file.sync()
                except Exception as error:
                    if file.refusal is None:
                        raise
                    os.truncate(name, 0)  # what is free without it
                    raise disk_error(file.refusal, path, what, size) from error
            publish(Path(name), path, durable=durable)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_atomic(path: Path, data: str | bytes, *, durable: bool = True) -> None:
    """Writes `path` whole or not at all: a temporary file beside it, fsync, rename, fsync of the folder.

    Not `durable`, it is whole at any time but after a power cut.

    Raises:
        DiskError: if it cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_file(path, size=len(content), durable=durable) as file:
        file.write(content)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, where they are missing.

    Raises:
        DiskError: if it cannot be made.
    """
    with writing(path, "the folder"):
        path.mkdir(parents=True, exist_ok=True)


def _prefix(path: Path) -> str:
    """How a temporary of `path` starts; a long name is cut, so that there is room for the rest."""
    return f".{os.fsencode(path.name)[:180].decode(errors='ignore')}."


def sweep(folder: Path, name: str | None = None, *, age: float = 0.0) -> int:
    """Removes what `atomic_file` and `whole_folder` left in a folder when they were killed, and returns how much.

    Call it under the lock that the makers hold: a temporary that is being written looks the same.

    Args:
        folder: whose temporaries are removed; those of folders in it stay.
        name: only those that would have become this file or folder.
        age: seconds since they were last changed, at least: where there is no lock.
    """
    swept = 0
    for path in _listed(folder):
        if not _OURS.fullmatch(path.name) or (name is not None and not path.name.startswith(_prefix(folder / name))):
            continue
        with suppress(OSError):
            if age and time.time() - path.stat().st_mtime < age:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            swept += 1
    return swept


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def publish(temporary: Path, path: Path, *, durable: bool = True) -> None:
    """Moves a finished file of the same folder under its final name."""
    os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
    os.replace(temporary, path)
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    """It can only be read by setting it: two threads that do leave it at 0."""
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` at the end, or vanishes if anything goes wrong."""
    with writing(folder, f"the folder {folder.name}"):
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder), suffix=TEMPORARY))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes `value` as readable JSON, atomically. Keys keep their order: a row is named by its axes in theirs."""
    write_atomic(path, json.dumps(value, indent=2) + "\n", durable=durable)


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of `value`'s canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources(folder: Path) -> str:
    """A digest over a folder's Python files: what is kept of their results must not survive a change of them."""
    return digest([[file.name, file_digest(file)] for file in sorted(folder.glob("*.py"))], 16)
