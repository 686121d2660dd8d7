"""What happens between steps: journal, observations, checkpoints, sample grids, a polite end."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from bench.config.schema import Train
from bench.data import vae
from bench.data.pixels import from_images
from bench.store.journal import Journal
from bench.store.provenance import usage
from bench.training.checkpoints import remove_older
from bench.training.compiling import compiled
from bench.training.digests import tensors_digest
from bench.training.dynamics import due, gradient_curves
from bench.training.model import LoadedCell
from bench.training.module import CellModule, learning_rate
from bench.training.signals import STOP, Stopped, beat, ignore_stops
from bench.training.stopwatch import StepMemory, Throughput

SPIKE = 3.0  # a loss this many times the mean of the window before is one


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Due:
    """What comes after a step, as all ranks know: a line of the journal, a probe, a sample grid, a curve's point."""

    log: bool
    probe: bool
    grid: bool
    curve: bool

    @classmethod
    def at(cls, step: int, config: Train, grid_every: int, curve_every: int) -> Due:
        """After step `step`, from 1."""
        last = step == config.steps
        return cls(
            log=step % config.log_every == 0 or last,
            probe=due(step, config.probe_every),
            grid=step % grid_every == 0 and not last,
            curve=curve_every > 0 and (step % curve_every == 0 or last),
        )


