"""What a block's parts are called in the equations that it writes of itself."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def modulated_symbol(u: str, slots: Iterable[str], k: str) -> str:
    """`R(a1) u (1 + s1) + b1`, of the vectors there are."""
    u = (f"R(a{k}) " if "angle" in slots else "") + u
    return u + (f" (1 + s{k})" if "scale" in slots else "") + (f" + b{k}" if "shift" in slots else "")


def norm_symbol(norm: nn.Module) -> str:
    """`LN`, `LN_w` with weights, `RMS`; empty for none; another module's own name."""
    if isinstance(norm, nn.Identity):
        return ""
    if isinstance(norm, nn.LayerNorm):
        return "LN_w" if norm.elementwise_affine else "LN"
    return "RMS" if isinstance(norm, nn.RMSNorm) else type(norm).__name__


def op_symbol(op: nn.Module) -> str:
    """`SA`, `CA`, `MLP`; another module's own name."""
    return str(getattr(op, "symbol", type(op).__name__))
