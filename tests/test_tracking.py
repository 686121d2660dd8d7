"""MLflow as a view: the same experiment however often and brokenly it is written, or written again from nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from synthetic import manifest_of, write_page

from bench.measure.images import png
from bench.store.files import write_json
from bench.store.folders import Store
from bench.store.journal import Journal
from bench.store.result import Result
from bench.views import dashboard
from bench.views import mlflow as tracking
from bench.views.mlflow import TrackingError


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def root(tmp_path: Path, empty: Path) -> Path:
    """A results directory whose store is there, with nothing in it: to make one takes MLflow seconds."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    return tmp_path


CHANCE = ("mlflow.parentRunId", "mlflow.user", "ditbench.root", "ditbench.stamp")  # tags that two stores differ in


def synthetic(root: Path, *, variants: int = 2, seeds: int = 2, steps: int = 300, name: str = "made") -> Store:
    """A results directory as a run would leave it: all cells done but the last, which diverged."""
    store = Store(root)
    rows: list[dict[str, Any]] = []
    for variant in range(variants):
        for seed in range(seeds):
            last = variant == variants - 1 and seed == seeds - 1
            rows.append(make_cell(store, f"scheme-{variant}", seed, steps, diverged=last))
    manifest = manifest_of(name, rows, seeds=seeds, steps=steps) | {"command": "ditbench run made.yaml", "launch": "1"}
    write_json(store.matrix_folder(name) / "manifest.json", manifest)
    return store


def make_cell(store: Store, scheme: str, seed: int, steps: int, *, diverged: bool) -> dict[str, Any]:
    folder = store.cell(f"{scheme}-{seed:012x}")
    config = {"scheme": scheme, "options": {"gate": "zero"}, "seed": seed, "train": {"steps": steps}}
    write_json(folder.config, config)
    journal = Journal(folder.journal)
    for step in range(10, steps + 1, 10):
        journal.metrics(step, {"loss": 1 / step + seed, "train_images_per_second": 100.0})
    journal.metrics(steps, {"evaluate_seconds": 3.0})
    for step in (100, 200):
        path = folder.samples / f"step-{step}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(np.full((8, 8, 3), step, np.uint8)))
        journal.image(step, "samples", f"samples/{path.name}")
    journal.close()
    folder.log.write_text("what it printed\n")
    folder.write_state("diverged" if diverged else "done", "the loss is nan" if diverged else "", started=1.7e9)
    if not diverged:
        provenance = {
            "commit": "c" * 40,
            "ended": 1.7e9 + 60,
            "hardware": {"cpu": "a cpu"},
            "measured": {"extractor": "x"} if seed else {"samples": 5},
        }
        artifacts = {"checkpoint": {"path": "checkpoints/step.ckpt", "sha256": "0" * 64, "bytes": 1}}
        cost = {"train_images_per_second": 100.0 + seed, "parameters_total": 5.0, "parameters_modulation": 1.0}
        Result(folder.id, {"kid_x_5": 0.1 * seed, "heldout_loss": 0.5}, cost, config, provenance, artifacts).write(
            folder.result_file
        )
    row = {"cell": folder.id, "variant": scheme, "scheme": scheme, "seed": seed, "options": {"gate": "zero"}}
    return row | {"axes": {}, "backbone": "DiT-S/2", "data": "scenes"}


def contents(store: Store, name: str = "made") -> dict[str, Any]:
    """All that a user sees of an experiment, by the runs' names."""
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    experiment = client.get_experiment_by_name(name)
    seen = {}
    for run in client.search_runs([experiment.experiment_id]):
        id = run.info.run_id
        histories = {k: sorted((m.step, m.value) for m in client.get_metric_history(id, k)) for k in run.data.metrics}
        tags = {k: v for k, v in run.data.tags.items() if k not in CHANCE}
        images = [re.split("[+%]", f.path)[2] for f in client.list_artifacts(id, "images") if f.path.endswith(".png")]
        files = sorted(f.path for f in client.list_artifacts(id)) + sorted(images)
        times = (run.info.start_time, run.info.end_time)
        seen[run.info.run_name] = (run.info.status, run.data.params, tags, histories, files, times)
    return seen


