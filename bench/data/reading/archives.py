"""Archives of a folder, zip or tar, unpacked to be read by the rules of a folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bench.data.errors import DataError, short
from bench.data.reading.files import damaged, files_below, kind_of
from bench.data.reading.tables import open_piece
from bench.store.disk import FULL


def archives(path: Path) -> list[Path]:
    """The archives that a path holds its data in; empty if it can be read without unpacking."""
    files = [path] if path.is_file() else files_below(path)
    kinds = {kind_of(file) for file in files}
    if path.is_dir() and kinds & {"parquet", "arrow"}:
        return []
    tars = [file for file in files if kind_of(file) == "tar"]
    if tars and not _is_webdataset(tars[0]):
        return tars
    return [] if tars else [file for file in files if kind_of(file) == "zip"]


def unpack(path: Path, found: Sequence[Path], into: Path) -> Path:
    """Unpacks archives, each into a folder of its name if there are several.

    Raises:
        DataError: naming the archive that is damaged, or larger than the disk.
    """
    for file in found:
        target = into / file.name.partition(".")[0] if len(found) > 1 else into
        try:
            if kind_of(file) == "zip":
                with zipfile.ZipFile(file) as opened:
                    _check_space(file, sum(one.file_size for one in opened.infolist()), into)
                    opened.extractall(target)
            else:
                with tarfile.open(file) as tar:
                    _check_space(file, sum(one.size for one in tar), into)
                    tar.extractall(target, filter="data")
        except Exception as error:  # zipfile, tarfile, zlib and lzma raise many kinds for a damaged archive
            if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno in FULL):
                raise
            raise damaged(file, "a zip archive" if kind_of(file) == "zip" else "a tar file", short(error)) from error
    if archives(into):
        raise DataError(f"{path}: an archive in an archive ({archives(into)[0].name}); unpack it first")
    return into


def _check_space(file: Path, size: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        raise DataError(f"{file}: unpacked it needs {size:,} bytes, and {into} has {free:,}")


def _is_webdataset(file: Path) -> bool:
    """Whether a tar holds samples of several members each, not a folder of images."""
    piece = open_piece("tar", file)
    return "image" in piece.columns and len(set(piece.columns) - {"image", "label", "text"}) > 1
