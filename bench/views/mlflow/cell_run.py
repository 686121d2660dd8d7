"""A cell's run: keys to group by, curves, samples, results, failure."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from mlflow.entities import Metric, Param, Run
from mlflow.tracking import MlflowClient

from bench.store.folders import CellFolder
from bench.store.journal import read_journal
from bench.store.metrics import Measurement, numbers
from bench.store.table import CellRecord
from bench.views.mlflow.parent_run import ParentRun
from bench.views.mlflow.writer import RunWriter, Synced, metric_name

EVERY = 50  # steps between two points of a curve, at least
PARAMS = 20  # at most: the header of MLflow's images lists them all
FINAL = (
    "train_peak_",
    "train_seconds",
)  # keys of the journal, not of the table: what is no curve but part of the result
PROBED = ("dynamics/open/", "dynamics/gate/", "dynamics/gradient/")  # of the blocks; the rest stays in the journal
SAMPLES = "samples"  # section of the chart page
FAILED = ("failed", "oom", "diverged", "timeout")


class CellRun(RunWriter):
    """Writes the run of one cell."""

    @classmethod
    def of(
        cls, client: MlflowClient, sent: Synced, run: Run | None, cell: CellRecord, folder: CellFolder,
        parent: ParentRun,
    ) -> CellRun:  # fmt: skip
        """The run of a cell, created below its parent if it is not there."""
        sent.runs += 1
        if run is None:
            row, tags = cell.row, {"ditbench.cell": cell.row.cell, "kind": "cell"}
            run = client.create_run(
                parent.run.info.experiment_id,
                start_time=int(folder.state().get("started", time.time()) * 1000),
                run_name=f"{row.name} seed {row.seed}",
                tags=tags | {"mlflow.parentRunId": parent.id, "matrix": parent.run.data.tags["matrix"]},
            )
        return cls(client, run, sent)

    def write(self, cell: CellRecord, folder: CellFolder, parent: ParentRun) -> None:
        """Brings the run up to date."""
        self._keys(cell)
        if folder.config.exists():
            self.config(json.loads(folder.config.read_text()), "config.json")
        self.tag({"status": cell.status, "mlflow.parentRunId": parent.id, "reason": cell.reason[:500]})
        self._curves(folder)
        self._samples(folder)
        self._result(cell)
        if cell.status in FAILED and folder.log.exists():
            self._failure(cell, folder)
        self.status(cell.status)

    def _keys(self, cell: CellRecord) -> None:
        """Parameters to group by."""
        row = cell.row
        keys = {name: getattr(row, name) for name in ("variant", "seed", "scheme", "backbone", "data")}
        keys |= dict(row.axes) | {f"options.{key}": value for key, value in row.options.items()}
        known = self.run.data.params
        new = [Param(k, str(v)) for k, v in list(keys.items())[:PARAMS] if known.get(k) != str(v)]
        if new:
            self.client.log_batch(self.id, params=new)

    def _curves(self, folder: CellFolder) -> None:
        """Points beyond those already there; the server's own last step counts, not what was meant to be sent."""
        last: dict[str, int] = {}
        points: list[Metric] = []
        for entry in read_journal(folder.journal):
            for own, value in entry.get("metrics", {}).items():
                key, step = _curve(own), entry["step"]
                if key is None:
                    continue
                if key not in last:
                    last[key] = self._last_step(key)
                if step > last[key] and (last[key] < 0 or step - last[key] >= EVERY):
                    points.append(Metric(key, value, int(entry["time"] * 1000), step))
                    last[key] = step
        self.log(points)
        self.sent.points += len(points)

    def _last_step(self, key: str) -> int:
        """The highest step of a curve that MLflow holds, -1 for none."""
        if key not in self.run.data.metrics:
            return -1
        return max(point.step for point in self.client.get_metric_history(self.id, key))

    def _samples(self, folder: CellFolder) -> None:
        """Sample grids by step, each once: those that MLflow has not."""
        from PIL import Image

        entries = [entry for entry in read_journal(folder.journal) if "image" in entry]
        grids = {(entry["key"], entry["step"]): entry["image"] for entry in entries}
        if len(grids) == int(self.run.data.tags.get("ditbench.samples", 0)):
            return
        held = self._samples_held()
        for (key, step), path in grids.items():
            if (key, step) not in held and (folder.path / path).is_file():
                with Image.open(folder.path / path) as image:
                    self.client.log_image(self.id, image.convert("RGB"), key=f"{SAMPLES}/{key}", step=step)
                self.sent.images += 1
        self.tag({"ditbench.samples": str(len(grids))})

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
        values = {in_section(key): value for key, value in numbers(cell.result).items()}
        provenance, checkpoint = cell.result.provenance, cell.result.artifacts["checkpoint"]
        now, known = int(provenance["ended"] * 1000), self.run.data.metrics
        new = [Metric(name, value, now, 0) for name, value in values.items() if known.get(name) != value]
        self.log(new)
        self.sent.points += len(new)
        self.tag(
            {
                "checkpoint": checkpoint["path"],
                "checkpoint.sha256": checkpoint["sha256"],
                "checkpoint.bytes": str(checkpoint["bytes"]),
                "commit": provenance["commit"] + ("+" if provenance.get("dirty") else ""),
                "hardware": provenance["hardware"].get("gpu", provenance["hardware"]["cpu"]),
                "extractor": provenance["measured"]["extractor"],
            }
        )

    def _failure(self, cell: CellRecord, folder: CellFolder) -> None:
        note = f"**{cell.status}**: {cell.reason}"
        if self.run.data.tags.get("mlflow.note.content") != note:
            self.client.log_text(self.id, folder.log.read_text(errors="replace")[-20_000:], "log.txt")
            self.tag({"mlflow.note.content": note})


def _curve(key: str) -> str | None:
    """The name in MLflow of a metric of the journal; None for what is no curve."""
    if key.startswith(FINAL) or (key.startswith("dynamics/") and not key.startswith(PROBED)):
        return None
    return metric_name(key if key.startswith(("system/", "dynamics/")) else "train/" + key.removeprefix("train_"))


def in_section(key: str) -> str:
    """A result's name in MLflow: what one compares first is alone, the rest in sections of the chart page."""
    measurement = Measurement.parse(key)
    if measurement.metric.made_by == "bin":
        return f"{measurement.section}/bin{measurement.made_by}"
    return metric_name(f"{measurement.section}/{key}" if measurement.section else key)
