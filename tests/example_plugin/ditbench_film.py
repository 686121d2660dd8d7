"""A conditioning scheme outside ditbench, as small as one can be."""

from __future__ import annotations

from architectures.parts import (
    PLAIN,
    Adaptive,
    Block,
    Condition,
    Facts,
    LayerNorm,
    Scheme,
    SubLayer,
    parse_placement,
)


class FiLM(Scheme):
    """Feature-wise linear modulation before the MLP alone, by one head that all blocks share.

        c = e_t + prompt
        b, s = W silu(c) + b                   (once a pass)
        x <- x + SA(LN(x))
        x <- x + MLP(LN(x) (1 + s) + b)
        x = LN(x)

    After Perez et al. 2017, arXiv 1709.07871.
    """

    facts = Facts(
        source="FiLM, arXiv 1709.07871",
        vector="timestep + pooled prompt",
        prompt="modulation",
        reads=frozenset({"pooled"}),
        identity_at_init=False,
        modulation_parameters="2*d*d + 2*d",
    )

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        self.heads = parse_placement("shared", backbone.width, [PLAIN, Adaptive("scale+shift")])
        self.trunk = self.heads.trunk()

    def embed(self, e_t, prompt):
        c = e_t + prompt.pooled
        return Condition(vector=c, modulation=self.trunk(c))

    def block(self, index):
        d = self.backbone.width
        return Block(
            self.heads.head(),
            attention=SubLayer(op=self.self_attention(), norm=LayerNorm(d)),
            mlp=SubLayer(op=self.mlp(), norm=LayerNorm(d), modulation="scale+shift"),
        )
