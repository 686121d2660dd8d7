"""A cell's training step, in the harness and in the plainest loop that does the same work."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from bench.config.spec import CellConfig
from bench.data import datasets, prompts
from bench.data.pixels import from_images
from bench.data.prompts import to_device
from bench.run.machine import on_device, patched, placed
from bench.store.journal import Journal, curves
from bench.training.bare import bare_step
from bench.training.batches import Batches
from bench.training.callback import CellCallback
from bench.training.compiling import compile_whole
from bench.training.ema import Ema
from bench.training.fit import fit
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule
from bench.training.process import process_of
from bench.training.stopwatch import Stopwatch

WINDOW = 10  # steps; the first window is warm-up
Report = dict[str, Any]


def subject_of(config: CellConfig, folder: Path, *, compiled: bool = False) -> LoadedCell:
    """A cell's model on its device, with data that is prepared in a folder, and nothing left of the cell before."""
    train, own = on_device(config.train), placed(config.data)
    config = replace(config, backbone=patched(config.backbone, own), data=own, train=train)
    device = torch.device(train.device)
    torch._dynamo.reset()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    data = datasets.load(datasets.prepare(config.data, folder))
    prompted = prompts.prepare(data, config.prompt, folder)
    model = build(config, prompted.kind).to(device)
    if compiled:
        compile_whole(model)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return LoadedCell(model, data, prompted, config, device)


class Timed(CellCallback):
    """What a cell does between steps, without checkpoints; calls `at[k]` after step k."""

    at: dict[int, Callable[[], None]]

    def on_train_batch_end(self, trainer: lightning.Trainer, *more: Any) -> None:
        """As in a cell, and then what is due."""
        super().on_train_batch_end(trainer, *more)
        self.at.get(trainer.global_step, lambda: None)()

    def _checkpoint(self, trainer: lightning.Trainer, module: CellModule, step: int) -> None:
        """Writes none: what is timed is the step."""


def harness(
    subject: LoadedCell, steps: int, folder: Path, at: dict[int, Callable[[], None]] | None = None, window: int = WINDOW
) -> tuple[Report, list[float]]:
    """Seconds a step of the harness, the median over windows and in each that is warm, and the peak of its memory.

    Args:
        subject: the model with its data.
        steps: of training.
        folder: where the journal is written.
        at: what is called after which step.
        window: steps between two lines of the journal.
    """
    train = replace(subject.config.train, steps=steps, log_every=window, probe_every=1000)
    module, journal = CellModule(subject.model, train, seed=0), Journal(folder / f"{time.monotonic_ns()}.jsonl")
    callback = Timed(train, journal, folder, grid_every=steps + 1, write_grid=lambda step: None)
    callback.at = at or {}
    begin = time.perf_counter()
    batches = _batches(subject, steps)
    fit(module, batches, callback, resume=None)
    seconds, peaks = time.perf_counter() - begin, callback.memory.peaks
    windows = [train.batch / rate for rate in curves(journal.path)["train_images_per_second"].values()]
    journal.close()
    subject.model.to(subject.device)  # Lightning leaves it on the CPU
    return {"step_seconds": statistics.median(windows), "whole_seconds": seconds, **peaks}, windows


def plain(subject: LoadedCell, *, resident: bool = False) -> Callable[[], None]:
    """A step of the plainest loop that does the same work as the harness.

    Args:
        subject: the model with its data.
        resident: trains on one batch that is on the device already: what a step costs without its data.
    """
    train, device = subject.config.train, subject.device
    process, batches = process_of(train), first_batches(subject, train.steps)
    ema, given = Ema(subject.model, train.ema), _on(device, next(batches))
    number, done = itertools.count(), itertools.count(1)

    def loss() -> Tensor:
        batch, prompt = given if resident else _on(device, next(batches))
        x_0 = from_images(batch)
        chance = process.chance(0, next(number), x_0.shape, drop=train.drop, device=device)
        prompt = subject.prompts.kind.drop(prompt, chance.dropped)
        with subject.autocast():
            return process.loss(subject.model, x_0, chance.noise, chance.t, prompt).mean()

    take = bare_step(subject.model, loss, train)

    def step() -> None:
        take()
        ema.update(next(done))

    return step


def window_seconds(step: Callable[[], None]) -> float:
    """Seconds a step, over a window of them on the CPU."""
    begin = time.perf_counter()
    for _ in range(WINDOW):
        step()
    return (time.perf_counter() - begin) / WINDOW


def spread(pairs: Sequence[tuple[float, float]]) -> Report:
    """The median of the first over the second of each pair, and its quartiles."""
    low, median, high = statistics.quantiles((one / other for one, other in pairs), n=4)
    return {"ratio_median": round(median, 4), "ratio_quartiles": [round(low, 4), round(high, 4)]}


def first_batches(subject: LoadedCell, steps: int) -> Iterator[tuple[Tensor, Any]]:
    """A cell's training batches with their prompts, on the host: what its loop takes, without the loop."""
    return iter(_batches(subject, steps).here)


def _batches(subject: LoadedCell, steps: int) -> Batches:
    batch = subject.config.train.batch
    return Batches(subject.data, subject.prompts, batch=batch, steps=steps, seed=0, device=subject.device)


def _on(device: torch.device, given: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    batch, prompt = given
    batch = batch.pin_memory() if device.type == "cuda" else batch
    return batch.to(device, non_blocking=True), to_device(prompt, device)


def bare(subject: LoadedCell, steps: int, *, resident: bool = False, window: int = WINDOW) -> float:
    """Median seconds a step of the plain loop, over windows after the first."""
    step, watch = plain(subject, resident=resident), Stopwatch(subject.device)
    for _ in range(steps // window):
        watch.start()
        for _ in range(window):
            step()
        watch.stop()
    return statistics.median(watch.seconds()[1:]) / window
