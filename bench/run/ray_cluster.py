"""A connection to a Ray cluster, and what must hold of it before a cell is started."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.config.schema import ConfigError
from bench.run.needs import Needs
from bench.run.seat import Seat, Token, shared

ANSWERS = 5.0  # seconds that a cluster's address has to answer
PROBES = 120.0  # seconds that a node has to start a process and look at the results directory


class Cluster:
    """A connection to a cluster.

    Args:
        address: `HOST:PORT` of it; None: `RAY_ADDRESS`, or a cluster of this machine alone, started here.

    Raises:
        ConfigError: if it does not answer.
    """

    _room = 0  # cells that fit, as it last said

    def __init__(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # by default 15, at which a cell gives way to anything
        import ray
        import ray.exceptions

        self.ray: Any = ray
        address = address or os.environ.get("RAY_ADDRESS") or None
        if address is not None:
            _check_address(address)
        try:
            more: dict[str, Any] = {} if address else {"include_dashboard": False}
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **more)
        except (ConnectionError, RuntimeError, ValueError, OSError, AssertionError) as error:
            raise ConfigError(
                f"no Ray cluster at {address or 'this machine'}: {first(error)}; run ditbench on a node of the "
                "cluster (`ray status` must answer there)"
            ) from error
        _hush()

    def nodes(self) -> list[dict[str, Any]]:
        """Those that live, and are not about to be taken back."""
        going = self.draining()
        return [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in going]

    def draining(self) -> set[str]:
        """Ids of the nodes that are about to be taken back: a spot instance that was given notice, an idle node."""
        with suppress(Exception):  # of a Ray that does not say so, or that does not answer for the moment
            from ray._private.state import state

            return set(state.get_draining_nodes())
        return set()

    def room(self, needs: Needs) -> int:
        """How many cells fit, if nobody else uses the cluster."""
        with suppress(Exception):  # the answer of a moment ago serves
            self._room = sum(needs.fit(node["Resources"]) for node in self.nodes())
        return self._room

    def check_room(self, needs: Needs) -> None:
        """Refuses cells that fit no node.

        Raises:
            ConfigError: with the largest node.
        """
        nodes = [node["Resources"] for node in self.nodes()]
        if not any(needs.fit(one) for one in nodes):
            largest: dict[str, float] = max(nodes, key=lambda one: (one.get("GPU", 0), one.get("CPU", 0)), default={})
            has = Needs(int(largest.get("CPU", 0)), int(largest.get("GPU", 0)), int(largest.get("memory", 0)))
            raise ConfigError(
                f"a cell needs {needs.text}, and no node of the Ray cluster has that (the largest: {has.text}); "
                "change run.cpus, run.gpus or run.memory, or train.device"
            )

    def check_storage(self, root: Path) -> None:
        """Has every node look for a file in the results directory, and write one.

        Raises:
            ConfigError: naming the nodes that do not share it.
        """
        with Token(root) as token:
            answers = self._probed(self.nodes(), str(root), token.name)
            wrong = [text for host, found in answers if (text := token.missed(host, found))]
        if wrong:
            raise ConfigError(
                f"every node of the Ray cluster must share the results directory {root}; {'; '.join(wrong)}; "
                "name one on shared storage with --root"
            )

    def _probed(self, nodes: Sequence[dict[str, Any]], *words: str) -> list[tuple[str, str]]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probe = self.ray.remote(num_cpus=0, max_retries=0)(shared)
        asked = []
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node, probe.options(scheduling_strategy=where).remote(*words)))
        answers = []
        for node, one in asked:
            try:
                answers.append(self.ray.get(one, timeout=PROBES))
            except Exception as error:
                if node["NodeID"] in {living["NodeID"] for living in self.nodes()}:  # else it was lost meanwhile
                    answers.append((node["NodeManagerHostname"], f"cannot run ditbench ({first(error)})"))
        return answers

    def close(self) -> None:
        """Ends the connection, and the cluster if it was started here."""
        self.ray.shutdown()


class Place(Seat):
    """A seat that knows which node of the cluster it is on."""

    async def where(self) -> Any:
        """The name and the id of its node: the seat is there."""
        import ray

        return await super().where(), ray.get_runtime_context().get_node_id()


def _check_address(address: str) -> None:
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(f"run.address {address!r} is no HOST:PORT of a Ray cluster, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one there with "
            f"`ray start --head --port={port}`, or leave run.address out for a cluster of this machine"
        ) from error


def first(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _hush() -> None:
    """Ray prints the last lines of a dead node's log in the middle of the table; the loop says it in a line."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *words, **more: None
