"""The append-only record of a cell while it runs: one JSON object a line, flushed to disk as it is written.

    {"time": 1764000000.0, "attempt": 1, "step": 50, "metrics": {"loss": 0.71, "grad_norm": 0.4}}
    {"time": 1764000001.0, "attempt": 1, "step": 200, "image": "samples/step-000200.png", "key": "samples"}
    {"time": 1764000002.0, "attempt": 1, "step": 200, "event": "resumed", "text": "..."}
    {"time": 1764000003.0, "attempt": 1, "step": 200, "digests": {"batch": "5f1c...", "chance": "90ab..."}}

A resumed cell writes some steps again; readers keep the last value of a (metric, step). A line cut short by a
crash is skipped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Appends to a cell's journal. Non-finite metrics are left out: MLflow and JSON have no place for them."""

    def __init__(self, path: Path, attempt: int = 1) -> None:
        self.path = path
        self.attempt = attempt
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the cell runs)
        if torn:
            self._file.write("\n")

    def _append(self, step: int, **content: Any) -> None:
        line = {"time": time.time(), "attempt": self.attempt, "step": step, **content}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

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


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The journal's whole lines in order; nothing if there is no journal yet."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut short by a crash, or being written now
            if isinstance(entry, dict) and "step" in entry:
                yield entry


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
