"""A kernel that needs more registers than one warp has: four sums of 4,096 columns, 512 registers a thread."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WIDTH = 4096


@triton.jit
def four_sums(x, y, out, rows, width: tl.constexpr):
    columns = tl.arange(0, width)
    a = tl.zeros([width], tl.float32)
    b = tl.zeros([width], tl.float32)
    c = tl.zeros([width], tl.float32)
    d = tl.zeros([width], tl.float32)
    for row in range(rows):
        left = tl.load(x + row * width + columns)
        right = tl.load(y + row * width + columns)
        a += left
        b += right
        c += left * right
        d += left * left
    tl.store(out + columns, a)
    tl.store(out + width + columns, b)
    tl.store(out + 2 * width + columns, c)
    tl.store(out + 3 * width + columns, d)


def compiled(warps: int) -> Any:
    """Its machine code for sm_90, compiled without a GPU."""
    signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "rows": "i32", "width": "constexpr"}
    source = ASTSource(fn=four_sums, signature=signature, constexprs={(4,): WIDTH})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
