"""Training one cell: a LightningModule around any scheme, with exact resume and nothing that waits for the device."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from bench.batches import Batches
from bench.cost import Stopwatch
from bench.diffusion import draw, flow_loss, from_pictures
from bench.dynamics import due, gradients, named
from bench.files import file_digest, publish, write_atomic
from bench.journal import Journal
from bench.provenance import usage

SPIKE = 3.0  # a loss this many times the mean of the window before is one


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Stopped(RuntimeError):
    """A signal asked the cell to stop; a checkpoint was written."""


class Ema:
    """A moving average of the trainable parameters, which begins short: decay min(d, (1 + k) / (10 + k))."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """mean <- d mean + (1 - d) live, after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The averaged weights in the model's place, and back again whatever happens."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, mean in zip(self.live, self.mean, strict=True):
            keep = live.detach().clone()
            live.copy_(mean)
            mean.copy_(keep)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.mean, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mean in zip(self.names, self.mean, strict=True):
            mean.copy_(state[name])


class CellModule(lightning.LightningModule):
    """Rectified flow on any scheme. t, noise and dropped prompts of a step are functions of (seed, step) alone.

    Args:
        model: a DiT. config: the cell's `train` values. seed: the cell's.
    """

    def __init__(self, model: torch.nn.Module, config: dict[str, Any], seed: int) -> None:
        super().__init__()
        self.model, self.config, self.seed = model, config, seed
        self.ema = Ema(model, config["ema"])
        self.losses: list[Tensor] = []  # since the journal was last written; on the device
        self.seconds = 0.0  # of training, over all attempts
        self.given: dict[str, str] | None = None  # hashes of what the last step was given, where it is looked at
        self.block_gradients: Tensor | None = None  # of the same step
        self.level: Tensor | None = None  # mean loss of the window before, against which a spike is one

    def training_step(self, batch: tuple[Tensor, Any], index: int) -> Tensor:
        pictures, prompt = batch
        x_0 = from_pictures(pictures)
        chance = draw(
            self.seed,
            self.global_step,
            x_0.shape,
            t_mean=self.config["t_mean"],
            t_std=self.config["t_std"],
            drop=self.config["drop"],
            device=self.device,
        )
        if due(self.global_step + 1, self.config["probe_every"]):
            given = prompt if isinstance(prompt, tuple) else (prompt,)
            chances = (chance.t, chance.noise, chance.dropped)
            self.given = {"batch": tensors_digest(pictures, *given), "chance": tensors_digest(*chances)}
        prompt = self.model.prompt_kind.drop(prompt, chance.dropped)  # type: ignore[union-attr, operator]
        loss = flow_loss(self.model, x_0, chance.noise, chance.t, prompt).mean()
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=config["lr"], betas=tuple(config["betas"]), weight_decay=config["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *unused: Any, **also_unused: Any) -> None:
        if due(self.global_step + 1, self.config["probe_every"]):
            self.block_gradients = gradients(self.model)
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.config["clip"])

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.ema.update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.ema.state_dict()
        checkpoint["seconds"] = self.seconds
        checkpoint["losses"] = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        checkpoint["level"] = self.level.cpu() if self.level is not None else torch.empty(0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ema.load_state_dict(checkpoint["ema"])
        self.seconds = checkpoint["seconds"]
        self.losses = list(checkpoint["losses"].to(self.device))
        level = checkpoint["level"].to(self.device)
        self.level = level if level.numel() else None


def learning_rate(step: int, config: dict[str, Any]) -> float:
    """The share of `lr` at a step: up over `warmup` steps, flat, down to zero over the last `cooldown`."""
    up = (step + 1) / max(1, config["warmup"])
    down = (config["steps"] - step) / (config["cooldown"] + 1)
    return max(0.0, min(1.0, up, down))


# --- checkpoints ----------------------------------------------------------------------------------------------------


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent: temporary file beside them, fsync, digest, rename. Read back only if the
    digest fits, and with `weights_only`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            write_atomic(digest_file(path), file_digest(Path(temporary)))
            publish(Path(temporary), path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        digest_file(Path(path)).unlink(missing_ok=True)


def digest_file(path: Path) -> Path:
    """Where a checkpoint's SHA-256 stands."""
    return path.with_suffix(".sha256")


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint, if its bytes match its digest.

    Raises:
        ValueError: if it is damaged or incomplete.
    """
    recorded = digest_file(path)
    if not recorded.is_file() or file_digest(path) != recorded.read_text().strip():
        raise ValueError(f"checkpoint {path.name} is damaged")
    return torch.load(path, map_location=map_location, weights_only=True)


def newest_checkpoint(folder: Path, warn: Callable[[str], None] = lambda text: None) -> Path | None:
    """The latest checkpoint that is whole; says which ones were passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        recorded = digest_file(path)
        if recorded.is_file() and file_digest(path) == recorded.read_text().strip():
            return path
        warn(f"checkpoint {path.name} is damaged; going back to the one before it")
    return None


# --- what happens between steps -------------------------------------------------------------------------------------


class Keeper(lightning.Callback):
    """Journal, checkpoints, sample grids and stop signals, all between steps; throughput over the windows between."""

    def __init__(
        self,
        config: dict[str, Any],
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
        step, last = trainer.global_step, trainer.global_step == self.config["steps"]
        stop = self.stop_signal  # read once: one that comes below waits for the next step, and finds its checkpoint
        log = step % self.config["log_every"] == 0 or last
        keep = step % self.config["checkpoint_every"] == 0 or last or stop is not None
        grid = step % self.grid_every == 0 and not last
        looked = due(step, self.config["probe_every"]) or last
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
            values["train_images_per_second"] = self.timed * self.config["batch"] / seconds
        self.warm, self.timed = True, 0
        self.journal.metrics(step, values | usage(module.device.type))

    def _checkpoint(self, trainer: Any, step: int) -> None:
        """Writes a checkpoint and keeps the one before it: if this one is damaged, that one serves."""
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        self.journal.event(step, "checkpoint")
        for old in sorted(self.folder.glob("step-*.ckpt"))[:-2]:
            AtomicCheckpoints().remove_checkpoint(old)


def fit(
    module: CellModule,
    batches: Batches,
    keeper: Keeper,
    *,
    resume: Path | None,
) -> None:
    """Trains to the config's last step, from `resume` where given.

    Raises:
        Diverged, Stopped, torch.OutOfMemoryError: the journal and the last checkpoint stay.
    """
    config = module.config
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # tips and notices
    warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|num_workers|`len`|litlogger).*")
    trainer = lightning.Trainer(
        accelerator="gpu" if config["device"] == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if config["precision"] == "bf16" else "32-true",
        max_epochs=-1,
        max_steps=config["steps"],
        deterministic=config["exact"],
        callbacks=[keeper],
        plugins=[AtomicCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)


def tensors_digest(*tensors: Tensor) -> str:
    """A hash over tensors' bytes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def weights_digest(model: torch.nn.Module, *, names: Callable[[str], object] = lambda name: True) -> str:
    """A hash over parameters by name, to show that two cells began alike."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if names(name):
            total.update(name.encode() + parameter.detach().cpu().float().numpy().tobytes())
    return total.hexdigest()[:16]
