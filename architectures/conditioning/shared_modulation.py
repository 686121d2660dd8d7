from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import BLANKS
from architectures.final import FinalTable
from architectures.layers import NORM, init_with, parse_norm, zeros
from architectures.options import Option, choose
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import (
    GATE,
    MODULATION,
    PLAIN,
    Adaptive,
    Block,
    Condition,
    SubLayer,
    parse_gate,
    prompt_tokens,
)

CROSS_NORM = Option("the norm before the cross-attention: none, or LN with weights", ("none", "layer"))


class SharedModulation(Scheme):
    """Shared modulation (adaLN-single): one head for all blocks, a small table for each, the prompt by cross-attention.

    The cross-attention reads the bare stream.

        c = e_t
        P = W silu(c) + b                                   (once a pass; W initialised N(0, 0.02^2))
        b1, s1, g1, b2, s2, g2 = P + E_i                    (E_i initialised N(0, 1 / D), gates too)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + CA(x, prompt tokens)                       (its output Linear is initialised at zero)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = E + c                                        (c itself, without silu or Linear)
        x = LN(x) (1 + s) + b

    PixArt-alpha (Chen et al. 2023, arXiv 2310.00426), section 2.3. Wan 2.1 (arXiv 2503.20314) is `cross_norm=layer`:
    the cross-attention reads LN(x) w + v, with a weight and a bias. `registers` are blank tokens beside the prompt's: a
    softmax over a label's one token is 1 wherever it is asked from, over two it is not. What precedes the output is
    PixArt's whatever `modulation` the blocks have.
    """

    facts = Facts(
        source="PixArt-alpha, arXiv 2310.00426, section 2.3",
        vector="timestep",
        prompt="cross-attention",
        reads=frozenset({"tokens"}),
        identity_at_init=False,
        modulation_parameters="6*d*d + 6*d + n*6*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "random",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "shared+table",
        cross_norm: Annotated[str, CROSS_NORM] = "none",
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
        registers: Annotated[int, BLANKS] = 0,
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.set_blanks(registers)
        self.norm = parse_norm(norm)
        self.cross_norm = choose("cross_norm", cross_norm, CROSS_NORM.choices)[0]
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.heads = self.placement(head, [branch, PLAIN, branch])
        self.trunk = self.heads.trunk()
        self.final = FinalTable(d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        y, mask = self.prompt_side(e_t, prompt)
        return Condition(vector=c, modulation=self.trunk(c), tokens=y, mask=mask)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        cross = self.cross_attention()
        init_with(cross.out, weight=zeros)
        norm = nn.LayerNorm(d, eps=1e-6) if self.cross_norm == "layer" else None
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            cross=SubLayer(op=cross, norm=norm, context=prompt_tokens),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(super().leave(h, c), c.vector)
