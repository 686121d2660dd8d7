"""Training of any scheme as a LightningModule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning
import torch
from torch import Tensor

from architectures import DiT, index_prompt
from bench.config.schema import Train
from bench.data.pixels import from_images
from bench.training.dynamics import due, gradient_norms
from bench.training.ema import Ema
from bench.training.flow import StepNoise
from bench.training.process import process_of
from bench.training.ranks import ALONE, Ranks
from bench.training.sharded import Whole, cut, gathered, placed, whole


class CellModule(lightning.LightningModule):
    """A process on any scheme. t, noise and dropped prompts of a step are functions of (seed, step) alone.

    Args:
        model: what is trained.
        config: how.
        seed: the cell's.
        ranks: that train it together, each on its part of every batch.
        sharded: whether each has a part of the model, too, which is on the CPU then and is not trained itself.
    """

    def __init__(self, model: DiT, config: Train, seed: int, ranks: Ranks = ALONE, *, sharded: bool = False) -> None:
        super().__init__()
        self.config, self.seed, self.ranks = config, seed, ranks
        self.whole = Whole(model, ranks.device(config.device)) if sharded else None
        if sharded:
            model = cut(model, ranks.count, config.device, compiled=config.compile == "on")
        self.model = model
        self.process = process_of(config)
        self.ema = Ema(model, config.ema)
        self.losses: list[Tensor] = []  # since the journal was last written; on the device
        self.seconds = 0.0  # of training, over all attempts
        self.gradient_norm = torch.zeros(())  # of the last step, before clipping
        self.block_gradients: Tensor | None = None  # of the last step that is probed
        self.level: Tensor | None = None  # mean loss of the window before, against which a spike is one

    def training_step(self, batch: tuple[Tensor, Any], index: int) -> Tensor:
        """The mean loss of images uint8 (B, H, W, C) and their prompts, or the last microbatch's share of it.

        The gradients of the microbatches before that are there by then.
        """
        images, prompt = batch
        x_0 = from_images(images)
        chance = self.step_noise(self.global_step, x_0.shape)
        prompt = self.model.prompt_kind.drop(prompt, chance.dropped)
        for parameter in self.ema.live:  # `zero_grad` would look for them in all modules: 1 to 2 % of a short step
            parameter.grad = None
        size = self.config.microbatch or len(x_0)
        *before, last = (slice(start, start + size) for start in range(0, len(x_0), size))
        total = torch.zeros((), device=self.device)
        for part in before:
            share = self._loss(x_0, chance, prompt, part)
            with torch.autocast(self.device.type, enabled=False):
                torch.autograd.backward(share)
            total += share.detach()
        share = self._loss(x_0, chance, prompt, last)
        self.losses.append(self.ranks.mean(total + share.detach()))
        return share

    def _loss(self, x_0: Tensor, chance: StepNoise, prompt: Any, part: slice) -> Tensor:
        """What a part of a batch adds to the mean loss."""
        noise, t, given = chance.noise[part], chance.t[part], index_prompt(prompt, part)
        losses = self.process.loss(self.model, x_0[part], noise, t, given)
        return losses.mean() if len(losses) == len(x_0) else losses.sum() / len(x_0)

    def optimizer_zero_grad(self, *unused: Any) -> None:
        """Nothing: Lightning calls it before the last backward pass, and gradients are zeroed before the first."""

    def step_noise(self, step: int, shape: Sequence[int]) -> StepNoise:
        """What chance decides at a step, for images (B, C, H, W): this rank's part of what it decides for all."""
        every = self.ranks.count * shape[0], *shape[1:]
        chance = self.process.chance(self.seed, step, every, drop=self.config.drop, device=self.device)
        if self.ranks.count == 1:
            return chance
        part = self.ranks.part(every[0])
        return StepNoise(chance.t[part], chance.noise[part], chance.dropped[part])

    def configure_optimizers(self) -> Any:
        """AdamW as one kernel: a loop over parameters is a fifth of a short step on a CPU."""
        config = self.config
        beta_1, beta_2 = config.betas
        return torch.optim.AdamW(
            self.parameters(), lr=config.lr, betas=(beta_1, beta_2), weight_decay=config.weight_decay, fused=True
        )

    def configure_gradient_clipping(self, optimizer: Any, *unused: Any, **also_unused: Any) -> None:
        """Clips the norm over all parameters, and keeps what it was before."""
        if due(self.global_step + 1, self.config.probe_every):
            self.block_gradients = gradient_norms(self.model)
        self.gradient_norm = gathered(torch.nn.utils.clip_grad_norm_(self.ema.live, self.config.clip))

    def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any = None) -> None:
        """A step of the optimiser at its learning rate, and of the average: what runs after a step finds both done."""
        step = self.global_step  # Lightning counts it when this returns
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        super().optimizer_step(epoch, index, optimizer, closure)
        self.ema.update(step + 1)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """The weights as they are, in the model that is observed. Where it is cut every rank must ask."""
        with self.whole.of(self.ema.live) if self.whole else nullcontext():
            yield

    def join(self) -> None:
        """This rank's part of what rank 0 observes."""
        with self.as_trained():
            pass

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights, in the model that is sampled and measured. Where it is cut every rank must ask."""
        with self.whole.of(self.ema.mean) if self.whole else self.ema.swapped():
            yield

    def agreed(self, due: bool) -> bool:
        """What rank 0 finds due, on every rank, where all must do it together; else what this one finds."""
        return self.ranks.broadcast(due) if self.whole else due

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes whole weights, of which a rank may have a part."""
        own = self.state_dict()
        parts = {name: placed(full, own[name]) if name in own else full for name, full in state_dict.items()}
        return super().load_state_dict(parts, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what an exact resume needs besides weights and optimiser; after the last step none needs the latter."""
        if self.global_step >= self.config.steps:
            checkpoint.pop("optimizer_states", None)
        checkpoint["ema"] = whole(self.ema.state_dict(), keep=self.ranks.leads)
        checkpoint["seconds"] = self.seconds
        checkpoint["losses"] = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        checkpoint["level"] = self.level.cpu() if self.level is not None else torch.empty(0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back, to where the weights are: `self.device` is the CPU until Lightning has restored all."""
        device = self.ema.live[0].device
        self.ema.load_state_dict(checkpoint["ema"])
        self.seconds = checkpoint["seconds"]
        self.losses = list(checkpoint["losses"].to(device))
        level = checkpoint["level"].to(device)
        self.level = level if level.numel() else None


def learning_rate(step: int, config: Train) -> float:
    """The learning rate at a step: up over `warmup` steps, flat, down to zero over the last `cooldown`."""
    up = (step + 1) / max(1, config.warmup)
    down = (config.steps - step) / (config.cooldown + 1)
    return config.lr * max(0.0, min(1.0, up, down))
