from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import NORM, parse_norm
from architectures.options import Option
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import POOLED, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import GATE, MODULATION, Adaptive, Block, Condition, SubLayer, parse_gate

DECODER = Option("how many of the blocks, up to the last, are the decoder", ("quarter", "third", "half"))
Read = tuple[Tensor, Tensor]  # of the encoder: its tokens and x, each (B, N, D)


class DDT(Scheme):
    """DDT: an encoder of x, t and prompt modulates a decoder of the same x, each token by a vector of its own.

        c = e_t + prompt
        s = x; the encoder's blocks, all but the last n // 3:
            b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i      (W_i and b_i initialised at zero)
            s <- s + g1 SA(LN(s) (1 + s1) + b1)
            s <- s + g2 MLP(LN(s) (1 + s2) + b2)
        v = e_t + s                                         (B, N, D)
        the decoder's blocks are the same of x, with W_i silu(v) + b_i
        b, s = W silu(v) + b
        x = LN(x) (1 + s) + b

    `prompt` is the pooled prompt, which reaches the decoder through s alone. Wang et al. 2025 (arXiv 2504.05741), whose
    B/2 has 8 blocks and then 4. There x has an embedding for the encoder and another for the decoder; here it has that
    of the backbone, whose norms, rotary positions and MLP are not the scheme's either.
    """

    facts = Facts(
        source="DDT, arXiv 2504.05741",
        vector="timestep + pooled prompt",
        prompt="modulation",
        reads=frozenset({"pooled"}),
        identity_at_init=True,
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        decoder: Annotated[str, DECODER] = "third",
        gate: Annotated[str, GATE] = "zero",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, POOLED] = "timestep+pooled",
        time: Annotated[str, replace(TIME, choices=("modulation", "added"))] = "modulation",
    ) -> None:
        super().__init__(backbone, image_size)
        d, n = backbone.width, backbone.depth
        self.set_signals(signals, time)
        self.decoder = max(1, {"quarter": n // 4, "third": n // 3, "half": n // 2}[decoder])
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branches = [Adaptive(self.modulation, self.gate)] * 2
        self.encoder = n - self.decoder
        if self.encoder < 1:
            raise ValueError("a decoder is modulated by what an encoder gives: choose a depth of 2 or more")
        self.heads = self.placement(head, branches, depth=self.encoder)
        self.decoder_heads = self.placement(head, branches, depth=self.decoder)
        self.trunk, self.decoder_trunk = self.heads.trunk(), self.decoder_heads.trunk()
        self.final = FinalNorm(self.norm(d), modulation, d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        return Condition(vector=c, modulation=self.trunk(c), time=e_t if self.facts.time == "modulation" else None)

    def enter(self, x: Tensor, c: Condition) -> Read:
        return x, x

    def join(self, index: int, h: Any, c: Condition) -> Any:
        if index != self.encoder:
            return h
        s, x = h
        v = s if c.time is None else c.time[:, None] + s  # (B, N, D)
        return v, self.decoder_trunk(v), x

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        kind, heads = (Encode, self.heads) if index < self.encoder else (Decode, self.decoder_heads)
        return kind(
            heads.head(index if index < self.encoder else index - self.encoder),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
        )

    def leave(self, h: tuple[Tensor, Any, Tensor], c: Condition) -> Tensor:
        v, _, x = h
        return self.final(x, v)


class Encode(Block):
    """(s, x) -> (s, x): a block of s, modulated by c."""

    stream = "s"

    def forward(self, h: Read, c: Condition) -> Read:  # type: ignore[override]
        s, x = h
        return super().forward(s, c), x


class Decode(Block):
    """(v, trunk of v, x) -> the same: a block of x, of which each token has the vectors that v gives it."""

    def forward(self, h: tuple[Tensor, Any, Tensor], c: Condition) -> tuple[Tensor, Any, Tensor]:  # type: ignore[override]
        v, modulation, x = h
        return v, modulation, super().forward(x, c._replace(modulation=modulation))
