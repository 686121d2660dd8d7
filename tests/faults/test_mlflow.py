"""MLflow as a view: what is not ours is not touched, and whatever it does, the work continues."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from test_tracking import synthetic

from bench.store.files import write_json
from bench.store.folders import Store
from bench.views import dashboard
from bench.views import mlflow as tracking


def made(root: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None) -> Store:
    """A results directory of four cells, and MLflow at `uri`, or inside it."""
    if uri is None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return synthetic(root)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> tuple[Store, Store]:
    """Two results directories with a matrix of one name, and one store that both write to."""
    shutil.copy(empty, tmp_path / "shared.db")
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    return made(tmp_path / "ours", monkeypatch, uri), made(tmp_path / "theirs", monkeypatch, uri)


def client(store: Store) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.tracking_uri(store))


# --- whose runs these are -------------------------------------------------------------------------------------------


def test_a_results_directory_has_one_id_however_many_ask_first(tmp_path: Path) -> None:
    """Two syncs of a new directory start at once. Both must tag what they write with the same id."""
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: Store(tmp_path / "runs").id, range(32)))
    assert len(ids) == 1 and Store(tmp_path / "other").id not in ids


@pytest.mark.parametrize("content", ["", "x", "<html>", "a" * 31])
def test_a_damaged_id_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    """The file of the id was cut. Another id in silence would leave the old runs without an owner."""
    (tmp_path / "id").write_text(content)
    with pytest.raises(ValueError, match="ditbench.root"):
        _ = Store(tmp_path).id


@pytest.mark.faults
def test_two_people_with_one_store_and_one_name_keep_both(shared: tuple[Store, Store]) -> None:
    """Two users, one tracking store, a matrix of the same name: each sync deleted the other's runs."""
    ours, theirs = shared
    first = tracking.sync(ours, "made")
    second = tracking.sync(theirs, "made")
    tracking.sync(ours, "made", rebuild=True)
    tracking.sync(theirs, "made", rebuild=True)
    assert not first.notes and "not of this results directory" in second.notes[0]
    names = {store: client(store).get_experiment(tracking.experiment_id(store, "made")).name for store in shared}
    assert names == {ours: "made", theirs: f"made-{theirs.id[:8]}"}
    for store in shared:
        runs = client(store).search_runs([tracking.experiment_id(store, "made")])
        assert len(runs) == 5 and {run.data.tags["ditbench.root"] for run in runs} == {store.id}


def test_what_a_user_put_into_our_experiment_stays(shared: tuple[Store, Store]) -> None:
    """A run of the user's own in the matrix's experiment, below our parent: sync deleted it as `of an earlier plan`."""
    store, _ = shared
    tracking.sync(store, "made")
    experiment = tracking.experiment_id(store, "made")
    parent = next(run for run in client(store).search_runs([experiment]) if run.info.run_name == "made")
    tags = {"mlflow.parentRunId": parent.info.run_id, "ditbench.cell": "mine", "matrix": "made", "kind": "cell"}
    mine = client(store).create_run(experiment, run_name="by hand", tags=tags)
    bare = client(store).create_run(experiment)
    tracking.sync(store, "made", rebuild=True)
    for run in (mine, bare):
        assert client(store).get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_an_experiment_of_another_owner_is_left_as_it_is(shared: tuple[Store, Store]) -> None:
    """Others made an experiment of that name. Its newest run became the matrix's parent, --rebuild deleted all."""
    store, _ = shared
    theirs = client(store).create_experiment("made")
    run = client(store).create_run(theirs, run_name="months of work")
    sent = tracking.sync(store, "made", rebuild=True)
    assert "it is not touched" in sent.notes[0]
    assert not tracking.sync(store, "made").notes, "said once"
    assert client(store).get_run(run.info.run_id).info.lifecycle_stage == "active"
    assert not [key for key in client(store).get_experiment(theirs).tags if "ditbench" in key or "shared" in key]


