from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.layers import LayerNorm
from architectures.options import Option
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sides import PROMPT_TIME, SEES, Pair
from architectures.streams import ParallelBlock, dual_block
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, SubLayer, joint_mask, parse_gate

DUAL = Option("how many of the blocks, from the first on, have two streams", ("third", "none", "half", "all"))


class Flux(Scheme):
    """FLUX.1: a third of the blocks have two streams, the others one, with attention beside the MLP.

        c = e_t + prompt
        the first n // 3 blocks, each stream modulated by a head of its own (all heads are initialised at zero):
            b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i
            a_x, a_y = Attention([LN(x) (1 + s1) + b1 ; LN(y) (1 + s1) + b1])
            x <- x + g1 a_x,  y <- y + g1 a_y
            x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y likewise
        the others, on z = [x ; y]:
            b, s, g = W_i silu(c) + b_i
            u = LN(z) (1 + s) + b
            z <- z + g (SA(u) + MLP(u))
        b, s = W silu(c) + b
        x = LN(z[:N]) (1 + s) + b

    y is initially the prompt's tokens; `prompt` is the pooled prompt. Black Forest Labs 2024, as its code computes it
    (19 blocks of two streams, then 38). How the heads are initialised is not published: zero here. The guidance
    embedding of FLUX.1 dev belongs to its distillation; rotary positions and normed queries and keys belong to its
    backbone.
    """

    facts = Facts(
        source="FLUX.1, black-forest-labs/flux",
        vector="timestep + pooled prompt",
        prompt="modulation + dual stream",
        reads=frozenset({"pooled", "tokens"}),
        identity_at_init=True,
        modulation_parameters="n//3*(12*d*d + 12*d) + (n - n//3)*(3*d*d + 3*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        dual: Annotated[str, DUAL] = "third",
        gate: Annotated[str, GATE] = "zero",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
    ) -> None:
        super().__init__(backbone, image_size)
        d, n = backbone.width, backbone.depth
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image)
        self.plain = prompt_time == "none"
        self.dual = {"third": n // 3, "none": 0, "half": n // 2, "all": n}[dual]
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.heads = self.placement(head, [branch, branch], depth=self.dual)  # of a stream of two
        self.joint_heads = self.placement(head, [branch], depth=n - self.dual)  # of the joined sequence
        kinds = [self.heads, self.heads] if self.dual > 0 else []  # of x, and of y
        kinds += [self.joint_heads] if self.dual < n else []
        self.trunks = nn.ModuleList(kind.trunk() for kind in kinds)
        self.final = self.final_norm(LayerNorm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        c_y = self.of_prompt(c, prompt)  # of the prompt's side
        image, text = (trunk(v) for trunk, v in zip(self.trunks, (c, c_y), strict=False)) if self.dual else (None, None)
        joint, side = (self.trunks[-1](v) if self.dual < self.backbone.depth else None for v in (c, c_y))
        y, mask = self.prompt_side(e_t, prompt)
        other = Condition(c_y, joint=side)
        return Condition(c, image, text, joint, tokens=y, mask=self.joint_mask(mask), prompt=other)

    def enter(self, x: Tensor, c: Condition) -> Pair:
        assert c.tokens is not None
        return x, c.tokens

    def block(self, index: int) -> nn.Module:
        if index < self.dual:
            return dual_block(
                self.heads,
                self.gate,
                index=index,
                attention=self.self_attention(),
                text_attention=self.text_attention(last=index == self.backbone.depth - 1),
                mlp=self.mlp,
                modulation=self.modulation,
                plain=self.plain,
                sees=self.sees_image,
            )
        attention = SubLayer(
            op=self.self_attention(),
            norm=LayerNorm(self.backbone.width),
            modulation=self.modulation,
            gate=self.gate,
            context=joint_mask,
        )
        return ParallelBlock(
            self.joint_heads.head(index - self.dual),
            attention=attention,
            mlp=SubLayer(op=self.mlp()),
            apart=self.apart,
            sees=self.sees_image,
            plain=self.plain,
        )

    def leave(self, h: Pair | Tensor, c: Condition) -> Tensor:
        x = h[0] if isinstance(h, tuple) else h[:, : self.grid**2]
        return self.final(x, c.vector)
