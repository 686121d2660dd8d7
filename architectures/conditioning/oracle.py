from __future__ import annotations

from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm
from architectures.prompt import Encoded
from architectures.scheme import BackboneConfig, Facts, Scheme
from architectures.sublayer import Adaptive, Block, Condition, SubLayer, parse_gate


class Oracle(Scheme):
    """The oracle of a task: each image token is given its own part of the prompt, so that nothing has to be routed.

        c_i = e_t + y_i                                     (y_i the prompt's token i)
        x_i <- x_i + y_i                                    (once, before the blocks)
        b1, s1, g1, b2, s2, g2 = W_k silu(c_i) + b_k        (W_k and b_k of block k initialised at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c_i) + b
        x = LN(x) (1 + s) + b

    The prompt has as many tokens as the image. What this control cannot learn, no path of the prompt can; a task on
    which it fails says nothing about schemes. The block is DiT's (Peebles and Xie 2023, section 3.2), modulated token
    by token: added alone, a prompt does not reach what time and prompt decide together.
    """

    facts = Facts(
        source="none; the block is DiT's, arXiv 2212.09748, section 3.2, modulated token by token",
        vector="timestep",
        prompt="added to the image's tokens, and to the vector that modulates each",
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
        self.heads = self.placement("per-block", [branch, branch])
        self.trunk = self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        y = prompt.tokens
        y = y if prompt.mask is None else y * prompt.mask.unsqueeze(-1).to(y.dtype)
        c = e_t[:, None] + y  # (B, N, D)
        return Condition(vector=c, modulation=self.trunk(c), tokens=y)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        assert c.tokens is not None
        return x + c.tokens

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
            mlp=SubLayer(op=self.mlp(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h, c.vector)
