"""A cell's run: keys to group by, curves, samples, results, failure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient

from bench.store.files import digest
from bench.store.folders import CellFolder
from bench.store.journal import read_journal
from bench.store.metrics import Measurement, numbers
from bench.store.table import CellRecord
from bench.views.mlflow.ownership import ROOT
from bench.views.mlflow.parent_run import ParentRun
from bench.views.mlflow.words import PARAM, inert, metric_name, plain
from bench.views.mlflow.writer import VERSION, RunWriter, Synced

STAMP = "ditbench.stamp"  # tag: a digest of what the run shows; it is sent last
WRITER = 3  # of this module: a new number has every run made again, so that no name of an older one stays
LOG = 20_000  # characters of a failed cell's log
EVERY = 50  # steps between two points of a curve, at least
PARAMS = 20  # at most: the header of MLflow's images lists them all
FINAL = (
    "train_peak_",
    "warm_up_peak_",
    "train_seconds",
    "evaluate_seconds",  # the result's has those of the curves, too
)  # keys of the journal, not of the table: what is no curve but part of the result
PROBED = ("dynamics/open/", "dynamics/gate/", "dynamics/gradient/")  # of the blocks; the rest stays in the journal
SAMPLES = "samples"  # section of the chart page
NOTE = "mlflow.note.content"  # tag: what MLflow shows as the description
FAILED = ("failed", "oom", "diverged", "timeout")


class CellRun(RunWriter):
    """Writes the run of one cell."""

    @classmethod
    def of(
        cls, client: MlflowClient, sent: Synced, run: Run | None, cell: CellRecord, folder: CellFolder,
        parent: ParentRun, names: Mapping[str, str],
    ) -> CellRun:  # fmt: skip
        """The run of a cell, created below its parent if it is not there.

        A parameter cannot be changed: where one must, the run is written again.
        """
        params = _keys(cell)
        if run is not None and (
            run.data.tags.get(VERSION) != str(WRITER)
            or any(run.data.params.get(key, value) != value for key, value in params.items())
        ):
            client.delete_run(run.info.run_id)
            run = None
        if run is None:
            row = cell.row
            tags = {"ditbench.cell": row.cell, "kind": "cell", "mlflow.parentRunId": parent.id, VERSION: str(WRITER)}
            run = client.create_run(
                parent.run.info.experiment_id,
                start_time=int(folder.state().get("started", time.time()) * 1000),
                run_name=plain(f"{row.name} seed {row.seed}", 250),
                tags=tags | {key: parent.run.data.tags[key] for key in (ROOT, "matrix")},
            )
        return cls(client, run, sent, names=names)

    def write(self, cell: CellRecord, folder: CellFolder, parent: ParentRun) -> None:
        """Brings the run up to date; where nothing changed since the last time, without a call."""
        self.sent.runs += 1
        stamp = _stamp(cell, folder, parent.id, self.names)
        if self.run.data.tags.get(STAMP) == stamp:
            self.sent.unchanged += 1
            return
        self.param(_keys(cell))
        if config := _config(folder):
            self.config(config, "config.json")
        self.tag({"status": cell.status, "mlflow.parentRunId": parent.id, "reason": plain(cell.reason, 500)})
        entries = list(read_journal(folder.journal))
        self._curves(entries, whole=cell.status == "done")
        self._samples(entries, folder)
        self._result(cell)
        self._failure(cell, folder)
        last = entries[-1]["time"] if entries else None
        self.status(cell.status, ended(cell, folder) or last)
        self.tag({STAMP: stamp})
        self.send()

    def _curves(self, entries: list[dict[str, Any]], *, whole: bool) -> None:
        """Points beyond those already there; the server's own last step counts, not what was meant to be sent.

        Args:
            entries: of the journal.
            whole: whether no more will come: the last point is sent however near the one before it.
        """
        end = max((entry["step"] for entry in entries if entry.get("metrics")), default=0) if whole else -1
        last: dict[str, int] = {}
        points: list[Metric] = []
        for entry in entries:
            for own, value in entry.get("metrics", {}).items():
                key, step = _curve(own), entry["step"]
                if key is None:
                    continue
                if key not in last:
                    last[key] = self._last_step(key)
                if step > last[key] and (last[key] < 0 or step - last[key] >= EVERY or step == end):
                    points.append(Metric(key, value, int(entry["time"] * 1000), step))
                    last[key] = step
        self.log(points)

    def _last_step(self, key: str) -> int:
        """The highest step of a curve that MLflow holds, -1 for none."""
        if key not in self.run.data.metrics:
            return -1
        return max(point.step for point in self.client.get_metric_history(self.id, key))

    def _samples(self, entries: list[dict[str, Any]], folder: CellFolder) -> None:
        """Sample grids by step, each once: those that MLflow has not."""
        grids = {(entry["key"], entry["step"]): entry["image"] for entry in entries if "image" in entry}
        if len(grids) == int(self.run.data.tags.get("ditbench.samples", 0)):
            return
        held = self._samples_held()
        for (key, step), path in grids.items():
            if (key, step) not in held and (folder.path / path).is_file():
                self._image(folder.path / path, key, step)
        self.tag({"ditbench.samples": str(len(grids))})

    def _image(self, path: Path, key: str, step: int) -> None:
        """Sends an image; one that is damaged is named and left out."""
        from PIL import Image

        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except Exception as error:  # Pillow raises errors of many types
            self.sent.notes.append(f"{path} is no image that can be read ({type(error).__name__}); it is left out")
            return
        self.client.log_image(self.id, image, key=f"{SAMPLES}/{key}", step=step)
        self.sent.images += 1

    def _samples_held(self) -> set[tuple[str, int]]:
        """(key, step) of the samples that MLflow holds: it writes section, key and step into the files' names."""
        form = re.compile(rf"{SAMPLES}[#/~](.+)[+%]step[+%](\d+)[+%]timestamp")
        files = self.client.list_artifacts(self.id, "images")
        names = (form.match(Path(file.path).name) for file in files)
        return {(name[1], int(name[2])) for name in names if name}

    def _result(self, cell: CellRecord) -> None:
        """Final quality and cost, and where the checkpoint lies. At step 0, so that MLflow plots bars."""
        if cell.result is None:
            return
        values = {in_section(key, self.names): value for key, value in numbers(cell.result).items()}
        provenance, checkpoint = cell.result.provenance, cell.result.artifacts["checkpoint"]
        now, known = int(provenance["ended"] * 1000), self.run.data.metrics
        self.log([Metric(name, value, now, 0) for name, value in values.items() if known.get(name) != value])
        self.tag(
            {
                "checkpoint": checkpoint["path"],
                "checkpoint.sha256": checkpoint["sha256"],
                "checkpoint.bytes": str(checkpoint["bytes"]),
                "commit": provenance["commit"] + ("+" if provenance.get("dirty") else ""),
                "hardware": provenance["hardware"].get("gpu", provenance["hardware"]["cpu"]),
                "extractor": provenance["measured"].get("extractor", "none"),
            }
        )

    def _failure(self, cell: CellRecord, folder: CellFolder) -> None:
        """Why the cell failed, with the end of its log; of one that failed before, nothing is left but that log."""
        if not cell.reason:
            self.untag(["reason"])
        known = self.run.data.tags.get(NOTE, "")
        if cell.status not in FAILED:
            self.untag([NOTE] if known.startswith(tuple(f"**{one}**: " for one in FAILED)) else [])
        elif known != (note := f"**{cell.status}**: {inert(cell.reason)}") and folder.log.exists():
            self.client.log_text(self.id, plain(_tail(folder.log), LOG), "log.txt")
            self.tag({NOTE: note})


