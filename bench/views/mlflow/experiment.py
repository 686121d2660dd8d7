"""Brings an experiment up to date with a matrix on disk; twice is the same as once."""

from __future__ import annotations

from filelock import FileLock
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from bench.findings.analysis import analyse
from bench.store.folders import Store
from bench.store.table import collect
from bench.views.mlflow.cell_run import CellRun
from bench.views.mlflow.client import TrackingError, connect, explained, runs, tracking_uri
from bench.views.mlflow.parent_run import ParentRun
from bench.views.mlflow.shared_views import write_views
from bench.views.mlflow.writer import Synced


def sync(store: Store, name: str, *, rebuild: bool = False) -> Synced:
    """Writes to MLflow what a matrix's cells have put on disk since the last time.

    Args:
        store: the results directory.
        name: of the matrix.
        rebuild: delete what the experiment holds and write it again.

    Raises:
        TrackingError: if MLflow cannot be reached or used.
        FileNotFoundError: if no such matrix was planned.
    """
    analysis = analyse(collect(store, name))
    table = analysis.table
    client = connect(store)
    with explained(tracking_uri(store)), FileLock(store.root / "mlflow-sync.lock"):
        experiment = _experiment(client, store, name)
        if rebuild:
            for run in runs(client, experiment.experiment_id):
                client.delete_run(run.info.run_id)
        every = reversed(list(runs(client, experiment.experiment_id)))
        known = {run.data.tags.get("ditbench.cell", "parent"): run for run in every}
        sent = Synced()
        parent = ParentRun.of(client, experiment.experiment_id, sent, known.get("parent"), table)
        for cell in table.cells:
            writer = CellRun.of(client, sent, known.get(cell.row.cell), cell, store.cell(cell.row.cell), parent)
            writer.write(cell, store.cell(cell.row.cell), parent)
        for id in set(known) - {cell.row.cell for cell in table.cells} - {"parent"}:
            client.delete_run(known[id].info.run_id)  # of an earlier plan under this name; MLflow can restore it
        parent.write(analysis, store.matrix_folder(name) / "report")
        write_views(client, experiment, analysis, parent.id)
    return sent


def experiment_id(store: Store, name: str) -> str:
    """The id of a matrix's experiment, for an address."""
    client = connect(store)
    with explained(tracking_uri(store)):
        return str(_experiment(client, store, name).experiment_id)


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
