"""Files of rows, read column by column: parquet, arrow, csv, jsonl and json.

Every reader yields plain values of Python. Nothing is copied into a cache: what is read is the file itself.
The only door to pyarrow.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.errors import DataError, listed, short
from bench.data.reading.files import damaged, what_it_is
from bench.data.reading.piece import Piece, Wanted, of_columns
from bench.data.reading.shards import read_tar


def open_piece(kind: str, file: Path) -> Piece:
    """The rows of a file of a kind that `files.kind_of` names.

    Raises:
        DataError: naming the file, if it is damaged or something else.
    """
    openers = {"parquet": _parquet, "arrow": _arrow, "table": _text, "tar": read_tar}
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

    def opened() -> Any:
        return pyarrow.parquet.ParquetFile(file)

    return _of_groups(file, opened(), opened, (file,))


def parquet_at(address: str) -> Piece:
    """The rows of a parquet file that lies elsewhere (`hf://datasets/OWNER/NAME@COMMIT/train.parquet`).

    Its footer is fetched once, and of its rows the row groups that are asked for, when they are.
    """
    import fsspec
    import pyarrow.parquet

    def opened(footer: Any = None) -> Any:
        return pyarrow.parquet.ParquetFile(fsspec.open(address, "rb").open(), metadata=footer)

    first, file = opened(), Path(address.partition("://")[2] or address)
    return _of_groups(file, first, lambda: opened(first.metadata), ())


def _of_groups(file: Path, whole: Any, open_again: Callable[[], Any], files: tuple[Path, ...]) -> Piece:
    """The rows of a parquet file that is open, read in row groups when it is opened again."""
    schema, about = whole.schema_arrow, whole.metadata
    blocks = tuple(about.row_group(k).num_rows for k in range(about.num_row_groups))
    ends = np.cumsum(blocks)

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        opened = open_again()
        groups = np.split(wanted, ends[:-1])
        needed = [k for k, own in enumerate(groups) if own.any()]
        batches = opened.iter_batches(batch_size=512, row_groups=needed, columns=[column])
        return _wanted((batch.column(0) for batch in batches), np.concatenate([groups[k] for k in needed]))

    def complete(column: str) -> list[bool]:
        name = _bytes_in(schema.field(column).type)
        path = f"{column}.{name}" if name else column  # of a struct's field, a struct that is null counts too
        leaves = [k for k in range(len(about.schema)) if about.schema.column(k).path == path]
        if name is None or len(leaves) != 1:
            return [False] * len(blocks)
        statistics = [about.row_group(k).column(leaves[0]).statistics for k in range(len(blocks))]
        return [bool(one and one.has_null_count and one.null_count == 0) for one in statistics]

    def embedded(column: str) -> bool:
        return _is_embedded(schema, column, complete)

    return Piece(file, about.num_rows, _types(file, schema), read, _names(schema), files, embedded, blocks, complete)


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
    blocks = tuple(batch.num_rows for batch in batches)

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        return _wanted((batch.column(column) for batch in opened()[1]), wanted)

    def complete(column: str) -> list[bool]:
        name, found = _bytes_in(schema.field(column).type), []
        for batch in opened()[1]:
            own = batch.column(column)
            own.validate()
            found.append(name is not None and not own.null_count and not (name and own.field(name).null_count))
        return found

    def embedded(column: str) -> bool:
        return _is_embedded(schema, column, complete)

    return Piece(file, sum(blocks), _types(file, schema), read, _names(schema), (file,), embedded, blocks, complete)


def _is_embedded(schema: Any, column: str, complete: Callable[[str], Sequence[bool]]) -> bool:
    """Whether all images of a column are in the file: a struct may name some by path, text names all."""
    kind = str(schema.field(column).type)
    return all(complete(column)) if kind.startswith("struct") else "string" not in kind


def _bytes_in(kind: Any) -> str | None:
    """The field of a type of images that has their bytes, empty if it is bytes itself; None for others, as paths."""
    import pyarrow

    name = "bytes" if pyarrow.types.is_struct(kind) else ""
    if name and kind.get_field_index(name) < 0:
        return None
    own = kind.field(name).type if name else kind
    return name if str(own) in ("binary", "large_binary", "binary_view") else None


def _wanted(batches: Iterable[Any], wanted: Wanted) -> Iterator[Any]:
    """The values of the wanted rows; the others are never made values of Python.

    Each batch is validated first: places outside the file would end the process by a signal.
    """
    import pyarrow

    start = 0
    for batch in batches:
        own = wanted[start : start + len(batch)]
        start += len(batch)
        if own.any():
            batch.validate(full=True)
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
