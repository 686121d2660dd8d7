from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import BANK
from architectures.layers import NORM, parse_norm
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import POOLED, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import GATE, MODULATION, Adaptive, Block, Condition, SubLayer, parse_gate


class AdaLNZero(Scheme):
    """adaLN-Zero: one vector shifts, scales and gates; with gates of zero every block is the identity at init.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    `prompt` is the pooled prompt. Peebles and Xie 2023 (DiT), section 3.2. `bank=tokens(k, i)` joins k tokens
    `prompt` + P_j to x before block i, which are dropped after the last (JiT, arXiv 2511.13720, has 32 before block 4);
    `bank=registers(k, i)` joins P_j alone, their control.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2",
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
        gate: Annotated[str, GATE] = "zero",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, POOLED] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        bank: Annotated[str, BANK] = "none",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.set_bank(bank)
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.heads = self.placement(head, [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = self.final_norm(self.norm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c), beside=self.image_side(e_t, prompt))

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
