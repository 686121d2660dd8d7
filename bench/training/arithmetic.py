"""The arithmetic of a cell besides its dtype: which kernels torch may choose, and which it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend

from architectures import BackboneConfig

TOKENS = 256  # of the attention whose backend is asked for


def pin(device: torch.device, *, exact: bool) -> None:
    """Sets what would otherwise be torch's default of the day: equal in all cells of a kind of device."""
    torch.backends.cudnn.benchmark = not exact
    torch.set_float32_matmul_precision("high" if device.type == "cuda" and not exact else "highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


@contextmanager
def pinned(device: torch.device, *, exact: bool) -> Iterator[None]:
    """The same within; what the process computes next has its own again."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    tuned, reduced = cudnn.benchmark, products.allow_bf16_reduced_precision_reduction
    float32 = torch.get_float32_matmul_precision()
    pin(device, exact=exact)
    try:
        yield
    finally:
        cudnn.benchmark, products.allow_bf16_reduced_precision_reduction = tuned, reduced
        torch.set_float32_matmul_precision(float32)


def arithmetic(device: torch.device, backbone: BackboneConfig, *, low: bool = True) -> dict[str, str]:
    """For a result: how products are summed, and which kernel attends, with and without a mask.

    Args:
        device: of the cell.
        backbone: whose heads attend.
        low: in bf16.
    """
    found = {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "bf16_reduced_reduction": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction).lower(),
    }
    dtype, shape = (
        torch.bfloat16 if low else torch.float32,
        (1, backbone.heads, TOKENS, backbone.width // backbone.heads),
    )
    for name, mask in (("attention", None), ("attention_masked", torch.ones(1, 1, 1, TOKENS, dtype=torch.bool))):
        q = torch.empty(shape, device=device, dtype=dtype, requires_grad=True)
        chosen = torch._fused_sdp_choice(q, q, q, mask.to(device) if mask is not None else None)
        found[name] = SDPBackend(chosen).name.lower()
    return found
