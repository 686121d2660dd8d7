"""What a kernel's machine code uses: registers, and what it spills to memory. Read with Triton's own tools."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Of one kernel in one configuration.

    Attributes:
        kernel: its name.
        warps: of a program.
        registers: of a thread.
        stack: bytes of a thread: spilled registers, or arrays that are indexed (in sinusoids of large arguments).
        spilled: bytes of registers that a thread stores to memory, to load them again.
    """

    kernel: str
    warps: int
    registers: int
    stack: int
    spilled: int


def usages(kernels: Iterable[Any]) -> list[Usage]:
    """Of one kernel, compiled by Triton in several configurations; each holds `asm["cubin"]` and `asm["ptx"]`."""
    with tempfile.TemporaryDirectory() as name:
        return [usage(kernel, Path(name)) for kernel in kernels]


def usage(kernel: Any, folder: Path) -> Usage:
    """Of one compiled kernel; files are written to a folder. What has no stack spills nothing."""
    path, about = folder / kernel.hash, kernel.metadata
    path.write_bytes(kernel.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", _tool("cuobjdump", "-res-usage", str(path)))
    assert found, about.name
    registers, stack = int(found[1]), int(found[2])
    return Usage(about.name, about.num_warps, registers, stack, _spilled(kernel, path) if stack else 0)


def _spilled(kernel: Any, path: Path) -> int:
    """Bytes that the assembler says it stores of registers."""
    path = path.with_suffix(".ptx")
    path.write_text(kernel.asm["ptx"], encoding="utf-8")
    said = _tool("ptxas", "-v", "-arch=sm_90a", "-o", str(path.with_suffix(".out")), str(path))
    return sum(int(size) for size in re.findall(r"(\d+) bytes spill stores", said))


def _tool(name: str, *words: str) -> str:
    """What one of the assembler's programs in Triton's wheel says.

    Raises:
        RuntimeError: with what it said, where it fails.
    """
    triton = importlib.util.find_spec("triton")
    assert triton is not None and triton.origin is not None
    program = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / name
    done = subprocess.run([str(program), *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return done.stdout + done.stderr
