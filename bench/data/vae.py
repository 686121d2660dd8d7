"""Autoencoders of latents: diffusers' AutoencoderKL and AutoencoderDC. The door to `diffusers` for data.

x_0 = (z - shift) scale        z of the encoder: a sample of its posterior, or the posterior's mean
image = decode(x_0 / scale + shift)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from architectures import nearest
from bench.data.errors import DataError, short
from bench.data.pixels import from_images, to_images
from bench.data.precision import single_precision
from bench.store.files import digest, file_digest

NAMES = {  # name here: name on the hub, folder in it
    "sd": ("stabilityai/sd-vae-ft-ema", ""),  # DiT's, 4 channels, 8 pixels a side of a latent
    "sd-mse": ("stabilityai/sd-vae-ft-mse", ""),
    "dc-ae": ("mit-han-lab/dc-ae-f32c32-in-1.0-diffusers", ""),  # 32 channels, 32 pixels
    "flux": ("black-forest-labs/FLUX.1-schnell", "vae"),  # 16 channels, 8 pixels
}
CLASSES = ("AutoencoderKL", "AutoencoderDC")
BATCH = 8  # images that are decoded at once


@dataclass(frozen=True)
class Vae:
    """A frozen autoencoder on a device.

    Attributes:
        network: of diffusers.
        name: as it was given.
        kind: its class.
        scale, shift: of the latents.
        factor: pixels a side of a latent.
        channels: of a latent.
    """

    network: Any
    name: str
    kind: str
    scale: float
    shift: float
    factor: int
    channels: int
    device: torch.device

    @torch.inference_mode()
    @single_precision()
    def encode(self, images: NDArray[np.uint8], noise: Tensor | None) -> NDArray[np.float32]:
        """Latents (B, C, H / factor, W / factor) of images uint8 (B, H, W, 3).

        Args:
            images: whose sides the factor divides.
            noise: of the latents' shape, for a sample of the posterior; None takes its mean.
        """
        found = self.network.encode(from_images(torch.from_numpy(np.array(images))).to(self.device))
        if self.kind == "AutoencoderDC":  # has no posterior
            z = found.latent
        else:
            z = found.latent_dist.mean
            if noise is not None:
                z = z + found.latent_dist.std * noise.to(self.device)
        latents: NDArray[np.float32] = ((z - self.shift) * self.scale).float().cpu().numpy()
        return latents

    @torch.inference_mode()
    @single_precision()
    def decode(self, latents: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of latents (B, C, h, w), on the CPU."""
        parts = []
        for part in latents.float().split(BATCH):
            found = self.network.decode(part.to(self.device) / self.scale + self.shift).sample
            parts.append(to_images(found).cpu())
        return torch.cat(parts)

    def save(self, folder: Path) -> None:
        """Writes config and weights, as `load` reads them."""
        self.network.save_pretrained(folder)


def load(name: str, device: str | torch.device = "cpu") -> Vae:
    """An autoencoder by its name here, its name on the hub, or its folder.

    Raises:
        DataError: if it cannot be loaded, or is of another class; the message says what was looked for.
    """
    try:
        import diffusers
    except ImportError as error:
        raise DataError("latents need the `latents` extra: pip install 'ditbench[latents]'") from error
    place, within = _place(name)
    try:
        config = diffusers.AutoencoderKL.load_config(place, subfolder=within or None)
        kind = str(config.get("_class_name"))
        if kind not in CLASSES:
            raise DataError(f"VAE {name!r} is a {kind}; {' or '.join(CLASSES)} is needed")
        own = getattr(diffusers, kind)
        network = own.from_pretrained(
            place, subfolder=within or None, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )  # which it would say at length, without `accelerate`
    except DataError:
        raise
    except Exception as error:  # the hub's client, safetensors and diffusers have many kinds
        raise DataError(
            f"VAE {name!r}: {short(error)} (a folder with config.json and its weights, a name on the hub, "
            f"or {', '.join(NAMES)}){nearest(name, list(NAMES))}"
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    settings = network.config
    scale, shift = float(settings.scaling_factor or 1.0), float(getattr(settings, "shift_factor", None) or 0.0)
    blocks = settings.block_out_channels if kind == "AutoencoderKL" else settings.encoder_block_out_channels
    return Vae(
        network, name, kind, scale, shift, 2 ** (len(blocks) - 1), int(settings.latent_channels), torch.device(device)
    )


def _place(name: str) -> tuple[str, str]:
    if name in NAMES:
        return NAMES[name]
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file() and (path / "vae" / "config.json").is_file():
        return str(path), "vae"
    return str(path) if path.is_dir() else name, ""


@functools.lru_cache(maxsize=1)
def of_folder(folder: Path, device: torch.device) -> Vae:
    """That of prepared latents; loaded once, until it is released."""
    return load(str(folder), device)


def release() -> None:
    """Leaves the device's memory to training, which needs no decoder: it would be part of the cell's peak."""
    of_folder.cache_clear()


def files_digest(folder: Path) -> str:
    """Of the files that `save` writes."""
    files = [folder / "config.json", *sorted(folder.glob("diffusion_pytorch_model*"))]
    return digest([[file.name, file_digest(file)] for file in files], 16)
