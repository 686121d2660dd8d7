"""What the writers of the parent's run and of a cell's run share: one batch of what is new, the status."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from bench.views.mlflow.words import plain

VERSION = "ditbench.writer"  # tag: the writer's number, by which a run of an older one is known
BATCH = 900  # metrics in one call; MLflow takes 1,000 of everything together
STATUS = {"planned": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "killed": "KILLED"}  # all else FAILED


@dataclass
class Synced:
    """What one sync sent.

    Attributes:
        unchanged: runs that were as they had to be, and for which nothing was asked or sent.
        notes: what a user must know, a sentence each.
        experiment: its id.
    """

    runs: int = 0
    points: int = 0
    images: int = 0
    unchanged: int = 0
    notes: list[str] = field(default_factory=list)
    experiment: str = ""

    def __str__(self) -> str:
        """The counts in words."""
        same = f" ({self.unchanged} unchanged)" if self.unchanged else ""
        return f"{self.runs} runs{same}, {self.points} new points, {self.images} new images"


@dataclass
class RunWriter:
    """Writes one run; `sent` counts what was new. Metrics, parameters and tags wait for `send`.

    Attributes:
        names: key on disk -> short name, of the metrics that come first.
    """

    client: MlflowClient
    run: Run
    sent: Synced
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return str(self.run.info.run_id)

    def log(self, points: list[Metric]) -> None:
        """Has metrics sent; what is not finite has no place there."""
        self.metrics += [point for point in points if math.isfinite(point.value)]

    def param(self, params: dict[str, str]) -> None:
        """Has the parameters set that are not there."""
        self.params |= {key: value for key, value in params.items() if key not in self.run.data.params}

    def tag(self, tags: dict[str, str]) -> None:
        """Has the tags set that differ."""
        new = {key: plain(value) for key, value in tags.items() if value}
        self.tags |= {key: value for key, value in new.items() if self.run.data.tags.get(key) != value}

    def untag(self, keys: Iterable[str]) -> None:
        """Deletes the tags that are there."""
        for key in keys:
            if key in self.run.data.tags:
                self.client.delete_tag(self.id, key)
                del self.run.data.tags[key]

    def send(self) -> None:
        """Sends what waits, in as few calls as MLflow takes: the tags in the last, so that they mark a whole write."""
        tags, params = ([RunTag(*pair) for pair in self.tags.items()], [Param(*pair) for pair in self.params.items()])
        starts = range(0, len(self.metrics), BATCH) if self.metrics else range(bool(tags or params))
        for start in starts:
            last = start + BATCH >= len(self.metrics)
            points = self.metrics[start : start + BATCH]
            self.client.log_batch(self.id, metrics=points, params=params * last, tags=tags * last)
        self.sent.points += len(self.metrics)
        self.run.data.tags.update(self.tags)
        self.run.data.params.update(self.params)
        self.metrics, self.tags, self.params = [], {}, {}

    def config(self, config: dict[str, Any], name: str) -> None:
        """The full config as an artifact, once."""
        if "ditbench.config" not in self.run.data.tags:
            self.client.log_dict(self.id, config, name)
            self.tag({"ditbench.config": name})

    def status(self, status: str, ended: float | None) -> None:
        """MLflow's word for a cell's status, and when the cell ended (seconds since 1970; now, if it is unknown)."""
        new, end = STATUS.get(status, "FAILED"), None if ended is None else int(ended * 1000)
        same = self.run.info.status == new
        if new in ("RUNNING", "SCHEDULED"):
            if not same:
                self.client.update_run(self.id, status=new)
        elif not same or end not in (None, self.run.info.end_time):
            self.client.set_terminated(self.id, status=new, end_time=end)
