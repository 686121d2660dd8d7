from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.layers import NORM, LayerNorm, RMSNorm, parse_norm
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import POOLED, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import GATE, MODULATION, Adaptive, Block, Condition, SubLayer, parse_gate


class ShiftFree(Scheme):
    """Shift-free modulation: scale and tanh gate alone, between two weighted RMSNorms a branch.

        c = e_t + prompt
        s1, g1, s2, g2 = W_i silu(c) + b_i                  (W_i and b_i initialised at zero)
        x <- x + tanh(g1) RMS( SA( RMS(x) (1 + s1) ) )
        x <- x + tanh(g2) RMS( MLP( RMS(x) (1 + s2) ) )
        s = W silu(c) + b
        x = LN(x) (1 + s)

    The block and final layer of Lumina-Image 2.0 (Qin et al. 2025, arXiv 2503.21758), eps 1e-5, on this backbone's
    attention and MLP. `prompt` is the pooled prompt. Lumina 2.0 itself has time alone in c and the text in the
    sequence; here only shift, gate and norm differ from `adaln-zero`, so that the two can be compared.
    """

    facts = Facts(
        source="Lumina-Image 2.0, arXiv 2503.21758",
        vector="timestep + pooled prompt",
        prompt="modulation",
        reads=frozenset({"pooled"}),
        identity_at_init=True,
        modulation_parameters="n*(4*d*d + 4*d) + d*d + d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "tanh",
        modulation: Annotated[str, MODULATION] = "scale",
        norm: Annotated[str, NORM] = "rms",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, POOLED] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.heads = self.placement(head, [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = self.final_norm(LayerNorm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c), beside=self.image_side(e_t, prompt))

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(index),
            attention=SubLayer(
                op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate, post=RMSNorm(d)
            ),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate, post=RMSNorm(d)),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
