"""MLflow's page on this machine: started, awaited, stopped with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from bench.store.folders import Store
from bench.views import mlflow as tracking

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 90.0  # seconds until the server must answer


class DashboardError(ValueError):
    """The dashboard cannot be served; the message says why and the way out."""


@dataclass
class Server:
    """A running MLflow server and the address of the experiment."""

    child: subprocess.Popen[bytes]
    base: str
    url: str

    @property
    def by_cell(self) -> str:
        """The run table, a row a cell."""
        return f"{self.url}?viewStateShareKey={tracking.BY_CELL}"

    @property
    def by_variant(self) -> str:
        """The run table, a row a variant over its seeds."""
        return f"{self.url}?viewStateShareKey={tracking.BY_VARIANT}"

    def stop(self) -> None:
        """Stops the server and the workers it started."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()


def run(
    store: Store,
    name: str,
    *,
    host: str,
    port: int,
    say: Callable[[str], None] = print,
    show: Callable[[str], object] = lambda url: None,
) -> None:
    """Writes to MLflow, serves it until Ctrl-C, and prints the address of the matrix's experiment.

    Args:
        store: the results directory.
        name: of the matrix.
        host: to serve on.
        port: to serve on.
        say: prints a line.
        show: is given the address once the page is up (a browser).

    Raises:
        DashboardError: if the port is taken or the server does not come up.
        tracking.TrackingError: if MLflow cannot be written to.
    """
    say(f"MLflow is up to date: {tracking.sync(store, name)}")
    uri = tracking.tracking_uri(store)
    if uri.startswith("http"):
        experiment = tracking.experiment_id(store, name)
        say(f"the experiment is on the server you named: {uri.rstrip('/')}/#/experiments/{experiment}")
        return
    if host not in LOOPBACK:
        say(
            f"warning: on {host} whoever reaches this machine on port {port} can read every run, image and artifact, "
            "and change or delete them: MLflow asks for no password"
        )
    say("starting MLflow (about 10 seconds) ...")
    server = serve(store, name, host=host, port=port)
    say(f"by cell    {server.by_cell}\nby variant {server.by_variant}\nstop it with Ctrl-C")
    show(server.by_cell)
    try:
        server.child.wait()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.stop()


def serve(store: Store, name: str, *, host: str = "127.0.0.1", port: int = 5000) -> Server:
    """Starts the server and waits until it answers.

    Raises:
        DashboardError: if the port is taken or the server does not come up in time.
    """
    _check_port(host, port)
    experiment = tracking.experiment_id(store, name)
    log = store.root / "mlflow-server.log"
    words = [
        "--backend-store-uri",
        tracking.tracking_uri(store),
        "--artifacts-destination",
        str(store.root / "mlartifacts"),
    ]
    with open(log, "ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words, "--host", host, "--port", str(port), "--workers", "1"],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    base = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    server = Server(child, base, f"{base}/#/experiments/{experiment}/runs")
    try:
        _wait(server, f"its log is {log.name} in the results directory")
    except BaseException:
        server.stop()
        raise
    return server


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DashboardError(
                f"port {port} of {host} cannot be used ({error.strerror}); try --port {port + 1}"
            ) from error


def _wait(server: Server, advice: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.child.poll() is not None:
            raise DashboardError(f"MLflow ended with exit code {server.child.returncode} before it answered; {advice}")
        try:
            urllib.request.urlopen(server.base + "/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise DashboardError(f"MLflow did not answer within {PATIENCE:.0f} s; {advice}")
