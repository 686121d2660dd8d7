from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.layers import NORM, init_with, parse_norm, zeros
from architectures.options import Option
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

CROSS = Option(
    "the cross-attention's branch: neither modulated nor gated, gated, or with shift, scale and gate as the others",
    ("plain", "gated", "modulated"),
)


class AdaLNZeroCross(Scheme):
    """adaLN-Zero for time and pooled prompt, cross-attention for the prompt's tokens.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + CA(LN(x), prompt tokens)                   (its output Linear is initialised at zero)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    The block of DiT (Peebles and Xie 2023, section 3.2) with the cross-attention that PixArt (Chen et al. 2023, section
    2.3) adds to it, here with a norm before it; every block is the identity at init. `cross=gated` weighs that branch
    by a g of its own, `cross=modulated` gives it b, s and g (Kandinsky 5); where that g is initialised at zero, the
    output Linear is not.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2; PixArt, arXiv 2310.00426, section 2.3",
        vector="timestep + pooled prompt",
        prompt="modulation + cross-attention",
        reads=frozenset({"pooled", "tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "zero",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        cross: Annotated[str, CROSS] = "plain",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.cross = {"plain": PLAIN, "gated": Adaptive("none", self.gate), "modulated": branch}[cross]
        self.heads = self.placement(head, [branch, self.cross, branch])
        self.trunk = self.heads.trunk()
        self.final = self.final_norm(self.norm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        y, mask = self.prompt_side(e_t, prompt)
        return Condition(vector=c, modulation=self.trunk(c), tokens=y, mask=mask)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        cross = self.cross_attention()
        if self.cross.gate.init is not zeros:  # a gate at zero before a map at zero would leave both there
            init_with(cross.out, weight=zeros)
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            cross=SubLayer(
                op=cross,
                norm=self.norm(d),
                modulation=self.cross.modulation,
                gate=self.cross.gate,
                context=prompt_tokens,
            ),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h, c.vector)
