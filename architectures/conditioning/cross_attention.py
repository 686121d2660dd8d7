from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.layers import NORM, parse_norm
from architectures.prompt import Encoded
from architectures.scheme import WITHOUT_C, BackboneConfig, Facts, Scheme
from architectures.sublayer import Block, Condition, SubLayer, prompt_tokens


class CrossAttentionScheme(Scheme):
    """Cross-attention conditioning: image tokens attend to time and prompt, between self-attention and MLP.

        k = [e_t ; prompt tokens]
        x <- x + SA(LN(x))
        x <- x + CA(LN(x), k)
        x <- x + MLP(LN(x))
        x = LN(x)

    LN has no weights; the final layer is unmodulated. Peebles and Xie 2023 (DiT), section 3.2.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2",
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
        norm: Annotated[str, NORM] = "layer",
        signals: Annotated[str, WITHOUT_C[0]] = "timestep",
        time: Annotated[str, WITHOUT_C[1]] = "token",
    ) -> None:
        super().__init__(backbone, image_size)
        self.set_signals(signals, time)
        self.norm = parse_norm(norm)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        k, mask = self.prompt_side(e_t, prompt)
        return Condition(tokens=k, mask=mask)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d)),
            cross=SubLayer(op=self.cross_attention(), norm=self.norm(d), context=prompt_tokens),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d)),
        )
