"""A team's MLflow: a server on Debian's PostgreSQL, fed by two launches at once, and no password where others read."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from synthetic import generate
from test_browser import browser, columns, page
from test_tracking import contents
from tiny import ditbench, matrix_file

from bench.store.folders import Store
from bench.views import dashboard
from bench.views import mlflow as tracking
from bench.views.address import BY_CELL, MODE

__all__ = ["browser"]  # a fixture, made once for the dashboards
PASSWORD = "s3cret-Passw0rd"
MISSED = "brings it up to date"  # what is said where MLflow was not written
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Team:
    """What a team shares: the server's address, that of the database behind it, and the server's log."""

    server: str
    database: str
    log: Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def programs() -> Path:
    """Where PostgreSQL's programs are, as Debian has them or on the path."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not places:
        pytest.skip("no PostgreSQL is installed here: apt-get install postgresql")
    return places[-1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A new PostgreSQL of this machine, which asks for its password; it does not run as root."""
    pytest.importorskip("psycopg")
    folder, port = Path("/tmp") / f"ditbench-pg-{os.getpid()}", free_port()
    folder.mkdir()
    (folder / "pw").write_text(PASSWORD)
    who: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        who["user"] = "postgres"
        for path in (folder, folder / "pw"):
            shutil.chown(path, "postgres")
    make = [
        programs() / "initdb",
        "-D",
        folder / "data",
        "-U",
        "team",
        "-A",
        "scram-sha-256",
        f"--pwfile={folder / 'pw'}",
    ]
    subprocess.run(make, check=True, capture_output=True, **who)
    words = [programs() / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    with open(folder.with_suffix(".log"), "wb") as log:
        child = subprocess.Popen(words, stdout=log, stderr=log, **who)
    uri = f"postgresql+psycopg://team:{PASSWORD}@127.0.0.1:{port}/postgres"
    try:
        _answers(uri, child)
        yield uri
    finally:
        child.terminate()
        child.wait(30)
        shutil.rmtree(folder)
        folder.with_suffix(".log").unlink()


def _answers(uri: str, child: subprocess.Popen[bytes]) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        assert child.poll() is None, "PostgreSQL ended"
        try:
            psycopg.connect(uri.replace("+psycopg", "")).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.fixture(scope="module")
def team(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """MLflow's server on it, as docs/clusters.md starts it: the address of the database is in its environment alone."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    more = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts")}
    more |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "log.txt", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | more,
            start_new_session=True,
        )
    base = f"http://127.0.0.1:{port}"
    try:
        _serves(base, child, folder / "log.txt")
        yield Team(base, database, folder / "log.txt")
    finally:
        os.killpg(child.pid, 15)
        child.wait(30)


def _serves(base: str, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 300
    while True:
        assert child.poll() is None and time.monotonic() < end, log.read_text()
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)


def launches(cwd: Path, **env: str) -> list[subprocess.CompletedProcess[str]]:
    """Two people run a matrix of one name at the same moment, each in a results directory of their own."""
    for name in ("ours", "theirs"):
        (cwd / name).mkdir()
        matrix_file(cwd / name, train__steps=6, train__warmup=1)
    with ThreadPoolExecutor(2) as pool:
        return list(
            pool.map(lambda name: ditbench("run", "tiny.yaml", cwd=cwd / name, code=0, **env), ("ours", "theirs"))
        )


def test_two_launches_feed_one_server_at_once(tmp_path: Path, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both experiments are whole, `sync --rebuild` of each writes the same again, and does not touch the other."""
    done = launches(tmp_path, MLFLOW_TRACKING_URI=team.server)
    assert not [one.stderr for one in done if MISSED in one.stderr], done
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.server)
    stores = [Store(tmp_path / name / "runs") for name in ("ours", "theirs")]
    ids = [tracking.experiment_id(store, "tiny") for store in stores]
    assert len(set(ids)) == 2
    before = [contents(store, "tiny") for store in stores]
    for one in before:
        assert len(one) == 2 and all(status == "FINISHED" for status, *_ in one.values())
    for name in ("ours", "theirs"):
        ditbench("sync", "tiny", "--rebuild", cwd=tmp_path / name, code=0, MLFLOW_TRACKING_URI=team.server)
        assert [contents(store, "tiny") for store in stores] == before
        assert [tracking.experiment_id(store, "tiny") for store in stores] == ids


@pytest.mark.browser
def test_the_dashboard_of_a_team_is_the_page_of_its_server(
    tmp_path: Path, team: Team, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ditbench dashboard` names the experiment on the server; its table opens with what a reader wants first."""
    store = generate(tmp_path, variants=2, seeds=2, steps=400)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.server)
    said: list[str] = []
    dashboard.run(store, "synthetic", host="127.0.0.1", port=free_port(), say=said.append)
    address = said[-1].split()[-1]
    assert address.startswith(f"{team.server}/#/experiments/")
    shown = page(browser, f"{address}/runs?{MODE}&viewStateShareKey={BY_CELL}", tmp_path / "team.png")
    shown.get_by_text("variant-01 seed 1").first.wait_for()
    text = shown.locator(".ag-root").inner_text()
    assert all(name in text for name in ("variant-00 seed 0", "variant-00 seed 1", "variant-01 seed 0", "diverged"))
    assert columns(shown)[2:7] == ["variant", "seed", "status", "KID", "FID"]
    shown.shot()


def test_no_password_is_where_others_read(tmp_path: Path, team: Team) -> None:
    """Straight to the database, whose address holds the password: no log, record, page or cell repeats it."""
    (tmp_path / "ours").mkdir()
    matrix_file(tmp_path / "ours", train__steps=6, train__warmup=1)
    one = ditbench("run", "tiny.yaml", cwd=tmp_path / "ours", code=0, MLFLOW_TRACKING_URI=team.database)
    assert PASSWORD not in one.stdout + one.stderr and MISSED not in one.stderr, one.stderr
    said = ditbench("doctor", "--json", cwd=tmp_path / "ours", MLFLOW_TRACKING_URI=team.database)
    wrong = ditbench("sync", cwd=tmp_path / "ours", code=2, MLFLOW_TRACKING_URI=team.database.replace("team:", "them:"))
    assert PASSWORD not in said.stdout + said.stderr + wrong.stdout + wrong.stderr and "***@" in wrong.stderr
    assert "refuses this user or password" in wrong.stderr and "retried" not in wrong.stderr, "MLflow's ten attempts"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 25 and not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in team.log.read_text(errors="replace")
