"""MLflow as a view of the results directory: fed in batches by the parent, never by a cell. The only door to MLflow.

One experiment a matrix. In it one parent run, which carries aggregates, report and figures of the matrix as it stands
(the latest launch is a tag), and below it one run a cell, which itself carries every key one groups by. Runs are found
again by their tags, so that feeding twice changes nothing: of each curve only the steps beyond the highest one already
there are sent, of pictures those not yet named in the run's tag. A cell of two matrices has a run in each.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
from filelock import FileLock
from mlflow.entities import Experiment, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bench.findings.analysis import summaries
from bench.store.folders import CellFolder, Store, name_of
from bench.store.journal import read_journal
from bench.store.metrics import Measurement, beside_fid, numbers
from bench.store.table import CellRecord, Table, collect

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a dead server costs seconds, not minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

EVERY = 50  # steps between two points of a curve, at least
BATCH = 900  # metrics in one call; MLflow takes 1,000
STATUS = {"planned": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "killed": "KILLED"}  # all else FAILED
FINAL = ("train_peak_", "train_seconds")  # of the journal, what is no curve but part of the result
LOOKED_AT = ("dynamics/open/", "dynamics/gate/", "dynamics/gradient/")  # of the blocks; the rest stays in the journal
VIEW, VIEW_OF_SEEDS = "ditbench", "ditbench-seeds"  # shared views of the run table, by their keys
PICTURES = "pictures"  # section of the chart page

for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow"):
    logging.getLogger(name).setLevel(logging.ERROR)


class TrackingError(ValueError):
    """MLflow cannot be fed; the message says why and the way out. The results are on disk all the same."""


@dataclass
class Synced:
    """What one feeding sent."""

    runs: int = 0
    points: int = 0
    images: int = 0

    def __str__(self) -> str:
        return f"{self.runs} runs, {self.points} new points, {self.images} new pictures"


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root / 'mlflow.db'}"


def connect(store: Store) -> MlflowClient:
    """A client of the store, which is made first if it is a new SQLite file: once, under a lock.

    Raises:
        TrackingError: if the server does not answer, or the file belongs to another MLflow.
    """
    uri = tracking_uri(store)
    parsed = urlparse(uri)
    if parsed.scheme in ("http", "https"):
        _probe(uri)
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / "mlflow.lock"), _explained(uri):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _probe(uri: str) -> None:
    """Asks the server once, briefly: MLflow itself would try for minutes."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in, MLflow will say
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"the MLflow server {uri} does not answer ({error}); start it, or unset MLFLOW_TRACKING_URI"
        ) from error


class _explained:
    """Turns what MLflow raises into a sentence with a way out."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, TrackingError):
            return
        said = " ".join(str(error).split())
        if "out-of-date database schema" in said or "Can't locate revision" in said:
            raise TrackingError(
                f"{self.uri} was made by another MLflow; back it up and run: mlflow db upgrade {self.uri}"
            ) from error
        if isinstance(error, MlflowException | OSError) or "sqlalchemy" in type(error).__module__:
            raise TrackingError(f"MLflow at {self.uri}: {said[:300]}") from error


def sync(store: Store, name: str, *, rebuild: bool = False) -> Synced:
    """Feeds MLflow with what a matrix's cells have put on disk since it was last fed.

    Args:
        rebuild: delete what the experiment holds and make it anew.

    Raises:
        TrackingError: if MLflow cannot be reached or used. FileNotFoundError: if no such matrix was planned.
    """
    table = collect(store, name)
    client = connect(store)
    with _explained(tracking_uri(store)), FileLock(store.root / "mlflow-sync.lock"):
        experiment = _experiment(client, store, name)
        if rebuild:
            for run in _runs(client, experiment):
                client.delete_run(run.info.run_id)
        found = {run.data.tags.get("ditbench.cell", "parent"): run for run in reversed(list(_runs(client, experiment)))}
        feed = _Feed(client, experiment.experiment_id, Synced())
        parent = feed.parent(found.get("parent"), table)
        for cell in table.cells:
            feed.cell(found.get(cell.row.cell), cell, store.cell(cell.row.cell), name, parent)
        for id in set(found) - {cell.row.cell for cell in table.cells} - {"parent"}:
            client.delete_run(found[id].info.run_id)  # of an earlier plan under this name; MLflow can restore it
        feed.summary(parent, table, store.matrix_folder(name) / "report")
        feed.views(experiment, table, parent)
    return feed.sent


def experiment_id(store: Store, name: str) -> str:
    """The id of a matrix's experiment, for an address."""
    client = connect(store)
    with _explained(tracking_uri(store)):
        return _experiment(client, store, name).experiment_id


