"""Which files of a folder are data, and what a file is that is not what its name says.

Hidden files and what operating systems leave beside images are never read, so they are in no digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.data.errors import DataError

JUNK = (
    "__macosx",
    "__pycache__",
    "@eadir",
    "$recycle.bin",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "lost+found",
    "system volume information",
)
IMAGES: tuple[str, ...] = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".jp2",
)
IMAGES += (".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".dib", ".pcx", ".sgi")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")  # of text
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
KINDS: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather"),
    "tar": TARS,
    "zip": (".zip",),
    "table": TABLES,
    "image": IMAGES,
}
UNREAD: tuple[str, ...] = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".pdf",
    ".psd",
    ".eps",
    ".exr",
    ".hdr",
    ".dng",
    ".cr2",
    ".nef",
    ".npy",
    ".npz",
)
UNREAD += (".mp4", ".mov", ".avi", ".webm", ".mkv", ".h5", ".hdf5", ".pkl", ".mat", ".lmdb", ".tfrecord", ".rar", ".7z")
UNREAD += (".gz", ".bz2", ".xz", ".zst")  # of no tar
SETTINGS = ("state.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "croissant.json")  # no tables
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run `git lfs pull` where it was cloned)",
    b"<!doctype html": "an HTML page, not the file itself (the download was answered with a page)",
    b"<html": "an HTML page, not the file itself (the download was answered with a page)",
    b"<?xml": "an XML document, not the file itself (the download may have been refused)",
    b"par1": "a parquet file",
    b"arrow1": "an arrow file",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89png": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%pdf": "a PDF document",
    b"<svg": "an SVG file, which has no pixels",
}


def kind_of(path: Path) -> str | None:
    """`parquet`, `arrow`, `tar`, `zip`, `table`, `image`, or None for what is not read."""
    name = path.name.lower()
    if name in SETTINGS:
        return None
    return next((kind for kind, endings in KINDS.items() if name.endswith(endings)), None)


def is_junk(name: str) -> bool:
    """Whether a file's or folder's name is one that is never data: hidden, `__MACOSX`, `Thumbs.db` and their like."""
    return name.startswith(".") or name.lower() in JUNK


def files_below(root: Path) -> list[Path]:
    """Every file that may be data, in the order of its relative path; links are followed.

    Raises:
        DataError: for a link that leads nowhere, or a folder that cannot be read.
    """
    return sorted(_walk(root, (os.path.realpath(root),)), key=lambda path: path.relative_to(root).parts)


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    for entry in entries:
        path = folder / entry.name
        if is_junk(entry.name):
            continue
        if entry.is_dir():
            real = os.path.realpath(path)
            if real not in above:  # a link to a folder above would never end
                yield from _walk(path, (*above, real))
        elif entry.is_symlink() and not path.exists():
            raise DataError(f"{path}: a link to {os.readlink(path)}, which is not there")
        elif entry.is_file():
            yield path


def what_it_is(begins: bytes) -> str:
    """What a file's first bytes say that it is, for a message; empty if they say nothing."""
    if not begins:
        return "an empty file"
    if not begins.strip(b"\0"):
        return "a file of zeros (a copy that was cut off?)"
    start = begins.lstrip(b"\xef\xbb\xbf \t\r\n")[:32].lower()
    return next((what for beginning, what in _BEGINNINGS.items() if start.startswith(beginning)), "")


def damaged(path: Path, wanted: str, why: str = "") -> DataError:
    """An error that says what a file is instead of what was wanted."""
    try:
        with open(path, "rb") as file:
            begins = file.read(64)
    except OSError as error:
        return DataError(f"{path}: {error.strerror or error}")
    found = what_it_is(begins)
    if found and found != wanted:
        return DataError(f"{path}: {found}; {wanted} is needed")
    return DataError(f"{path}: damaged, or not {wanted}" + (f" ({why})" if why else ""))
