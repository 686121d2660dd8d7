"""Reading committed records: damaged ones are named, and end nothing but themselves."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from bench.store import manifests
from bench.store.folders import STATUSES, Row
from bench.store.result import Result, is_number
from bench.store.table import CellRecord, Table

FILES = ("cells.json", "cells.json.gz")


class DamagedRecord(ValueError):
    """A record that cannot be believed; the sentence names its file and the way out."""


def is_record(folder: Path) -> bool:
    """Whether a folder holds a record."""
    return any((folder / name).is_file() for name in FILES)


def newest_records(results: Path) -> dict[str, Path]:
    """The newest record of each matrix under `results`, by when its last cell ended; matrices by name."""
    folders: dict[str, list[Path]] = {}
    for folder in sorted({file.parent for name in FILES for file in results.glob(f"*/*/{name}")}):
        folders.setdefault(folder.parent.name, []).append(folder)
    return {name: every[0] if len(every) == 1 else max(every, key=_ended) for name, every in folders.items()}


def _ended(record: Path) -> float:
    """When its last cell ended; one that is damaged is the oldest."""
    try:
        results = [cell.result for cell in load_record(record).done]
    except DamagedRecord:
        return 0.0
    return max((result.provenance.get("ended", 0.0) for result in results if result), default=0.0)


def load_record(folder: Path, *, strict: bool = False) -> Table:
    """The table of a committed record, from its folder alone.

    Args:
        folder: the record's.
        strict: refuse a record of which a result is damaged, where else that cell is a row `damaged`.

    Raises:
        DamagedRecord: if it is no record.
    """
    file = file_of(folder)
    try:
        content = json.loads(_text(file))
        manifests.check(content["manifest"])
        cells = [_cell(cell, strict) for cell in content["cells"]]
        if not cells or not isinstance(content["name"], str):
            raise ValueError("it holds no name or no cell")
        return Table(content["name"], cells, content["manifest"])
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DamagedRecord(
            f"{file}: no record, or damaged ({what}); `git checkout` restores a committed one"
        ) from error


def file_of(folder: Path) -> Path:
    """The file of a record that holds its cells; it may be missing."""
    return next((folder / name for name in FILES if (folder / name).is_file()), folder / FILES[0])


def _text(file: Path) -> str:
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix == ".gz" else data).decode()


def _cell(plain: dict[str, Any], strict: bool) -> CellRecord:
    row, status, reason = Row(**plain["row"]), plain["status"], plain["reason"]
    if status not in STATUSES or not isinstance(reason, str):
        raise ValueError(f"cell {row.cell} has the status {status!r:.40}")
    result, damage = _result(plain["result"], row.cell)
    if strict and (damage or (status == "done" and result is None)):
        raise ValueError(f"cell {row.cell}: {damage or 'done, and without a result'}")
    if damage:
        status, reason = "damaged", damage
    return CellRecord(row, status, reason, result, _curves(plain["curves"]))


def _result(plain: Any, cell: str) -> tuple[Result | None, str]:
    if plain is None:
        return None, ""
    try:
        result = Result(**plain)
        damage = result.misshapen()
    except TypeError as error:
        return None, f"its result is damaged ({error})"
    if not damage and result.cell != cell:
        damage = f"it is of cell {result.cell}"
    return (None, f"its result is damaged ({damage})") if damage else (result, "")


def _curves(plain: dict[str, dict[str, Any]]) -> dict[str, dict[int, float]]:
    curves = {name: {int(step): value for step, value in points.items()} for name, points in plain.items()}
    if not all(is_number(value) for points in curves.values() for value in points.values()):
        raise ValueError("a curve holds what is no number")
    return curves
