"""Images as files: tiles, PNG, sample grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.store.files import write_atomic
from bench.store.kept import save_array

Images = NDArray[np.uint8]
LINE = 2  # pixels between tiles


def save_grid(path: Path, images: Images, prompts: list[str], *, guidance: float, seed: int) -> None:
    """A grid as PNG; beside it its images (n, H, W, 3) as `.npy`, and as `.json` what they were sampled with."""
    save_array(path.with_suffix(".npy"), images, prompts=prompts, guidance=guidance, seed=seed)
    write_atomic(path, png(tile(images)))


def tile(images: Images, columns: int | None = None, scale: int | None = None) -> Images:
    """Images uint8 (n, H, W, 3) side by side, enlarged, with a white line between."""
    import torch
    from torchvision.utils import make_grid

    scale = scale or max(1, 96 // images.shape[1])
    large = torch.from_numpy(images.repeat(scale, axis=1).repeat(scale, axis=2)).permute(0, 3, 1, 2)
    grid = make_grid(large, nrow=columns or min(len(images), 6), padding=LINE, pad_value=255)
    framed: Images = grid.permute(1, 2, 0).numpy()
    return framed[LINE:, LINE:] if len(images) > 1 else framed  # no line above and left of all


def png(image: Images) -> bytes:
    """An RGB image uint8 (H, W, 3) as PNG."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
