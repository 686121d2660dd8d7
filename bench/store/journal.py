"""The append-only record of a cell while it runs: one JSON object a line, flushed to disk as it is written.

    {"time": 1764000000.0, "attempt": 1, "step": 50, "metrics": {"loss": 0.71, "grad_norm": 0.4}}
    {"time": 1764000001.0, "attempt": 1, "step": 200, "image": "samples/step-000200.png", "key": "samples"}
    {"time": 1764000002.0, "attempt": 1, "step": 200, "event": "resumed", "text": "..."}
    {"time": 1764000003.0, "attempt": 1, "step": 200, "digests": {"batch": "5f1c...", "chance": "90ab..."}}

A resumed cell writes some steps again; readers keep the last value of a (metric, step). A line cut short by a
crash, or damaged, is skipped: each ends with its own checksum, `"crc"`; lines of older versions have none.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.store.disk import DiskError, writing
from bench.store.files import write_atomic
from bench.store.result import is_number

_CHECKED = re.compile(rb'(\{.*), "crc": "([0-9a-f]{8})"\}\s*', re.DOTALL)


class Journal:
    """Appends to a cell's journal. Non-finite metrics are left out: MLflow and JSON have no place for them."""

    def __init__(self, path: Path, attempt: int = 1) -> None:
        """Opens it; what a crash cut short becomes a line of its own.

        Raises:
            DiskError: if it cannot be written.
        """
        self.path = path
        self.attempt = attempt
        self._process = os.getpid()
        with writing(path, "the journal"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as the cell runs)
        self._torn = _torn(self._file.fileno())

    def _append(self, step: int, **content: Any) -> None:
        line = _line({"time": time.time(), "attempt": self.attempt, "step": step, **content})
        if os.getpid() != self._process:
            raise RuntimeError("a process that the cell forked came to write the cell's journal")
        with writing(self.path, "a line of the journal", len(line)):
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise DiskError(f"{self.path} was deleted while the cell ran; run again to train it again")
            start, self._torn = b"\n" if self._torn else b"", True
            _write_all(self._file.fileno(), start + line)
            os.fsync(self._file.fileno())
            self._torn = False

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Records numbers measured at a step."""
        self._append(step, metrics={name: value for name, value in values.items() if math.isfinite(value)})

    def image(self, step: int, key: str, path: str) -> None:
        """Records an image; `path` is relative to the cell's folder, `key` groups images over steps."""
        self._append(step, image=path, key=key)

    def event(self, step: int, event: str, text: str = "") -> None:
        """Records something that happened: started, resumed, checkpoint, stage, warning."""
        self._append(step, event=event, text=text)

    def digests(self, step: int, values: dict[str, str]) -> None:
        """Records hashes of what a step was really given."""
        self._append(step, digests=values)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _line(entry: dict[str, Any]) -> bytes:
    """An entry as it is written, with its checksum."""
    body = json.dumps(entry, allow_nan=False)[:-1].encode()
    return body + f', "crc": "{zlib.crc32(body):08x}"}}\n'.encode()


def write_restored(path: Path, curves: dict[str, dict[int, float]], *, when: float, text: str) -> None:
    """Writes the journal of a cell of which a record kept the curves alone, whole or not at all.

    Args:
        path: of the journal.
        curves: metric -> step -> value, as `curves` reads them.
        when: the cell ended, in seconds since 1970.
        text: of the event `restored`, its first line.

    Raises:
        DiskError: if it cannot be written.
    """
    by_step: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for step, value in points.items():
            by_step.setdefault(step, {})[name] = value
    entries: list[dict[str, Any]] = [{"step": 0, "event": "restored", "text": text}]
    entries += [{"step": step, "metrics": values} for step, values in sorted(by_step.items())]
    write_atomic(path, b"".join(_line({"time": when, "attempt": 1, **entry}) for entry in entries), durable=False)


class Unwritten(Journal):
    """The journal of a process that must not write it: another does."""

    def __init__(self) -> None:
        return

    def _append(self, step: int, **content: Any) -> None:
        return


def _torn(file: int) -> bool:
    """Whether an open file ends within a line."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _write_all(file: int, data: bytes) -> None:
    while data:  # the system may write a part, when the disk fills up
        data = data[os.write(file, data) :]


class Tail:
    """Reads a journal again and again, each time only what was appended since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset, self._file = 0, (0, 0)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The whole lines since the last call, in order; from the first line if the file is another one."""
        try:
            known = os.stat(self.path)
            if (known.st_dev, known.st_ino) != self._file or known.st_size < self._offset:
                self._offset, self._file = 0, (known.st_dev, known.st_ino)
            if known.st_size == self._offset:
                return
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from _entries(whole.split(b"\n"))


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The journal's whole lines in order; nothing if there is no journal yet.

    Every entry has a time, an attempt and a step, and what it records is of the types that `Journal` writes.
    """
    if not path.is_file():
        return
    with open(path, "rb") as file:
        yield from _entries(file)


def _entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        checked = _CHECKED.fullmatch(line)
        if checked and zlib.crc32(checked[1]) != int(checked[2], 16):
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut short by a crash, damaged, or being written now
        if _sound(entry):
            entry.pop("crc", None)
            yield entry


def _sound(entry: Any) -> bool:
    """Whether it is what `Journal` writes: a line of an older version has no checksum that shows it."""
    if not isinstance(entry, dict) or not is_number(entry.get("time")):
        return False
    if not all(type(entry.get(key)) is int and entry[key] >= 0 for key in ("attempt", "step")):
        return False
    metrics, digests = entry.get("metrics", {}), entry.get("digests", {})
    if not isinstance(metrics, dict) or not isinstance(digests, dict):
        return False
    texts = [entry[key] for key in ("event", "text", "image", "key") if key in entry]
    return all(map(is_number, metrics.values())) and all(isinstance(text, str) for text in (*texts, *digests.values()))


def digests(path: Path) -> dict[str, dict[int, str]]:
    """What was hashed -> step -> its hash, the last written of each step, in order of steps."""
    return _last_of_each(path, "digests")


def curves(path: Path) -> dict[str, dict[int, float]]:
    """Metric name -> step -> value, the last written value of each step, in order of steps."""
    return _last_of_each(path, "metrics")


def _last_of_each(path: Path, kind: str) -> dict[str, dict[int, Any]]:
    result: dict[str, dict[int, Any]] = {}
    for entry in read_journal(path):
        for name, value in entry.get(kind, {}).items():
            result.setdefault(name, {})[entry["step"]] = value
    return {name: dict(sorted(points.items())) for name, points in result.items()}
