"""Prepared folders: made once under a lock, whole or not at all, with the digest of every file, checked when read.

What can be made again is made again when it is damaged; what a kill left half-made is swept.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from bench.store.disk import writing
from bench.store.files import TEMPORARY, digest, file_digest, make_folder, whole_folder, write_json

META = "meta.json"
Warn = Callable[[str], None]
Number = TypeVar("Number", bound=np.generic)
_verified: dict[Path, tuple[Any, ...]] = {}  # folders that this process has read whole, and the stamps they had


class DamagedError(ValueError):
    """A prepared folder that is not what was written; the message says which file and how."""


def make(folder: Path, fill: Callable[[Path], dict[str, Any]], *, what: str, warn: Warn) -> None:
    """Makes a folder if it is not there, or is damaged.

    Args:
        folder: whose name is the digest of what defines it.
        fill: writes the files into the folder given, and returns what `meta.json` says of them.
        what: it is, for messages.
        warn: called if it is made again.
    """
    make_folder(folder.parent)
    with writing(folder, what), FileLock(folder.with_suffix(".lock")):
        _sweep(folder)
        if folder.exists():
            try:
                read(folder)
                return
            except DamagedError as error:
                warn(f"{what} {folder.name} is damaged ({error}); it is made again")
                shutil.rmtree(folder)
        with whole_folder(folder) as temporary:
            seal(temporary, fill(temporary))
    sweep_others(folder)


def seal(folder: Path, about: dict[str, Any]) -> None:
    """Writes `meta.json`: what is said of the files, and size and digest of each."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != META and not path.name.endswith(TEMPORARY)
    }
    content = json.loads(json.dumps({**about, "files": files}))
    write_json(folder / META, {**content, "seal": digest(content)})


def read(folder: Path) -> dict[str, Any]:
    """What `meta.json` says, after every file was compared with its digest; once a process for unchanged files.

    Raises:
        DamagedError: if a file is missing, cut off or changed.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        content = {key: value for key, value in meta.items() if key != "seal"}
        if "seal" not in meta:
            raise DamagedError("an older version prepared it, without digests")
        if digest(content) != meta["seal"]:
            raise DamagedError(f"{META} was changed")
        files: dict[str, dict[str, Any]] = meta["files"]
        stamps = tuple((name, *_stamp(folder / name)) for name in (META, *sorted(files)))
        if _verified.get(folder) != stamps:
            for name, one in files.items():
                _compare(folder / name, one)
            _verified[folder] = stamps
    except DamagedError:
        raise
    except FileNotFoundError as error:
        raise DamagedError(f"{Path(error.filename).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{META}: {type(error).__name__}: {error}") from error
    return meta


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _compare(path: Path, expected: dict[str, Any]) -> None:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise DamagedError(f"{path.name} has {size:,} bytes instead of {expected['bytes']:,}")
    if file_digest(path) != expected["sha256"]:
        raise DamagedError(f"{path.name} has other bytes than were written")


def _sweep(folder: Path) -> None:
    """Removes what a kill left of making this folder, older versions' too; its lock is held."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def sweep_others(folder: Path) -> None:
    """Removes what kills left of making its neighbours, but for those that are being made now."""
    for name in {left.name.split(".")[1] for left in folder.parent.glob(".*.*") if left.is_dir()}:
        with _lock_if_free(folder.parent / f"{name}.lock") as held:
            if held:
                _sweep(folder.parent / name)


def images_file(path: Path, count: int, size: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new array of images, uint8 (count, size, size, 3), mapped from a file whose space is taken at once.

    Raises:
        DiskError: if the disk has not enough.
    """
    return array_file(path, (count, size, size, 3), np.uint8, "prepared images")


def array_file(path: Path, shape: tuple[int, ...], dtype: type[Number], what: str) -> np.memmap[Any, np.dtype[Number]]:
    """A new array of that shape and type, mapped from a file whose space is taken at once.

    A mapped file takes it page by page instead, and a disk that fills meanwhile ends the process by a signal.

    Raises:
        DiskError: if the disk has not enough.
    """
    with writing(path, what, math.prod(shape) * np.dtype(dtype).itemsize):
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # macOS has none
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return mapped


@contextmanager
def _lock_if_free(path: Path) -> Iterator[bool]:
    with suppress(Timeout):
        with FileLock(path, timeout=0):
            yield True
        return
    yield False
