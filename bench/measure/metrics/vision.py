"""DINOv2 and CLIP as extractors, through `transformers`: weights from a folder that is named, or its cache.

`dinov2` is the class token of ViT-L/14, as FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675) has it; `clip` the projected
embedding of ViT-L/14 (as CMMD, arXiv 2401.09603, at 224 pixels).
torch-fidelity's own DINOv2 would load code from the network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.store.files import file_digest


@dataclass(frozen=True)
class Vision:
    """A family: its name on the hub, the variable that names a local folder, its class in `transformers`, its norm."""

    hub: str
    variable: str
    model: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


VISION = {
    "dinov2": Vision(
        "facebook/dinov2-large", "DITBENCH_DINOV2", "Dinov2Model", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    "clip": Vision(
        "openai/clip-vit-large-patch14",
        "DITBENCH_CLIP",
        "CLIPVisionModelWithProjection",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}
SIZE = 224  # pixels a side: bicubic, antialiased


def folder_of(name: str) -> Path:
    """Where the weights are.

    Raises:
        FileNotFoundError: with the way to get them.
        ImportError: without the `text` extra.
    """
    own = VISION[name]
    import transformers  # noqa: F401 (before anything is looked for: which extra is missing comes first)
    from huggingface_hub import snapshot_download

    given = os.environ.get(own.variable)
    if given:
        if not any(Path(given).glob("*.safetensors")) or not (Path(given) / "config.json").is_file():
            raise FileNotFoundError(f"{own.variable}={given}: no folder with config.json and a .safetensors file")
        return Path(given)
    wanted = ["config.json", "*.safetensors"]
    try:
        return Path(snapshot_download(own.hub, allow_patterns=wanted, local_files_only=True))
    except Exception:  # not in the cache: the hub's client has many kinds for it
        pass
    try:
        return Path(snapshot_download(own.hub, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:  # no network, or refused
        raise FileNotFoundError(
            f"its weights ({own.hub}) are not here and cannot be downloaded; put config.json and model.safetensors "
            f"into a folder and name it in {own.variable}"
        ) from error


def vision_digest(name: str, folder: Path) -> str:
    """Of the weights, the network's config and the transform."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    parts = [name, *(file_digest(file) for file in files), SIZE, "bicubic antialias", VISION[name].mean]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class VisionNetwork(torch.nn.Module):
    """uint8 (B, 3, H, W) -> a tuple of the features (B, d)."""

    def __init__(self, name: str, folder: Path, device: str) -> None:
        super().__init__()
        import transformers

        own = VISION[name]
        self.name = name
        self.network: Any = getattr(transformers, own.model).from_pretrained(folder, dtype=torch.float32)
        self.mean, self.deviation = (
            torch.tensor(values).view(1, 3, 1, 1).to(device) for values in (own.mean, own.deviation)
        )
        self.eval().requires_grad_(False).to(device)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features of images."""
        x = F.interpolate(images.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255) / 255
        found = self.network(pixel_values=(x - self.mean) / self.deviation)
        return (found.image_embeds if self.name == "clip" else found.last_hidden_state[:, 0],)
