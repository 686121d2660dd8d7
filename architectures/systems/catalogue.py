"""Published systems as they are: each one's own transformer, from the same parts as the schemes.

model = architectures.published("sd3")                       # or dit-s, flux-schnell, ...
layout = architectures.load_published(model, state_dict)     # of the released file, or of diffusers
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from architectures import options
from architectures.options import nearest
from architectures.systems.weights import WeightsError, load_published

__all__ = ["PUBLISHED", "WeightsError", "load_published", "published"]

# Name -> its conditioning as a scheme on the fixed backbone, its class, and sizes that differ from the class's own.
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dit": ("adaln-zero", "dit:DiT", {}),
    "dit-s": ("adaln-zero", "dit:DiT", dict(width=384, depth=12, heads=6)),
    "dit-b": ("adaln-zero", "dit:DiT", dict(width=768, depth=12, heads=12)),
    "dit-l": ("adaln-zero", "dit:DiT", dict(width=1024, depth=24, heads=16)),
    "pixart": ("shared-modulation", "pixart:PixArt", {}),
    "pixart-1024": ("shared-modulation", "pixart:PixArt", dict(base_grid=64, interpolation=2.0, size_conditions=True)),
    "sd3": ("sd3", "mmdit:SD3", {}),
    "sd3-large": ("sd3", "mmdit:SD3", dict(depth=38, qk_norm=True)),
    "flux": ("flux", "mmdit:Flux", {}),
    "flux-schnell": ("flux", "mmdit:Flux", dict(guidance=False)),
    "qwen-image": ("qwen-image", "mmdit:QwenImage", {}),
    "lumina2": ("lumina2", "next_dit:Lumina2", {}),
    "z-image": ("z-image", "next_dit:ZImage", {}),
    "hdm": ("hdm", "hdm:HDM", {}),
    "hdm-small": ("hdm", "hdm:HDM", dict(width=896, heads=14, decoder_blocks=2, text_width=640)),
    "hdm-large": ("hdm", "hdm:HDM", dict(width=1280, heads=20, hidden=4096, text_width=1152)),
    "sd15": ("ldm", "unet:UNetBlock", {}),
    "sdxl": ("ldm", "unet:UNetBlock", dict(heads=20, context=2048)),
}


def published(name: str, **sizes: Any) -> nn.Module:
    """A published system's own transformer, at its published size unless `sizes` say otherwise.

    Under `torch.device("meta")` nothing is allocated. Inputs are the system's own: see the class's docstring.

    Raises:
        ValueError: for an unknown name or size, with the choices and the nearest, or a size of another type.
    """
    if name not in PUBLISHED:
        names = ", ".join(PUBLISHED)
        raise ValueError(f"unknown published system {name!r} (systems: {names}){nearest(name, PUBLISHED)}")
    _, where, own = PUBLISHED[name]
    module, _, attribute = where.partition(":")
    kind = getattr(importlib.import_module(f"architectures.systems.{module}"), attribute)
    known = options.of(kind)
    for size in sizes:
        if size not in known:
            raise ValueError(f"{name}: unknown size {size!r} (sizes: {', '.join(known)}){nearest(size, known)}")
    try:
        typed = {size: known[size].check(size, value) for size, value in sizes.items()}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return kind(**{**own, **typed})
