"""MLflow's server: it ends with the dashboard however that ends, and no other server is taken for it."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from kit import MAIN, Launch, first
from synthetic import generate
from test_tracking import synthetic

from bench.store.folders import Store
from bench.views import dashboard
from bench.views.beside import Answer
from bench.views.dashboard import DashboardError

ENDINGS = {
    "SIGTERM": [signal.SIGTERM],
    "SIGHUP": [signal.SIGHUP],
    "SIGKILL": [signal.SIGKILL],
    "several at once": [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a results directory whose matrix MLflow holds already."""
    folder = tmp_path_factory.mktemp("served")
    synthetic(folder / "runs", variants=1, seeds=1)
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("ending", first(ENDINGS, "SIGHUP", "SIGKILL"))
def test_the_server_ends_with_the_dashboard(folder: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and its workers outlived the dashboard after SIGTERM, SIGHUP and SIGKILL, and held the port."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = free_port()
    command = [sys.executable, "-c", MAIN, "dashboard", "made", "--port", str(port)]
    launch = Launch(cwd=folder, command=command)
    launch.wait_for(lambda: "stop it with Ctrl-C" in launch.text, 240)
    below = launch.below()
    assert len(below) >= 2, "the server's guard and the server"
    for number in ENDINGS[ending]:
        if launch.child.poll() is None:
            launch.disturb(number)
    launch.ended()
    assert not psutil.wait_procs(below, timeout=60)[1]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.faults
def test_the_server_ends_when_its_guard_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process between dashboard and server is killed, as by a machine without memory: the server ends too."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    launch = Launch("dashboard", "made", "--port", str(free_port()), cwd=folder)
    launch.wait_for(lambda: "stop it with Ctrl-C" in launch.text, 240)
    below = launch.below()
    psutil.Process(launch.child.pid).children()[0].send_signal(signal.SIGKILL)
    launch.ended()
    assert not psutil.wait_procs(below, timeout=60)[1]


class _Other(BaseHTTPRequestHandler):
    """Another MLflow: it answers, but holds no experiment of ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"experiment": {"tags": [{"key": "ditbench.root", "value": "another"}]}}')

    def log_message(self, *words: object) -> None:
        pass


def test_another_server_at_the_port_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another MLflow took the port in between: our page was announced, and showed another's runs."""
    monkeypatch.setattr(dashboard, "_check_port", lambda host, port: None)
    monkeypatch.setattr(dashboard, "command", lambda *words: [sys.executable, "-c", "import time; time.sleep(1.5)"])
    server = HTTPServer(("127.0.0.1", 0), _Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(DashboardError, match="before it answered"):
        dashboard.serve(Store(tmp_path), "made", port=server.server_port, experiment="1")
    server.shutdown()


def test_a_slow_server_is_waited_for_and_this_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the dashboard gave up after 90 s; the server, alive, answered 5 s later."""
    said: list[str] = []
    monkeypatch.setattr(dashboard, "REMIND", 0.5)
    monkeypatch.setattr(dashboard, "command", lambda *words: [sys.executable, "-c", "import time; time.sleep(2)"])
    with pytest.raises(DashboardError, match="exit code 0"):
        dashboard.serve(Store(tmp_path), "made", port=free_port(), experiment="1", say=said.append)
    assert len(said) >= 2 and "give up with Ctrl-C" in said[0]


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [("127.0.0.1", 0, "try --port"), ("no.such.host.invalid", 5000, "no address"), ("203.0.113.9", 5000, "cannot be")],
)
def test_a_place_that_cannot_be_served_at_is_a_sentence(tmp_path: Path, host: str, port: int, sentence: str) -> None:
    """A port that is taken, a host that is not of this machine."""
    with socket.socket() as taken:
        if not port:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
        with pytest.raises(DashboardError, match=sentence):
            dashboard.serve(Store(tmp_path), "made", host=host, port=port, experiment="1")


def _raises(url: str) -> bool:
    raise OSError("no browser")


@pytest.mark.parametrize("opens", [lambda url: False, _raises], ids=["refuses", "raises"])
def test_no_browser_is_a_sentence(
    opens: Callable[[str], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--open` on a machine without a desktop ended the dashboard it should show, or was passed over."""
    from bench.cli import findings
    from bench.cli.common import open_in_browser

    monkeypatch.setattr("webbrowser.open", opens)
    open_in_browser("http://127.0.0.1:5000")
    assert "open the address yourself" in capsys.readouterr().err
    generate(tmp_path, variants=1, seeds=1, steps=100, name="made")
    findings.report("made", tmp_path, open_page=True)
    assert "open the address yourself" in capsys.readouterr().err


def test_a_server_that_was_named_is_opened_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dashboard --open` printed the address of the server in MLFLOW_TRACKING_URI, and opened nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@server:5000")
    monkeypatch.setattr(dashboard, "_asked", lambda *words: Answer("1 runs", experiment="7"))
    shown: list[str] = []
    dashboard.run(Store(tmp_path), "made", host="", port=0, say=lambda text: None, show=shown.append)
    assert len(shown) == 1 and shown[0].endswith("server:5000/#/experiments/7") and "secret" not in shown[0]
