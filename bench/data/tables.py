"""Files of rows, read column by column: parquet, arrow, csv, jsonl, json, and tar files of webdataset.

Every reader yields plain values of Python. Nothing is copied into a cache: what is read is the file itself.
The only door to pyarrow.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.errors import DataError, listed, short
from bench.data.files import IMAGES, damaged, is_junk, what_it_is

Wanted = NDArray[np.bool_]  # (count,): which rows are read


@dataclass(frozen=True)
class Piece:
    """The rows of one file.

    Attributes:
        file: that they are in; paths of images are relative to its folder.
        count: of rows.
        columns: their names, and their types in words.
        read: column, and which rows -> their values in order.
        names: of columns whose numbers have names, these.
        files: whose bytes the rows are, but for images that a column names by path.
        embedded: whether all images of a column are in these bytes.
    """

    file: Path
    count: int
    columns: dict[str, str]
    read: Callable[[str, Wanted], Iterator[Any]]
    names: dict[str, list[str]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    embedded: Callable[[str], bool] = lambda column: False


def open_piece(kind: str, file: Path) -> Piece:
    """The rows of a file of a kind that `files.kind_of` names.

    Raises:
        DataError: naming the file, if it is damaged or something else.
    """
    openers = {"parquet": _parquet, "arrow": _arrow, "table": _text, "tar": _tar}
    wanted = {"parquet": "a parquet file", "arrow": "an arrow file", "tar": "a tar file"}.get(kind, "a table of text")
    try:
        return openers[kind](file)
    except DataError:
        raise
    except Exception as error:  # pyarrow, csv, json and tarfile raise many kinds for a damaged file
        raise damaged(file, wanted, short(error)) from error


# --- parquet and arrow ----------------------------------------------------------------------------------------------


def _parquet(file: Path) -> Piece:
    import pyarrow.parquet

    whole = pyarrow.parquet.ParquetFile(file)

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        opened = pyarrow.parquet.ParquetFile(file)
        batches = (batch.column(0) for batch in opened.iter_batches(batch_size=512, columns=[column]))
        return _wanted(batches, wanted)

    schema, about = whole.schema_arrow, whole.metadata

    def embedded(column: str) -> bool:
        if not str(schema.field(column).type).startswith("struct"):
            return "string" not in str(schema.field(column).type)
        leaf = next((k for k in range(len(about.schema)) if about.schema.column(k).path == f"{column}.bytes"), None)
        statistics = [
            leaf is not None and about.row_group(k).column(leaf).statistics for k in range(about.num_row_groups)
        ]
        return all(one and one.has_null_count and one.null_count == 0 for one in statistics)

    return Piece(file, about.num_rows, _types(file, schema), read, _names(schema), (file,), embedded)


def _arrow(file: Path) -> Piece:
    import pyarrow

    def opened() -> tuple[Any, Iterable[Any]]:
        mapped = pyarrow.memory_map(str(file))
        try:
            stream = pyarrow.ipc.open_stream(mapped)
            return stream.schema, stream
        except pyarrow.ArrowInvalid:
            random = pyarrow.ipc.open_file(mapped)
            return random.schema, (random.get_batch(index) for index in range(random.num_record_batches))

    schema, batches = opened()
    count = sum(batch.num_rows for batch in batches)

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        return _wanted((batch.column(column) for batch in opened()[1]), wanted)

    def embedded(column: str) -> bool:
        kind = schema.field(column).type
        if not str(kind).startswith("struct"):
            return "string" not in str(kind)
        place = kind.get_field_index("bytes")
        return place >= 0 and all(batch.column(column).field(place).null_count == 0 for batch in opened()[1])

    return Piece(file, count, _types(file, schema), read, _names(schema), (file,), embedded)


def _wanted(batches: Iterable[Any], wanted: Wanted) -> Iterator[Any]:
    """The values of the wanted rows; the others are never made values of Python."""
    import pyarrow

    start = 0
    for batch in batches:
        own = wanted[start : start + len(batch)]
        start += len(batch)
        if own.any():
            storage = batch.storage if isinstance(batch, pyarrow.ExtensionArray) else batch
            yield from (storage if own.all() else storage.filter(pyarrow.array(own))).to_pylist()


def _types(file: Path, schema: Any) -> dict[str, str]:
    _refuse_twins(file, schema.names)
    return {one.name: str(one.type) for one in schema}


def _refuse_twins(file: Path, columns: Sequence[str]) -> None:
    twins = [name for name in dict.fromkeys(columns) if list(columns).count(name) > 1]
    if twins:
        raise DataError(f"{file}: two columns have one name, {twins[0]!r} (columns: {listed(list(columns))})")


def _names(schema: Any) -> dict[str, list[str]]:
    """Class names that Hugging Face `datasets` wrote beside the schema."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: dict[str, Any] = about.get("info", {}).get("features", {})
        return {
            column: [str(name) for name in one["names"]]
            for column, one in features.items()
            if isinstance(one, dict) and one.get("_type") == "ClassLabel" and one.get("names")
        }
    except (ValueError, AttributeError, TypeError):
        return {}


# --- rows of text ---------------------------------------------------------------------------------------------------


def of_columns(file: Path, columns: Mapping[str, Sequence[Any]], files: tuple[Path, ...]) -> Piece:
    """A piece of columns that are in memory, read from `files`."""
    count = len(next(iter(columns.values()), ()))
    types = dict.fromkeys(columns, "text")
    return Piece(file, count, types, lambda column, wanted: compress(columns[column], wanted), files=files)


def _text(file: Path) -> Piece:
    text = _decoded(file)
    ending = file.suffix.lower()
    if ending in (".csv", ".tsv"):
        return of_columns(file, _csv(file, text, "\t" if ending == ".tsv" else _delimiter(text)), (file,))
    rows = _json(file, text) if ending == ".json" else _lines(file, text)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return of_columns(file, {name: [row.get(name) for row in rows] for name in names}, (file,))


def _lines(file: Path, text: str) -> list[dict[str, Any]]:
    return [_object(file, line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _decoded(file: Path) -> str:
    with open(file, "rb") as stream:
        if what_it_is(stream.read(64)):
            raise damaged(file, "a table of text")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise damaged(file, "a table of text in UTF-8", f"byte {error.start} is not") from error


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count) if any(mark in header for mark in ",;\t") else ","


def _csv(file: Path, text: str, delimiter: str) -> dict[str, list[Any]]:
    csv.field_size_limit(2**31 - 1)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True))
    if not lines:
        raise DataError(f"{file}: no header line")
    header, rest = [name.strip() for name in lines[0]], lines[1:]
    _refuse_twins(file, header)
    rows = [row for row in rest if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise DataError(f"{file}: row {number} has {len(row)} fields, the header {len(header)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _object(file: Path, line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise damaged(file, "a table of text", f"line {number}: {short(error)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: line {number} is no object of columns: {line[:60]}")
    return value


def _json(file: Path, text: str) -> list[dict[str, Any]]:
    value = json.loads(text)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f"{file}: a list of rows is needed, each an object of columns")
    return value


# --- webdataset -----------------------------------------------------------------------------------------------------


def _tar(file: Path) -> Piece:
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
