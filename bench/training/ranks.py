"""The processes that train a cell together, one a device: rank 0 leads, journals and writes; the others follow.

Each takes its part of every global batch. Noise, times and dropped prompts are sampled for the whole batch and cut, and
gradients and losses are means over it, so that a step is the same on any number of devices to rounding. Between steps
rank 0 decides alone, and the others wait in their next step; where work is shared out they do what rank 0 sends them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=30)  # of a collective: others may wait long for rank 0; one that died is seen by its process
T = TypeVar("T")
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its cell.

    Attributes:
        rank: from 0.
        count: how many there are, each with a device.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether it journals and writes."""
        return self.rank == 0

    def join(self, store: Any, device: str) -> None:
        """Meets the others, which must do the same; cores are shared out.

        Args:
            store: through which they find each other.
            device: `cpu` or `cuda`; tensors of a GPU go through NCCL, everything else through Gloo.
        """
        if sys.platform.startswith("linux"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine, whatever its name resolves to
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.count, timeout=PATIENCE)
        torch.set_num_threads(max(1, torch.get_num_threads() // self.count))

    def device(self, kind: str) -> torch.device:
        """The device of this process, set as the current one; `kind` is `cpu` or `cuda`."""
        if self.count == 1 or kind == "cpu":
            return torch.device(kind)
        torch.cuda.set_device(self.rank)
        return torch.device(kind, self.rank)

    def part(self, batch: int) -> slice:
        """This rank's part of a global batch."""
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all ranks, on each; does not wait for the device."""
        if self.count == 1:
            return value
        dist.all_reduce(value)
        return value / self.count

    def gather(self, value: T) -> list[T]:
        """The values of all ranks on rank 0, nothing on others. Tensors must be on the CPU."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.gather_object(value, values if self.leads else None)
        return values if self.leads else []

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on each."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    # --- work that rank 0 shares out ---

    @contextmanager
    def led(self) -> Iterator[None]:
        """Around what rank 0 shares out, while the others `follow`; what raises ends them."""
        yield
        self.broadcast(None)

    def shared(self, work: Callable[[Any, Piece], T], subject: Any, pieces: Iterable[Piece]) -> Iterator[T]:
        """`work(subject, piece)` of every piece in order, each by one rank in turn; on rank 0.

        Args:
            work: a function of a module, by whose name the others know it; its results have no tensors on a GPU.
            subject: that each rank has of its own.
            pieces: what is sent to them.
        """
        if self.count == 1:
            yield from (work(subject, piece) for piece in pieces)
            return
        every = list(pieces)
        for start in range(0, len(every), self.count):
            few = every[start : start + self.count]
            self.broadcast((work, few))
            yield from self.gather(work(subject, few[0]))[: len(few)]

    def follow(self, subject: Any) -> None:
        """Does this rank's share of what rank 0 shares out, until it has no more."""
        nothing: Any = None
        while (order := self.broadcast(nothing)) is not None:
            work, few = order
            self.gather(work(subject, few[self.rank]) if self.rank < len(few) else None)


ALONE = Ranks()
