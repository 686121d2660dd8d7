"""What a cell is given on a cluster: cores, GPUs and memory."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.schema import Run


@dataclass(frozen=True)
class Needs:
    """What a cell is given: cores, GPUs and bytes of memory (0: what there is)."""

    cores: int
    gpus: int = 0
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """As Ray names them."""
        named = {"CPU": self.cores, "GPU": self.gpus, "memory": self.memory}
        return {name: float(count) for name, count in named.items() if count}

    @property
    def text(self) -> str:
        """In words."""
        gpus = f", {self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        memory = f", {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.cores} core{'s' * (self.cores > 1)}{gpus}{memory}"

    def fit(self, node: dict[str, float]) -> int:
        """How many cells fit a node with these resources."""
        return min(int(node.get(name, 0.0) // count) for name, count in self.resources.items())


def needs(run: Run, device: str) -> Needs:
    """What the cells of a matrix need.

    Args:
        run: its keys.
        device: that cells train on.
    """
    devices = run.devices or 1
    gpus = run.gpus if run.gpus is not None else devices * (device == "cuda")
    return Needs(run.cpus or devices * (1 + run.workers), gpus, int((run.memory or 0) * 1e9))
