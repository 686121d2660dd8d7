"""What happens between steps: journal, checkpoints, sample grids, stop signals."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

from bench.config.schema import Train
from bench.store.journal import Journal
from bench.store.provenance import usage
from bench.training.checkpoints import AtomicCheckpoints
from bench.training.dynamics import due, named
from bench.training.stopwatch import Stopwatch

SPIKE = 3.0  # a loss this many times the mean of the window before is one


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Stopped(RuntimeError):
    """A signal asked the cell to stop; a checkpoint was written."""


# --- what happens between steps -------------------------------------------------------------------------------------


class CellCallback(lightning.Callback):
    """Journal, checkpoints, sample grids and stop signals, all between steps; throughput over the windows between."""

    def __init__(
        self,
        config: Train,
        journal: Journal,
        folder: Path,
        *,
        grid_every: int,
        draw_grid: Callable[[int], None],
        look: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Args:
        draw_grid: draws and journals a sample grid for a step. look: what `bench.dynamics` sees of the blocks now.
        """
        self.config, self.journal, self.folder = config, journal, folder
        self.grid_every, self.draw_grid, self.look = grid_every, draw_grid, look
        self.stop_signal: int | None = None
        self.watch: Stopwatch | None = None
        self.timed = 0  # steps since times were last written down
        self.warm = False  # the first window of an attempt holds compilation and warm-up

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.watch = Stopwatch(module.device)
        if trainer.global_step == 0:
            self.journal.metrics(0, self.look())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: Any) -> None:
        self.stop_signal = number

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if self.watch is not None and not self.watch.running:
            self.watch.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        step, last = trainer.global_step, trainer.global_step == self.config.steps
        stop = self.stop_signal  # read once: one that comes below waits for the next step, and finds its checkpoint
        log = step % self.config.log_every == 0 or last
        keep = step % self.config.checkpoint_every == 0 or last or stop is not None
        grid = step % self.grid_every == 0 and not last
        looked = due(step, self.config.probe_every) or last
        self.timed += 1
        if not (log or keep or grid or looked):
            return
        assert self.watch is not None
        self.watch.stop()
        if looked:
            self._look(module, step)
        if log:
            self._log(trainer, module, step)
        if keep:
            self._checkpoint(trainer, step)
        if stop is not None and not last:
            raise Stopped(f"stopped by {signal.Signals(stop).name} after step {step}; run again to go on")
        if grid:
            with module.ema.swapped():
                self.draw_grid(step)

    def _look(self, module: Any, step: int) -> None:
        told = self.look()
        if module.block_gradients is not None:
            told |= named(module.block_gradients)
            module.block_gradients = None
        self.journal.metrics(step, told)
        if module.given is not None:
            self.journal.digests(step, module.given)
            module.given = None

    def _log(self, trainer: Any, module: Any, step: int) -> None:
        losses, module.losses = torch.stack(module.losses), []
        loss = losses.mean().item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}")
        values = {
            "loss": loss,
            "grad_norm": float(module.gradient_norm),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "spikes": float((losses > SPIKE * module.level).sum()) if module.level is not None else 0.0,
        }
        module.level = losses.mean()
        assert self.watch is not None
        seconds = sum(self.watch.seconds())
        module.seconds += seconds
        if self.warm and seconds > 0:
            values["train_images_per_second"] = self.timed * self.config.batch / seconds
        self.warm, self.timed = True, 0
        self.journal.metrics(step, values | usage(module.device.type))

    def _checkpoint(self, trainer: Any, step: int) -> None:
        """Writes a checkpoint and keeps the one before it: if this one is damaged, that one serves."""
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        self.journal.event(step, "checkpoint")
        for old in sorted(self.folder.glob("step-*.ckpt"))[:-2]:
            AtomicCheckpoints().remove_checkpoint(old)