def _experiment(client: MlflowClient, store: Store, name: str) -> Experiment:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = not tracking_uri(store).startswith("http")
        where = (store.root / "mlartifacts" / name).as_uri() if local else None
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return client.get_experiment(client.create_experiment(name, artifact_location=where, tags=tags))
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the MLflow experiment {name!r} was deleted; bring it back with: mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id} (with MLFLOW_TRACKING_URI={tracking_uri(store)}), or use "
            "another name"
        )
    return experiment


def _runs(client: MlflowClient, experiment: Experiment) -> Iterator[MlflowRun]:
    """All live runs of an experiment, the newest first."""
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@dataclass
class _Feed:
    """Writes runs of one experiment."""

    client: MlflowClient
    experiment: str
    sent: Synced

    # --- the parent run

    def parent(self, run: MlflowRun | None, table: Table) -> MlflowRun:
        """The matrix's own run."""
        tags = {"ditbench.launch": table.manifest["launch"], "matrix": table.name, "kind": "matrix"}
        if run is None:
            started = int(table.manifest["created"] * 1000)
            run = self.client.create_run(self.experiment, start_time=started, run_name=table.name, tags=tags)
        self._config(run, table.manifest["config"], "config.yaml")
        self._tag(run, tags | {"ditbench.command": table.manifest["command"]})
        return run

    def summary(self, run: MlflowRun, table: Table, report: Path) -> None:
        """Aggregates over seeds, the report and the state of the whole; only what changed."""
        done = len(table.done)
        values = {"cells_done": float(done), "cells_planned": float(len(table.cells))}
        for row in summaries(table):
            for key in (one.key for one in beside_fid(row.values)):
                mean, half = row.mean(key), row.interval(key)
                values |= {f"{key}/{row.name}": mean} if mean is not None else {}
                values |= {f"{key}_ci95/{row.name}": half} if half is not None else {}
        known = run.data.metrics
        now = _now()
        self._log(
            run, [Metric(_metric_name(k), v, now, done) for k, v in values.items() if known.get(_metric_name(k)) != v]
        )
        states = {cell.status for cell in table.cells}
        self._status(
            run,
            "running"
            if "running" in states
            else "done"
            if states == {"done"}
            else "killed"
            if "planned" in states
            else "failed",
        )
        stamp = str(max((file.stat().st_mtime_ns for file in report.glob("*")), default=0))
        if report.is_dir() and run.data.tags.get("ditbench.report") != stamp:
            self.client.log_artifacts(run.info.run_id, str(report), "report")
            self._tag(run, {"ditbench.report": stamp})

    def views(self, experiment: Experiment, table: Table, parent: MlflowRun) -> None:
        """Two shared views of the run table, in the form that MLflow's own Share button writes: one run a row, and one
        variant a row over its seeds. Their first columns are those that a reader of a benchmark wants first. Sorted by
        variant, since MLflow folds runs into their parent when it sorts by date."""
        rows = summaries(table)
        metrics = [_metric_name(one.key) for one in beside_fid(key for row in rows for key in row.values)]
        columns = ["params.`variant`", "params.`seed`", "tags.`status`", *(f"metrics.`{key}`" for key in metrics)]
        view: dict[str, Any] = {
            "selectedColumns": columns,
            "columnOrder": columns,
            "orderByKey": "params.`variant`",
        }
        view |= {"orderByAsc": True, "runsHiddenMode": "FIRST_20_RUNS", "hideEmptyCharts": True}
        flat = view | _charts(table) | {"searchFilter": "tags.kind = 'cell'"}
        keys = [{"mode": "param", "groupByData": "variant"}]
        grouped = flat | {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}
        here = f"#/experiments/{self.experiment}/runs"
        tags = {f"mlflow.sharedViewState.{VIEW}": json.dumps(flat)}
        tags |= {f"mlflow.sharedViewState.{VIEW_OF_SEEDS}": json.dumps(grouped)}
        tags["mlflow.note.content"] = (
            f"ditbench matrix **{table.name}**: [by cell]({here}?viewStateShareKey={VIEW}), "
            f"[by variant]({here}?viewStateShareKey={VIEW_OF_SEEDS}), "
            f"[curves and pictures]({here}?viewStateShareKey={VIEW}&compareRunsMode=CHART), "
            f"[report]({here}/{parent.info.run_id}/artifacts/report/report.html)"
        )
        for key, text in tags.items():
            if experiment.tags.get(key) != text:
                self.client.set_experiment_tag(self.experiment, key, text)

    # --- a cell's run

    def cell(self, run: MlflowRun | None, cell: CellRecord, folder: CellFolder, matrix: str, parent: MlflowRun) -> None:
        """One cell's run, made if it is not there, brought up to date."""
        self.sent.runs += 1
        if run is None:
            run = self._create(cell, folder, matrix, parent)
        self._keys(run, cell)
        if folder.config.exists():
            self._config(run, json.loads(folder.config.read_text()), "config.json")
        self._tag(run, {"status": cell.status, "mlflow.parentRunId": parent.info.run_id, "reason": cell.reason[:500]})
        self._curves(run, folder)
        self._images(run, folder)
        self._result(run, cell)
        if cell.status in ("failed", "oom", "diverged", "timeout") and folder.log.exists():
            self._failure(run, cell, folder)
        self._status(run, cell.status)

    def _create(self, cell: CellRecord, folder: CellFolder, matrix: str, parent: MlflowRun) -> MlflowRun:
        row = cell.row
        return self.client.create_run(
            self.experiment,
            start_time=int(folder.note().get("started", time.time()) * 1000),
            run_name=f"{name_of(row)} seed {row.seed}",
            tags={
                "mlflow.parentRunId": parent.info.run_id,
                "ditbench.cell": row.cell,
                "kind": "cell",
                "matrix": matrix,
            },
        )

    def _keys(self, run: MlflowRun, cell: CellRecord) -> None:
        """Parameters to group by, at most 20: the header of MLflow's pictures lists them all."""
        row = cell.row
        keys = {
            "variant": row.variant,
            "seed": row.seed,
            "scheme": row.scheme,
            "backbone": row.backbone,
            "data": row.data,
        }
        keys |= dict(row.axes) | {f"options.{key}": value for key, value in row.options.items()}
        new = [Param(k, str(v)) for k, v in list(keys.items())[:20] if run.data.params.get(k) != str(v)]
        if new:
            self.client.log_batch(run.info.run_id, params=new)

    def _config(self, run: MlflowRun, config: dict[str, Any], name: str) -> None:
        """The full config as an artifact, once."""
        if "ditbench.config" not in run.data.tags:
            self.client.log_dict(run.info.run_id, config, name)
            self._tag(run, {"ditbench.config": name})

    def _curves(self, run: MlflowRun, folder: CellFolder) -> None:
        """Points beyond those already there; the server's own last step counts, not what was meant to be sent."""
        last: dict[str, int] = {}
        points: list[Metric] = []
        for entry in read_journal(folder.journal):
            for own, value in entry.get("metrics", {}).items():
                if own.startswith(FINAL) or (own.startswith("dynamics/") and not own.startswith(LOOKED_AT)):
                    continue
                key = own if own.startswith(("system/", "dynamics/")) else "train/" + own.removeprefix("train_")
                mark = last.get(key)
                if mark is None:
                    mark = last[key] = self._last_step(run, key)
                step = entry["step"]
                if step > mark and (mark < 0 or step - mark >= EVERY):
                    points.append(Metric(_metric_name(key), value, int(entry["time"] * 1000), step))
                    last[key] = step
        self._log(run, points)
        self.sent.points += len(points)

    def _last_step(self, run: MlflowRun, key: str) -> int:
        """The highest step of a curve that MLflow holds, -1 for none."""
        if _metric_name(key) not in run.data.metrics:
            return -1
        return max(point.step for point in self.client.get_metric_history(run.info.run_id, _metric_name(key)))

    def _images(self, run: MlflowRun, folder: CellFolder) -> None:
        """Sample grids by step, each once: those that MLflow has not."""
        from PIL import Image

        wanted = {
            (entry["key"], entry["step"]): entry["image"] for entry in read_journal(folder.journal) if "image" in entry
        }
        if len(wanted) == int(run.data.tags.get("ditbench.images", 0)):
            return
        there = self._images_there(run)
        for (key, step), path in wanted.items():
            if (key, step) not in there and (folder.path / path).is_file():
                with Image.open(folder.path / path) as picture:
                    self.client.log_image(run.info.run_id, picture.convert("RGB"), key=f"{PICTURES}/{key}", step=step)
                self.sent.images += 1
        self._tag(run, {"ditbench.images": str(len(wanted))})

    def _images_there(self, run: MlflowRun) -> set[tuple[str, int]]:
        """(key, step) of the pictures that MLflow holds: it writes them into the files' names."""
        files = self.client.list_artifacts(run.info.run_id, "images")
        names = (re.match(r"(.+)[+%]step[+%](\d+)[+%]timestamp", Path(file.path).name) for file in files)
        return {(re.split("[#/~]", name[1])[-1], int(name[2])) for name in names if name}

    def _result(self, run: MlflowRun, cell: CellRecord) -> None:
        """Final quality and cost, and where the checkpoint lies. At step 0, so that MLflow draws bars."""
        if cell.result is None:
            return
        kept = {_section(key): value for key, value in numbers(cell.result).items()}
        now = int(cell.result.provenance["ended"] * 1000)
        new = [Metric(key, value, now, 0) for key, value in kept.items() if run.data.metrics.get(key) != value]
        self._log(run, new)
        self.sent.points += len(new)
        told = cell.result.provenance
        checkpoint = cell.result.artifacts["checkpoint"]
        tags = {
            "checkpoint": checkpoint["path"],
            "checkpoint.sha256": checkpoint["sha256"],
            "checkpoint.bytes": str(checkpoint["bytes"]),
            "commit": told["commit"] + ("+" if told.get("dirty") else ""),
            "hardware": told["hardware"].get("gpu", told["hardware"]["cpu"]),
            "extractor": told["measured"]["extractor"],
        }
        self._tag(run, tags)

    def _failure(self, run: MlflowRun, cell: CellRecord, folder: CellFolder) -> None:
        note = f"**{cell.status}**: {cell.reason}"
        if run.data.tags.get("mlflow.note.content") != note:
            self.client.log_text(run.info.run_id, folder.log.read_text(errors="replace")[-20_000:], "log.txt")
            self._tag(run, {"mlflow.note.content": note})

    # --- small things

    def _log(self, run: MlflowRun, points: list[Metric]) -> None:
        for start in range(0, len(points), BATCH):
            self.client.log_batch(run.info.run_id, metrics=points[start : start + BATCH])

    def _tag(self, run: MlflowRun, tags: dict[str, str]) -> None:
        """Sets the tags that differ, and remembers them."""
        new = {key: value for key, value in tags.items() if value and run.data.tags.get(key) != value}
        if new:
            self.client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in new.items()])
            run.data.tags.update(new)

    def _status(self, run: MlflowRun, status: str) -> None:
        wanted = STATUS.get(status, "FAILED")
        if run.info.status != wanted:
            if wanted in ("RUNNING", "SCHEDULED"):
                self.client.update_run(run.info.run_id, status=wanted)
            else:
                self.client.set_terminated(run.info.run_id, status=wanted)


