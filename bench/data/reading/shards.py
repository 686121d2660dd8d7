"""Tar files of webdataset: members of one sample share a name, and their endings are its columns."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import Any

from bench.data.errors import DataError, short
from bench.data.reading.files import IMAGES, is_junk
from bench.data.reading.piece import Piece, Wanted


def read_tar(file: Path) -> Piece:
    """The samples of a tar.

    Raises:
        DataError: if it was cut off, or others follow it in the file.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    with tarfile.open(file) as opened:
        for member in opened:
            *folders, name = Path(member.name).parts or ("",)
            if not member.isfile() or any(is_junk(part) for part in (*folders, name)):
                continue
            stem, _, ending = name.partition(".")
            samples.setdefault("/".join([*folders, stem]), {})[ending.lower()] = member
        rows = list(samples.values())
        columns = dict.fromkeys(name for row in rows for name in row)
        _check_end(file, opened)
        about = [_member(file, opened, row["json"], "json") for row in rows[:1] if "json" in row]
    keys = [f"json.{key}" for one in about if isinstance(one, dict) for key in one]
    types: dict[str, str] = dict.fromkeys([*columns, *keys], "member") | _aliases(columns)

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        name, _, key = column.partition(".") if column.startswith("json.") else (column, "", "")
        with tarfile.open(file) as opened:
            for row in compress(rows, wanted):
                ending = _ending(name, row)
                value = None if ending is None else _member(file, opened, row[ending], ending)
                yield value.get(key) if key and isinstance(value, dict) else value

    return Piece(file, len(rows), types, read, files=(file,), embedded=lambda column: True)


_TAR_NAMES = {"image": [ending[1:] for ending in IMAGES], "label": ["cls", "cls2", "label"], "text": ["txt", "text"]}


def _ending(column: str, row: Iterable[str]) -> str | None:
    """The member of a sample that a column is: of its own name, or of an ending of that kind (`image`: any image's)."""
    kinds = _TAR_NAMES.get(column, [])
    exact = next((one for one in (column, *kinds) if one in row), None)
    return exact or next((one for one in row if one.rpartition(".")[2] in kinds), None)


def _aliases(columns: Iterable[str]) -> dict[str, str]:
    present = {part for name in columns for part in (name, name.rpartition(".")[2])}
    return {name: "member" for name, endings in _TAR_NAMES.items() if present & set(endings)}


def _check_end(file: Path, opened: tarfile.TarFile) -> None:
    """Refuses a tar that was cut between two members, or has another one behind it: what is missing would go unseen."""
    if file.name.lower().endswith(".tar"):
        with open(file, "rb") as stream:
            stream.seek(opened.offset)
            rest = iter(lambda: stream.read(2**20), b"")
            first = next(rest, b"")
            if len(first) < 512:
                raise DataError(f"{file}: cut off (it has no end mark)")
            if any(part.strip(b"\0") for part in (first, *rest)):
                raise DataError(f"{file}: more follows its end mark (several tar files joined?); keep them apart")


def _member(file: Path, opened: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> Any:
    stream = opened.extractfile(member)
    content = stream.read() if stream is not None else b""
    last = ending.rpartition(".")[2]
    try:
        if last in ("txt", "text", "cls", "cls2", "label"):
            text = content.decode("utf-8")
            return text.strip() if last in ("cls", "cls2", "label") else text
        return json.loads(content) if last == "json" else content
    except ValueError as error:
        raise DataError(f"{file}: member {member.name}: {short(error)}") from error