@pytest.mark.faults
def test_history_that_an_older_ditbench_wrote_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in the directory's own store that were written before there were ids: they are ours, a user's are not."""
    store = made(tmp_path / "runs", monkeypatch, uri=None)
    tracking.sync(store, "made")
    experiment = tracking.experiment_id(store, "made")
    by_hand = client(store).create_run(experiment, run_name="by hand")
    before = {run.info.run_id for run in client(store).search_runs([experiment])}
    with closing(sqlite3.connect(tmp_path / "runs" / "mlflow.db")) as file:
        file.execute("DELETE FROM tags WHERE key = 'ditbench.root'")
        file.execute("DELETE FROM experiment_tags WHERE key LIKE 'ditbench.%'")
        file.commit()
    sent = tracking.sync(store, "made")
    after = client(store).search_runs([experiment])
    assert {run.info.run_id for run in after} == before and not sent.notes
    tagged = {run.info.run_id for run in after if "ditbench.root" in run.data.tags}
    assert tagged == before - {by_hand.info.run_id}


@pytest.mark.faults
def test_a_copied_directory_writes_into_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cp -r runs copy`: the copy's store names the old folder for its files, and sync wrote images into that."""
    store = made(tmp_path / "runs", monkeypatch, uri=None)
    tracking.sync(store, "made")
    shutil.copytree(store.root, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    before = sorted(path for path in store.root.rglob("*") if path.is_file())
    sent = tracking.sync(copy, "made")
    assert any("is not of this results directory" in note for note in sent.notes)
    assert sorted(path for path in store.root.rglob("*") if path.is_file()) == before
    assert list((copy.root / "mlartifacts").glob("made/*/artifacts/config.json"))


@pytest.mark.faults
def copied_with_one_cell(store: Store, name: str) -> Store:
    """A copy of a results directory, of the same id, whose matrix has lost all cells but one."""
    copy = Store(store.root.parent / "copy of it")
    shutil.copytree(store.root, copy.root)
    manifest = copy.manifest(name)
    write_json(copy.matrix_folder(name) / "manifest.json", manifest | {"cells": manifest["cells"][:1]})
    return copy


def test_copies_that_share_a_store_delete_nothing_of_each_other(shared: tuple[Store, Store]) -> None:
    """A copy with other cells left has the same id. It writes an experiment of its own, not into the first's files."""
    store, _ = shared
    tracking.sync(store, "made")
    copy = copied_with_one_cell(store, "made")
    sent = tracking.sync(copy, "made", rebuild=True)
    assert "it is not touched" in sent.notes[0]
    assert len(client(store).search_runs([tracking.experiment_id(store, "made")])) == 5
    assert len(client(copy).search_runs([tracking.experiment_id(copy, "made")])) == 2


def test_a_row_that_gets_another_name_is_written_again(shared: tuple[Store, Store]) -> None:
    """--fresh gave a variant another name: MLflow refuses to change a parameter, and the whole sync ended."""
    store, _ = shared
    tracking.sync(store, "made")
    cells = store.manifest("made")["cells"]
    cells[0]["variant"] = "renamed"
    write_json(store.matrix_folder("made") / "manifest.json", store.manifest("made") | {"cells": cells})
    tracking.sync(store, "made")
    runs = client(store).search_runs([tracking.experiment_id(store, "made")])
    assert sorted(run.data.params.get("variant", "") for run in runs) == sorted(
        ["", "renamed", "scheme-0", "scheme-1", "scheme-1"]
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server, as a group shares one."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as free:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        others = synthetic(tmp_path_factory.mktemp("server") / "runs", variants=1, seeds=1, name="theirs")
        tracking.sync(others, "theirs")
        served = dashboard.serve(others, "theirs", port=port)
    yield served.base
    served.stop()


@pytest.mark.faults
def test_two_users_of_one_server_at_once_keep_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Two users sync a matrix of one name to one server at the same moment, again and again, and rebuild it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    stores = [synthetic(tmp_path / name) for name in ("ours", "theirs")]
    with ThreadPoolExecutor(2) as pool:
        for rebuild in (False, True, False):
            list(pool.map(lambda store, rebuild=rebuild: tracking.sync(store, "made", rebuild=rebuild), stores))
    ids = [tracking.experiment_id(store, "made") for store in stores]
    names = {client(stores[0]).get_experiment(id).name for id in ids}
    assert len(set(ids)) == 2 and "made" in names
    for store, id in zip(stores, ids, strict=True):
        runs = client(store).search_runs([id])
        assert len(runs) == 5 and {run.data.tags["ditbench.root"] for run in runs} == {store.id}


@pytest.mark.faults
def test_copies_on_one_server_delete_nothing_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """A copy with fewer cells has the same id: it says so, and runs of cells that it lacks stay, with --rebuild too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    store = synthetic(tmp_path / "runs", name="copied")
    tracking.sync(store, "copied")
    copy = copied_with_one_cell(store, "copied")
    sent = tracking.sync(copy, "copied", rebuild=True)
    assert "another copy" in sent.notes[0]
    assert len(client(store).search_runs([tracking.experiment_id(store, "copied")])) == 5
