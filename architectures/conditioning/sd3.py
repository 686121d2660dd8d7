from __future__ import annotations

from typing import Annotated

from architectures.modulation import HEAD
from architectures.scheme import SIGNALS, BackboneConfig, Facts
from architectures.streams import TEXT, TwoStreams
from architectures.sublayer import GATE


class SD3(TwoStreams):
    """Stable Diffusion 3 (MM-DiT): image and prompt are two streams with weights of their own and one attention.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          for x; another head for y (all begin at zero)
        u = LN(x) (1 + s1) + b1,  w = LN(y) (1 + s1) + b1
        a_x, a_y = Attention([u ; w])                       q, k, v and out of each stream's own
        x <- x + g1 a_x,  y <- y + g1 a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y likewise
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y begins as the prompt's tokens; `prompt` is the pooled prompt. In the last block y is only read: two vectors, no
    output, no MLP. Esser et al. 2024 (arXiv 2403.03206), section 4. The released code leaves open how the heads begin:
    zero here, as in DiT, whose design the paper inherits. `head=shared` is DiT-Air's placement (arXiv 2503.10618); with
    `text=plain` y is told nothing.
    """

    facts = Facts(
        source="Stable Diffusion 3, arXiv 2403.03206, section 4",
        vector="timestep + pooled prompt",
        prompt="modulation + dual stream",
        reads=frozenset({"pooled", "tokens"}),
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
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        text: Annotated[str, TEXT] = "modulated",
    ) -> None:
        super().__init__(backbone, image_size, gate=gate, head=head, signals=signals, plain=text == "plain")
