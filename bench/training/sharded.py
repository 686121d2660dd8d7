"""A model cut among the ranks of a cell (`run.strategy: fsdp`): each has a part of weights, gradients and moments.

The weights of a block are gathered for its pass, forwards and backwards, and freed after it; gradients are means over
the global batch, as with all weights on each rank, so that a step is the same to rounding. Whatever needs them whole,
as observations, samples and metrics do, works on the model that was cut, into which they are gathered.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from architectures import DiT


class Whole:
    """The model that was cut, on the CPU but where its weights are gathered.

    Args:
        model: on the CPU.
        device: where it is needed.
    """

    def __init__(self, model: DiT, device: torch.device) -> None:
        self.model, self.device = model, device

    @contextmanager
    def of(self, parts: Sequence[Tensor]) -> Iterator[None]:
        """Has the model hold these parts of its trainable weights, gathered; every rank must ask."""
        self.model.to(self.device)
        own = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter, part in zip(own, parts, strict=True):
                parameter.copy_(gathered(part))
        try:
            yield
        finally:
            self.model.to("cpu")


def cut(model: DiT, count: int, kind: str, *, compiled: bool) -> DiT:
    """A copy of a model of which each rank has a part, on its device.

    Args:
        model: on the CPU, the same on each rank.
        count: of ranks.
        kind: of their devices, `cpu` or `cuda`.
        compiled: whether its blocks are compiled, each without a graph break; what gathers weights stays outside.
    """
    mesh, parts = init_device_mesh(kind, (count,)), copy.deepcopy(model)
    for block in parts.blocks:
        if compiled:
            block.forward = torch.compile(block.forward, dynamic=False, fullgraph=True)
        fully_shard(block, mesh=mesh)
    fully_shard(parts, mesh=mesh)
    return parts


def gathered(tensor: Tensor) -> Tensor:
    """A tensor whole, of which each rank has a part; any other as it is. Every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tree: Any, *, keep: bool) -> Any:
    """The same with every tensor that is cut gathered on the CPU, or None in its place unless it is to be kept.

    Every rank must ask, in the same order; the one that writes keeps them.
    """
    if isinstance(tree, DTensor):
        found = tree.full_tensor()
        return found.cpu() if keep else None
    if isinstance(tree, dict):
        return {name: whole(part, keep=keep) for name, part in tree.items()}
    return [whole(part, keep=keep) for part in tree] if isinstance(tree, list) else tree


def placed(full: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, where a tensor like it is cut; else the whole."""
    if not isinstance(like, DTensor) or not full.ndim:
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
