from __future__ import annotations

from typing import Annotated

from architectures.modulation import HEAD
from architectures.scheme import SIGNALS, BackboneConfig, Facts
from architectures.streams import TwoStreams
from architectures.sublayer import GATE


class QwenImage(TwoStreams):
    """Qwen-Image: image and prompt in two streams with one attention, both told the timestep alone.

        c = e_t
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          for x; another head for y (all begin at zero)
        u = LN(x) (1 + s1) + b1,  w = LN(y) (1 + s1) + b1
        a_x, a_y = Attention([u ; w])                       q, k, v and out of each stream's own
        x <- x + g1 a_x,  y <- y + g1 a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y likewise
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y begins as the prompt's tokens: they are the prompt's only way in. Qwen-Image 2025 (arXiv 2508.02324), as diffusers
    computes it. There the last block writes y once more and nothing reads it; those weights are left away here, which
    changes no output. How the heads begin is not published: zero here. Its rotary positions and normed queries and keys
    belong to its backbone.
    """

    facts = Facts(
        source="Qwen-Image, arXiv 2508.02324",
        vector="timestep",
        prompt="dual stream",
        reads=frozenset({"tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(12*d*d + 12*d) - 2*d*d - 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "zero",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, SIGNALS] = "timestep",
    ) -> None:
        super().__init__(backbone, image_size, gate=gate, head=head, signals=signals)
