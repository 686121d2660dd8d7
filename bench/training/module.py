"""Rectified flow on any scheme as a LightningModule."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from bench.config.schema import Train
from bench.training.digests import tensors_digest
from bench.training.dynamics import due, gradients
from bench.training.ema import Ema
from bench.training.flow import flow_loss, from_images, sample_noise


class CellModule(lightning.LightningModule):
    """Rectified flow on any scheme. t, noise and dropped prompts of a step are functions of (seed, step) alone.

    Args:
        model: a DiT.
        config: how it is trained.
        seed: the cell's.
    """

    def __init__(self, model: torch.nn.Module, config: Train, seed: int) -> None:
        super().__init__()
        self.model, self.config, self.seed = model, config, seed
        self.ema = Ema(model, config.ema)
        self.losses: list[Tensor] = []  # since the journal was last written; on the device
        self.seconds = 0.0  # of training, over all attempts
        self.given: dict[str, str] | None = None  # hashes of what the last step was given, where it is looked at
        self.block_gradients: Tensor | None = None  # of the same step
        self.level: Tensor | None = None  # mean loss of the window before, against which a spike is one

    def training_step(self, batch: tuple[Tensor, Any], index: int) -> Tensor:
        pictures, prompt = batch
        x_0 = from_images(pictures)
        chance = sample_noise(
            self.seed,
            self.global_step,
            x_0.shape,
            t_mean=self.config.t_mean,
            t_std=self.config.t_std,
            drop=self.config.drop,
            device=self.device,
        )
        if due(self.global_step + 1, self.config.probe_every):
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
            self.parameters(), lr=config.lr, betas=(config.betas[0], config.betas[1]), weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *unused: Any, **also_unused: Any) -> None:
        if due(self.global_step + 1, self.config.probe_every):
            self.block_gradients = gradients(self.model)
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

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


def learning_rate(step: int, config: Train) -> float:
    """The share of `lr` at a step: up over `warmup` steps, flat, down to zero over the last `cooldown`."""
    up = (step + 1) / max(1, config.warmup)
    down = (config.steps - step) / (config.cooldown + 1)
    return max(0.0, min(1.0, up, down))
