from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from architectures.layers import RMSNorm
from architectures.modulation import SharedMLP, Told
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, BackboneConfig, Facts, Scheme
from architectures.sublayer import GATE, Adaptive, Block, Condition, SubLayer, joint_mask, modulated, parse_gate


class HDM(Scheme):
    """HDM (XUT): one modulation for all blocks; what it makes of the normalised stream replaces the stream.

        c = e_t
        z = [x ; prompt tokens]
        s1, b1, g1 = M1(c),  s2, b2, g2 = M2(c)             (once a pass, the same in every block)
        M(c) = W mish(V LN_w(c) + v) + w                    (V: D -> 4D; W and w begin at zero)
        u = RMS(z) (1 + s1) + b1
        z <- u + (1 + g1) SA(u)
        u = RMS(z) (1 + s2) + b2
        z <- u + (1 + g2) MLP(u)
        x = z[:N]                                           (no norm before the output)

    RMS has a weight of each block's own, eps 1e-6. Since u is carried and not z, this is a post-norm transformer with
    the modulation inside its norms. KohakuBlueleaf/HDM, TechReport, as its code computes it. Its U-shaped skeleton,
    learned rotary positions and SwiGLU belong to its backbone; for the time's own Mish embedding stands e_t here.
    """

    facts = Facts(
        source="HDM, TechReport of KohakuBlueleaf/HDM",
        vector="timestep",
        prompt="in-context",
        reads=frozenset({"tokens"}),
        identity_at_init=False,
        modulation_parameters="32*d*d + 18*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "one+zero",
        signals: Annotated[str, SIGNALS] = "timestep",
    ) -> None:
        super().__init__(backbone, image_size)
        self.hears(signals)
        self.told = Adaptive("scale+shift", parse_gate(gate))
        d, count = backbone.width, len(self.told.slots)
        self.attention_head, self.mlp_head = SharedMLP(d, count), SharedMLP(d, count)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.signal(e_t, prompt)  # (B, D)
        mask = self.joint_mask(prompt.mask)
        return Condition(c, (self.attention_head(c), self.mlp_head(c)), prompt.tokens, mask)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        assert c.tokens is not None
        return torch.cat([x, c.tokens], dim=1)  # (B, N + L, D)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            Told(len(self.told.slots)),
            attention=SubLayer(
                self.self_attention(), RMSNorm(d, eps=1e-6), self.told, context=joint_mask, carry=modulated
            ),
            mlp=SubLayer(self.mlp(), RMSNorm(d, eps=1e-6), self.told, carry=modulated),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return h[:, : self.grid**2]
