from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import TEXT_LAYERS
from architectures.layers import LayerNorm, RMSNorm
from architectures.modulation import ModulationLinear, Nothing
from architectures.options import Option, choose
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sequence import CONTEXT, POST, join_tokens, token_block
from architectures.sides import PROMPT_TIME, SEES
from architectures.sublayer import GATE, MODULATION, Adaptive, Condition, SubLayer, joint_mask, parse_gate

ACTIVATION = Option("what the narrow c passes before any map reads it", ("none", "silu"))


class ZImage(Scheme):
    """Z-Image (S3-DiT): image and prompt are one sequence; time reaches every block through one narrow vector.

        c = V e_t + v                                       (256 channels, D if that is less)
        z = [x ; prompt tokens]
        s1, g1, s2, g2 = W_i c + b_i                        (no silu; W_i and b_i initialised at zero)
        z <- z + tanh(g1) RMS( SA( RMS(z) (1 + s1) ) )
        z <- z + tanh(g2) RMS( MLP( RMS(z) (1 + s2) ) )
        s = W silu(c) + b                                   (silu here, though the blocks have none)
        x = LN(z[:N]) (1 + s)

    Z-Image team 2025 (arXiv 2511.22699), eps 1e-5. The released code leaves open how the heads are initialised: zero
    here, as in Lumina-Image 2.0, whose block it is. Its refiner blocks, rotary positions, SwiGLU and learned padding
    belong to its backbone, not to its conditioning. `post`, `modulation` and `context` are those of `lumina2`; a `head`
    that is shared reads the same narrow c. With `activation=silu` c = silu(V e_t + v) (Ideogram 4).
    """

    facts = Facts(
        source="Z-Image, arXiv 2511.22699",
        vector="timestep",
        prompt="in-context",
        reads=frozenset({"tokens"}),
        identity_at_init=True,
        modulation_parameters="(d + 1)*min(d, 256) + (4*n + 1)*(min(d, 256) + 1)*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "tanh",
        head: Annotated[str, HEAD] = "per-block",
        rank: Annotated[int, Option("channels of c, D if that is less")] = 256,
        activation: Annotated[str, ACTIVATION] = "none",
        signals: Annotated[str, SIGNALS] = "timestep",
        time: Annotated[str, TIME] = "modulation",
        modulation: Annotated[str, MODULATION] = "scale",
        post: Annotated[str, POST] = "rms",
        context: Annotated[str, CONTEXT] = "updated",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
        text_layers: Annotated[str, TEXT_LAYERS] = "last",
    ) -> None:
        super().__init__(backbone, image_size)
        if rank < 1:
            raise ValueError(f"rank {rank}: at least 1")
        d, rank = backbone.width, min(backbone.width, rank)
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image, static=context == "static")
        self.set_text_layers(text_layers, static=context == "static")
        self.modulation, self.gate = modulation, parse_gate(gate)
        self.post, self.context = choose("post", post, POST.choices)[0], context
        branch = Adaptive(self.modulation, self.gate)
        self.trunk: nn.Module = Nothing() if self.without_c else ModulationLinear(d, rank)
        if choose("activation", activation, ACTIVATION.choices)[0] == "silu" and not self.without_c:
            self.trunk = nn.Sequential(self.trunk, nn.SiLU())
        self.heads = self.placement(head, [branch, branch], channels=rank, activate=False)
        self.maps = self.heads.trunk()
        self.final = self.final_norm(LayerNorm(d), modulation, rank)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)
        side = self.trunk(self.of_prompt(c, prompt)) if self.prompt_time == "zero" else None
        c = self.trunk(c)  # (B, min(D, 256))
        other = None if side is None else Condition(modulation=self.maps(side))
        return self.with_prompt(e_t, prompt)._replace(vector=c, modulation=self.maps(c), prompt=other)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        return join_tokens(self.context, x, c)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        sandwich = [RMSNorm(d) if self.post == "rms" else None for _ in range(2)]
        attention = SubLayer(
            op=self.self_attention(),
            norm=RMSNorm(d),
            modulation=self.modulation,
            gate=self.gate,
            post=sandwich[0],
            context=joint_mask,
        )
        mlp = SubLayer(op=self.mlp(), norm=RMSNorm(d), modulation=self.modulation, gate=self.gate, post=sandwich[1])
        return token_block(
            self.context,
            self.heads.head(index),
            attention=attention,
            mlp=mlp,
            apart=self.apart,
            sees=self.sees_image,
            plain=self.prompt_time == "none",
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h[:, : self.grid**2], c.vector)
