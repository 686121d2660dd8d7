"""Checkpoints that are whole or absent.

Written by hand: Lightning's own are neither atomic nor checked when they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from bench.store.files import atomic_file, file_digest, write_atomic


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent: temporary file beside them, fsync, digest, rename.

    Read back only if the digest fits, and with `weights_only`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes it whole or not at all.

        Raises:
            DiskError: if there is no room for it, or it cannot be written there.
        """
        path = Path(path)
        with atomic_file(path, "the checkpoint", size=_size(checkpoint)) as file:
            hashed = _Hashed(file)
            torch.save(checkpoint, cast(IO[bytes], hashed))
            write_atomic(digest_file(path), hashed.total.hexdigest())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads one whose digest fits."""
        return load_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Removes it with its digest."""
        Path(path).unlink(missing_ok=True)
        digest_file(Path(path)).unlink(missing_ok=True)


class _Hashed:
    """A file open for writing, hashed on the way: to read ten gigabytes back takes seconds."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.total = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.total.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _size(tree: Any) -> int:
    """Bytes of all tensors in a tree."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(_size(part) for part in tree.values())
    return sum(_size(part) for part in tree) if isinstance(tree, list | tuple) else 0


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


def remove_older(folder: Path, keep: int) -> None:
    """Removes all checkpoints but the latest `keep`."""
    for path in sorted(folder.glob("step-*.ckpt"))[:-keep]:
        AtomicCheckpoints().remove_checkpoint(path)


def remove_newer(folder: Path, than: Path | None) -> None:
    """Removes checkpoints after `than`, or all: damaged ones that would be taken for the newest."""
    for path in folder.glob("step-*.ckpt"):
        if than is None or path.name > than.name:
            AtomicCheckpoints().remove_checkpoint(path)
