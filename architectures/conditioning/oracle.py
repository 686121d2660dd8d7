from __future__ import annotations

from torch import Tensor, nn

from architectures.layers import LayerNorm
from architectures.modulation import parse_placement
from architectures.prompt import Encoded
from architectures.scheme import BackboneConfig, Facts, Scheme
from architectures.sublayer import Adaptive, Block, Condition, SubLayer, Vectors, parse_gate


def modulated(x: Tensor, m: Vectors) -> Tensor:
    """x (1 + s) + b, all (B, N, D)."""
    assert m.scale is not None and m.shift is not None
    return x * (1 + m.scale) + m.shift


class PerToken(SubLayer):
    """A sub-layer whose shift, scale and gate are each token's own, (B, N, D)."""

    def pre(self, x: Tensor, m: Vectors) -> Tensor:
        """u, its vectors token by token."""
        return modulated(self.norm(x), m)

    def residual(self, x: Tensor, u: Tensor, y: Tensor, m: Vectors) -> Tensor:
        """x + g y; observed are the vectors of all tokens in a row, (B, N D)."""
        m = Vectors(*(v if v is None else v.flatten(1) for v in m))
        assert m.gate is not None
        out = (x + m.gate.view_as(y) * y).to(x.dtype)
        if self.observer is not None:
            self.observer(x, u, out, m)
        return out


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
        self.heads = parse_placement("per-block", d, [branch, branch])
        self.trunk = self.heads.trunk()
        last = parse_placement("per-block", d, [Adaptive("scale+shift")])
        self.norm, self.last = LayerNorm(d), last.head()

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        y = prompt.tokens
        y = y if prompt.mask is None else y * prompt.mask.unsqueeze(-1).to(y.dtype)
        return Condition(vector=e_t, modulation=self.trunk(e_t[:, None] + y), tokens=y)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        assert c.tokens is not None
        return x + c.tokens

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            self.heads.head(),
            attention=PerToken(op=self.self_attention(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
            mlp=PerToken(op=self.mlp(), norm=LayerNorm(d), modulation="scale+shift", gate=self.gate),
        )

    def leave(self, x: Tensor, c: Condition) -> Tensor:
        (m,) = self.last(c.modulation)
        return modulated(self.norm(x), m)
