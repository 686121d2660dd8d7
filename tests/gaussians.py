"""Random weights and inputs that hide nothing: zero-initialised heads make every wrong modulation look right."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter sampled again, the weights of norms around one."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15, generator=g)
        for module in model.modules():
            if type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is not None:
                module.weight.add_(1)  # type: ignore[operator]
    return model.eval()


def gaussian(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
