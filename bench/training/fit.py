"""Training one cell with Lightning: exact resume, and nothing that waits for the device between journal lines."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lightning

from bench.training.batches import Batches
from bench.training.callback import CellCallback
from bench.training.checkpoints import AtomicCheckpoints
from bench.training.module import CellModule


def fit(module: CellModule, batches: Batches, callback: CellCallback, *, resume: Path | None) -> None:
    """Trains to the config's last step, from `resume` where given.

    Raises:
        Diverged, Stopped, torch.OutOfMemoryError: the journal and the last checkpoint stay.
    """
    config = module.config
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # tips and notices
    quiet = "does not have many workers|LeafSpec|num_workers|`len`|litlogger|resuming from a checkpoint"
    warnings.filterwarnings("ignore", message=f".*({quiet}).*")
    trainer = lightning.Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=1,
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
