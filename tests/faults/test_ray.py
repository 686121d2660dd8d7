"""Cells on a Ray cluster: real nodes on this machine, one of which is killed, and the same numbers as without it.

What trains runs in real processes below real guards. The nodes are started as `ray start` starts them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from kit import Launch, WarmLaunch, assert_same
from tiny import matrix_file, planned, run_all

from bench.config.schema import ConfigError
from bench.run.needs import Needs
from bench.run.ray_cluster import Cluster, _check_address
from bench.run.seat import Token, shared
from bench.store.folders import Store

pytest.importorskip("ray")
SMALL = {"object_store_memory": 80_000_000}  # of each node
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
FEW: dict[str, Any] = {"train__steps": 600, "train__checkpoint_every": 10, "sample__grid_every": 600}


# --- without a cluster ----------------------------------------------------------------------------------------------


def test_a_cell_fits_a_node_as_often_as_its_scarcest_resource() -> None:
    needs = Needs(cores=2, gpus=1, memory=4_000_000_000)
    assert needs.fit({"CPU": 16.0, "GPU": 4.0, "memory": 9e9}) == 2
    assert needs.fit({"CPU": 16.0, "memory": 9e9}) == 0 and Needs(2).fit({"CPU": 5.0}) == 2
    assert needs.text == "2 cores, 1 GPU, 4 GB"


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "head:x"])
def test_an_address_that_is_none_is_a_sentence(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT of a Ray cluster"):
        _check_address(address)


def test_an_address_that_does_not_answer_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"no Ray cluster answers at 127.0.0.1:{port} .*ray start --head"):
        _check_address(f"127.0.0.1:{port}")


def test_a_cluster_that_does_not_answer_has_the_room_of_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had none, and of sixteen places one took cells until it answered again."""
    monkeypatch.setattr(Cluster, "__init__", lambda self: None)
    answers: list[Any] = [[{"Resources": {"CPU": 16.0}}], None]
    monkeypatch.setattr(Cluster, "nodes", lambda self: answers.pop(0))
    cluster = Cluster()  # type: ignore[call-arg]
    assert [cluster.room(Needs(1)) for _ in range(2)] == [16, 16]


def test_storage_that_is_not_shared_is_seen_by_a_token(tmp_path: Path) -> None:
    """Another folder, another text, a lock that is not met, and an answer that does not come back."""
    with Token(tmp_path / "root") as token:
        host, found = shared(str(tmp_path / "root"), token.name)
        assert (host, found) == (socket.gethostname(), "") and token.missed(host, found) == ""
        assert "is not seen here" in token.missed("elsewhere", "")
        assert "is not the launch's there (No such file" in shared(str(tmp_path / "other"), token.name)[1]
        (tmp_path / "root" / token.name).write_text("another")
        assert "has another text" in shared(str(tmp_path / "root"), token.name)[1]
        (tmp_path / "root" / token.name).write_text(token.name)
        token._lock.release()
        assert "a lock that is held here is free there" in shared(str(tmp_path / "root"), token.name)[1]
        token._lock.acquire()
    assert list((tmp_path / "root").iterdir()) == []


# --- a real cluster -------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


def announce_ports() -> None:
    """Writes what a node's agents would: which ports are theirs. Ray gives up after 15 s, too few when busy."""
    from ray import _raylet
    from ray._private.node import Node

    start = Node.start_ray_processes

    def announced(self: Any) -> None:
        for name in PORTS:
            kind = getattr(_raylet, f"{name.upper()}_NAME")
            _raylet.persist_port(self._session_dir, self._node_id, kind, getattr(self._ray_params, name))
        start(self)

    Node.start_ray_processes = announced


