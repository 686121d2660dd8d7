from __future__ import annotations

from torch import Tensor, nn

from architectures.layers import LayerNorm
from architectures.modulation import FinalNorm, parse_placement
from architectures.prompt import Encoded
from architectures.scheme import BackboneConfig, Facts, Scheme
from architectures.sublayer import Adaptive, Block, Condition, SubLayer, parse_gate


class Oracle(Scheme):
    """The oracle of a task: each image token is given its own part of the prompt, so that nothing has to be routed.

        c = e_t
        x_i <- x_i + y_i                                    (y_i the prompt's token i, once, before the blocks)
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    The prompt has as many tokens as the image. What this control cannot learn, no path of the prompt can; a task on
    which it fails says nothing about schemes. The block is DiT's (Peebles and Xie 2023, section 3.2), for time alone.
    """

    facts = Facts(
        source="none; the block is DiT's, arXiv 2212.09748, section 3.2",
        vector="timestep",
        prompt="added to the image's tokens",
        reads=frozenset({"tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",
        length="tokens",
    )

    def __init__(self, backbone: BackboneConfig, image_size: int) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.gate = parse_gate("zero")
        branch = Adaptive("scale+shift", self.gate)
        self.heads = parse_placement("per-block", d, [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        return Condition(vector=e_t, modulation=self.trunk(e_t), tokens=prompt.tokens, mask=prompt.mask)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        assert c.tokens is not None
        return x + (c.tokens if c.mask is None else c.tokens * c.mask.unsqueeze(-1).to(c.tokens.dtype))

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(),
            attention=SubLayer(op=self.self_attention(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
            mlp=SubLayer(op=self.mlp(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h, c.vector)
