"""Published systems as they are: each one's own transformer, from the same parts as the schemes.

model = architectures.published("sd3")                       # or dit-s, flux-schnell, ...
layout = architectures.load_published(model, state_dict)     # of the released file, or of diffusers
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from architectures import options
from architectures.named import NAMED, as_typed
from architectures.options import nearest
from architectures.systems.weights import WeightsError, load_published

__all__ = ["PUBLISHED", "System", "WeightsError", "load_published", "published"]


@dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
        scheme: of the fixed backbone, which with `options` is conditioned as the system is.
        kind: its class, `module:Name`.
        year: of its publication.
        source: of its equations and sizes.
        sizes: that differ from the class's own.
        options: of the scheme, that differ from its own.
    """

    scheme: str
    kind: str
    year: int
    source: str
    sizes: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def conditioning(self) -> str:
        """The scheme with its options, as on a command line."""
        return as_typed(self.scheme, self.options)


DIT, PIXART, HDM = "arXiv 2212.09748", "arXiv 2310.00426", "TechReport of KohakuBlueleaf/HDM"
FLUX, FLUX2 = "black-forest-labs/flux", "black-forest-labs/flux2"
LUMINA = "Alpha-VLLM/Lumina-Image-2.0, a size of its code without a released file"
SANA, WAN, DEFAULTS = "arXiv 2410.10629", "arXiv 2503.20314", "{}, sizes of diffusers' constructor"
FLUX2_OPTIONS, WAN_OPTIONS, KREA2 = NAMED["flux2"].options, NAMED["wan"].options, NAMED["krea2"]
PUBLISHED: dict[str, System] = {
    "dit": System("adaln-zero", "dit:DiT", 2022, DIT),
    "dit-s": System("adaln-zero", "dit:DiT", 2022, DIT, dict(width=384, depth=12, heads=6)),
    "dit-b": System("adaln-zero", "dit:DiT", 2022, DIT, dict(width=768, depth=12, heads=12)),
    "dit-l": System("adaln-zero", "dit:DiT", 2022, DIT, dict(width=1024, depth=24, heads=16)),
    "pixart": System("shared-modulation", "pixart:PixArt", 2023, PIXART),
    "pixart-512": System("shared-modulation", "pixart:PixArt", 2023, PIXART, dict(base_grid=32)),
    "pixart-1024": System(
        "shared-modulation", "pixart:PixArt", 2023, PIXART, dict(base_grid=64, interpolation=2.0, size_conditions=True)
    ),
    "sana": System("shared-modulation", "sana:Sana", 2024, SANA),
    "sana-0.6b": System(
        "shared-modulation", "sana:Sana", 2024, SANA, dict(width=1152, depth=28, heads=36, cross_heads=16, hidden=2880)
    ),
    "wan": System("shared-modulation", "wan:Wan", 2025, WAN, options=WAN_OPTIONS),
    "wan-1.3b": System(
        "shared-modulation", "wan:Wan", 2025, WAN, dict(width=1536, depth=30, heads=12, hidden=8960), WAN_OPTIONS
    ),
    "sd3": System("sd3", "mmdit:SD3", 2024, "arXiv 2403.03206"),
    "sd3-large": System("sd3", "mmdit:SD3", 2024, "Stability-AI/sd3.5", dict(depth=38, qk_norm=True)),
    "flux": System("flux", "flux:Flux", 2024, FLUX),
    "flux-schnell": System("flux", "flux:Flux", 2024, FLUX, dict(guidance=False)),
    "flux2": System("flux", "flux2:Flux2", 2025, FLUX2, options=FLUX2_OPTIONS),
    "flux2-klein-9b": System(
        "flux", "flux2:Flux2", 2026, FLUX2,
        dict(width=4096, heads=32, single=24, text_width=12288, guidance=False), FLUX2_OPTIONS,
    ),
    "flux2-klein-4b": System(
        "flux", "flux2:Flux2", 2026, FLUX2,
        dict(width=3072, heads=24, dual=5, single=20, text_width=7680, guidance=False), FLUX2_OPTIONS,
    ),
    "flux3": System(
        "flux", "flux3:Flux3", 2026, DEFAULTS.format("black-forest-labs/flux-3-image-klein"),
        options=NAMED["flux3"].options,
    ),
    "chroma": System("flux", "chroma:Chroma", 2025, "lodestones/Chroma1-HD", options=NAMED["chroma"].options),
    "hidream-i1": System("flux", "hidream:HiDream", 2025, "arXiv 2505.22705", options=NAMED["hidream-i1"].options),
    "qwen-image": System("qwen-image", "mmdit:QwenImage", 2025, "arXiv 2508.02324"),
    "prx": System("static-text", "prx:PRX", 2025, "Photoroom/PRX", options=NAMED["prx"].options),
    "qwen-image-2.1": System(
        "lumina2", "qwen_image21:QwenImage21", 2026, DEFAULTS.format("QwenLM/Qwen-Image-2.1"),
        options=NAMED["qwen-image-2.1"].options,
    ),
    "kandinsky5": System(
        "adaln-zero-cross", "kandinsky5:Kandinsky5", 2025, "arXiv 2511.14993, sizes of its 6B text-to-image model",
        options=NAMED["kandinsky5"].options,
    ),
    "glm-image": System(
        "lumina2", "glm_image:GLMImage", 2026, "zai-org/GLM-Image", options=NAMED["glm-image"].options
    ),
    "lumina2": System("lumina2", "next_dit:Lumina2", 2025, "arXiv 2503.21758"),
    "lumina2-3b": System(
        "lumina2", "next_dit:Lumina2", 2025, LUMINA, dict(width=2592, depth=30, axes=(36, 36, 36))
    ),
    "lumina2-4b": System(
        "lumina2", "next_dit:Lumina2", 2025, LUMINA, dict(width=2880, depth=32, axes=(40, 40, 40))
    ),
    "lumina2-7b": System(
        "lumina2", "next_dit:Lumina2", 2025, LUMINA, dict(width=3840, depth=32, heads=32, axes=(40, 40, 40))
    ),
    "z-image": System("z-image", "next_dit:ZImage", 2025, "arXiv 2511.22699"),
    "krea2": System("lumina2", "krea2:Krea2", 2026, KREA2.source, options=KREA2.options),
    "ernie-image": System(
        "lumina2", "ernie_image:ErnieImage", 2026, "baidu/ERNIE-Image", options=NAMED["ernie-image"].options
    ),
    "hdm": System("hdm", "hdm:HDM", 2025, HDM),
    "hdm-small": System("hdm", "hdm:HDM", 2025, HDM, dict(width=896, heads=14, decoder_blocks=2, text_width=640)),
    "hdm-large": System("hdm", "hdm:HDM", 2025, HDM, dict(width=1280, heads=20, hidden=4096, text_width=1152)),
    "sd15": System("ldm", "unet:UNetBlock", 2022, "arXiv 2112.10752, a block of its U-Net"),
    "sdxl": System(
        "ldm", "unet:UNetBlock", 2023, "arXiv 2307.01952, a block of its U-Net", dict(heads=20, context=2048)
    ),
}  # fmt: skip


def published(name: str, **sizes: Any) -> nn.Module:
    """A published system's own transformer, at its published size unless `sizes` say otherwise.

    Under `torch.device("meta")` nothing is allocated. Inputs are the system's own: see the class's docstring.

    Raises:
        ValueError: for an unknown name or size, with the choices and the nearest, or a size of another type.
    """
    if name not in PUBLISHED:
        names = ", ".join(PUBLISHED)
        raise ValueError(f"unknown published system {name!r} (systems: {names}){nearest(name, PUBLISHED)}")
    system = PUBLISHED[name]
    module, _, attribute = system.kind.partition(":")
    kind = getattr(importlib.import_module(f"architectures.systems.{module}"), attribute)
    known = options.of(kind)
    for size in sizes:
        if size not in known:
            raise ValueError(f"{name}: unknown size {size!r} (sizes: {', '.join(known)}){nearest(size, known)}")
    try:
        typed = {size: known[size].check(size, value) for size, value in sizes.items()}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return kind(**{**system.sizes, **typed})