def ended(cell: CellRecord, folder: CellFolder) -> float | None:
    """When a cell came to its end, as its process or that of the run wrote it; None where both were killed before."""
    if cell.result is not None:
        return float(cell.result.provenance["ended"])
    state = folder.state()
    return None if state.get("status") == "running" else state.get("changed")


def _tail(log: Path) -> str:
    """The end of a log, of which there may be gigabytes."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LOG))
        return file.read(LOG).decode(errors="replace")


def _config(folder: CellFolder) -> dict[str, Any]:
    """What was planned; nothing while it is missing or damaged, until planning writes it again."""
    try:
        config = json.loads(folder.config.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _keys(cell: CellRecord) -> dict[str, str]:
    """Parameters to group by."""
    row = cell.row
    keys = {name: getattr(row, name) for name in ("variant", "seed", "scheme", "backbone", "data")}
    keys |= dict(row.axes) | {f"options.{key}": value for key, value in row.options.items()}
    return {metric_name(key): plain(str(value), PARAM) for key, value in list(keys.items())[:PARAMS]}


def _stamp(cell: CellRecord, folder: CellFolder, parent: str, names: Mapping[str, str]) -> str:
    """A digest of all that a cell's run shows; read it before what it stamps."""
    files = [_size(path) for path in (folder.journal, folder.config, folder.log, folder.samples)]
    result = cell.result
    numbers = [result.quality, result.cost, result.dynamics, result.provenance["ended"]] if result else []
    return digest([WRITER, asdict(cell.row), cell.status, cell.reason, parent, files, numbers, dict(names)], 16)


def _size(path: Path) -> list[int]:
    try:
        known = path.stat()
    except OSError:
        return []
    return [known.st_size, known.st_mtime_ns]


def _curve(key: str) -> str | None:
    """The name in MLflow of a metric of the journal; None for what is no curve."""
    if key.startswith(FINAL) or (key.startswith("dynamics/") and not key.startswith(PROBED)):
        return None
    return metric_name(key if key.startswith(("system/", "dynamics/")) else "train/" + key.removeprefix("train_"))


def in_section(key: str, names: Mapping[str, str]) -> str:
    """A result's name in MLflow: what one compares first is alone and short, the rest in sections of the chart page.

    Args:
        key: on disk.
        names: the short names of those that come first; see `bench.views.short`.
    """
    measurement = Measurement.parse(key)
    if measurement.metric.made_by == "bin":
        return f"{measurement.section}/bin{measurement.made_by}"
    if not measurement.section:
        return metric_name(names.get(key, key))
    return metric_name(f"{measurement.section}/{key}")
