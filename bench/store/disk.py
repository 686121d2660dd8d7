"""What the system refuses to write, as one sentence: the path, what it needs, what the disk has left, the way out."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFUSALS = {  # errno -> what it is, and the way out
    errno.ENOSPC: ("no space left for", "make room and run again"),
    errno.EDQUOT: ("the quota leaves no space for", "make room and run again"),
    errno.EFBIG: ("the limit on the size of a file (ulimit -f) is too low for", "raise it and run again"),
    errno.EROFS: ("the file system is read-only:", "choose another results directory with --root"),
    errno.EACCES: ("no permission for", "change its rights, or choose another results directory with --root"),
    errno.EPERM: ("no permission for", "change its rights, or choose another results directory with --root"),
    errno.EEXIST: ("a file is where a folder must be:", "move it away and run again"),
    errno.ENOTDIR: ("a file is where a folder must be, on the way to", "move it away and run again"),
    errno.EISDIR: ("a folder is where a file must be:", "move it away and run again"),
    errno.EMFILE: ("too many open files for", "raise the limit (ulimit -n) and run again"),
    errno.ENFILE: ("this machine has too many open files for", "close some and run again"),
    errno.ENAMETOOLONG: ("the name is too long:", "choose a shorter results directory with --root"),
    errno.ELOOP: ("links lead in a circle:", "remove them and run again"),
    errno.EIO: ("the disk failed at", "check it, or choose another results directory with --root"),
    errno.ENODEV: ("the disk is gone:", "connect it and run again"),
    errno.ESTALE: ("the network disk is gone:", "connect it and run again"),
}
FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries say instead of the system's reason, when a file could be written in part only: torch, numpy, C++.
HIDDEN = re.compile(r"unexpected pos \d+ vs|\d+ requested and \d+ written|[Nn]o space left on device|iostream error")


class DiskError(OSError):
    """A file cannot be written; the message is a sentence with its path and the way out."""


@contextmanager
def writing(path: Path, what: str = "", size: int | None = None) -> Iterator[None]:
    """Turns the system's refusals while `path` is written into one sentence.

    Args:
        path: the file or folder that is written.
        what: it holds, such as `the checkpoint`; its name if left out.
        size: bytes, where they are known.

    Raises:
        DiskError: for a full or read-only disk, a missing right, a file where a folder must be, ...
    """
    try:
        yield
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:
        refusal = refused(error)
        if refusal is None or not _concerns(refusal, path):
            raise
        raise disk_error(refusal, path, what, size) from error


def refused(error: BaseException) -> OSError | None:
    """The system's refusal to write that an error is or comes from, or None if it has another cause."""
    seen: BaseException | None = error
    while isinstance(seen, OSError | RuntimeError):
        if isinstance(seen, OSError) and seen.errno in REFUSALS:
            return seen
        if HIDDEN.search(str(seen)):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seen = seen.__cause__ or seen.__context__
    return None


def _concerns(refusal: OSError, path: Path) -> bool:
    """Whether it is of what is written: a user's file that cannot be read meanwhile is not."""
    named = _named(refusal)
    return named is None or named.startswith(str(path.parent))


def _named(refusal: OSError) -> str | None:
    """The path that the system names, if it does; it may be the number of an open file."""
    return os.fsdecode(refusal.filename) if isinstance(refusal.filename, str | bytes | os.PathLike) else None


def disk_error(refusal: OSError, path: Path, what: str = "", size: int | None = None) -> DiskError:
    """The sentence: `the checkpoint of 12.0 MB: no space left for /runs/x.ckpt (3.1 MB free); make room ...`."""
    need = f" of {megabytes(size)}" if size else ""
    reason, way_out = REFUSALS.get(refusal.errno or 0, (f"{refusal.strerror or refusal}:", ""))
    free = f" ({_room(path)})" if refusal.errno in FULL else ""
    made = DiskError("; ".join(filter(None, [f"{what or path.name}{need}: {reason} {path}{free}", way_out])))
    made.errno = refusal.errno
    return made


def explained(error: BaseException, folder: Path) -> str | None:
    """The sentence for an error that comes from the disk, whoever raised it, or None if another thing is wrong."""
    if isinstance(error, DiskError):
        return str(error)
    refusal = refused(error)
    if refusal is None:
        return None
    return str(disk_error(refusal, Path(_named(refusal) or folder)))


def megabytes(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _room(path: Path) -> str:
    """What the disk of a path has left: space, or no inode."""
    folder = next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))
    try:
        disk = os.statvfs(folder)
    except OSError:
        return "how much is free is unknown"
    if disk.f_files > 0 and disk.f_favail == 0:
        return "no inode free: too many small files"
    return f"{megabytes(disk.f_bavail * disk.f_frsize)} free"
