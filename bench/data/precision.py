"""The arithmetic of frozen networks: autoencoders, encoders of text, judges, extractors of features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_precision() -> Iterator[None]:
    """Without TF32, whatever the process uses elsewhere: what was rounded to ten bits is another number.

    Also a decorator. The default of torch has convolutions in TF32, and a cell on CUDA its products of matrices.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    flags = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=False,
        deterministic=torch.backends.cudnn.deterministic,
        allow_tf32=False,
    )
    try:
        with flags, torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
