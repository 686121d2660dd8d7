"""Images as files: tiles, PNG, sample grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.store.files import write_atomic, write_json


def save_grid(path: Path, images: np.ndarray, prompts: list[str], *, guidance: float, seed: int) -> None:
    """A grid as PNG; its images (n, H, W, 3) beside it as `.npy`, and as `.json` what they were sampled with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, png(tile(images)))
    np.save(path.with_suffix(".npy"), images)
    write_json(path.with_suffix(".json"), {"prompts": prompts, "guidance": guidance, "seed": seed})


def tile(pictures: np.ndarray, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Pictures (n, H, W, 3) side by side, enlarged to be seen, with a white line between."""
    n, height, width, _ = pictures.shape
    columns = columns or min(n, 6)
    scale = scale or max(1, 96 // height)
    big = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    rows = -(-n // columns)
    cell_h, cell_w = height * scale + 2, width * scale + 2
    canvas = np.full((rows * cell_h, columns * cell_w, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(big):
        y, x = (k // columns) * cell_h, (k % columns) * cell_w
        canvas[y : y + height * scale, x : x + width * scale] = picture
    return canvas


def png(picture: np.ndarray) -> bytes:
    """An RGB picture (H, W, 3) as PNG."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
