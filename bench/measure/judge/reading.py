"""From images to what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.precision import single_precision
from bench.data.scenes import GLOBAL, LOCAL, Item
from bench.measure.judge.network import Judge


@dataclass(frozen=True)
class Seen:
    """What an image shows: any number of objects, and the setting (words of `GLOBAL`)."""

    items: tuple[Item, ...]
    tone: str
    time: str
    texture: str
    background: str


@torch.inference_mode()
@single_precision()
def read(judge: Judge, images: np.ndarray, *, batch: int = 250) -> list[Seen]:
    """What images uint8 (n, S, S, 3) show."""
    seen: list[Seen] = []
    device = next(judge.parameters()).device
    for start in range(0, len(images), batch):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(device)
        seen += decode(judge(part.permute(0, 3, 1, 2).float() / 127.5 - 1))
    return seen


def decode(logits: dict[str, Tensor]) -> list[Seen]:
    """The likeliest value of every attribute, in words."""
    indices = {name: value.argmax(-1).cpu().tolist() for name, value in logits.items()}
    count = len(indices["shape"])
    return [
        Seen(
            _items(*(indices[name][k] for name in ("shape", "colour", "size"))),
            *(GLOBAL[n][indices[n][k]] for n in GLOBAL),
        )
        for k in range(count)
    ]


def _items(shapes: list[int], colours: list[int], sizes: list[int]) -> tuple[Item, ...]:
    return tuple(
        Item(LOCAL["shape"][shape - 1], LOCAL["colour"][colour], LOCAL["size"][size], place)
        for shape, colour, size, place in zip(shapes, colours, sizes, LOCAL["place"], strict=True)
        if shape  # 0 is nothing
    )
