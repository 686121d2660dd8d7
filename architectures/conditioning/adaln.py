from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from torch import Tensor, nn

from architectures.layers import NORM, parse_norm, xavier
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import POOLED, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import MODULATION, Adaptive, Block, Condition, SubLayer


class AdaLN(Scheme):
    """adaLN: one vector shifts and scales every normalised activation; the branches are always open.

        c = e_t + prompt
        b1, s1, b2, s2 = W_i silu(c) + b_i
        x <- x + SA(LN(x) (1 + s1) + b1)
        x <- x + MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    `prompt` is the pooled prompt. The paper leaves open how W_i is initialised: xavier here, DiT's rule for every
    Linear. Peebles and Xie 2023 (DiT), section 3.2.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2",
        vector="timestep + pooled prompt",
        prompt="modulation",
        reads=frozenset({"pooled"}),
        identity_at_init=False,
        modulation_parameters="n*(4*d*d + 4*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        modulation: Annotated[str, replace(MODULATION, choices=("scale", "scale+shift"))] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, POOLED] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.norm = parse_norm(norm)
        self.modulation = modulation
        branch = Adaptive(modulation)
        self.heads = self.placement(head, [branch, branch], init=xavier)
        self.trunk = self.heads.trunk()
        self.final = self.final_norm(self.norm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c), beside=self.image_side(e_t, prompt))

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
