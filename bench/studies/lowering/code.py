"""The code that Inductor writes for a model's training graph on a pretended device: kernels and what each moves.

The graph is the one of `bench.training.compiling.compile_whole`, taken through Dynamo, AOTAutograd and Inductor as on a
GPU. What would run on the device, or measure on it, is left out: patterns traced with real tensors there (attention is
written as one operation already), padding of products by benchmark, constants folded, launches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._inductor import compile_fx
from torch._inductor import config as inductor
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._inductor.scheduler import ExternKernelSchedulerNode

from bench.studies.lowering.step import Residual, cell, fake, loss
from bench.training.compiling import compile_whole

OFF = {
    "force_disable_caches": True,  # a graph from a cache would not be seen
    "compile_threads": 1,
    "shape_padding": False,
    "joint_graph_constant_folding": False,
    "use_static_cuda_launcher": False,  # it drops the machine code
}
REAL = "torch._inductor.fx_passes."  # patterns that are traced with tensors on the device
PATTERNS = ("fuse_attention._sfdp_init", "pad_mm._pad_mm_init", "misc_patterns._misc_patterns_init")
FRAME = re.compile(r'File "[^"]*/architectures/([^"]+)", line \d+')
RULE = "sublayer.py"  # norm, modulate, gate and residual of every scheme


@dataclass(frozen=True)
class Kernel:
    """What one call of the written code reads and writes.

    Attributes:
        moved: bytes.
        extern: of a library (matrix products, attention), not written by Inductor.
        rule: holds an operation of the update rule: norm, modulate, gate, residual.
    """

    moved: int
    extern: bool
    rule: bool


@dataclass
class Lowered:
    """A training graph as code.

    Attributes:
        kernels: of the forward and of the backward graph.
        code: the same two as Python.
        saved: bytes that the forward graph keeps for the backward one, parameters and inputs left out.
        graphs: of Dynamo.
        machine: of each kernel that was compiled, its configurations.
        places: of the forward graph's nodes, by sequence number, the file of `architectures` that they come from.
    """

    kernels: list[list[Kernel]] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    saved: int = 0
    graphs: int = 0
    machine: list[list[Any]] = field(default_factory=list)
    places: dict[int, str] = field(default_factory=dict)


def lowered(scheme: str, depth: int, residual: Residual = "fp32", *, machine: bool = False) -> Lowered:
    """A scheme's training step as code for the pretended device.

    Args:
        scheme: at DiT-XL/2's width.
        depth: number of blocks.
        residual: dtype of the stream.
        machine: whether Inductor's kernels are compiled to machine code, in all configurations that it would try.

    Raises:
        torch._dynamo.exc.Unsupported: at a graph break.
    """
    result = Lowered()
    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    with _recording(result, machine), fake():
        module = cell(scheme, depth, residual)
        compile_whole(module.model, backend=_backend(result))
        torch.autograd.backward(loss(module))
    result.graphs = counters["stats"]["unique_graphs"] - before
    return result


def _backend(result: Lowered) -> Callable[..., Any]:
    """Inductor, but what it gives back is the graph, which runs on fake tensors."""

    def inner(graph: Any, inputs: Any, **more: Any) -> Any:
        if not more.get("is_backward", False):
            result.saved = _saved(graph)
            result.places = {n.meta["seq_nr"]: _place(n) for n in graph.graph.nodes if "seq_nr" in n.meta}
        compile_fx.compile_fx_inner(graph, inputs, **more)
        return make_boxed_func(graph.forward)

    return lambda graph, inputs: compile_fx.compile_fx(graph, inputs, inner_compile=inner)


@contextmanager
def _recording(result: Lowered, machine: bool) -> Iterator[None]:
    """Notes each graph's kernels and code as they are written, and compiles or leaves out the former."""
    codegen, precompile = GraphLowering.codegen, CachingAutotuner.precompile

    def note(graph: Any) -> Any:
        written = codegen(graph)
        result.kernels.append([_kernel(node, result.places) for node in graph.scheduler.nodes])
        result.code.append(written[0].value)
        return written

    def build(kernel: Any, *unused: Any, **also_unused: Any) -> None:
        if machine:
            precompile(kernel, warm_cache_only=True)
            result.machine.append([one.kernel for one in kernel.compile_results])

    with ExitStack() as stack:
        for name in PATTERNS:
            stack.enter_context(patch(REAL + name, lambda *unused: None))
        stack.enter_context(inductor.patch(OFF))
        stack.enter_context(patch.object(GraphLowering, "codegen", note))
        stack.enter_context(patch.object(CachingAutotuner, "precompile", build))
        yield


def _kernel(node: Any, places: dict[int, str]) -> Kernel:
    origins = [getattr(part.node, "origin_node", None) for part in node.get_nodes()]
    rule = any(RULE in (_place(one) or places.get(one.meta.get("seq_nr"), "")) for one in origins if one is not None)
    return Kernel(node.get_read_write_buffers_sizes(), isinstance(node, ExternKernelSchedulerNode), rule)


def _place(node: Any) -> str:
    """The file of `architectures` whose line is innermost where an operation was traced; empty of none."""
    files = FRAME.findall(node.meta.get("stack_trace") or "")
    return files[-1] if files else ""


def _saved(graph: Any) -> int:
    """Bytes of the storages that a forward graph hands to the backward one beside its output."""
    given = {_storage(n) for n in graph.graph.nodes if n.op == "placeholder"}
    kept = {_storage(node) for node in graph.graph.output_node().args[0][1:]} - given
    return sum(size for _, size in kept)


def _storage(node: Any) -> tuple[int, int]:
    value = getattr(node, "meta", {}).get("val")
    if not isinstance(value, Tensor):
        return 0, 0
    storage = value.untyped_storage()
    return storage._cdata, storage.nbytes()