class Nodes:
    """A cluster of nodes on this machine; the head has no room for cells."""

    def __init__(self) -> None:
        os.environ |= {
            "RAY_worker_niceness": "0",
            "RAY_worker_register_timeout_seconds": "600",
            "RAY_agent_register_timeout_ms": "600000",
        }
        announce_ports()
        from ray.cluster_utils import Cluster as Made

        self.made = Made()
        self._started(num_cpus=0, include_dashboard=False)
        self.address: str = self.made.address
        self.hidden: list[subprocess.Popen[bytes]] = []

    def add(self) -> Any:
        """A node with one core."""
        return self._started(num_cpus=1)

    def _started(self, **how: Any) -> Any:
        return self.made.add_node(**how, **SMALL, **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))

    def add_without(self, folder: Path, log: Path) -> None:
        """A node in a name space of its own, where a folder is another one."""
        hide = f'mount -t tmpfs none {folder} && exec "$@"'
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--address={self.address}"]
        words = ["unshare", "-m", "sh", "-c", hide, "sh", *ray, "--num-cpus=1", "--object-store-memory=80000000"]
        with open(log, "wb") as file:
            self.hidden.append(subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True))

    def processes(self, node: Any) -> list[psutil.Process]:
        """The raylet of a node and all below it: agents, workers, guards, cells."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]

    def kill(self, node: Any) -> None:
        """The machine is gone: everything on it ends at once, cells too."""
        end_all(self.processes(node))

    def drain(self, node: Any) -> None:
        """The node's machine was given notice that it is taken back."""
        words = [str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={self.address}"]
        words += [f"--node-id={node.node_id}", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        subprocess.run([*words, "--deadline-remaining-seconds=600"], check=True, capture_output=True)

    def close(self) -> None:
        """Ends what a test left."""
        for hidden in self.hidden:
            end_all([psutil.Process(hidden.pid), *psutil.Process(hidden.pid).children(recursive=True)])
        self.hidden = []
        for node in list(self.made.worker_nodes):
            self.made.remove_node(node, allow_graceful=False)


def end_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.close()
    made.made.shutdown()


@pytest.fixture
def nodes(head: Nodes) -> Iterator[Nodes]:
    yield head
    head.close()


def launch(cwd: Path, nodes: Nodes, *words: str) -> Launch:
    return WarmLaunch(
        "run", "tiny.yaml", "--no-track", "run.executor=ray", f"run.address={nodes.address}", *words, cwd=cwd
    )


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_ctrl_c_a_killed_driver_and_a_killed_node_cost_no_number(tmp_path: Path, nodes: Nodes) -> None:
    """One cell, stopped by Ctrl-C, left by its driver, on a node that is taken back, cut off with its node.

    As if nothing had been.
    """
    (tmp_path / "calm").mkdir()
    made, calm = planned(tmp_path / "calm", **FEW)
    run_all(made, calm)
    (id,) = [cell.row.cell for cell in made.cells]
    matrix_file(tmp_path, **FEW)
    both, cell = [nodes.add(), nodes.add()], Store(tmp_path / "runs").cell(id)

    def step() -> int:
        return max((int(path.stem[5:]) for path in cell.checkpoints.glob("*.ckpt")), default=0)

    first = launch(tmp_path, nodes)
    first.wait_for(lambda: step() > 0 and cell.is_locked(), 900)
    first.disturb(signal.SIGINT)
    text = first.ended(1, 120)
    assert "stopped; the same command resumes from here" in text
    status, why = cell.status()
    assert not cell.is_locked() and status == "killed" and why.startswith("stopped by SIGTERM after step "), text
    assert cell.result() is None and [one for node in both for one in guards(nodes, node)] == []

    reached = step()
    second = launch(tmp_path, nodes)
    second.wait_for(lambda: step() > reached and cell.is_locked(), 900)
    second.disturb(signal.SIGKILL)
    second.child.wait()
    end = time.monotonic() + 120
    while cell.is_locked() and time.monotonic() < end:  # its guard has it write a checkpoint
        time.sleep(0.1)
    reached = step()

    third = launch(tmp_path, nodes)
    third.wait_for(lambda: step() > reached and cell.is_locked() and cell.state().get("attempt") == 3, 900)
    reached, (node,) = step(), [node for node in both if guards(nodes, node)]
    nodes.drain(node)
    third.wait_for(lambda: step() > reached and cell.is_locked() and cell.state().get("attempt") == 4, 900)
    (other,) = [node for node in both if guards(nodes, node)]
    assert other is not node
    nodes.add()
    nodes.kill(other)
    assert cell.result() is None, "in mid-cell"
    text = third.ended(0, 900)
    assert "it was stopped where it ran; it resumes elsewhere" in text
    assert "was lost; it resumes elsewhere" in text and text.count("resumes (") == 3, text
    assert cell.status()[0] == "done" and cell.state()["attempt"] == 5
    assert cell.journal.read_text().count('"resumed"') == 4
    assert_same(cell.result(), calm.cell(id).result())


def guards(nodes: Nodes, node: Any) -> list[psutil.Process]:
    """The guards that run on a node."""
    found = []
    for process in nodes.processes(node):
        with suppress(psutil.Error):
            if "bench.run.guard" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_node_without_the_results_directory_is_named(tmp_path: Path, nodes: Nodes) -> None:
    """Refused before anything is planned."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount: no node without shared storage can be made")
    (tmp_path / "runs").mkdir()
    cluster = Cluster(nodes.address)
    try:
        _until(cluster, 1)  # those of the test before are lost soon
        nodes.add()
        nodes.add_without(tmp_path / "runs", tmp_path / "node.log")
        _until(cluster, 3)
        with pytest.raises(ConfigError, match=r"must share the results directory .*is not the launch's there .No such"):
            cluster.check_storage(tmp_path / "runs")
        with pytest.raises(ConfigError, match=r"a cell needs 1 core, 1 GPU, and no node of the Ray cluster has that"):
            cluster.check_room(Needs(1, 1))
        assert cluster.room(Needs(1)) == 2
    finally:
        cluster.close()
    assert list((tmp_path / "runs").iterdir()) == []


def _until(cluster: Cluster, count: int) -> None:
    end = time.monotonic() + 240
    while len(cluster.nodes()) != count:
        assert time.monotonic() < end, f"{len(cluster.nodes())} nodes, not {count}"
        time.sleep(0.5)
