"""Laws of running: precision, compilation, saving, memory of earlier calls, determinism."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from architectures.backbone import DiT
from architectures.laws.core import (
    CAPTIONS,
    CONFIG,
    FEATURES,
    LawViolation,
    SchemeUnderTest,
    distance,
    law,
    require,
)
from architectures.observation import changed, observe
from architectures.options import few
from architectures.prompt import PromptKind


@law("low precision")
def low_precision(s: SchemeUnderTest) -> str:
    """Bf16 agrees with fp32 to a few per cent."""
    model, (x, t, prompt) = s.random(scale=0.1), s.inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x, t, prompt).float()
    high = model(x, t, prompt)
    error = ((low - high).norm() / high.norm()).item()
    require(error < 0.05, f"bf16 differs from fp32 by {error:.1%}")
    return f"they differ by {error:.1%}"


@law("precision of the stream")
def stream(s: SchemeUnderTest) -> str:
    """Under bf16 autocast every stream has the dtype that is stated, and shift, scale and gate are float32."""
    kinds: tuple[PromptKind, ...] = (CAPTIONS, FEATURES)
    for kind, positions, (residual, due) in itertools.product(kinds, ("sincos", "rope"), DTYPES.items()):
        model, (x, t, prompt) = s.random(kind, config=CONFIG.with_changes(positions=positions)), s.inputs(kind)
        model.residual = residual
        with observe(model) as observed, passed(model) as streams, torch.autocast("cpu", dtype=torch.bfloat16):
            model(x, t, prompt)
        other = {str(tensor.dtype) for tensor in streams} - {str(due)}
        require(not other, f"with residual {residual} and positions {positions} a stream is {few(sorted(other))}")
        given = [v for branch in observed.branches.values() for v in (branch.scale, branch.g) if v is not None]
        low = {str(v.dtype) for v in given} - {"torch.float32"}
        require(not low, f"a head gives {few(sorted(low))}: 1 + s is rounded; make its map an `Affine`")
    return "streams fp32 or bf16 as stated, vectors float32"


DTYPES: dict[Literal["fp32", "bf16"], torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def passed(model: DiT) -> Iterator[list[Tensor]]:
    """The streams that blocks change in the passes within, before and after."""
    streams: list[Tensor] = []

    def hook(block: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        for parts in changed(args[0], out):
            streams.extend(parts)

    handles = [block.register_forward_hook(hook) for block in model.blocks]
    try:
        yield streams
    finally:
        for handle in handles:
            handle.remove()


@law("encoded prompt")
def encoded_prompt(s: SchemeUnderTest) -> str:
    """A prompt that is encoded once, for many passes, gives what the prompt itself gives at each."""
    most = 0.0
    for kind in (CAPTIONS, FEATURES):
        model, (x, t, prompt) = s.random(kind).eval(), s.inputs(kind)
        once = model.encode(prompt)
        for k in range(2):
            each = model(x + k, t / (1 + k), prompt)
            moved = distance(model(x + k, t / (1 + k), once), each).max() / each.abs().max().clamp(min=1)
            most = max(most, moved.item())
    require(most < 1e-5, f"what DiT.encode keeps of the prompt moves the output by {most:.1e}")
    return f"{'keys and values kept' if once.kept else 'nothing kept'}; differences up to {most:.0e}"


@law("compiles")
def compiles(s: SchemeUnderTest) -> str:
    """`torch.compile` takes it whole, without a graph break."""
    model, (x, t, prompt) = s.random(CAPTIONS), s.inputs(CAPTIONS)
    torch._dynamo.reset()
    try:
        out = torch.compile(model, backend="eager", fullgraph=True)(x, t, prompt)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LawViolation(" ".join(lines[:4])[:300]) from error
    require(distance(out, model(x, t, prompt)).max() < 1e-4, "compiled it computes something else")
    return "one graph"


@law("saves and loads")
def saves(s: SchemeUnderTest) -> str:
    """Its state_dict holds all of it."""
    model, again = s.random(), s.build(seed=5)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    require(torch.equal(again(*s.inputs()), model(*s.inputs())), "saved and loaded it computes something else")
    return f"{file.getbuffer().nbytes / 1e3:.0f} kB"


@law("no memory")
def no_memory(s: SchemeUnderTest) -> str:
    """A call leaves nothing behind for the next."""
    model, (x, t, prompt) = s.random(), s.inputs()
    first, before = model(x, t, prompt), copy.deepcopy(model.state_dict())
    model(x * 2, t.flip(0), prompt)
    model(x[:2], t[:2], prompt[:2])
    require(torch.equal(model(x, t, prompt), first), "the same call gives something else after another call")
    kept = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    require(not kept, f"a call changes {few(kept)}")
    return "the same before and after other calls"


@law("deterministic")
def deterministic(s: SchemeUnderTest) -> str:
    """The same seed and the same inputs give the same output and gradients."""
    passes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = s.random()
        out = model(*s.inputs())
        out.square().mean().backward()
        passes.append([out, *(p.grad for p in model.parameters() if p.grad is not None)])
    require(all(torch.equal(a, b) for a, b in zip(*passes, strict=True)), "built twice it computes two things")
    return "bit by bit"
