"""Compiling a model: whole, or an error. It never falls back to eager in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compile_whole(model: torch.nn.Module, cache: Path | None = None, backend: str | Any = "inductor") -> None:
    """Compiles a model in place, one graph for each kind of call, with static shapes.

    A graph break raises, and so does a graph beyond Dynamo's limit (8), after which it would run eagerly in silence.

    Args:
        model: whose calls are compiled; its `forward` itself stays eager.
        cache: where Inductor keeps what it compiled, for other seeds and attempts; None: its own choice.
        backend: of `torch.compile`.
    """
    import torch._dynamo
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if cache is not None and os.environ.get(CACHE) in (None, default_cache_dir()):  # which torch sets as it is imported
        os.environ[CACHE] = str(cache)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.optimize_ddp = False  # it would cut the graph where gradients are averaged
    model.compile(dynamic=False, fullgraph=True, backend=backend)


def compiled() -> dict[str, float]:
    """What was compiled in this process so far: `compile_graphs` and `compile_seconds`."""
    from torch._dynamo.utils import calculate_time_spent, counters

    graphs, seconds = counters["stats"]["unique_graphs"], calculate_time_spent()["total_wall_time"]
    return {"compile_graphs": float(graphs), "compile_seconds": float(seconds)}
