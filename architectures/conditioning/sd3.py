from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import TEXT_LAYERS
from architectures.layers import LayerNorm
from architectures.placement import HEAD, STREAM_TRUNK, Trunks
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sequence import CONTEXT
from architectures.sides import PROMPT_TIME, SEES, Pair, plain_or
from architectures.streams import TEXT, dual_block
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, parse_gate


class SD3(Scheme):
    """Stable Diffusion 3 (MM-DiT): image and prompt are two streams with weights of their own and one attention.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          and for y b1', ..., g2' = W_i' silu(c) + b_i'
        u = LN(x) (1 + s1) + b1,  w = LN(y) (1 + s1') + b1' (all heads are initialised at zero)
        a_x, a_y = Attention([u ; w])                       q, k, v and out of each stream's own
        x <- x + g1 a_x,  y <- y + g1' a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y <- y + g2' MLP'(LN(y) (1 + s2') + b2')
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y is initially the prompt's tokens; `prompt` is the pooled prompt. In the last block y is only attended to: two
    vectors, no output, no MLP. Esser et al. 2024 (arXiv 2403.03206), section 4. The released code leaves open how the
    heads are initialised: zero here, as in DiT, whose design the paper inherits. `head=shared` is DiT-Air's placement
    (arXiv 2503.10618); with `text=plain` y is unmodulated; with `context=static` every block treats y as the last one
    does, so that y stays the prompt's tokens. E-MMDiT (arXiv 2510.27135) is `head=shared+affine trunk=one`, of the
    timestep alone.
    """

    facts = Facts(
        source="Stable Diffusion 3, arXiv 2403.03206, section 4",
        vector="timestep + pooled prompt",
        prompt="modulation + dual stream",
        reads=frozenset({"pooled", "tokens"}),
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
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        text: Annotated[str, TEXT] = "modulated",
        context: Annotated[str, CONTEXT] = "updated",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
        text_layers: Annotated[str, TEXT_LAYERS] = "last",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.static = context == "static"
        if self.static and (head != "per-block" or trunk != "stream"):
            raise ValueError(
                "context 'static' gives the prompt's tokens a map in each block: leave head at per-block and trunk at "
                "stream"
            )
        self.set_prompt_side(plain_or(text, prompt_time), prompt_sees_image, static=self.static)
        self.set_text_layers(text_layers, static=self.static)
        self.plain = self.prompt_time == "none"
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(modulation, self.gate)
        self.heads, self.text_heads = (self.placement(head, [branch, branch]) for _ in range(2))
        alone = self.plain or self.static
        self.trunks = Trunks({"x": self.heads} if alone else {"x": self.heads, "y": self.text_heads}, trunk)
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
        last = self.static or index == self.backbone.depth - 1  # y is only attended to
        return dual_block(
            self.heads,
            self.gate,
            text_heads=self.text_heads,
            index=index,
            attention=self.self_attention(),
            text_attention=self.text_attention(last=last),
            mlp=self.mlp,
            modulation=self.modulation,
            plain=self.plain,
            sees=self.sees_image,
        )

    def leave(self, h: Pair, c: Condition) -> Tensor:
        return self.final(h[0], c.vector)
