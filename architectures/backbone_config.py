"""What is held fixed between schemes: sizes, MLP, positions, queries and keys."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from architectures.layers import MLPS, POSITIONS
from architectures.options import choose

SIZES = {
    "XS": dict(depth=6, width=256, heads=4),
    "S": dict(depth=12, width=384, heads=6),
    "B": dict(depth=12, width=768, heads=12),
    "L": dict(depth=24, width=1024, heads=16),
    "XL": dict(depth=28, width=1152, heads=16),
}


@dataclass(frozen=True)
class BackboneConfig:
    """What is held fixed between schemes.

    Attributes:
        width: D. depth: number of blocks. heads: H, which must divide D. patch: pixels a side of a token.
        mlp: `gelu`, `swiglu` or `geglu`. mlp_ratio: hidden width over D (two thirds of it in the gated kinds).
        qk_norm: RMS-normalise queries and keys per head. positions: `sincos` (DiT's), `sincos(BASE)` (quarter turns,
            the slowest a BASE-th of the fastest), `random` (a fixed N(0, 1) table), `learned` or `rope`.
        bias: whether the Linears of attention and MLP have one (FLUX.2 has none). kv_heads: fewer heads of keys and
            values in self-attention, each for H / kv_heads of queries; None is H. attention_gate: multiply what is
            attended to by sigmoid(W_g u) before the output Linear (Krea 2). parallel: whether a block's MLP reads
            the block's input, beside the attention (ViT-22B), where it comes after it.

    Raises:
        ValueError: for values that do not fit one another; each sentence names them.
    """

    width: int = 256
    depth: int = 6
    heads: int = 4
    patch: int = 2
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    positions: str = "sincos"
    bias: bool = True
    kv_heads: int | None = None
    attention_gate: bool = False
    parallel: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"backbone {name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"backbone width {self.width} is not divisible by {self.heads} heads")
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ValueError(f"backbone kv_heads {self.kv_heads}: choose a divisor of its {self.heads} heads")
        if self.mlp not in MLPS:
            raise ValueError(f"backbone mlp {self.mlp!r}: choose {', '.join(MLPS)}")
        base = choose("backbone positions", self.positions, POSITIONS)[1]
        if base is not None and base < 2:
            raise ValueError(
                f"backbone positions {self.positions!r}: all channels would turn alike; the base is above 1"
            )
        if self.positions.startswith("sincos") and self.width % 4:
            raise ValueError(f"sin-cos positions need a width divisible by 4, got {self.width}")
        if self.positions == "rope" and (self.width // self.heads) % 4:
            raise ValueError(f"rotary positions need a head width divisible by 4, got {self.width // self.heads}")

    @classmethod
    def named(cls, name: str, **changes: Any) -> BackboneConfig:
        """`DiT-XS/2` to `DiT-XL/2`, any patch size, with changed fields where given (None leaves a field).

        Without its end, `DiT-XS`, the patch is one of the changes.

        Raises:
            ValueError: for an unknown name, or one without a patch where none is given.
        """
        found = re.fullmatch("DiT-([A-Z]+)(?:/([1-9][0-9]{0,3}))?", name)
        if not found or found[1] not in SIZES:
            raise ValueError(f"backbone {name!r}: choose DiT-S/P with a size S of {', '.join(SIZES)} and a patch P")
        own = {"patch": int(found[2])} if found[2] else {}
        given = own | {key: value for key, value in changes.items() if value is not None}
        if "patch" not in given:
            raise ValueError(f"backbone {name!r} has no patch, which only a task gives: choose {name}/2 or another")
        return cls(**{**SIZES[found[1]], **given})

    def grid(self, image_size: int) -> int:
        """Tokens a side.

        Raises:
            ValueError: if the patch does not divide the image.
        """
        if image_size % self.patch:
            raise ValueError(f"image size {image_size} is not divisible by the patch {self.patch}")
        return image_size // self.patch

    def with_changes(self, **changes: Any) -> BackboneConfig:
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
