"""Checkpoints that are whole or absent.

Written by hand: Lightning's own are neither atomic nor checked when they are read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from bench.store.files import file_digest, publish, write_atomic


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent: temporary file beside them, fsync, digest, rename.

    Read back only if the digest fits, and with `weights_only`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes it whole or not at all."""
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
        """Reads one whose digest fits."""
        return load_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Removes it with its digest."""
        Path(path).unlink(missing_ok=True)
        digest_file(Path(path)).unlink(missing_ok=True)


def digest_file(path: Path) -> Path:
    """The file that holds a checkpoint's SHA-256."""
    return path.with_suffix(".sha256")


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint, if its bytes match its digest.

    Raises:
        ValueError: if it is damaged or incomplete.
    """
    recorded = digest_file(path)
    if not recorded.is_file() or file_digest(path) != recorded.read_text().strip():
        raise ValueError(f"checkpoint {path.name} is damaged")
    checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    return checkpoint


def newest_checkpoint(folder: Path, warn: Callable[[str], None] = lambda text: None) -> Path | None:
    """The latest checkpoint that is whole; `warn` gets those that are passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        recorded = digest_file(path)
        if recorded.is_file() and file_digest(path) == recorded.read_text().strip():
            return path
        warn(f"checkpoint {path.name} is damaged; going back to the one before it")
    return None
