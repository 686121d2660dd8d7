"""The matrix's own run: aggregates over seeds, the report, and the state of the whole."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient

from bench.findings.summary import VariantSummary
from bench.store.files import digest
from bench.store.metrics import beside_fid
from bench.store.table import Table
from bench.views.address import redacted
from bench.views.mlflow.ownership import ROOT
from bench.views.mlflow.words import metric_names
from bench.views.mlflow.writer import VERSION, RunWriter, Synced

WRITER = 2  # of this module: a new number has the run made again
PLAN = "ditbench.plan"  # tag: a digest of config and cells; a run of another plan is made again
DONE = "cells_done"  # metric, and the step at which all others are logged
FIGURE = "capability.png"  # of the report; on the run itself, too, where a reader looks first


class ParentRun(RunWriter):
    """Writes the run below which the cells' runs lie."""

    @classmethod
    def of(
        cls, client: MlflowClient, experiment: str, sent: Synced, run: Run | None, table: Table, root: str,
        names: Mapping[str, str],
    ) -> ParentRun:  # fmt: skip
        """The run of a matrix, created if it is not there, with its config and launch.

        Args:
            client: of the store.
            experiment: its id.
            sent: counts what is new.
            run: the one that is there.
            table: the matrix's cells.
            root: the id of the results directory.
            names: key on disk -> short name.
        """
        manifest = table.manifest
        plan = digest([manifest["config"], manifest["cells"]], 16)
        tags = {"ditbench.launch": manifest["launch"], "matrix": table.name, "kind": "matrix", ROOT: root}
        tags |= {VERSION: str(WRITER), PLAN: plan}
        if run is not None and _of_the_past(run, plan, len(table.done)):
            client.delete_run(run.info.run_id)
            run = None
        if run is None:
            started = int(manifest["created"] * 1000)
            run = client.create_run(experiment, start_time=started, run_name=table.name, tags=tags)
        writer = cls(client, run, sent, names=names)
        writer.config(manifest["config"], "config.yaml")
        writer.tag(
            tags | {"ditbench.command": redacted(manifest["command"]), "ditbench.names": json.dumps(dict(names))}
        )
        writer.send()
        return writer

    def write(self, table: Table, rows: list[VariantSummary], report: Path, ended: float | None) -> None:
        """Aggregates, status, report and the capability figure; only what changed. `ended`: when the last cell did."""
        done, now = len(table.done), int(time.time() * 1000)
        values = {DONE: float(done), "cells_planned": float(len(table.cells))} | _aggregates(rows, self.names)
        names, known = metric_names(list(values)), self.run.data.metrics
        new = {names[key]: value for key, value in values.items() if known.get(names[key]) != value}
        self.log([Metric(name, value, now, done) for name, value in new.items()])
        self.status(_status({cell.status for cell in table.cells}), ended)
        stamp = str(max((file.stat().st_mtime_ns for file in report.glob("*")), default=0))
        if report.is_dir() and self.run.data.tags.get("ditbench.report") != stamp:
            self.client.log_artifacts(self.id, str(report), "report")
            if (report / FIGURE).is_file():
                self.client.log_artifact(self.id, str(report / FIGURE))
            self.tag({"ditbench.report": stamp})
        self.send()


def _of_the_past(run: Run, plan: str, done: int) -> bool:
    """Whether a run holds what would stay there: of an older writer or another plan, or of more cells than are done.

    MLflow shows a metric's value at the highest step, and forgets no metric.
    """
    tags, metrics = run.data.tags, run.data.metrics
    return tags.get(VERSION) != str(WRITER) or tags.get(PLAN) != plan or metrics.get(DONE, 0) > done


def _aggregates(rows: list[VariantSummary], names: Mapping[str, str]) -> dict[str, float]:
    """Means and half widths of their intervals, `FID/variant`, of what is shown beside FID."""
    values: dict[str, float] = {}
    for row in rows:
        for key in (measurement.key for measurement in beside_fid(row.values)):
            mean, half = row.mean(key), row.interval(key)
            name = names.get(key, key)
            values |= {f"{name}/{row.name}": mean} if mean is not None else {}
            values |= {f"{name} ci95/{row.name}": half} if half is not None else {}
    return values


def _status(cells: set[str]) -> str:
    """The status of a matrix by those of its cells."""
    if "running" in cells:
        return "running"
    if cells == {"done"}:
        return "done"
    return "killed" if "planned" in cells else "failed"
