"""The results directory, which is the truth: where everything is, and in what state. Needs no torch.

runs/
  cells/<id>/            config.json  journal.jsonl  status.json  result.json  log.txt  checkpoints/  samples/
  matrices/<name>/       manifest.json  report/
  id                     what MLflow's runs are known by as ours
  slots/                 shares of the machine that running cells hold: safe to delete when nothing runs
  cache/                 data, reference features, encoded prompts: safe to delete
  mlflow.db, mlartifacts/
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from bench.store import manifests
from bench.store.disk import writing
from bench.store.files import make_folder, slug, sweep, write_atomic, write_json
from bench.store.inert import one_line, plain
from bench.store.result import DamagedResult, Result, is_number

Status = Literal["planned", "running", "done", "damaged", "failed", "oom", "diverged", "timeout", "killed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class CellFolder:
    """One cell's folder. Its state is read from the disk each time: any process may have changed it."""

    path: Path

    @property
    def id(self) -> str:
        """The cell's id, the name of its folder."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The config it was trained with, as JSON."""
        return self.path / "config.json"

    @property
    def journal(self) -> Path:
        """The journal of its run, a JSON object a line."""
        return self.path / "journal.jsonl"

    @property
    def result_file(self) -> Path:
        """Its result, there once it is done."""
        return self.path / "result.json"

    @property
    def state_file(self) -> Path:
        """What its process last wrote of itself; its time of change is the process's last sign of life."""
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """The folder of its samples."""
        return self.path / "samples"

    def result(self) -> Result | None:
        """The cell's result, or None while there is none that can be believed."""
        return self.outcome()[0]

    def outcome(self) -> tuple[Result | None, str]:
        """The cell's result, and why the file that is there cannot be believed; read once, for results are large."""
        try:
            return Result.read(self.result_file, cell=self.id), ""
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except DamagedResult as error:
            return None, str(error)
        except OSError as error:
            return None, f"{self.result_file} cannot be read: {error.strerror or error}"

    def status(self) -> tuple[Status, str]:
        """The cell's status and, where it ended badly, the reason.

        Done means a result that matches cell and checksum, never an exit code; running means that a live
        process holds the cell's lock; damaged, that there is a file of a result that cannot be believed.
        """
        return self.status_of(*self.outcome())

    def status_of(self, result: Result | None, damage: str) -> tuple[Status, str]:
        """The same, of an `outcome` that was read already."""
        if result is not None:
            return "done", ""
        state = self.state()
        if self.is_locked():
            return "running", ""
        if damage:
            return "damaged", f"{damage}; run the matrix again to write it again from the checkpoint"
        if not state:
            return "planned", ""
        if state["status"] == "running":
            return "killed", f"stopped without a message in attempt {state.get('attempt', 1)}; run again to resume"
        if state["status"] == "done":
            return "failed", "its result file is missing; run again to write it again"
        return state["status"], plain(state.get("reason", ""))

    def state(self) -> dict[str, Any]:
        """What the cell's process last wrote of itself: status, reason, attempt, pid, host, started, ended."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return state if _sound(state) else {}

    def write_state(self, status: Status, reason: str = "", **more: Any) -> None:
        """Records the cell's state; keys not given keep their value."""
        process = {"status": status, "reason": reason, "pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.state_file, self.state() | process | more | {"changed": time.time()})

    def _lock(self) -> FileLock:
        return FileLock(self.path / "lock")

    def is_locked(self) -> bool:
        """Whether a living process works on this cell."""
        if not self.path.exists():
            return False
        try:
            with self._lock().acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # a read-only copy: nobody works in it
            return False

    def sweep(self) -> None:
        """Removes what a killed process left half-written; call it under the lock."""
        for folder in (self.path, self.checkpoints, *_folders_below(self.samples)):
            sweep(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the cell's kernel lock, which dies with the process.

        Raises:
            filelock.Timeout: if another process holds it. `is_locked` holds it for an instant too, so a lock that is
                taken is tried for some seconds.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock().acquire(timeout=3):
            yield


def _sound(state: Any) -> bool:
    """Whether it is a state that `write_state` wrote."""
    if not isinstance(state, dict) or state.get("status") not in STATUSES:
        return False
    times = [state[key] for key in ("started", "ended", "changed") if state.get(key) is not None]
    return (
        isinstance(state.get("reason", ""), str) and type(state.get("attempt", 1)) is int and all(map(is_number, times))
    )


def _folders_below(folder: Path) -> list[Path]:
    return [Path(place) for place, _, _ in os.walk(folder)]


@dataclass(frozen=True)
class Row:
    """One cell as a matrix sees it: the cell, and the names that this matrix gives it.

    Attributes:
        variant: the row's name in the table (`adaln-zero-ungated`).
        axes: the value of each axis the matrix sweeps besides variant and seed, such as {"backbone.name": "DiT-S/2"}.
    """

    cell: str
    variant: str
    scheme: str
    seed: int
    options: dict[str, Any]
    axes: dict[str, Any]
    backbone: str
    data: str

    @cached_property
    def name(self) -> str:
        """The row of the table: the variant, and its point of the axes."""
        name = self.variant + "".join(f" {key.rpartition('.')[2]}={value}" for key, value in self.axes.items())
        return one_line(name)


@dataclass(frozen=True)
class Store:
    """The results directory."""

    root: Path

    @property
    def id(self) -> str:
        """The id of this results directory: chance, made once. A copy of the directory has the same.

        Raises:
            ValueError: if its file is damaged.
            DiskError: if it cannot be written.
        """
        path = self.root / "id"
        if not path.exists():
            make_folder(self.root)
            with writing(path, "the id of the results directory"), FileLock(self.root / "id.lock", timeout=30):
                if not path.exists():
                    write_atomic(path, f"{secrets.token_hex(16)}\n")
        id = path.read_text(errors="replace").strip()
        if not re.fullmatch("[0-9a-f]{32}", id):
            raise ValueError(
                f"{path} is damaged: it holds the id by which MLflow knows this results directory. Write the value of "
                "the tag ditbench.root of its experiments into it, or delete it: then new experiments are written"
            )
        return id

    @property
    def cache(self) -> Path:
        """The folder of what can be computed again."""
        return self.root / "cache"

    def cell(self, id: str) -> CellFolder:
        """The folder of a cell, there or not."""
        return CellFolder(self.root / "cells" / slug(id, "cell"))

    def matrix_folder(self, name: str) -> Path:
        """The folder of a matrix, there or not."""
        return self.root / "matrices" / slug(name, "matrix")

    def matrices(self) -> list[str]:
        """Names of the matrices that were planned here, the last changed first."""
        manifests = {path: _changed(path) for path in (self.root / "matrices").glob("*/manifest.json")}
        return [path.parent.name for path in sorted(manifests, key=lambda path: -manifests[path]) if _is_slug(path)]

    def manifest(self, name: str) -> dict[str, Any]:
        """What was planned under `name`: config, digests, command, and `cells`, a list of rows.

        Raises:
            FileNotFoundError: if no such matrix was planned here.
            DamagedManifest: if it cannot be believed, with the way out.
        """
        return manifests.read(self.matrix_folder(name) / "manifest.json")

    def write_manifest(self, name: str, content: dict[str, Any]) -> None:
        """Writes what was planned under a name, with a checksum over it."""
        folder = self.matrix_folder(name)
        for place in (folder, folder / "report"):
            sweep(place, age=3600.0)  # of launches that were killed; others may write here now
        manifests.write(folder / "manifest.json", content)

    def rows(self, name: str) -> list[Row]:
        """The cells of a matrix in the order of its table.

        Raises:
            FileNotFoundError: if no such matrix was planned here.
            DamagedManifest: if it cannot be believed, with the way out.
        """
        return rows_of(self.manifest(name))


def rows_of(manifest: dict[str, Any]) -> list[Row]:
    """The cells that a manifest lists, in the order of the table."""
    return [Row(**row) for row in manifest["cells"]]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # deleted meanwhile, or a link to nothing
        return 0.0


def _is_slug(path: Path) -> bool:
    try:
        return bool(slug(path.parent.name, "matrix"))
    except ValueError:  # nobody but a person made this folder
        return False
