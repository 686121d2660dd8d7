"""Archives of a folder, zip or tar, unpacked to be read by the rules of a folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.data.errors import DataError, short
from bench.data.reading.files import damaged, files_below, is_junk, kind_of
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


def refuse_nested(path: Path, found: Sequence[Path]) -> None:
    """Refuses archives of archives by what they list, before anything is hashed or unpacked.

    Raises:
        DataError: naming one that is inside, or the archive that is damaged.
    """
    inside: dict[str, list[tuple[Path, str]]] = {}
    for file in found:
        for name in _names(file):
            inside.setdefault(kind_of(Path(name)) or "", []).append((file, name))
    nested = inside.get("tar", []) or inside.get("zip", [])
    if not nested or inside.keys() & {"parquet", "arrow"} or ("tar" in inside and _has_webdataset(*nested[0])):
        return
    raise DataError(f"{path}: an archive in an archive ({Path(nested[0][1]).name}); unpack it first")


def unpack(path: Path, found: Sequence[Path], into: Path) -> Path:
    """Unpacks archives, each into a folder of its name if there are several.

    Raises:
        DataError: naming the archive that is damaged, or larger than the disk, or has archives inside.
    """
    refuse_nested(path, found)
    for file in found:
        target = into / file.name.partition(".")[0] if len(found) > 1 else into
        with _opened(file) as archive:
            if isinstance(archive, zipfile.ZipFile):
                _check_space(file, sum(one.file_size for one in archive.infolist()), into)
                archive.extractall(target)
            else:
                _check_space(file, sum(one.size for one in archive), into)
                archive.extractall(target, filter="data")
    return into


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """An archive; what goes wrong with it names it."""
    is_zip = kind_of(file) == "zip"
    try:
        with zipfile.ZipFile(file) if is_zip else tarfile.open(file) as archive:
            yield archive
    except Exception as error:  # zipfile, tarfile, zlib and lzma raise many kinds for a damaged archive
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        raise damaged(file, "a zip archive" if is_zip else "a tar file", short(error)) from error


def _names(file: Path) -> list[str]:
    """Names of the files in an archive that may be data, in the order in which a folder of them is read."""
    with _opened(file) as archive:
        if isinstance(archive, zipfile.ZipFile):
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
        else:
            names = [one.name for one in archive if one.isfile()]
    return sorted((name for name in names if not any(map(is_junk, _parts(name)))), key=_parts)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in Path(name).parts if part != "..")


def _has_webdataset(file: Path, name: str) -> bool:
    """Whether a tar in an archive is a shard of webdataset, which is read as it is; it alone is unpacked."""
    with TemporaryDirectory() as folder, _opened(file) as archive:
        inner = Path(folder) / Path(name).name
        stream = archive.open(name) if isinstance(archive, zipfile.ZipFile) else archive.extractfile(name)
        assert stream is not None
        with stream, open(inner, "wb") as out:
            shutil.copyfileobj(stream, out)
        return _is_webdataset(inner)


def _check_space(file: Path, size: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        raise DataError(f"{file}: unpacked it needs {size:,} bytes, and {into} has {free:,}")


def _is_webdataset(file: Path) -> bool:
    """Whether a tar holds samples of several members each, not a folder of images."""
    piece = open_piece("tar", file)
    return "image" in piece.columns and len(set(piece.columns) - {"image", "label", "text"}) > 1
