"""The work of a pass, counted where nothing is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from architectures.backbone import DiT
from architectures.prompt import PromptKind


def multiply_adds(model: DiT, channels: int, size: int, prompt: PromptKind) -> float:
    """Multiply-adds of matrix products and attention in one pass of a model that is on `meta`, for one image."""
    with torch.no_grad(), torch.device("meta"), _Products() as products:  # type: ignore[no-untyped-call]  # torch's
        model(torch.empty(1, channels, size, size), torch.empty(1), prompt.null(1, "meta"))
    return products.flops / 2


class _Products(TorchDispatchMode):
    """Counts the FLOP of products by torch's own formulas, as its `FlopCounterMode` does, without a tree of modules.

    The hooks of that tree take as long as the pass, and every variant of a matrix is counted before it is run.
    """

    flops = 0

    def __torch_dispatch__(self, op: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        """Runs an operation, and counts it if it is a product."""
        out = op(*given, **(named or {}))
        if op.overloadpacket in flop_registry:
            self.flops += flop_registry[op.overloadpacket](*given, **(named or {}), out_val=out)
        return out
