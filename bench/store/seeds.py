"""Seeds derived from keys, the same on every machine. Importing it needs no torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*key: int | str) -> int:
    """A seed from a key, the same on every machine."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for a key: what is sampled from it does not depend on what was sampled before."""
    import torch

    return torch.Generator(device).manual_seed(derive(*key))
