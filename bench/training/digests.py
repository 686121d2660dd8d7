"""Hashes of tensors and weights, to show that two cells were given the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


def tensors_digest(*tensors: Tensor) -> str:
    """A hash over tensors' bytes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def weights_digest(model: torch.nn.Module, *, names: Callable[[str], object] = lambda name: True) -> str:
    """A hash over parameters by name, to show that two cells were initialised alike."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if names(name):
            total.update(name.encode() + parameter.detach().cpu().float().numpy().tobytes())
    return total.hexdigest()[:16]
