"""The network that reads a scene, and the file it lies in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.scenes import GLOBAL, LOCAL, VERSION
from bench.store.files import file_digest

SIZE = 32  # pixels a side that the network sees; other sizes are brought to it
PLACES = len(LOCAL["place"])  # 9, row by row
OBJECT = {"shape": len(LOCAL["shape"]) + 1, "colour": len(LOCAL["colour"]), "size": len(LOCAL["size"])}
SETTING = {name: len(words) for name, words in GLOBAL.items()}
JUDGE = Path(__file__).with_name("judge.safetensors")


class JudgeError(ValueError):
    """A judge's file that is missing, damaged, or of another version of the renderer."""


class Judge(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> logits of every attribute.

    Shape, colour, size (B, 9, k) at each place, and tone, time, texture, background (B, k).

    Shape 0 is "nothing". What is at a place is read from the features around it, the setting from means and
    spreads over the whole image and its four quarters.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.fine = nn.Sequential(_conv(3, w), _conv(w, w))  # 32 x 32
        self.middle = nn.Sequential(_conv(w, 2 * w, stride=2), _conv(2 * w, 2 * w))  # 16 x 16
        self.coarse = _conv(2 * w, 3 * w)
        self.object = nn.Sequential(nn.Linear(4 * 3 * w, 4 * w), nn.ReLU(), nn.Linear(4 * w, sum(OBJECT.values())))
        pooled = 2 * (w + 2 * w + 3 * w) + 9 * 3 * w
        self.setting = nn.Sequential(nn.Linear(pooled, 4 * w), nn.ReLU(), nn.Linear(4 * w, sum(SETTING.values())))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Attribute -> its logits."""
        x = resized(x)
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)  # (B, C, 16, 16)
        cells = F.adaptive_avg_pool2d(coarse, 6).unflatten(2, (3, 2)).unflatten(4, (3, 2))  # (B, C, 3, 2, 3, 2)
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, 9, 4 C)
        spread = [stat for h in (fine, middle, coarse) for stat in (h.mean((2, 3)), h.std((2, 3)))]
        whole = torch.cat([*spread, F.adaptive_avg_pool2d(coarse, 3).flatten(1)], dim=1)
        objects = dict(zip(OBJECT, self.object(cells).split(list(OBJECT.values()), dim=-1), strict=True))
        return objects | dict(zip(SETTING, self.setting(whole).split(list(SETTING.values()), dim=-1), strict=True))


def _conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def resized(x: Tensor) -> Tensor:
    """Images (B, 3, S, S) at the size that the network sees."""
    if x.shape[-1] == SIZE:
        return x
    if x.shape[-1] % SIZE == 0:
        return F.avg_pool2d(x, x.shape[-1] // SIZE)
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


# --- its file -------------------------------------------------------------------------------------------------------


def save(judge: Judge, path: Path, card: dict[str, Any]) -> None:
    """Writes weights in half precision, with the renderer's version and the card."""
    from safetensors.torch import save_file

    weights = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    save_file(weights, path, metadata={"scenes": str(VERSION), "card": json.dumps(card, sort_keys=True)})


def load(path: Path = JUDGE) -> tuple[Judge, dict[str, Any]]:
    """The judge and its card.

    Raises:
        JudgeError: if the file is missing, damaged, or was trained on another version of the renderer.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise JudgeError(f"the judge {path.name} is not there; make it with `make judge`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise JudgeError(f"the judge {path.name} cannot be read ({error}); train it again with `make judge`") from error
    if metadata.get("scenes") != str(VERSION):
        raise JudgeError(
            f"the judge {path.name} was trained on scenes version {metadata.get('scenes', 'unknown')}, this renderer "
            f"is version {VERSION}; train it again with `make judge`"
        )
    judge = Judge()
    try:
        judge.load_state_dict(weights)
    except RuntimeError as error:
        raise JudgeError(f"the judge {path.name} is of another form: {' '.join(str(error).split())[:200]}") from error
    return judge.float().eval(), json.loads(metadata["card"]) | {"digest": file_digest(path)[:16]}


def slug() -> str:
    """What names of metrics call the judge."""
    return f"judge{VERSION}"