def _charts(table: Table) -> dict[str, Any]:
    """The chart page's sections in a reader's order, the long ones folded, and the pictures at the last step. MLflow
    adds a chart of each metric to the section that its name begins with."""
    sections = {"Model metrics": True, PICTURES: True, "train": True}
    sections |= {"adherence": False, "dynamics": False, "cost": False}
    sections |= {"heldout_loss_by_timestep": False, "System metrics": False}
    shown = {"isReordered": False, "deleted": False, "isGenerated": True}
    pictures = {"uuid": "ditbench-pictures", "type": "IMAGE", "imageKeys": [f"{PICTURES}/samples"], "deleted": False}
    pictures |= {"metricSectionId": f"ditbench-{PICTURES}", "isGenerated": True, "runsCountToCompare": 10}
    return {
        "compareRunCharts": [pictures | {"step": table.manifest["config"]["train"]["steps"]}],
        "compareRunSections": [
            {"uuid": f"ditbench-{name}", "name": name, "display": unfolded} | shown
            for name, unfolded in sections.items()
        ],
        "isAccordionReordered": True,
    }


def _section(key: str) -> str:
    """A result's name in MLflow: what one compares first stands alone, the rest in sections of the chart page."""
    one = Measurement.parse(key)
    if one.metric.made_by == "bin":
        return f"{one.section}/bin{one.made_by}"
    return _metric_name(f"{one.section}/{key}" if one.section else key)


def _metric_name(key: str) -> str:
    """A name that MLflow takes: `=` and the like become a dash."""
    return "".join(c if c.isalnum() or c in "_-./: " else "-" for c in key)


def _now() -> int:
    return int(time.time() * 1000)


assert mlflow.__version__
