from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.prompt import Encoded
from architectures.scheme import WITHOUT_C, BackboneConfig, Facts, Scheme
from architectures.sublayer import Block, Condition, SubLayer, prompt_tokens


class LDM(Scheme):
    """The transformer block of Stable Diffusion 1.5 and XL: weighted norms, cross-attention to the prompt.

        k = [e_t ; prompt tokens]
        x <- x + SA(LN_w(x))
        x <- x + CA(LN_w(x), k)
        x <- x + MLP(LN_w(x))
        x = LN(x)

    LN_w has weight and bias, eps 1e-5. Rombach et al. 2022 (arXiv 2112.10752), section 3.3. There time enters by the
    convolutions around the block; this backbone has none, so it is a token beside the prompt's. Their MLP is GEGLU and
    their q, k, v have no bias: those belong to the backbone here (`backbone.mlp`), so that conditioning alone differs.
    """

    facts = Facts(
        source="Latent diffusion, arXiv 2112.10752, section 3.3",
        vector="none",
        prompt="cross-attention",
        reads=frozenset({"tokens"}),
        identity_at_init=False,
        time="token",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        signals: Annotated[str, WITHOUT_C[0]] = "timestep",
        time: Annotated[str, WITHOUT_C[1]] = "token",
    ) -> None:
        super().__init__(backbone, image_size)
        self.set_signals(signals, time)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        k, mask = self.prompt_side(e_t, prompt)
        return Condition(tokens=k, mask=mask)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            attention=SubLayer(op=self.self_attention(), norm=nn.LayerNorm(d, eps=1e-5)),
            cross=SubLayer(op=self.cross_attention(), norm=nn.LayerNorm(d, eps=1e-5), context=prompt_tokens),
            mlp=SubLayer(op=self.mlp(), norm=nn.LayerNorm(d, eps=1e-5)),
        )
