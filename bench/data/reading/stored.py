"""Images on disk as a metric reads them: in parts, as they are stored, with nothing resized or cropped.

A folder of image files, a `.npy` array of uint8 (n, H, W, 3) or a folder of them (as `ditbench run` keeps samples), or
a `.npz` file whose `arr_0` is such an array, as ADM's evaluator takes it. A part is named by the bytes it is made of.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.errors import DataError, listed, short
from bench.data.reading.files import IMAGES, damaged, files_below
from bench.data.reading.images import rgb_of

PART = 500  # images
SAMPLES = "arr_0"  # of ADM's files
Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class StoredPart:
    """Some of the images.

    Attributes:
        key: of the bytes they are stored as.
        count: of images.
        read: decodes them, uint8 (count, H, W, 3); raises DataError if one is no image, or of another size.
    """

    key: str
    count: int
    read: Callable[[], Uint8]


@dataclass(frozen=True)
class StoredImages:
    """All of them: how many, of which (height, width), how they are stored, and their parts in order."""

    path: Path
    count: int
    size: tuple[int, int]
    kind: str
    parts: Callable[[], Iterator[StoredPart]]


def open_images(path: Path) -> StoredImages:
    """The images of a folder or file.

    Raises:
        DataError: if there are none, or the path cannot be read.
    """
    if path.suffix.lower() == ".npy" and path.is_file():
        return _of_arrays(path.parent, [path])
    if path.is_file():
        return _of_npz(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file")
    files = files_below(path)
    arrays = [file for file in files if file.suffix.lower() == ".npy"]
    found = [file for file in files if file.suffix.lower() in IMAGES]
    if found and arrays:
        raise DataError(f"{path}: images ({listed([found[0].name])}) and arrays ({arrays[0].name}); name one kind")
    if arrays:
        return _of_arrays(path, arrays)
    if not found:
        endings = sorted({file.suffix.lower() or file.name for file in files})
        raise DataError(
            f"{path}: no images; it holds {f'{len(files)} files ({listed(endings)})' if files else 'nothing'}"
        )
    return _of_files(path, found)


# --- files of images --------------------------------------------------------------------------------------------------


def _of_files(path: Path, files: list[Path]) -> StoredImages:
    first = _decoded(files[0], files[0].read_bytes())
    size = (first.shape[0], first.shape[1])

    def parts() -> Iterator[StoredPart]:
        for start in range(0, len(files), PART):
            own = files[start : start + PART]
            contents = [file.read_bytes() for file in own]
            key = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()
            yield StoredPart(key, len(own), lambda own=own, contents=contents: _stacked(own, contents, files[0], size))  # type: ignore[misc]

    return StoredImages(path, len(files), size, f"{len(files):,} image files", parts)


def _stacked(files: list[Path], contents: list[bytes], first: Path, size: tuple[int, int]) -> Uint8:
    images = np.empty((len(files), *size, 3), np.uint8)
    for index, (file, content) in enumerate(zip(files, contents, strict=True)):
        image = _decoded(file, content)
        if image.shape[:2] != size:
            raise DataError(_mixed(file.name, image.shape[:2], first.name, size, first.parent))
        images[index] = image
    return images


def _mixed(name: str, found: tuple[int, ...], first: str, size: tuple[int, int], folder: Path) -> str:
    """A metric would resize each on its own, so that sizes would be compared, not images."""
    shown, wanted = (f"{one[1]} x {one[0]}" for one in (found, size))
    return f"{folder}: images of mixed sizes: {name} has {shown} pixels, {first} {wanted}; bring all to one size first"


def _decoded(file: Path, content: bytes) -> Uint8:
    try:
        return rgb_of(content)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise DataError(f"{file}: {short(error)}") from error


# --- arrays -----------------------------------------------------------------------------------------------------------


def _of_arrays(path: Path, files: list[Path]) -> StoredImages:
    opened = [_mapped(file) for file in files]
    size = (opened[0].shape[1], opened[0].shape[2])
    for file, array in zip(files, opened, strict=True):
        if array.shape[1:3] != size:
            raise DataError(_mixed(file.name, array.shape[1:3], files[0].name, size, path))

    def parts() -> Iterator[StoredPart]:
        for array in opened:
            for start in range(0, len(array), PART):
                images = np.ascontiguousarray(array[start : start + PART])
                yield StoredPart(_key(images), len(images), lambda images=images: images)  # type: ignore[misc]

    return StoredImages(path, sum(map(len, opened)), size, f"{len(files)} arrays of images", parts)


def _mapped(file: Path) -> Uint8:
    try:
        array: Uint8 = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: {short(error)}") from error
    _check(file, array.shape, array.dtype)
    return array


def _check(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8 or not shape[0]:
        raise DataError(f"{file}: an array {dtype} {shape}; images are uint8 (n, H, W, 3), n at least 1")


def _key(images: Uint8) -> str:
    return hashlib.sha256(repr(images.shape).encode() + images.tobytes()).hexdigest()


def _of_npz(path: Path) -> StoredImages:
    with _member(path) as (_, shape):
        n, height, width, _ = shape

    def parts() -> Iterator[StoredPart]:
        with _member(path) as (stream, _):
            for start in range(0, n, PART):
                wanted = (min(PART, n - start), height, width, 3)
                content = stream.read(int(np.prod(wanted)))
                if len(content) < np.prod(wanted):
                    raise damaged(path, "a whole .npz file", f"it ends at image {start}")
                images = np.frombuffer(content, np.uint8).reshape(wanted)
                yield StoredPart(_key(images), len(images), lambda images=images: images)  # type: ignore[misc]

    return StoredImages(path, n, (height, width), f"{SAMPLES} of {path.name}", parts)


@contextmanager
def _member(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """`arr_0`, opened behind its header, and its shape: read in parts, it may be larger than memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if SAMPLES not in names:
                raise DataError(f"{path}: no images: `{SAMPLES}` is needed (it holds {listed(names)})")
            with archive.open(f"{SAMPLES}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, transposed, dtype = read[version](stream)
                if transposed:
                    raise DataError(f"{path}: `{SAMPLES}` is in Fortran's order; save it in C's")
                _check(path, shape, dtype)
                yield stream, shape
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise damaged(path, "a .npz file", short(error)) from error


def holds(path: Path) -> set[str]:
    """The names of the arrays in a `.npz` file; images are `SAMPLES`.

    Raises:
        DataError: if it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise damaged(path, "a .npz file", short(error)) from error
