"""Which executor a launch uses: where its cells run, how many at a time, on which GPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from bench.config.schema import ConfigError, Matrix
from bench.run.executors import Local, visible
from bench.run.needs import Needs, needs

if TYPE_CHECKING:
    from bench.run.executor import Executor
    from bench.run.plan import Plan
    from bench.store.folders import Store


class Place(Protocol):
    """Where the cells of a matrix will run; it is opened before they are planned."""

    def check(self, plan: Plan) -> str | None:
        """Whether the plan fits here, before anything of it is written; what is done otherwise than asked, if anything.

        Raises:
            ConfigError: with the way out.
        """

    def executor(self, plan: Plan) -> Executor[Any]:
        """The executor of a plan that was checked."""

    def close(self) -> None:
        """Gives back what was opened."""


def opened(matrix: Matrix, store: Store) -> Place:
    """The place that a matrix asks for.

    Raises:
        ConfigError: if it does not answer, or its machines do not share the results directory.
    """
    places: dict[str, Callable[[Matrix, Store], Place]] = {"local": Here, "ray": Ray, "slurm": Slurm}
    return places[matrix.run.executor](matrix, store)


class Here:
    """This machine."""

    def __init__(self, matrix: Matrix, store: Store) -> None:
        import torch

        self.store, self.gpus = store, torch.cuda.device_count()
        self.server = None if self.gpus else Local.early(matrix.name, matrix.run.jobs or 1, store)

    def check(self, plan: Plan) -> str | None:
        """Says where more cells at a time are asked for than there are GPUs for, each having its own."""
        gpus, jobs, each = self._gpus(plan), plan.matrix.run.jobs, plan.matrix.run.devices or 1
        if each > 1 and not sys.platform.startswith("linux"):
            raise ConfigError(
                f"run.devices {each}: only Linux forks a process with these libraries safely; leave it out"
            )
        if not gpus:
            return None
        have = f"one GPU, {gpus[0]}" if len(gpus) == 1 else f"{len(gpus)} GPUs, {', '.join(gpus)}"
        if each > len(gpus):
            raise ConfigError(f"run.devices {each}: this machine has {have}; choose at most {len(gpus)}")
        if jobs is None or jobs <= (most := len(gpus) // each):
            return None
        return f"run.jobs {jobs}: with {have}, {most} at a time; cells that share one have wrong rates"

    def executor(self, plan: Plan) -> Local:
        """So many cells at a time as was asked for, at most what there are GPUs for; by default as many, or one."""
        gpus, run = self._gpus(plan), plan.matrix.run
        each = run.devices or 1
        most = len(gpus) // each
        jobs = min(run.jobs or most, most) if gpus else run.jobs or 1
        warm = self.server or (self.gpus == 0 and _unfinished(plan, self.store))  # on a GPU: see results/gpu/README.md
        return Local(jobs, gpus, devices=each, warm=warm)

    def close(self) -> None:
        """Ends the process that cells are forked from."""
        if self.server is not None:
            self.server.close()

    def _gpus(self, plan: Plan) -> list[str]:
        return visible(self.gpus) if any(one.spec.config.train.device == "cuda" for one in plan.cells) else []


class Ray:
    """A Ray cluster: it answers, and its nodes share the results directory."""

    def __init__(self, matrix: Matrix, store: Store) -> None:
        from bench.run.ray_cluster import Cluster

        self.cluster = Cluster(matrix.run.address)
        try:
            self.cluster.check_storage(store.root)
        except BaseException:
            self.close()
            raise

    def check(self, plan: Plan) -> None:
        """Refuses cells that fit no node."""
        self.cluster.check_room(_needs(plan))

    def executor(self, plan: Plan) -> Executor[Any]:
        """As many cells at a time as there is room for, or as was asked for."""
        from bench.run.on_ray import OnRay

        needs = _needs(plan)
        threads = os.environ.get("OMP_NUM_THREADS") or str(needs.cores)
        return OnRay(self.cluster, needs, plan.matrix.run.jobs, {"OMP_NUM_THREADS": threads})

    def close(self) -> None:
        """Ends the connection, and the cluster if it was started here."""
        self.cluster.close()


class Slurm:
    """The queue of a SLURM cluster, from a machine that can submit to it."""

    def __init__(self, matrix: Matrix, store: Store) -> None:
        from bench.run.on_slurm import queue

        run = matrix.run
        self.folder = store.root / "slurm"
        self.folder.mkdir(parents=True, exist_ok=True)
        queue(self.folder, needs(run, matrix.train.device), run.jobs, run.slurm)

    def check(self, plan: Plan) -> None:
        """SLURM itself refuses what fits no node, in a sentence of its own."""

    def executor(self, plan: Plan) -> Executor[Any]:
        """A job for each cell that is left."""
        from bench.run.on_slurm import OnSlurm, queue

        run, needs = plan.matrix.run, _needs(plan)
        return OnSlurm(queue(self.folder, needs, run.jobs, run.slurm), needs)

    def close(self) -> None:
        """Nothing is open."""


def _needs(plan: Plan) -> Needs:
    devices = {one.spec.config.train.device for one in plan.cells}
    return needs(plan.matrix.run, "cuda" if "cuda" in devices else "cpu")


def _unfinished(plan: Plan, store: Store) -> bool:
    """Whether a cell is to be run."""
    return any(not one.reason and store.cell(one.row.cell).result() is None for one in plan.cells)
