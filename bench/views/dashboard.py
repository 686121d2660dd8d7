"""MLflow's page on this machine: started, awaited, stopped with everything it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bench.run.boot import command, environment
from bench.run.processes import PARENT
from bench.store.folders import Store
from bench.views.address import BY_CELL, BY_VARIANT, MODE, is_server, redacted, tracking_uri
from bench.views.beside import Answer, Follower, following, wait

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 900.0  # seconds that a server which lives may take until it answers
REMIND = 15.0  # seconds between two lines about it


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
        return f"{self.url}?{MODE}&viewStateShareKey={BY_CELL}"

    @property
    def by_variant(self) -> str:
        """The run table, a row a variant over its seeds."""
        return f"{self.url}?{MODE}&viewStateShareKey={BY_VARIANT}"

    def stop(self) -> None:
        """Stops the server and everything it started."""
        self.child.terminate()
        try:
            self.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        assert self.child.stdin is not None
        self.child.stdin.close()


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
        TrackingError: if MLflow cannot be written to.
    """
    with following(store) as follower:
        answer = _asked(follower, "sync", name, say)
    say(f"MLflow is up to date: {answer.text}")
    for note in answer.notes:
        say(f"note: {note}")
    uri = tracking_uri(store)
    if is_server(uri):
        page = f"{redacted(uri).rstrip('/')}/#/experiments/{answer.experiment}"
        say(f"the experiment is on the server you named: {page}")
        show(page)
        return
    if host not in LOOPBACK:
        say(
            f"warning: on {host} whoever reaches this machine on port {port} can read every run, image and artifact, "
            "and change or delete them: MLflow asks for no password"
        )
    say("starting MLflow (about 10 seconds) ...")
    server = serve(store, name, host=host, port=port, experiment=answer.experiment, say=say)
    say(f"by cell    {server.by_cell}\nby variant {server.by_variant}\nstop it with Ctrl-C")
    show(server.by_cell)
    try:
        server.child.wait()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.stop()


def _asked(follower: Follower, do: str, name: str, say: Callable[[str], None]) -> Answer:
    follower.ask(do, name=name)
    answer = wait(follower, say)
    assert answer is not None  # there is no limit but that of silence
    return answer


def serve(
    store: Store, name: str, *, host: str = "127.0.0.1", port: int = 5000, experiment: str = "",
    say: Callable[[str], None] = print,
) -> Server:  # fmt: skip
    """Starts the server and waits until it answers.

    Args:
        store: the results directory.
        name: of the matrix.
        host: to serve on.
        port: to serve on.
        experiment: its id, found out if left out.
        say: prints a line.

    Raises:
        DashboardError: if the port is taken, or the server ends or never answers.
    """
    _check_port(host, port)
    if not experiment:
        with following(store) as follower:
            experiment = _asked(follower, "experiment", name, say).experiment
    log = store.root / "mlflow-server.log"
    child = _start(store, host, port)
    base = f"http://{_reached(host)}:{port}"
    server = Server(child, base, f"{base}/#/experiments/{experiment}/runs")
    try:
        _wait(server, experiment, store.id, say, f"its log is {log.name} in the results directory")
    except BaseException:
        server.stop()
        raise
    return server


def _start(store: Store, host: str, port: int) -> subprocess.Popen[bytes]:
    """The server below a process that ends it when this one is gone; an address with a password is no argument."""
    words = ["--artifacts-destination", str(store.root / "mlartifacts")]
    variables = {
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(store),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # starts processes that nothing here needs
        PARENT: str(os.getpid()),
    }
    with open(store.root / "mlflow-server.log", "ab") as out:
        return subprocess.Popen(
            command("bench.views.served", "server", *words, "--host", host, "--port", str(port), "--workers", "1"),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=environment(**variables),
        )


def _reached(host: str) -> str:
    """The host as it is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _check_port(host: str, port: int) -> None:
    error = _refused(host, port)
    if error is None:
        return
    if isinstance(error, socket.gaierror):
        raise DashboardError(f"{host} is no address of this machine ({error.strerror}); leave --host out") from error
    free = next((other for other in range(max(port + 1, 1024), 65536) if _refused(host, other) is None), None)
    way_out = f"try --port {free}" if free else "leave --host out"
    raise DashboardError(f"port {port} of {host} cannot be used ({error.strerror}); {way_out}") from error


def _refused(host: str, port: int) -> OSError | None:
    """Why nothing can be served there, or None."""
    try:
        family, kind, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error
    return None


def _wait(server: Server, experiment: str, root: str, say: Callable[[str], None], advice: str) -> None:
    """Waits while the server lives, and says so; another that answers at the port is not taken for it."""
    begin = reminded = time.monotonic()
    while time.monotonic() - begin < PATIENCE:
        if server.child.poll() is not None:
            raise DashboardError(f"MLflow ended with exit code {server.child.returncode} before it answered; {advice}")
        try:
            if root in _tags(server.base, experiment):
                return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # it answers, but not to this name of the machine, or not without a login
                return
        except (OSError, ValueError, LookupError, TypeError):
            pass
        if time.monotonic() - reminded >= REMIND:
            reminded = time.monotonic()
            say(f"MLflow is starting: {reminded - begin:.0f} s; {advice}; give up with Ctrl-C")
        time.sleep(0.3)
    raise DashboardError(f"MLflow did not answer within {PATIENCE:.0f} s; {advice}")


def _tags(base: str, experiment: str) -> set[str]:
    """The values of an experiment's tags, as a server says them; never through a proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{base}/api/2.0/mlflow/experiments/get?experiment_id={experiment}", timeout=5) as response:
        content: dict[str, Any] = json.load(response)
    return {tag["value"] for tag in content["experiment"]["tags"]}
