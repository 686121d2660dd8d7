from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from torch import Tensor, nn

from architectures.layers import RMSNorm, init_with, zeros
from architectures.modulation import Given, SharedHead, SharedMLP
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sequence import CONTEXT, join_tokens, token_block
from architectures.sublayer import GATE, Adaptive, Condition, SubLayer, carry_modulated, joint_mask, parse_gate

OF_HEADS = replace(GATE, choices=("zero", "tanh", "one+zero", "one"))  # one map of all blocks, initialised at zero


class HDM(Scheme):
    """HDM (XUT): one modulation for all blocks; what it makes of the normalised stream replaces the stream.

        c = e_t
        z = [x ; prompt tokens]
        s1, b1, g1 = M1(c),  s2, b2, g2 = M2(c)             (once a pass, the same in every block)
        M(c) = W mish(V LN_w(c) + v) + w                    (V: D -> 4D; W and w initialised at zero)
        u = RMS(z) (1 + s1) + b1
        z <- u + (1 + g1) SA(u)
        u = RMS(z) (1 + s2) + b2
        z <- u + (1 + g2) MLP(u)
        x = z[:N]                                           (no norm before the output)

    RMS has a weight of each block's own, eps 1e-6. Since u is carried and not z, this is a post-norm transformer with
    the modulation inside its norms. KohakuBlueleaf/HDM, TechReport, as its code computes it. Its U-shaped skeleton,
    learned rotary positions and SwiGLU belong to its backbone; e_t takes the place of the time's own Mish embedding
    here. With `context=static` every block attends to the prompt's tokens as the encoder gives them.
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
        gate: Annotated[str, OF_HEADS] = "one+zero",
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
        context: Annotated[str, CONTEXT] = "updated",
    ) -> None:
        super().__init__(backbone, image_size)
        self.set_signals(signals, time)
        self.context = context
        self.modulation, self.gate = "scale+shift", parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.count = len(branch.slots)
        self.attention_head, self.mlp_head = self.map(), self.map()

    def map(self) -> nn.Module:
        """M, or its constant where c sums nothing."""
        d = self.backbone.width
        return init_with(Given(self.count * d), table=zeros) if self.without_c else SharedMLP(d, self.count)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        own = self.with_prompt(e_t, prompt)
        return own._replace(vector=c, modulation=(self.attention_head(c), self.mlp_head(c)))

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        return join_tokens(self.context, x, c)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return token_block(
            self.context,
            SharedHead(self.count),
            attention=SubLayer(
                op=self.self_attention(),
                norm=RMSNorm(d, eps=1e-6),
                modulation=self.modulation,
                gate=self.gate,
                context=joint_mask,
                carry=carry_modulated,
            ),
            mlp=SubLayer(
                op=self.mlp(),
                norm=RMSNorm(d, eps=1e-6),
                modulation=self.modulation,
                gate=self.gate,
                carry=carry_modulated,
            ),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return h[:, : self.grid**2]
