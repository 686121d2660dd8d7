"""What the writers of the parent's run and of a cell's run share: metrics in batches, tags that differ, the status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow.entities import Metric, Run, RunTag
from mlflow.tracking import MlflowClient

BATCH = 900  # metrics in one call; MLflow takes 1,000
STATUS = {"planned": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "killed": "KILLED"}  # all else FAILED


@dataclass
class Synced:
    """What one sync sent."""

    runs: int = 0
    points: int = 0
    images: int = 0

    def __str__(self) -> str:
        """The counts in words."""
        return f"{self.runs} runs, {self.points} new points, {self.images} new images"


@dataclass
class RunWriter:
    """Writes one run; `sent` counts what was new."""

    client: MlflowClient
    run: Run
    sent: Synced

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return str(self.run.info.run_id)

    def log(self, points: list[Metric]) -> None:
        """Sends metrics in batches."""
        for start in range(0, len(points), BATCH):
            self.client.log_batch(self.id, metrics=points[start : start + BATCH])

    def tag(self, tags: dict[str, str]) -> None:
        """Sets the tags that differ, and remembers them."""
        new = {key: value for key, value in tags.items() if value and self.run.data.tags.get(key) != value}
        if new:
            self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in new.items()])
            self.run.data.tags.update(new)

    def config(self, config: dict[str, Any], name: str) -> None:
        """The full config as an artifact, once."""
        if "ditbench.config" not in self.run.data.tags:
            self.client.log_dict(self.id, config, name)
            self.tag({"ditbench.config": name})

    def status(self, status: str) -> None:
        """MLflow's word for a cell's status."""
        new = STATUS.get(status, "FAILED")
        if self.run.info.status == new:
            return
        if new in ("RUNNING", "SCHEDULED"):
            self.client.update_run(self.id, status=new)
        else:
            self.client.set_terminated(self.id, status=new)


def metric_name(key: str) -> str:
    """A name that MLflow takes: `=` and the like become a dash."""
    return "".join(c if c.isalnum() or c in "_-./: " else "-" for c in key)
