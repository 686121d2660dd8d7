"""Images as they are stored, uint8 (B, H, W, C), and as the flow takes them, float (B, C, H, W) in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_images(x: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def from_images(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> (B, C, H, W) in [-1, 1], contiguous; float x_0 (B, C, H, W) is as it is, in float32.

    Of other strides than those of noise a compiled model would have a graph more.
    """
    if images.is_floating_point():
        return images.float()
    return images.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
