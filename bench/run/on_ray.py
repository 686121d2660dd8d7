"""Cells on the machines of a Ray cluster: `pip install ditbench[ray]`, `run.executor: ray`.

Each cell has a seat (`bench.run.seat`) with its processors, GPUs and memory as Ray's resources, on whatever node has
room; a seat takes one cell after another. All else is as on one machine: guard, log, journal and checkpoints are files
of the results directory, which every node must share. A cell whose node is lost starts again elsewhere; one whose node
is about to be taken back (Ray drains it) writes a checkpoint first.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bench.run import executor, launches
from bench.run.executor import Ended, open_log
from bench.run.needs import Needs
from bench.run.processes import GRACE
from bench.run.ray_cluster import ANSWERS, Cluster, Place, first
from bench.store.folders import CellFolder

IDLE = 20.0  # seconds that a seat without a cell is kept
ROOM = 5.0  # seconds for which the size of the cluster is believed
NOTICE = 2.0  # seconds between looks at whether nodes are about to be taken back
WAITS = "waits for room in the cluster"


@dataclass
class Process(executor.Process):
    """A cell on a node, or waiting for one.

    Attributes:
        folder: the cell's.
        seat: Ray's handle of its place.
        begun: becomes the name and the id of its node, once it has one.
        over: becomes how it ended.
        host: where it runs, or empty. node: its id in the cluster.
        leaving: whether it was stopped because its node is about to go.
        dropped: whether its seat was taken away.
    """

    folder: CellFolder
    seat: Any
    begun: Any
    over: Any
    ray: Any
    before: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    place: str = WAITS
    host: str = ""
    node: str = ""
    leaving: bool = False
    dropped: bool = False

    def alive(self) -> bool:
        """Whether Ray has no end of it to report."""
        if self.dropped:
            return False
        self._look()
        over = bool(self.ray.wait([self.over], timeout=0)[0])
        if over:  # it ran, or could not: it waits for nothing
            self.place = ""
        return not over

    def paused(self) -> bool:
        """Whether it is stopped on its node; a node that does not answer has stopped nothing."""
        with suppress(Exception):
            return bool(self.ray.get(self.seat.paused.remote(), timeout=ANSWERS))
        return False

    def stop(self) -> None:
        """Has the cell write its checkpoint and end; one that waits for room is given up."""
        self._look()
        if self.place:
            self.drop()
        else:
            self.seat.signal.remote(int(signal.SIGTERM))

    def kill(self) -> None:
        """Has the guard end the cell at once."""
        if self.place:
            self.drop()
        else:
            self.seat.signal.remote(int(signal.SIGQUIT))

    def end(self, seconds: float = 10.0) -> None:
        """Kills the cell and waits for it; a seat that does not answer is taken away."""
        self.kill()
        if self.alive() and not self.ray.wait([self.over], timeout=seconds)[0]:
            self.drop()

    def drop(self) -> None:
        """Takes its seat away: the guard below has the cell write its checkpoint."""
        self.dropped = True
        with suppress(Exception):
            self.ray.kill(self.seat)

    def ended(self) -> Ended:
        """How the cell ended: as its guard reports, or that its node or its seat was lost."""
        if self.dropped:
            return Ended(-signal.SIGTERM)
        try:
            return Ended(**self.ray.get(self.over))
        except self.ray.exceptions.RayActorError as error:
            return _of_lost(error, self.host)
        except Exception as error:  # raised on the node: the guard could not be started
            return Ended(1, f"ditbench: the cell could not be started on its node: {first(error.__cause__ or error)}")

    def unreachable(self) -> bool:
        """Whether its node does not answer for the moment: it is asked again."""
        if self.dropped or self.alive():
            return False
        try:
            self.ray.get(self.over)
        except self.ray.exceptions.ActorUnavailableError:
            self.over = self.seat.wait.remote()
            return True
        except Exception:
            return False
        return False

    def _look(self) -> None:
        """Notes where it runs, once it does."""
        if self.place and self.ray.wait([self.begun], timeout=0)[0]:
            with suppress(Exception):  # its seat was lost meanwhile: `ended` says so
                self.host, self.node = self.ray.get(self.begun)
            self.place, self.started = "", time.monotonic()


class OnRay(executor.Elsewhere[Process]):
    """A Ray cluster.

    Args:
        cluster: that is connected.
        needs: of a cell.
        jobs: cells at a time; None: as many as there is room for.
        variables: of the cells' environment.
    """

    moves = True

    def __init__(self, cluster: Cluster, needs: Needs, jobs: int | None, variables: dict[str, str]) -> None:
        self.cluster, self.needs, self.jobs, self.variables = cluster, needs, jobs, variables
        self.running: list[Process] = []
        self._idle: list[tuple[Any, float]] = []
        self._room, self._asked = 1, 0.0
        self._drained = 0.0  # when it was last asked which nodes are
        self._kind = cluster.ray.remote(max_restarts=0, max_task_retries=0)(Place)

    @property
    def free(self) -> int:
        """Cells for which the cluster has room, whoever uses it now: Ray has those that are too many wait."""
        if self.jobs is not None:
            return self.jobs - len(self.running)
        now = time.monotonic()
        if now - self._asked > ROOM:
            self._room, self._asked = max(1, self.cluster.room(self.needs)), now
        return self._room - len(self.running)

    def start(self, folder: CellFolder) -> Process:
        """Gives a cell to a seat, which starts it once the cluster has room.

        Raises:
            DiskError: if its folder cannot be written.
        """
        open_log(folder)
        before = folder.state()
        seat = self._idle.pop()[0] if self._idle else self._seat()
        process = Process(
            folder, seat, seat.where.remote(), seat.run.remote(str(folder.path)), self.cluster.ray, before
        )
        self.running.append(process)
        return process

    def _seat(self) -> Any:
        need = self.needs
        how: dict[str, Any] = {"num_cpus": need.cores, "num_gpus": need.gpus}
        if need.memory:
            how["memory"] = need.memory
        return self._kind.options(**how).remote(need.cores, self.variables | launches.variables())

    def wait(self, seconds: float) -> None:
        """Waits until a cell ends, at most `seconds`."""
        files = [process.over for process in self.running if not process.dropped]
        if files:
            self.cluster.ray.wait(files, timeout=seconds)
        else:
            time.sleep(seconds)

    def ended(self) -> list[Process]:
        """What ended since the last call; a seat whose cell ended takes the next, and is given back after a while."""
        self._leave()
        over = [process for process in super().ended() if not self._keep(process)]
        now = time.monotonic()
        self._idle += [(one.seat, now) for one in over if not (one.dropped or one.leaving or one.ended().lost)]
        for seat, since in self._idle.copy():
            if now - since > IDLE or self.stopping:
                self._idle.remove((seat, since))
                self.cluster.ray.kill(seat)
        return over

    def _leave(self) -> None:
        """Has cells on nodes that are about to be taken back write their checkpoint; they start again elsewhere."""
        now = time.monotonic()
        if now - self._drained < NOTICE:
            return
        self._drained, going = now, self.cluster.draining()
        for process in self.running:
            if process.node in going and not process.leaving:
                process.leaving = True
                process.stop()
        if going:  # an idle seat on one of them must take no cell, and none says where it is
            for seat, _ in self._idle:
                self.cluster.ray.kill(seat)
            self._idle = []

    def _keep(self, process: Process) -> bool:
        if process.unreachable():
            self.running.append(process)
            return True
        return False

    def stop_all(self, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops every cell and waits; kills those that have not ended after `grace` seconds, or once `hurry()`."""
        super().stop_all(grace, hurry)
        left = [process for process in self.running if process.alive()]
        for process in left:
            process.kill()
        for process in left:
            process.end()

    def close(self) -> None:
        """Gives all seats back."""
        for seat, _ in self._idle:
            with suppress(Exception):
                self.cluster.ray.kill(seat)
        self._idle = []


def _of_lost(error: Exception, host: str) -> Ended:
    """Whether a seat was lost with its node, or Ray ended it for the node's memory: that is the cell's own doing."""
    if "memory" in str(error) and ("OOM" in str(error) or "low on memory" in str(error)):
        return Ended(1, f"ditbench: Ray ended it, for its node {host} ran low on memory; run.memory reserves some")
    lost = f"its node {host} was lost" if host else f"its place in the cluster was lost ({first(error)})"
    return Ended(-signal.SIGKILL, first(error), lost=lost)