def test_what_an_experiment_holds(tmp_path: Path) -> None:
    store = synthetic(tmp_path)
    tracking.sync(store, "made")
    seen = contents(store)
    assert sorted(seen) == ["made", "scheme-0 seed 0", "scheme-0 seed 1", "scheme-1 seed 0", "scheme-1 seed 1"]
    status, params, tags, histories, files, _ = seen["scheme-0 seed 1"]
    assert status == "FINISHED" and params["variant"] == "scheme-0" and params["seed"] == "1" and len(params) <= 20
    assert tags["ditbench.cell"].startswith("scheme-0-") and tags["matrix"] == "made" and tags["status"] == "done"
    assert (seen["scheme-0 seed 0"][2]["extractor"], tags["extractor"]) == ("none", "x"), "no FID, no extractor"
    assert histories["validation loss"] == [(0, 0.5)], "a bar, not a curve"
    steps = [step for step, _ in histories["train/loss"]]
    assert steps == [10, 60, 110, 160, 210, 260, 300], "a point per 50 steps at most, and the last"
    assert "train/evaluate_seconds" not in histories, "beside cost/evaluate_seconds, with another value"
    assert {"config.json", "images", "100", "200"} <= set(files)
    status, _, tags, _, files, _ = seen["scheme-1 seed 1"]
    assert status == "FAILED" and "nan" in tags["mlflow.note.content"] and "log.txt" in files
    status, _, tags, histories, _, _ = seen["made"]
    assert status == "FAILED" and histories["cells_done"][-1][1] == 3
    assert histories["KID/scheme-0"][-1][1] == pytest.approx(0.05)
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    experiment = client.get_experiment_by_name("made").experiment_id
    parent = next(r for r in client.search_runs([experiment]) if r.info.run_name == "made").info.run_id
    assert len(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")) == 4


def test_short_names_training_mode_and_the_capability_figure(root: Path) -> None:
    """No long name beside a short one; the page opens for training; an older writer's runs are made again."""
    from synthetic import generate_tasks

    store = generate_tasks(root, schemes=("adaln-zero",), tasks=("bind",), seeds=1)
    write_page(store, "tasks")
    tracking.sync(store, "tasks")
    _, _, tags, histories, files, _ = contents(store, "tasks")["tasks"]
    assert "capability.png" in files and json.loads(tags["ditbench.names"])["fid_efficientnet_lite0_400"] == "FID"
    _, _, _, histories, _, _ = contents(store, "tasks")["adaln-zero task=bind seed 0"]
    assert {"FID", "KID", "images/s", "validation loss"} <= set(histories)
    assert not [name for name in histories if name.startswith(("fid_", "kid_", "train_images"))]
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    experiment = client.get_experiment_by_name("tasks")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "workflowType=machine_learning" in experiment.tags["mlflow.note.content"]
    grouped = json.loads(experiment.tags[f"mlflow.sharedViewState.{tracking.BY_VARIANT}"])["groupBy"]["groupByKeys"]
    assert [key["groupByData"] for key in grouped] == ["variant", "data.task"], "no mean of different tasks"
    for run in client.search_runs([experiment.experiment_id]):
        client.set_tag(run.info.run_id, "ditbench.writer", "1")
        client.log_metric(run.info.run_id, "fid_of_an_older_writer", 1.0)
    before = tracking.sync(store, "tasks")
    assert before.unchanged == 0
    assert all("fid_of_an_older_writer" not in one[3] for one in contents(store, "tasks").values())


def test_a_second_sync_changes_nothing(root: Path) -> None:
    store = synthetic(root)
    tracking.sync(store, "made")
    before = contents(store)
    sent = tracking.sync(store, "made")
    assert contents(store) == before and (sent.points, sent.images) == (0, 0)


def test_broken_off_anywhere_and_synced_again_is_the_same(
    root: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = synthetic(root)
    tracking.sync(whole, "made")
    broken, calls, real = synthetic(root / "broken"), 0, MlflowClient.log_batch
    shutil.copy(empty, broken.root / "mlflow.db")

    def fails(self: MlflowClient, *words: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise ConnectionError("the network went")
        real(self, *words, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", fails)
    for _ in range(40):
        try:
            tracking.sync(broken, "made")
        except (TrackingError, ConnectionError):
            continue
    monkeypatch.undo()
    tracking.sync(broken, "made")
    assert {k: v[:5] for k, v in contents(broken).items()} == {k: v[:5] for k, v in contents(whole).items()}


def test_growing_journal_and_a_failure_repaired(root: Path) -> None:
    store = synthetic(root, variants=1, seeds=1)
    tracking.sync(store, "made")
    folder = store.cell(store.rows("made")[0].cell)
    journal = Journal(folder.journal, attempt=2)
    for step in range(290, 401, 10):  # a resumed attempt writes some steps again
        journal.metrics(step, {"loss": 5.0})
    journal.close()
    folder.write_state("killed", "stopped")
    tracking.sync(store, "made")
    status, _, _, histories, _, _ = contents(store)["scheme-0 seed 0"]
    assert status == "KILLED" and [step for step, _ in histories["train/loss"]] == [
        10,
        60,
        110,
        160,
        210,
        260,
        310,
        360,
    ]


def test_cells_of_an_earlier_plan_leave_the_table(root: Path) -> None:
    store = synthetic(root)
    tracking.sync(store, "made")
    path = store.matrix_folder("made") / "manifest.json"
    write_json(path, store.manifest("made") | {"cells": store.manifest("made")["cells"][:1]})
    tracking.sync(store, "made")
    seen = contents(store)
    assert sorted(seen) == ["made", "scheme-0 seed 0"]
    assert seen["made"][3]["cells_done"][-1][1] == seen["made"][3]["cells_planned"][-1][1] == 1
    assert seen["made"][3]["KID/scheme-0"][-1][1] == 0 and "KID/scheme-1" not in seen["made"][3]
    assert tracking.sync(store, "made").points == 0, "no point is sent again"


def test_a_result_that_is_gone_leaves_the_means(root: Path) -> None:
    """MLflow shows the value of the highest step, which is the number of cells done: fewer were never shown."""
    store = synthetic(root)
    tracking.sync(store, "made")
    store.cell(store.rows("made")[2].cell).result_file.unlink()  # the only one of its row
    tracking.sync(store, "made")
    shown = contents(store)["made"][3]
    assert shown["cells_done"][-1][1] == 2 and "KID/scheme-1" not in shown
    assert tracking.sync(store, "made").points == 0


def test_rebuild_makes_the_same_from_nothing(root: Path) -> None:
    store = synthetic(root)
    tracking.sync(store, "made")
    before = contents(store)
    tracking.sync(store, "made", rebuild=True)
    assert contents(store) == before
    (root / "mlflow.db").unlink()
    tracking.sync(store, "made")
    assert contents(store) == before


def test_a_cell_that_failed_and_then_finished_says_nothing_of_the_failure(root: Path) -> None:
    """The reason and the description of the failure stayed on the run of a cell that was done."""
    store = synthetic(root)
    tracking.sync(store, "made")
    killed, failed = (store.cell(row.cell) for row in store.rows("made")[2:])
    result = killed.result_file.read_bytes()
    killed.result_file.unlink()
    killed.write_state("killed", "stopped")
    tracking.sync(store, "made")
    assert contents(store)["scheme-1 seed 0"][2]["reason"] == "stopped"
    killed.result_file.write_bytes(result)
    failed.write_state("killed", "stopped")
    tracking.sync(store, "made")
    before = contents(store)
    tags = before["scheme-1 seed 1"][2]
    assert "reason" not in before["scheme-1 seed 0"][2] and "mlflow.note.content" not in tags
    before["scheme-1 seed 1"][4].remove("log.txt")  # of the attempt that failed
    tracking.sync(store, "made", rebuild=True)
    after = contents(store)
    assert before.pop("made")[0] == after.pop("made")[0] == "FAILED" and after == before


def test_a_cell_lasts_as_long_as_it_did_however_late_it_is_written(root: Path) -> None:
    """After a rebuild every cell had ended at that moment, and a cell of ten seconds lasted a day."""
    store = synthetic(root)
    store.cell(store.rows("made")[0].cell).write_state("done", ended=1.7e9 + 60)
    killed = store.cell(store.rows("made")[3].cell)
    killed.write_state("running")
    tracking.sync(store, "made")
    last = [json.loads(line)["time"] for line in killed.journal.read_text().splitlines()][-1]
    times = {name: one[5] for name, one in contents(store).items()}
    assert times["scheme-0 seed 0"] == (1_700_000_000_000, 1_700_000_060_000)
    assert times["scheme-1 seed 1"][1] == int(last * 1000), "of a killed one the last line of its journal"
    assert times["made"][1] == 1_700_000_060_000


@pytest.mark.thorough
def test_two_processes_on_a_new_store(tmp_path: Path) -> None:
    store = synthetic(tmp_path)
    code = (
        "import os, pathlib, sys\nfrom bench.store.folders import Store\nfrom bench.views import mlflow as tracking\n"
    )
    code += "from bench.views.mlflow import client\nclient.PATIENCE = 100\n"
    code += "second = os.fork()\n"  # once the imports are done: they are seconds, and both start at one moment
    code += "tracking.sync(Store(pathlib.Path(sys.argv[1])), 'made')\n"
    code += "sys.exit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) if second else 0)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120).returncode == 0
    assert len(contents(store)) == 5


def test_a_dead_server_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(TrackingError, match="does not answer"):
        tracking.sync(synthetic(tmp_path), "made")
    assert sum(slept) < 60, "MLflow alone would try for four minutes"


def test_a_deleted_experiment_says_the_way_back(root: Path) -> None:
    store = synthetic(root)
    tracking.sync(store, "made")
    client = MlflowClient(tracking_uri=tracking.tracking_uri(store))
    client.delete_experiment(client.get_experiment_by_name("made").experiment_id)
    for rebuild in (False, True):
        with pytest.raises(TrackingError, match="mlflow experiments restore"):
            tracking.sync(store, "made", rebuild=rebuild)
    client.restore_experiment(client.get_experiment_by_name("made").experiment_id)
    tracking.sync(store, "made", rebuild=True)
    assert len(contents(store)) == 5


@pytest.mark.thorough
def test_the_page_is_served_with_its_images(root: Path) -> None:
    store = synthetic(root)
    tracking.sync(store, "made")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(dashboard.DashboardError, match=f"try --port {port + 1}"):
            dashboard.serve(store, "made", port=port)
    server = dashboard.serve(store, "made", port=port)
    try:
        assert urllib.request.urlopen(server.base).read().lower().startswith(b"<!doctype html")
        client = MlflowClient(tracking_uri=server.base)
        experiment = client.get_experiment_by_name("made")
        assert server.url.endswith(f"/experiments/{experiment.experiment_id}/runs")
        run = next(r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "scheme-0 seed 0")
        image = next(f.path for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith(".png"))
        query = urllib.parse.urlencode({"path": image, "run_uuid": run.info.run_id})
        assert urllib.request.urlopen(f"{server.base}/get-artifact?{query}").read()[:4] == b"\x89PNG"
    finally:
        server.stop()
    assert server.child.poll() is not None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.base + "/health", timeout=2)


def test_synthetic_results_are_results(tmp_path: Path) -> None:
    store = synthetic(tmp_path)
    assert [store.cell(row.cell).status()[0] for row in store.rows("made")] == ["done", "done", "done", "diverged"]
    assert json.loads(store.cell(store.rows("made")[0].cell).config.read_text())["seed"] == 0


def test_the_command_line_says_it_in_a_sentence(tmp_path: Path) -> None:
    from tiny import ditbench

    synthetic(tmp_path / "runs")
    done = ditbench("sync", "made", cwd=tmp_path, code=2, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "does not answer" in done.stderr and "Traceback" not in done.stderr
