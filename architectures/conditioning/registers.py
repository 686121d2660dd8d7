from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm, init_with, normal
from architectures.options import Option
from architectures.prompt import Encoded
from architectures.scheme import BackboneConfig, Facts, Scheme
from architectures.sublayer import Adaptive, Block, Condition, SubLayer, parse_gate


class Registers(Scheme):
    """adaLN-Zero with blank tokens: the control for schemes whose prompt is tokens in the sequence.

        c = e_t + prompt
        z = [x ; r_1 ; ... ; r_k]                           (r learned, the same for every image, t and prompt)
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        z <- z + g1 SA(LN(z) (1 + s1) + b1)
        z <- z + g2 MLP(LN(z) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(z[:N]) (1 + s) + b

    `prompt` is the pooled prompt. The blank tokens carry nothing of time or prompt when they enter, so what they gain
    is room in the sequence. Darcet et al. 2023 (arXiv 2309.16588) append such tokens, which they call registers, to
    vision transformers; the block is DiT's (Peebles and Xie 2023, section 3.2).
    """

    facts = Facts(
        source="registers, arXiv 2309.16588; DiT, arXiv 2212.09748, section 3.2",
        vector="timestep + pooled prompt",
        prompt="modulation",
        reads=frozenset({"pooled"}),
        identity_at_init=True,
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        tokens: Annotated[int, Option("blank tokens")] = 8,
    ) -> None:
        super().__init__(backbone, image_size)
        if tokens < 1:
            raise ValueError(f"tokens {tokens}: at least 1")
        d = backbone.width
        self.blanks = nn.Parameter(torch.empty(tokens, d))
        init_with(self, blanks=normal(0.02))
        self.gate = parse_gate("zero")
        branch = Adaptive("scale+shift", self.gate)
        self.heads = self.placement("per-block", [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = e_t + prompt.pooled  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c))

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        return torch.cat([x, self.blanks.to(x.dtype).expand(len(x), -1, -1)], dim=1)  # (B, N + k, D)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
            mlp=SubLayer(op=self.mlp(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
