"""Archives of a folder, zip or tar, unpacked to be read by the rules of a folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.data.errors import DataError, short
from bench.data.reading.files import KINDS, damaged, files_below, is_junk, kind_of
from bench.data.reading.shards import has_samples
from bench.data.reading.splits import split_in
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


def check(path: Path, found: Sequence[Path], wanted: Sequence[str]) -> None:
    """Refuses what cannot be unpacked, by the names of archives and what they list, before anything is hashed.

    Args:
        path: that was searched.
        found: its archives.
        wanted: names of splits.

    Raises:
        DataError: naming two archives that would be one folder, one that is inside another, or one that is damaged.
    """
    _places(path, found, wanted)
    _refuse_nested(path, found)


def _refuse_nested(path: Path, found: Sequence[Path]) -> None:
    """Refuses archives of archives by what they list."""
    inside: dict[str, list[tuple[Path, str]]] = {}
    for file in found:
        for name in _names(file):
            inside.setdefault(kind_of(Path(name)) or "", []).append((file, name))
    nested = inside.get("tar", []) or inside.get("zip", [])
    if not nested or inside.keys() & {"parquet", "arrow"} or ("tar" in inside and _has_webdataset(*nested[0])):
        return
    raise DataError(f"{path}: an archive in an archive ({Path(nested[0][1]).name}); unpack it first")


def unpack(path: Path, found: Sequence[Path], into: Path, wanted: Sequence[str]) -> Path:
    """Unpacks archives, each into a folder of its own if there are several.

    Raises:
        DataError: as `check` does, or naming the archive that is larger than the disk.
    """
    _refuse_nested(path, found)
    for file, place in _places(path, found, wanted).items():
        target = into / place
        with _opened(file) as archive:
            if isinstance(archive, zipfile.ZipFile):
                _check_space(file, sum(one.file_size for one in archive.infolist()), into)
                archive.extractall(target)
            else:
                _check_space(file, sum(one.size for one in archive), into)
                archive.extractall(target, filter="data")
    return into


def _places(path: Path, found: Sequence[Path], wanted: Sequence[str]) -> dict[Path, Path]:
    """The folder of each archive: where it lies below the path, then its split, or its name if that has none."""
    if len(found) == 1:
        return {found[0]: Path()}
    places = {}
    for file in found:
        ending = next(one for one in (*KINDS["tar"], *KINDS["zip"]) if file.name.lower().endswith(one))
        name = file.name[: -len(ending)]
        places[file] = file.relative_to(path).with_name(split_in(name, wanted) or name)
    for one, other in pairwise(sorted(places, key=lambda file: places[file].parts)):
        if places[other].is_relative_to(places[one]):
            names = f"{one.relative_to(path)} and {other.relative_to(path)}"
            raise DataError(
                f"{path}: {names} would be unpacked into one folder ({places[one]}); rename one, or unpack them first"
            )
    return places


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
    with _opened(file) as archive:
        assert isinstance(archive, tarfile.TarFile)
        return has_samples(file, archive)
