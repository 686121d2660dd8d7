from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import TEXT_LAYERS
from architectures.layers import NORM, LayerNorm, RMSNorm, parse_norm
from architectures.options import choose
from architectures.placement import HEAD, SIDE_TRUNK
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sequence import CONTEXT, POST, join_tokens, token_block
from architectures.sides import PROMPT_TIME, SEES
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, SubLayer, joint_mask, parse_gate


class Lumina2(Scheme):
    """Lumina-Image 2.0: image and prompt are one sequence; time scales and gates it between two weighted RMSNorms.

        c = e_t
        z = [x ; prompt tokens]
        s1, g1, s2, g2 = W_i silu(c) + b_i                  (W_i and b_i initialised at zero)
        z <- z + tanh(g1) RMS( SA( RMS(z) (1 + s1) ) )
        z <- z + tanh(g2) RMS( MLP( RMS(z) (1 + s2) ) )
        s = W silu(c) + b
        x = LN(z[:N]) (1 + s)

    Qin et al. 2025 (arXiv 2503.21758), eps 1e-5. Its refiner blocks, rotary positions, grouped queries and SwiGLU
    belong to its backbone, not to its conditioning; there c has min(D, 1024) channels. `post=none` leaves out
    the second norm of each branch, `modulation=scale+shift` adds b1 and b2, and with `context=static` every block
    attends to the prompt's tokens as the encoder gives them. With `trunk=side` the prompt's tokens have maps of their
    own (GLM-Image).
    """

    facts = Facts(
        source="Lumina-Image 2.0, arXiv 2503.21758",
        vector="timestep",
        prompt="in-context",
        reads=frozenset({"tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(4*d*d + 4*d) + d*d + d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "tanh",
        head: Annotated[str, HEAD] = "per-block",
        trunk: Annotated[str, SIDE_TRUNK] = "stream",
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
        modulation: Annotated[str, MODULATION] = "scale",
        post: Annotated[str, POST] = "rms",
        context: Annotated[str, CONTEXT] = "updated",
        norm: Annotated[str, NORM] = "rms",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
        text_layers: Annotated[str, TEXT_LAYERS] = "last",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image, static=context == "static")
        self.set_text_layers(text_layers, static=context == "static")
        self.modulation, self.gate = modulation, parse_gate(gate)
        self.post, self.context = choose("post", post, POST.choices)[0], context
        self.norm = parse_norm(norm)
        branch = Adaptive(self.modulation, self.gate)
        self.heads, self.text_heads = (self.placement(head, [branch, branch]) for _ in range(2))
        self.trunk = self.heads.trunk()
        own = choose("trunk", trunk, SIDE_TRUNK.choices)[0] == "side" and self.prompt_time != "none"
        self.text_trunk = self.text_heads.trunk() if own else None
        self.final = self.final_norm(LayerNorm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        apart = self.prompt_time == "zero" or self.text_trunk is not None
        side = Condition(modulation=(self.text_trunk or self.trunk)(self.of_prompt(c, prompt))) if apart else None
        return self.with_prompt(e_t, prompt)._replace(vector=c, modulation=self.trunk(c), prompt=side)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        return join_tokens(self.context, x, c)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        sandwich = [RMSNorm(d) if self.post == "rms" else None for _ in range(2)]
        attention = SubLayer(
            op=self.self_attention(),
            norm=self.norm(d),
            modulation=self.modulation,
            gate=self.gate,
            post=sandwich[0],
            context=joint_mask,
        )
        mlp = SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate, post=sandwich[1])
        return token_block(
            self.context,
            self.heads.head(index),
            attention=attention,
            mlp=mlp,
            apart=self.apart or self.text_trunk is not None,
            sees=self.sees_image,
            plain=self.prompt_time == "none",
            text_head=self.text_heads.head(index) if self.text_trunk is not None else None,
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
