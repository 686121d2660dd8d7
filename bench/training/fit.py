"""Training one cell with Lightning: exact resume, and nothing that waits for the device between journal lines."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from bench.training.batches import Batches
from bench.training.callback import CellCallback, RankCallback
from bench.training.checkpoints import AtomicCheckpoints
from bench.training.module import CellModule
from bench.training.ranks import Ranks
from bench.training.sharded import placed, whole


def fit(module: CellModule, batches: Batches, callback: CellCallback | RankCallback, *, resume: Path | None) -> None:
    """Trains to the config's last step, from `resume` where given.

    Raises:
        Diverged, Stopped, torch.OutOfMemoryError: the journal and the last checkpoint stay.
    """
    config, ranks = module.config, module.ranks
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # tips and notices
    quiet = (
        "does not have many workers|LeafSpec|num_workers|`len`|litlogger|resuming from a checkpoint|broadcast_buffers"
        "|returned a view tensor"
    )
    warnings.filterwarnings("ignore", message=f".*({quiet}).*")
    trainer = lightning.Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=1 if module.whole else ranks.count,
        strategy=_Fsdp(module) if module.whole else _Ddp(module) if ranks.count > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_epochs=-1,
        max_steps=config.steps,
        deterministic=config.exact,
        callbacks=[callback],
        plugins=[AtomicCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)


class _There(LightningEnvironment):
    """Ranks that are there: Lightning starts none."""

    creates_processes_externally = True

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def local_rank(self) -> int:
        return self.ranks.rank


class _Ddp(DDPStrategy):
    """Gradients are averaged over the ranks in the backward pass, through the process group that is there.

    Of a plugin's scheme a parameter may be unused, and has no gradient, as on one device.
    """

    world_size = 1  # what Lightning's loop sees: with more it waits for the device at every step, to share a signal

    def __init__(self, module: CellModule) -> None:
        super().__init__(
            cluster_environment=_There(module.ranks),
            broadcast_buffers=False,  # they are constants
            find_unused_parameters=not type(module.model.scheme).__module__.startswith("architectures."),
        )

    def barrier(self, *unused: Any, **also_unused: Any) -> None:
        """None: rank 0 writes checkpoints when it alone knows that it is time."""


class _Fsdp(SingleDeviceStrategy):
    """Each rank trains as if its device were the only one: what it shares with others is done by the cut model itself.

    Checkpoints are whole, those of any number of devices.
    """

    def __init__(self, module: CellModule) -> None:
        super().__init__(device=module.ranks.device(module.config.device))
        self.ranks = module.ranks

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights."""
        found: dict[str, Any] = whole(super().lightning_module_state_dict(), keep=self.ranks.leads)
        return found

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Whole moments."""
        found: dict[str, Any] = whole(super().optimizer_state(optimizer), keep=self.ranks.leads)
        return found

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Takes this rank's part of whole moments."""
        for optimizer, found in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            for index, moments in found["state"].items():
                found["state"][index] = {name: placed(full, parameters[index]) for name, full in moments.items()}
            optimizer.load_state_dict(found)

    def save_checkpoint(self, checkpoint: dict[str, Any], *given: Any, **named: Any) -> None:
        """Rank 0 writes it."""
        if self.ranks.leads:
            super().save_checkpoint(checkpoint, *given, **named)

    def teardown(self) -> None:
        """Leaves the model where it is, in parts."""
