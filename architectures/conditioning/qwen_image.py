from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import TEXT_LAYERS
from architectures.layers import LayerNorm
from architectures.placement import HEAD, STREAM_TRUNK, Trunks
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sides import PROMPT_TIME, SEES, Pair
from architectures.streams import dual_block
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, parse_gate


class QwenImage(Scheme):
    """Qwen-Image: image and prompt in two streams with one attention, both conditioned on the timestep alone.

        c = e_t
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          and for y b1', ..., g2' = W_i' silu(c) + b_i'
        u = LN(x) (1 + s1) + b1,  w = LN(y) (1 + s1') + b1' (all heads are initialised at zero)
        a_x, a_y = Attention([u ; w])                       q, k, v and out of each stream's own
        x <- x + g1 a_x,  y <- y + g1' a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y <- y + g2' MLP'(LN(y) (1 + s2') + b2')
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y is initially the prompt's tokens: they are the prompt's only way in. Qwen-Image 2025 (arXiv 2508.02324), as
    diffusers computes it. There the last block writes y once more and nothing reads it; those weights are left out
    here, which changes no output. How the heads are initialised is not published: zero here. Its rotary positions and
    normed queries and keys belong to its backbone.
    """

    facts = Facts(
        source="Qwen-Image, arXiv 2508.02324",
        vector="timestep",
        prompt="dual stream",
        reads=frozenset({"tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(12*d*d + 12*d) - 2*d*d - 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "zero",
        head: Annotated[str, HEAD] = "per-block",
        trunk: Annotated[str, STREAM_TRUNK] = "stream",
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
        text_layers: Annotated[str, TEXT_LAYERS] = "last",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image)
        self.set_text_layers(text_layers)
        self.plain = prompt_time == "none"
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(modulation, self.gate)
        self.heads, self.text_heads = (self.placement(head, [branch, branch]) for _ in range(2))
        self.trunks = Trunks({"x": self.heads} if self.plain else {"x": self.heads, "y": self.text_heads}, trunk)
        self.final = self.final_norm(LayerNorm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        c_y = self.of_prompt(c, prompt)  # of the prompt's side
        m = self.trunks.read({"x": c, "y": c_y})
        own, other = self.with_prompt(e_t, prompt), Condition(vector=c_y)
        return own._replace(vector=c, modulation=m["x"], text=m["y"], prompt=other)

    def enter(self, x: Tensor, c: Condition) -> Pair:
        assert c.tokens is not None
        return x, c.tokens

    def block(self, index: int) -> nn.Module:
        last = index == self.backbone.depth - 1  # y is only attended to there
        attention, text_attention = self.self_attention(), self.text_attention(last=last)
        return dual_block(
            self.heads,
            self.gate,
            text_heads=self.text_heads,
            index=index,
            attention=attention,
            text_attention=text_attention,
            mlp=self.mlp,
            modulation=self.modulation,
            plain=self.plain,
            sees=self.sees_image,
        )

    def leave(self, h: Pair, c: Condition) -> Tensor:
        return self.final(h[0], c.vector)
