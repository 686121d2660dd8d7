from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from architectures.layers import NORM, parse_norm
from architectures.prompt import Encoded, with_time
from architectures.scheme import BackboneConfig, Facts, Scheme
from architectures.sublayer import Block, Condition, SubLayer, joint_mask


class InContext(Scheme):
    """In-context conditioning: time and prompt are tokens beside the image's.

        k = [e_t ; prompt tokens]
        z = [x ; k]
        z <- z + SA(LN(z))
        z <- z + MLP(LN(z))
        x = LN(z[:N])

    LN has no weights, the appended tokens no positions, and they are dropped after the last block; the paper leaves the
    first two open. Peebles and Xie 2023 (DiT), section 3.2.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2",
        vector="none",
        prompt="in-context",
        reads=frozenset({"tokens"}),
        identity_at_init=False,
    )

    def __init__(self, backbone: BackboneConfig, image_size: int, *, norm: Annotated[str, NORM] = "layer") -> None:
        super().__init__(backbone, image_size)
        self.norm = parse_norm(norm)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        k, mask = with_time(e_t, prompt)
        return Condition(tokens=k, mask=self.joint_mask(mask))

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        assert c.tokens is not None
        return torch.cat([x, c.tokens], dim=1)  # (B, N + 1 + L, D)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return Block(
            attention=SubLayer(self.self_attention(), self.norm(d), context=joint_mask),
            mlp=SubLayer(self.mlp(), self.norm(d)),
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return super().leave(h[:, : self.grid**2], c)
