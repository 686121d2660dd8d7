from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from architectures.layers import NORM, init_with, normal, parse_norm
from architectures.options import Option
from architectures.prompt import Encoded
from architectures.scheme import WITHOUT_C, BackboneConfig, Facts, Scheme
from architectures.sequence import CONTEXT, join_tokens, token_block
from architectures.sides import PROMPT_TIME, SEES
from architectures.sublayer import GATE, Adaptive, Condition, SubLayer, joint_mask, parse_gate


class InContext(Scheme):
    """In-context conditioning: time and prompt are tokens beside the image's.

        k = [e_t ; prompt tokens]
        z = [x ; k]                                         (`tokens`=m > 1: [x ; k + P_1 ; ... ; k + P_m], P learned)
        z <- z + SA(LN(z))
        z <- z + MLP(LN(z))
        x = LN(z[:N])

    LN has no weights, the appended tokens no positions, and they are dropped after the last block; the paper leaves the
    first two open; with `context=static` k is the same in every block, which updates x alone. With
    `prompt_sees_image=no` the prompt's tokens attend to k alone, and with `prompt_time=none` e_t is on the image's
    side, so that they attend to one another alone (tokens that see the image see e_t on either side). There is no c, so
    that gates are learned constants (iMF, arXiv 2512.02012: `gate=static-zero`, with `tokens`). Peebles and Xie 2023
    (DiT), section 3.2.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2",
        vector="none",
        prompt="in-context",
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
        tokens: Annotated[int, Option("tokens a signal: how often time and each prompt token are repeated")] = 1,
        context: Annotated[str, CONTEXT] = "updated",
        gate: Annotated[str, GATE] = "one",
        signals: Annotated[str, WITHOUT_C[0]] = "timestep",
        time: Annotated[str, WITHOUT_C[1]] = "token",
        prompt_time: Annotated[str, replace(PROMPT_TIME, choices=("t", "none"))] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
    ) -> None:
        super().__init__(backbone, image_size)
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image, static=context == "static")
        self.apart_from_time = prompt_time == "none" and self.facts.time == "token"  # its token is on the image's side
        self.prompt_alone |= self.apart_from_time and (context == "static" or not self.sees_image)
        if tokens < 1:
            raise ValueError(f"tokens {tokens}: at least 1")
        self.norm, self.gate = parse_norm(norm), parse_gate(gate)
        self.heads = self.placement("per-block", [Adaptive("none", self.gate)] * 2)
        self.repeats, self.context = tokens, context
        if tokens > 1:
            self.places = nn.Parameter(torch.empty(tokens, backbone.width))
            init_with(self, places=normal(0.02))

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        if self.apart_from_time:
            e, k, mask = self.repeated(e_t[:, None]), prompt.tokens, prompt.mask
        else:
            e, (k, mask) = None, self.prompt_side(e_t, prompt)
        mask = None if mask is None else mask.repeat(1, self.repeats)
        joint = self.joint_mask(mask, beside=0 if e is None else self.repeats)
        return Condition(tokens=self.repeated(k), mask=joint, beside=e)

    def repeated(self, k: Tensor) -> Tensor:
        """Tokens (B, L, D) -> m times, each time with a learned P_i added: (B, m L, D)."""
        return k if self.repeats == 1 else (k[:, None] + self.places[:, None]).flatten(1, 2)

    def enter(self, x: Tensor, c: Condition) -> Tensor:
        x = x if c.beside is None else torch.cat([x, c.beside.to(x.dtype)], dim=1)
        return join_tokens(self.context, x, c)  # (B, N + 1 + L, D)

    def join(self, index: int, h: Tensor, c: Condition) -> Tensor:
        return h

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        return token_block(
            self.context,
            self.heads.head(index) if self.gate.function else None,
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), gate=self.gate, context=joint_mask),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), gate=self.gate),
            apart=self.apart,
            sees=self.sees_image,
            plain=self.prompt_time == "none",
        )

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return super().leave(h[:, : self.grid**2], c)
