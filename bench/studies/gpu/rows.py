"""The rows of the study: each a cell and a mode, made ready beside others and measured while no other is.

Compiling takes a core a minute and measuring takes the GPU some seconds. So a process a row builds its model and
compiles it beside others, as many as the card's memory holds; while one is timed the others are stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import torch

from architectures import PromptKind
from bench.config.spec import CellConfig
from bench.measure.cost import count_parameters
from bench.studies.gpu import step
from bench.studies.gpu.turns import Turns
from bench.studies.loops import harness, subject_of
from bench.training.model import backbone
from bench.training.stopwatch import Throughput

Report = dict[str, Any]
STATE = 20  # bytes a parameter: weights, gradients, two moments, average
KEPT = 50  # bytes an element of (B, N, D) and block that a compiled step keeps in bf16, `results/gpu/README.md`
SHARE = 0.85  # of the card's memory, for all rows that are made ready
LONG = 0.15  # seconds of a step from which on no loop beside it is timed: it would show nothing of the harness
OUT_OF_MEMORY = "does not fit beside others"


@dataclass(frozen=True)
class Row:
    """A cell of the matrix, compiled or eager."""

    config: CellConfig
    mode: str

    @property
    def key(self) -> Report:
        """What names it among the rows."""
        train = self.config.train
        return {
            "scheme": self.config.scheme,
            "options": self.config.options,
            "backbone": self.config.backbone.name,
            "mode": self.mode,
            "batch": train.batch,
            "precision": train.precision,
        }

    def memory(self, kind: PromptKind) -> float:
        """Bytes that it takes on a GPU, roughly."""
        sizes = backbone(self.config.backbone)
        elements = self.config.train.batch * (self.config.data.image_size // sizes.patch) ** 2 * sizes.width
        kept = KEPT * (1 if self.mode == "compiled" else 2)
        return STATE * count_parameters(self.config, kind)["parameters_total"] + kept * elements * sizes.depth


_turns: Turns


def _started(turns: Turns) -> None:
    global _turns
    _turns = turns
    turns.join()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")  # else each row starts a compiler for every core


def measure(row: Row, folder: Path, steps: int, gemm: float, samples: bool) -> Report:
    """A row's numbers; one that does not fit has a `failed` in their place."""
    begin = time.perf_counter()
    try:
        return row.key | _measured(row, folder, steps, gemm, samples) | {"row_seconds": time.perf_counter() - begin}
    except torch.OutOfMemoryError:
        return row.key | {"failed": OUT_OF_MEMORY}
    except Exception as error:  # a row, and not the end of the others
        return row.key | {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
    finally:
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _measured(row: Row, folder: Path, steps: int, gemm: float, samples: bool) -> Report:
    subject = subject_of(row.config, folder, compiled=row.mode == "compiled")
    window = max(2, steps // 6)
    with tempfile.TemporaryDirectory() as name:
        journals, begin = Path(name), time.perf_counter()
        if row.mode == "compiled":
            harness(subject, Throughput.WARM_UP + 2, journals, window=1)
            if samples:
                step.sampling(subject, steps=1, rounds=1)
        ready = time.perf_counter() - begin
        subject.model.train()
        with _turns.alone():
            found = step.measured(subject, steps, journals, gemm, window=window)
            if found["step_seconds"] < LONG:
                found |= step.beside(subject, found["step_seconds"], steps, window=window)
            found |= step.sampling(subject) if samples else {}
    return found | {"ready_seconds": ready}


def measured(
    rows: list[Row],
    kind: PromptKind,
    folder: Path,
    *,
    steps: int,
    gemm: float,
    workers: int,
    until: float,
    samples: bool,
) -> Iterator[Report]:
    """The numbers of each row as they come, until a time on the clock `time.monotonic`; then the rest is left.

    Args:
        rows: in the order of their importance.
        kind: of their prompts.
        folder: with the prepared data.
        steps: of each loop.
        gemm: FLOP/s of a matrix product on this card.
        workers: processes at most.
        until: when to stop.
        samples: whether sampling is timed, too.
    """
    room = SHARE * torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else float("inf")
    waiting = {index: row.memory(kind) for index, row in enumerate(rows)}
    running: dict[int, float] = {}
    context = multiprocessing.get_context("spawn")
    done: queue.Queue[tuple[int, Report]] = queue.Queue()
    own = None if torch.cuda.is_available() else 1  # on a CPU a row's memory is its process's peak: each has its own
    turns = Turns(context, workers + (len(rows) if own else 0))
    pool: Pool = context.Pool(workers, _started, (turns,), maxtasksperchild=own)

    def start(index: int) -> None:
        running[index] = waiting.pop(index)
        pool.apply_async(
            measure,
            (rows[index], folder, steps, gemm, samples),
            callback=lambda found: done.put((index, found)),
            error_callback=lambda error: done.put((index, rows[index].key | {"failed": str(error)[:500]})),
        )

    try:
        while waiting or running:
            for index, need in list(waiting.items()):
                if len(running) < workers and (not running or sum(running.values()) + need <= room):
                    start(index)
            try:
                index, found = done.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            need = running.pop(index)
            if found.get("failed") == OUT_OF_MEMORY and need < room:
                waiting[index] = room + 1  # again, alone
            else:
                yield found
    finally:
        turns.wake()  # what is stopped cannot be ended
        pool.terminate()
        turns.end()
