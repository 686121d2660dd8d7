"""Whose experiment and whose runs: only what carries the id of this results directory is read, changed or deleted.

The id is the tag `ditbench.root`. An experiment is found by it, never by its name: one that others made under the
matrix's name stays as it is, and ours is called `<name>-<the id's first letters>`.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bench.store.folders import Store
from bench.views.address import TrackingError, is_own, is_server, redacted, tracking_uri
from bench.views.mlflow.writer import Synced

ROOT, MATRIX, PLACE = "ditbench.root", "ditbench.matrix", "ditbench.place"  # tags
MARKS = ("ditbench.cell", "ditbench.launch")  # tags of every run that a ditbench without ids wrote


def own_experiment(client: MlflowClient, store: Store, name: str, sent: Synced) -> Experiment:
    """The experiment of a matrix of this results directory, created if there is none.

    Raises:
        TrackingError: if it was deleted.
    """
    uri = tracking_uri(store)
    experiment = _tagged(client, store, name) or _untagged(client, store, name)
    if experiment is None:
        experiment = _create(client, store, name, sent)
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the MLflow experiment {experiment.name!r} was deleted; bring it back with: mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id} (with MLFLOW_TRACKING_URI={redacted(uri)}), or use "
            "another name"
        )
    return experiment


def own_runs(client: MlflowClient, store: Store, experiment: str) -> Iterator[Run]:
    """The live runs of an experiment that are this results directory's, the newest first."""
    yield from _runs(client, experiment, f"tags.`{ROOT}` = '{store.id}'")


def same_place(client: MlflowClient, store: Store, experiment: Experiment) -> bool:
    """Whether the last sync came from this very folder, and not from a copy of it. Remembers this one."""
    here, before = _place(store), experiment.tags.get(PLACE)
    if before != here:
        client.set_experiment_tag(experiment.experiment_id, PLACE, here)
    return before in (None, here)


def _place(store: Store) -> str:
    """A digest that differs between a folder and its copies; it shows neither host nor path."""
    id = (store.root / "id").stat()
    return hashlib.sha256(f"{socket.gethostname()} {id.st_ino}".encode()).hexdigest()[:16]


def _tagged(client: MlflowClient, store: Store, name: str) -> Experiment | None:
    """The experiment with our id and this matrix; the oldest, if two launches made one each."""
    wanted = f"tags.`{ROOT}` = '{store.id}' AND tags.`{MATRIX}` = '{name}'"
    token, found = None, []
    while True:
        page = client.search_experiments(view_type=ViewType.ALL, filter_string=wanted, page_token=token)
        found += [one for one in page if _writable(store, one)]
        token = page.token
        if not token:
            break
    found.sort(key=lambda one: (one.lifecycle_stage == "deleted", one.creation_time or 0, one.experiment_id))
    return found[0] if found else None


def _writable(store: Store, experiment: Experiment) -> bool:
    """Whether its files lie with us: those of a copied `mlflow.db` lie in the folder that it was copied from."""
    place = urlsplit(experiment.artifact_location or "")
    if place.scheme not in ("", "file") or is_server(tracking_uri(store)):
        return True
    return Path(unquote(place.path)).resolve().is_relative_to(store.root.resolve())


def _untagged(client: MlflowClient, store: Store, name: str) -> Experiment | None:
    """What a ditbench without ids wrote into the results directory's own file: ours from now on."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or ROOT in experiment.tags or not is_own(store, tracking_uri(store)):
        return None
    written = [run for run in _runs(client, experiment.experiment_id) if any(mark in run.data.tags for mark in MARKS)]
    if not written or not _writable(store, experiment):
        return None
    if experiment.lifecycle_stage == "active":
        for run in written:
            client.set_tag(run.info.run_id, ROOT, store.id)
        for key, value in {MATRIX: name, ROOT: store.id}.items():
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return client.get_experiment(experiment.experiment_id)


def _create(client: MlflowClient, store: Store, name: str, sent: Synced) -> Experiment:
    """A new experiment; the first of its possible names that is free."""
    where = None if is_server(tracking_uri(store)) else (store.root / "mlartifacts" / name).as_uri()
    tags = {"mlflow.experimentKind": "custom_model_development", ROOT: store.id, MATRIX: name}
    for free in (name, f"{name}-{store.id[:8]}", f"{name}-{store.id}"):
        if client.get_experiment_by_name(free) is not None:
            continue
        try:
            experiment = client.get_experiment(client.create_experiment(free, artifact_location=where, tags=tags))
        except MlflowException as error:  # another results directory took the name in between
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            continue
        if free != name:
            sent.notes.append(
                f"MLflow holds an experiment {name!r} that is not of this results directory; it is not touched, and "
                f"this matrix is written to {free!r}"
            )
        return experiment
    raise TrackingError(
        f"MLflow holds experiments {name!r} and {free!r} that are not ours; use another name (name=...)"
    )


def _runs(client: MlflowClient, experiment: str, wanted: str = "") -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], wanted, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
