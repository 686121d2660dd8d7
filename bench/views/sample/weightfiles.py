"""Files of weights: safetensors alone, which hold no program; anything else is named for what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

HEADER = 8  # bytes of a header's length
MOST = 100 * 2**20  # bytes of a header, as the format allows
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights: `git lfs pull` fetches them"),
    (b"/annex/objects", "a git-annex pointer, not the weights: `git annex get` fetches them"),
    (b"<", "a page of HTML or XML, not the weights: a login or an error page was saved; download it again"),
    (b"GGUF", "a GGUF file, whose weights are quantised: take the safetensors file"),
    (b"gg", "a GGML file, whose weights are quantised: take the safetensors file"),
    (
        b"PK",
        "a zip around a pickle (torch.save), which could run anything; convert it to safetensors first",
    ),
    (b"\x80", "a pickle, which could run anything; convert it to safetensors first"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (b"7z\xbc\xaf", "packed with 7z: unpack it first"),
    (b"\xfd7zXZ", "packed with xz: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?): convert it to safetensors first"),
    (b"\x93NUMPY", "an array of numpy: convert it to safetensors first"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8", "an image"),
    (b"%PDF", "a PDF"),
    (b"{", "JSON, not the weights: an index is given with its folder, or the reply of a server was saved"),
    (b"\x08", "an ONNX model perhaps: convert it to safetensors first"),
)
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


class FileError(ValueError):
    """A file that is no safetensors file, or not whole; the sentence names it."""


class Weights(Mapping[str, Tensor]):
    """The tensors of some files by name, each read when it is wanted: a bundle holds more than the model."""

    def __init__(self, place: dict[str, Path]) -> None:
        self.place, self._open = place, dict[Path, Any]()

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open

        file = self.place[name]
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, "pt")
            tensor: Tensor = self._open[file].get_tensor(name)
        except Exception as error:  # the library's own, and torch's for types it does not have
            raise FileError(f"{file}: {name} cannot be read ({error})") from error
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)


def read(path: Path) -> Weights:
    """The tensors of a safetensors file, or of a folder by its index. Nothing in a file is ever executed.

    Raises:
        FileError: if it is missing, cut, or of another format, such as a pickle; if shards are missing; if several
            files hold the same keys, of which one must be chosen.
    """
    files = _of_folder(path) if path.is_dir() else [path]
    if path.name.endswith(".index.json") and path.is_file():
        files = _of_index(path)
    place: dict[str, Path] = {}
    for file in files:
        for name in header(file):
            if name in place:
                listed = ", ".join(one.name for one in files)
                raise FileError(
                    f"{path}: several files hold the same keys, such as {name} in {place[name].name} and {file.name}; "
                    f"name one: --weights FILE (files: {listed})"
                )
            place[name] = file
    return Weights(place)


def _of_folder(folder: Path) -> list[Path]:
    """The files that belong together."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        listed = ", ".join(one.name for one in indices)
        raise FileError(f"{folder}: several indices; name one: --weights FILE (indices: {listed})")
    if indices:
        return _of_index(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        below = sorted({file.parent.name for file in folder.glob("*/*.safetensors")})
        hint = f"; its folders {', '.join(below)} hold some: give one of them" if below else ""
        raise FileError(f"{folder}: no safetensors file there{hint}")
    _check_shards(files)
    return files


def _check_shards(files: list[Path]) -> None:
    """Refuses a part of a set of shards."""
    for file in files:
        if shard := SHARD.fullmatch(file.name):
            count, stem = int(shard["count"]), shard["stem"]
            names = [f"{stem}-{k:05d}-of-{shard['count']}.safetensors" for k in range(1, min(count, 10_000) + 1)]
            _check_there(file.parent, names)


def _check_there(folder: Path, names: list[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        listed = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise FileError(f"{folder}: {len(missing)} of {len(names)} shards are missing ({listed}); download them")


def _of_index(index: Path) -> list[Path]:
    """The files that an index names, with every key where it says.

    Raises:
        FileError: for what is missing, or a name outside the index's folder.
    """
    try:
        where = json.loads(index.read_text())["weight_map"]
        names = sorted(set(where.values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{index}: no index of weights ({error}); name a file: --weights FILE") from error
    if outside:
        raise FileError(f"{index}: names a file outside its folder, {outside[0]}")
    _check_there(index.parent, names)
    held = {name: set(header(index.parent / name)) for name in names}
    lost = [key for key, name in where.items() if key not in held[name]]
    if lost:
        raise FileError(f"{index}: {lost[0]} is not in {where[lost[0]]}, as the index says; download both again")
    return [index.parent / name for name in names]


def header(file: Path) -> list[str]:
    """The names of a file's tensors.

    Raises:
        FileError: naming what it is instead of a whole safetensors file.
    """
    try:
        if not file.is_file():
            raise FileError(f"{file}: no safetensors file there")
        size = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(512)
            length = int.from_bytes(head[:HEADER], "little")
            opened.seek(HEADER)
            text = opened.read(length) if HEADER + length <= size and length <= MOST else b""
    except OSError as error:
        raise FileError(f"{file}: cannot be read ({error.strerror or error})") from error
    if size == 0:
        raise FileError(f"{file}: empty; download it again")
    if not text.lstrip().startswith(b"{"):
        raise FileError(f"{file}: {_kind(head, size, length)}")
    return _tensors(file, text, HEADER + length, size)


def _kind(head: bytes, size: int, length: int) -> str:
    """What a file is that has no header of safetensors."""
    if head[HEADER : HEADER + 1] == b"{" and length <= MOST:
        return f"not a whole safetensors file: cut, its header of {length:,} bytes ends after its {size:,}"
    if head[257:262] == b"ustar":
        return "a tar: unpack it first"
    if not head.strip(b"\0"):
        return "not a whole safetensors file: nothing but zeros, as an interrupted download leaves it"
    start = head.lstrip().removeprefix(b"\xef\xbb\xbf")
    known = next((text for magic, text in KINDS if start.startswith(magic)), None)
    return known or f"not a whole safetensors file (it has {size:,} bytes and starts with {head[:8]!r})"


def _tensors(file: Path, text: bytes, start: int, size: int) -> list[str]:
    try:
        content = json.loads(text)
        tensors = {name: one for name, one in content.items() if name != "__metadata__"}
        end = start + max((int(one["data_offsets"][1]) for one in tensors.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{file}: not a whole safetensors file, its header is damaged ({error})") from error
    if end > size:
        raise FileError(f"{file}: not a whole safetensors file: cut after {size:,} of {end:,} bytes; download it again")
    return list(tensors)
