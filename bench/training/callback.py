"""What happens between steps: journal, observations, checkpoints, sample grids, a polite end."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from bench.config.schema import Train
from bench.data.pixels import from_images
from bench.store.journal import Journal
from bench.store.provenance import usage
from bench.training.checkpoints import AtomicCheckpoints
from bench.training.compiling import compiled
from bench.training.digests import tensors_digest
from bench.training.dynamics import due, gradient_curves
from bench.training.module import CellModule, learning_rate
from bench.training.signals import STOP, Stopped, beat
from bench.training.stopwatch import StepMemory, Throughput

SPIKE = 3.0  # a loss this many times the mean of the window before is one


class Diverged(RuntimeError):
    """The loss is no longer a number."""


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

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Starts the clock, and observes the model before its first step."""
        self.throughput, self.memory = Throughput(module.device, self.config.batch), StepMemory(module.device)
        self.saved = time.monotonic()
        if trainer.global_step == 0:
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
        log = step % self.config.log_every == 0 or last
        keep = self._due(step) or last or stop is not None
        grid = step % self.grid_every == 0 and not last
        probed = due(step, self.config.probe_every)
        curve = self.curve_every > 0 and (step % self.curve_every == 0 or last)
        warming = self.throughput.cold > 0
        self.throughput.count()
        if warming and not self.throughput.cold:
            self.memory.restart()
        if not (log or keep or grid or probed or curve):
            return
        module.seconds += self.throughput.pause()
        self.memory.keep(warm=not self.throughput.cold)
        if probed or last:
            self._observe(module, step)
        if probed:
            self._digest(module, step, batch)
        if log:
            self._log(module, step)
        if grid:
            with module.ema.swapped():
                self.write_grid(step)
        if curve:
            with module.ema.swapped():
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
        values = self.observe()
        if module.block_gradients is not None:
            values |= gradient_curves(module.block_gradients)
            module.block_gradients = None
        self.journal.metrics(step, values)

    def _digest(self, module: CellModule, step: int, batch: tuple[Tensor, Any]) -> None:
        """Hashes of what the step was given, to show that two cells were given the same."""
        images, prompt = batch
        parts = prompt if isinstance(prompt, tuple) else (prompt,)
        chance = module.step_noise(step - 1, from_images(images).shape)
        given = {"batch": tensors_digest(images, *parts)}
        given["chance"] = tensors_digest(chance.t, chance.noise, chance.dropped)
        self.journal.digests(step, given)

    def _log(self, module: CellModule, step: int) -> None:
        losses, module.losses = torch.stack(module.losses), []
        loss = losses.mean().item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}")
        values = {
            "loss": loss,
            "grad_norm": float(module.gradient_norm),
            "lr": learning_rate(step, self.config),
            "spikes": float((losses > SPIKE * module.level).sum()) if module.level is not None else 0.0,
        }
        module.level = losses.mean()
        rate = self.throughput.window()
        values |= {} if rate is None else {"train_images_per_second": rate}
        self.journal.metrics(step, values | self.memory.steady() | usage(module.device.type))

    def _checkpoint(self, trainer: lightning.Trainer, module: CellModule, step: int) -> None:
        """Writes a checkpoint and keeps the one before it: if this one is damaged, that one serves.

        What training cost so far is journaled first: a cell that is killed after its last checkpoint trains no more.
        """
        memory = {f"train_{name}": value for name, value in self.memory.peaks.items()}
        graphs = compiled() if self.config.compile == "on" else {}
        self.journal.metrics(step, memory | graphs | {"train_seconds": module.seconds})
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        self.journal.event(step, "checkpoint")
        self.saved = time.monotonic()
        for old in sorted(self.folder.glob("step-*.ckpt"))[:-2]:
            AtomicCheckpoints().remove_checkpoint(old)
