"""Brings an experiment up to date with a matrix on disk; twice is the same as once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlflow.entities import Experiment, Run
from mlflow.tracking import MlflowClient

from bench.findings.analysis import VariantSummary, analyse
from bench.store.folders import Store
from bench.store.metrics import beside_fid, numbers
from bench.store.table import Table, collect
from bench.views.address import TrackingError
from bench.views.mlflow.cell_run import CellRun, ended
from bench.views.mlflow.client import connect, explained, locked
from bench.views.mlflow.ownership import own_experiment, own_runs, same_place
from bench.views.mlflow.parent_run import ParentRun
from bench.views.mlflow.shared_views import write_views
from bench.views.mlflow.writer import Synced
from bench.views.short import short_names

FAILURES = 3  # cells one after the other that could not be written: MLflow is gone
PARENT = "parent"  # in place of a cell's id


def sync(
    store: Store, name: str, *, rebuild: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> Synced:
    """Writes to MLflow what a matrix's cells have put on disk since the last time.

    Args:
        store: the results directory.
        name: of the matrix.
        rebuild: delete this results directory's runs and write them again.
        progress: is given the cells written and all.

    Raises:
        TrackingError: if MLflow cannot be reached or used, or does not take a cell; the others are written.
        FileNotFoundError: if no such matrix was planned.
    """
    table, sent = collect(store, name), Synced()
    rows = _rows(table, sent)
    names = first_names(table)
    client = connect(store)
    with explained(store), locked(store, "mlflow-sync.lock"):
        experiment = own_experiment(client, store, name, sent)
        sent.experiment = str(experiment.experiment_id)
        known = _known(client, store, experiment, table, rebuild, sent)
        parent = ParentRun.of(client, experiment.experiment_id, sent, known.get(PARENT), table, store.id, names)
        refused = _write_cells(client, store, table, known, parent, names, progress)
        if rows is not None:
            ends = [ended(cell, store.cell(cell.row.cell)) or 0.0 for cell in table.cells]
            parent.write(table, rows, store.matrix_folder(name) / "report", max(ends, default=0.0) or None)
            write_views(client, experiment, table, rows, parent.id, names)
    if refused:
        raise TrackingError(
            f"MLflow did not take {len(refused)} of {len(table.cells)} cells, such as {refused[0]}; the others are "
            "written"
        )
    return sent


def first_names(table: Table) -> dict[str, str]:
    """Key on disk -> short name of all that is shown first in MLflow: the same for every cell of a matrix."""
    return short_names(
        one.key for one in beside_fid(key for cell in table.done if cell.result for key in numbers(cell.result))
    )


def experiment_id(store: Store, name: str) -> str:
    """The id of a matrix's experiment, for an address."""
    client = connect(store)
    with explained(store):
        return str(own_experiment(client, store, name, Synced()).experiment_id)


def _rows(table: Table, sent: Synced) -> list[VariantSummary] | None:
    """What the cells say together, or None and a note: an unknown baseline keeps no cell from the dashboard."""
    try:
        return analyse(table).rows
    except Exception as error:  # of what the cells say, not of the cells
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        sent.notes.append(f"{cause}; the cells are written, the means over seeds are not")
        return None


def _known(
    client: MlflowClient, store: Store, experiment: Experiment, table: Table, rebuild: bool, sent: Synced
) -> dict[str, Run]:
    """Our runs by cell, the newest of each; those of an earlier plan, and with `rebuild` all, are deleted.

    MLflow can restore them. A copy of the results directory may have cells that this one has not, so after one was
    made only what this one writes again is deleted.
    """
    same = same_place(client, store, experiment)
    every = reversed(list(own_runs(client, store, experiment.experiment_id)))
    known = {run.data.tags.get("ditbench.cell", PARENT): run for run in every}
    here = {cell.row.cell for cell in table.cells} | {PARENT}
    if not same:
        sent.notes.append(
            f"the last sync of this experiment came from another copy of this results directory (it was copied or "
            f"moved): runs of cells that are not here stay; to part two copies, delete {store.root / 'id'} in one"
        )
    earlier = set(known) - here if same else set()
    for id in earlier | (here & set(known) if rebuild else set()):
        client.delete_run(known.pop(id).info.run_id)
    return {id: run for id, run in known.items() if id in here}


def _write_cells(
    client: MlflowClient, store: Store, table: Table, known: dict[str, Run], parent: ParentRun,
    names: Mapping[str, str], progress: Callable[[int, int], None],
) -> list[str]:  # fmt: skip
    """Writes each cell's run; returns what MLflow refused, a line each. Gives up when it refuses one after another."""
    refused, streak = [], 0
    for k, cell in enumerate(table.cells):
        folder = store.cell(cell.row.cell)
        try:
            with explained(store):
                CellRun.of(client, parent.sent, known.get(cell.row.cell), cell, folder, parent, names).write(
                    cell, folder, parent
                )
            streak = 0
        except TrackingError as error:
            refused.append(f"{cell.row.name} seed {cell.row.seed}: {error}")
            streak += 1
            if streak == FAILURES:
                raise
        progress(k + 1, len(table.cells))
    return refused
