"""Training one cell with Lightning: exact resume, and nothing that waits for the device between journal lines."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from bench.training.batches import Batches
from bench.training.callback import CellCallback, RankCallback
from bench.training.checkpoints import AtomicCheckpoints
from bench.training.module import CellModule
from bench.training.ranks import Ranks


def fit(module: CellModule, batches: Batches, callback: CellCallback | RankCallback, *, resume: Path | None) -> None:
    """Trains to the config's last step, from `resume` where given.

    Raises:
        Diverged, Stopped, torch.OutOfMemoryError: the journal and the last checkpoint stay.
    """
    config, ranks = module.config, module.ranks
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # tips and notices
    quiet = (
        "does not have many workers|LeafSpec|num_workers|`len`|litlogger|resuming from a checkpoint|broadcast_buffers"
    )
    warnings.filterwarnings("ignore", message=f".*({quiet}).*")
    trainer = lightning.Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=ranks.count,
        strategy=_Ddp(module) if ranks.count > 1 else "auto",
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
