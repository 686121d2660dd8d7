"""Tar files of webdataset: members of one sample share a name, and their endings are its columns."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import Any

from bench.data.errors import DataError, listed, short, shown
from bench.data.reading.files import IMAGES, is_junk
from bench.data.reading.piece import Piece, Wanted

Row = dict[str, tarfile.TarInfo]  # members of a sample by ending
Members = list[tuple[str, tarfile.TarInfo]]  # endings and members, as they come


def read_tar(file: Path) -> Piece:
    """The samples of a tar.

    Raises:
        DataError: if it was cut off, others follow it in the file, or a sample has two members of one ending; when a
            column is read, if a sample has two members for it.
    """
    with tarfile.open(file) as opened:
        rows = [_row(file, key, members) for key, members in _samples(file, opened).items()]
        columns = dict.fromkeys(name for row in rows for name in row)
        about = [_member(file, opened, row["json"], "json") for row in rows[:1] if "json" in row]
    keys = [f"json.{key}" for one in about if isinstance(one, dict) for key in one]
    aliases = _aliases(columns)
    types: dict[str, str] = dict.fromkeys([*columns, *keys], "member") | aliases
    several = {alias: row for alias in aliases for row in reversed(rows) if len(_endings(alias, row)) > 1}

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        name, _, key = column.partition(".") if column.startswith("json.") else (column, "", "")
        if name in several:
            raise _ambiguous(file, name, several[name])
        with tarfile.open(file) as opened:
            for row in compress(rows, wanted):
                ending = next(iter(_endings(name, row)), None)
                value = None if ending is None else _member(file, opened, row[ending], ending)
                yield value.get(key) if key and isinstance(value, dict) else value

    return Piece(file, len(rows), types, read, files=(file,), embedded=lambda column: True)


def has_samples(file: Path, opened: tarfile.TarFile) -> bool:
    """Whether some sample of a tar is an image with something else, such as its label; in a mere folder none is.

    Raises:
        DataError: if it was cut off, or others follow it in the file.
    """
    kinds = [{_is("image", ending) for ending, _ in own if ending} for own in _samples(file, opened).values()]
    return {True, False} in kinds


def _samples(file: Path, opened: tarfile.TarFile) -> dict[str, Members]:
    """Members that may be data by the key of their sample: folders, and the name up to its first dot."""
    samples: dict[str, Members] = {}
    for member in opened:
        *folders, name = Path(member.name).parts or ("",)
        if member.isfile() and not any(is_junk(part) for part in (*folders, name)):
            stem, _, ending = name.partition(".")
            samples.setdefault("/".join([*folders, stem]), []).append((ending.lower(), member))
    _check_end(file, opened)
    return samples


def _row(file: Path, key: str, members: Members) -> Row:
    """A sample by the endings of its members."""
    row: Row = {}
    for ending, member in members:
        if ending in row:
            raise DataError(
                f"{file}: member {shown(member.name)}: sample {shown(key)} has {shown(ending)!r} already; {_APART}"
            )
        row[ending] = member
    return row


def _ambiguous(file: Path, alias: str, row: Row) -> DataError:
    endings = _endings(alias, row)
    first, second, *_ = (shown(row[ending].name) for ending in endings)
    key = "data.caption_column" if alias == "text" else f"data.{alias}_column"
    return DataError(
        f"{file}: members {first} and {second} are both {alias} of one sample; {_APART}, or name one ending in {key} "
        f"({listed(endings)})"
    )


_APART = "number samples apart (a sample's key is its name up to the first dot)"
_TAR_NAMES = {"image": [ending[1:] for ending in IMAGES], "label": ["cls", "cls2", "label"], "text": ["txt", "text"]}


def _endings(column: str, row: Row) -> list[str]:
    """Those of a sample that a column may be: of its own name, or else of that kind (`image`: any image's)."""
    return [column] if column in row else [ending for ending in row if _is(column, ending)]


def _is(alias: str, ending: str) -> bool:
    return ending.rpartition(".")[2] in _TAR_NAMES.get(alias, [])


def _aliases(columns: Iterable[str]) -> dict[str, str]:
    return {alias: "member" for alias in _TAR_NAMES if any(_is(alias, name) for name in columns)}


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
