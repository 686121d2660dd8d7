from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.layers import NORM, parse_norm
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sequence import KeyedBlock
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, SubLayer, joint_mask, parse_gate


class StaticText(Scheme):
    """Static text: each block attends to keys and values that it makes of the prompt's tokens, which none updates.

        c = e_t
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        u = LN(x) (1 + s1) + b1
        x <- x + g1 Attention(u, [u ; y])                   one softmax; keys and values of y by a map of its own
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y is the prompt's tokens, neither modulated nor normalised nor updated: a sampler makes their keys and values once.
    PRX (Photoroom 2025), as diffusers computes it; its rotary positions, normed queries and keys and gated MLP
    belong to its backbone. Nucleus-Image (arXiv 2604.12163) is `modulation=scale`, with tanh gates.
    """

    facts = Facts(
        source="PRX, Photoroom/PRX",
        vector="timestep",
        prompt="self-attention",
        reads=frozenset({"tokens"}),
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
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
    ) -> None:
        super().__init__(backbone, image_size)
        self.set_signals(signals, time)
        self.prompt_alone = self.facts.time != "token"
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.heads = self.placement(head, [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = self.final_norm(self.norm(backbone.width), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        return self.with_prompt(e_t, prompt)._replace(vector=c, modulation=self.trunk(c))

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return KeyedBlock(
            self.heads.head(index),
            attention=SubLayer(
                op=self.self_attention(),
                norm=self.norm(d),
                modulation=self.modulation,
                gate=self.gate,
                context=joint_mask,
            ),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            text=self.prompt_keys(),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h, c.vector)
