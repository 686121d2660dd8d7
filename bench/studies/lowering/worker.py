"""What a process does that believes in an H100: one line of JSON for each scheme.

    python -m bench.studies.lowering.worker [SCHEME ...] [--code SCHEME ...] [--machine SCHEME ...]

Of each, the training step without compilation: what crosses to the host, what attends. `--code` adds the graph as
Inductor's code, and `--machine` compiles its kernels too.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, get_args

from torch._dynamo.exc import Unsupported

import architectures
from bench.studies.lowering.code import Kernel, Lowered, lowered
from bench.studies.lowering.machine import usages
from bench.studies.lowering.step import BATCH, TOKENS, WIDTH, Residual, crossings

ELEMENTS = BATCH * TOKENS * WIDTH  # of a stream
DEPTHS = 2, 3  # a block is their difference
LAUNCH = re.compile(r"(?:triton_\w+\.run|extern_kernels\.\w+|torch\.ops\.\w[\w.]*)\(")
HOST = re.compile(r"\.item\(\)|\.cpu\(\)|device='cpu'|device\(type='cpu'")


def step_row(scheme: str) -> dict[str, Any]:
    """What the step does without compilation."""
    seen = crossings(scheme)
    return {"scheme": scheme, "crossings": seen.found, "attention": sorted(seen.attention)}


def code_row(scheme: str, residual: Residual, *, machine: bool) -> dict[str, Any]:
    """What a block of the compiled step moves and keeps, in bytes an element of (B, N, D)."""
    try:
        less, more = (lowered(scheme, depth, residual, machine=machine and depth == DEPTHS[-1]) for depth in DEPTHS)
    except Unsupported as error:
        return {"residual": residual, "graphs": 0, "breaks": [str(error).strip().splitlines()[0]]}
    row: dict[str, Any] = {"residual": residual, "graphs": max(less.graphs, more.graphs), "breaks": []}
    row |= {"compiled_crossings": sorted({line for code in more.code for line in HOST.findall(code)})}
    row |= {"compiled_attention": sorted(set(re.findall(r"aten\.(_scaled_dot_product_\w+)", "".join(more.code))))}
    for index, way in enumerate(("forward", "backward")):
        for name, chosen in (("rule", _rule), ("other", _other)):
            row[f"{name}_{way}"] = _a_block(_moved(more, index, chosen) - _moved(less, index, chosen))
    row["saved"] = _a_block(more.saved - less.saved)
    row["kernels"] = len(LAUNCH.findall("".join(more.code))) - len(LAUNCH.findall("".join(less.code)))
    return row | (machine_row(more) if machine else {})


def machine_row(made: Lowered) -> dict[str, Any]:
    """What the kernels of the deeper model use, in all configurations that Inductor would try."""
    kernels = [usages(configurations) for configurations in made.machine]
    found = [one for configurations in kernels for one in configurations]
    spills = [one for one in found if one.spilled]
    return {
        "compiled_kernels": len(kernels),
        "configurations": len(found),
        "spills": [f"{one.kernel}, {one.warps} warps: {one.spilled} bytes" for one in spills],
        "largest_spill": max(one.spilled for one in found),
        "largest_stack": max(one.stack for one in found),
        "largest_registers": max(one.registers for one in found),
    }


def _rule(kernel: Kernel) -> bool:
    return kernel.rule and not kernel.extern


def _other(kernel: Kernel) -> bool:
    return not kernel.rule and not kernel.extern


def _moved(made: Lowered, index: int, chosen: Any) -> int:
    return sum(kernel.moved for kernel in made.kernels[index] if chosen(kernel))


def _a_block(size: int) -> float:
    return round(size / ELEMENTS, 1)


def main() -> None:
    """`python -m bench.studies.lowering.worker`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemes", nargs="*")
    parser.add_argument("--code", nargs="*", default=[], metavar="SCHEME")
    parser.add_argument("--machine", nargs="*", default=[], metavar="SCHEME")
    parser.add_argument("--residual", choices=get_args(Residual), default="fp32")
    parser.add_argument("--plugin", type=Path)
    given = parser.parse_args()
    if given.plugin:
        architectures.load_plugin(given.plugin)
    for scheme in dict.fromkeys([*given.schemes, *given.code, *given.machine]):
        row = step_row(scheme)
        if scheme in (*given.code, *given.machine):
            row |= code_row(scheme, given.residual, machine=scheme in given.machine)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