class CellCallback(lightning.Callback):
    """Journal, observations, checkpoints and sample grids, all between steps."""

    def __init__(
        self,
        config: Train,
        journal: Journal,
        folder: Path,
        *,
        grid_every: int,
        write_grid: Callable[[int], None],
        observe: Callable[[], dict[str, float]] = dict,
        curve_every: int = 0,
        curve: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """What to do, and how often.

        Args:
            config: how the cell is trained.
            journal: where curves are written.
            folder: where checkpoints are written.
            grid_every: steps between sample grids.
            write_grid: samples and journals a grid for a step.
            observe: what `bench.training.dynamics` observes of the blocks now.
            curve_every: steps between points of capability curves; 0: none.
            curve: measures one, with the averaged weights in place.
        """
        self.config, self.journal, self.folder = config, journal, folder
        self.grid_every, self.write_grid, self.observe = grid_every, write_grid, observe
        self.curve_every, self.curve = curve_every, curve
        self.stop = STOP
        self.throughput, self.memory = Throughput(torch.device("cpu"), config.batch), StepMemory(torch.device("cpu"))
        self.saved = time.monotonic()
        self.peaks: dict[str, float] = {}  # of several ranks, when the journal was last written

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Starts the clock, and observes the model before its first step."""
        self.throughput, self.memory = Throughput(module.device, self.config.batch), StepMemory(module.device)
        self.saved = time.monotonic()
        if trainer.global_step == 0:
            with module.as_trained():
                self.journal.metrics(0, self.observe())
        self.stop.listen()

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, index: int) -> None:
        """Lets the clock run, and shows that the cell lives."""
        beat()
        self.throughput.resume()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: tuple[Tensor, Any], index: int
    ) -> None:
        """Whatever is due after a step; the clock is paused meanwhile.

        Raises:
            Stopped, Diverged: where the training ends here.
        """
        step = trainer.global_step
        last = step == self.config.steps
        stop = self.stop.number  # read once: one that comes below waits for the next step, and finds its checkpoint
        now = Due.at(step, self.config, self.grid_every, self.curve_every)
        keep = module.agreed(self._due(step) or last or stop is not None)
        warming = self.throughput.cold > 0
        self.throughput.count()
        if not (keep or now.log or now.probe or now.grid or now.curve):
            if warming and not self.throughput.cold:
                self.memory.restart()
            return
        module.seconds += self.throughput.pause()
        self.memory.keep(warm=not warming)
        if now.probe or last:
            self._observe(module, step)
        if now.probe:
            self._digest(module, step, batch)
        if now.log:
            self._log(module, step)
        if now.grid:
            with module.averaged(), module.ranks.led():
                self.write_grid(step)
            vae.release()
        if now.curve:
            with module.averaged(), module.ranks.led():
                self.journal.metrics(step, self.curve())
        if keep:  # last of all: a cell that resumes here lacks nothing of this step
            self._checkpoint(trainer, module, step)
        self.memory.restart()
        if stop is not None and not last:
            raise Stopped(f"stopped by {signal.Signals(stop).name} after step {step}; run again to resume")

    def _due(self, step: int) -> bool:
        """Whether it is time for a checkpoint, by steps where the config says so."""
        if self.config.checkpoint_every is not None:
            return step % self.config.checkpoint_every == 0
        return time.monotonic() - self.saved >= 60 * self.config.checkpoint_minutes

    def _observe(self, module: CellModule, step: int) -> None:
        with module.as_trained():
            values = self.observe()
        if module.block_gradients is not None:
            values |= gradient_curves(module.block_gradients)
            module.block_gradients = None
        self.journal.metrics(step, values)

    def _digest(self, module: CellModule, step: int, batch: tuple[Tensor, Any]) -> None:
        """Hashes of what the step was given, on all ranks, to show that two cells were given the same."""
        parts = module.ranks.gather(given(module, step, batch))
        whole = {name: zip(*(part[name] for part in parts), strict=True) for name in parts[0]}
        self.journal.digests(step, {name: tensors_digest(*map(torch.cat, each)) for name, each in whole.items()})

    def _log(self, module: CellModule, step: int) -> None:
        losses, module.losses = torch.stack(module.losses), []
        loss = losses.mean().item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}")
        values = {
            "loss": loss,
            "grad_norm": float(module.gradient_norm),
            "lr": learning_rate(step - 1, self.config),  # that the step was made with
            "spikes": float((losses > SPIKE * module.level).sum()) if module.level is not None else 0.0,
        }
        module.level = losses.mean()
        rate = self.throughput.window()
        values |= {} if rate is None else {"train_images_per_second": rate}
        self.journal.metrics(step, values | self.memory.steady() | usage(module.device.type))
        self.peaks = peaks(module.ranks.gather(self.memory.named()))

    def _checkpoint(self, trainer: lightning.Trainer, module: CellModule, step: int) -> None:
        """Writes a checkpoint and keeps the one before it: if this one is damaged, that one serves.

        What training cost so far is journaled first: a cell that is killed after its last checkpoint trains no more.
        """
        memory = self.memory.named() if module.ranks.count == 1 else self.peaks
        graphs = compiled() if self.config.compile == "on" else {}
        self.journal.metrics(step, memory | graphs | {"train_seconds": module.seconds})
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        self.journal.event(step, "checkpoint")
        self.saved = time.monotonic()
        remove_older(self.folder, keep=2)


def given(module: CellModule, step: int, batch: tuple[Tensor, Any]) -> dict[str, list[Tensor]]:
    """What a rank was given at step `step`, from 1, on the CPU: `batch`, images and prompts, and `chance`."""
    images, prompt = batch
    chance = module.step_noise(step - 1, from_images(images).shape)
    parts = prompt if isinstance(prompt, tuple) else (prompt,)
    named = {"batch": (images, *parts), "chance": (chance.t, chance.noise, chance.dropped)}
    return {name: [tensor.cpu() for tensor in tensors] for name, tensors in named.items()}


def peaks(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Peaks of memory of all ranks: the most that one has, and, of several, `_total` of their sum."""
    most = {name: max(one[name] for one in found) for name in found[0]} if found else {}
    total = {f"{name}_total": sum(one[name] for one in found) for name in most} if len(found) > 1 else {}
    return most | total


class RankCallback(lightning.Callback):
    """What a rank does between steps that is not the first: its share of what rank 0 journals and samples.

    Args:
        subject: the cell as this rank has it.
        curve_every: as of `CellCallback`.
    """

    def __init__(self, subject: LoadedCell, curve_every: int) -> None:
        self.subject, self.curve_every = subject, curve_every
        self.memory, self.steps = StepMemory(subject.device), 0

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Leaves signals to rank 0, from Lightning too."""
        ignore_stops()
        if trainer.global_step == 0:
            module.join()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: tuple[Tensor, Any], index: int
    ) -> None:
        """Whatever is due after a step, in the order of rank 0."""
        config, step = self.subject.config, trainer.global_step
        now = Due.at(step, config.train, config.sample.grid_every, self.curve_every)
        self.steps += 1
        keep = module.agreed(False)
        busy = keep or now.log or now.probe or now.grid or now.curve
        if busy:
            self.memory.keep(warm=self.steps > Throughput.WARM_UP)
        if now.probe or step == config.train.steps:
            module.join()
        if now.probe:
            module.ranks.gather(given(module, step, batch))
        if now.log:
            module.losses.clear()
            module.ranks.gather(self.memory.named())
        for _ in range(now.grid + now.curve):
            with module.averaged():
                module.ranks.follow(self.subject)
            vae.release()
        if keep:
            trainer.save_checkpoint("")  # its part: rank 0 writes
        if busy or self.steps == Throughput.WARM_UP:
            self.memory.restart()
