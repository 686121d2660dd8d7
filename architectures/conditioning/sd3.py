from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from architectures.layers import LayerNorm, SelfAttention, attend_jointly
from architectures.modulation import HEAD, FinalNorm, parse_placement
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, BackboneConfig, Facts, Scheme
from architectures.sublayer import GATE, Adaptive, Condition, SubLayer, parse_gate

Pair = tuple[Tensor, Tensor]  # x (B, N, D) and y (B, L, D)


class SD3(Scheme):
    """Stable Diffusion 3 (MM-DiT): image and prompt are two streams with weights of their own and one attention.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          for x; another head for y (all begin at zero)
        u = LN(x) (1 + s1) + b1,  w = LN(y) (1 + s1) + b1
        a_x, a_y = Attention([u ; w])                       q, k, v and out of each stream's own
        x <- x + g1 a_x,  y <- y + g1 a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y likewise
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    y begins as the prompt's tokens; `prompt` is the pooled prompt. In the last block y is only read: two vectors, no
    output, no MLP. Esser et al. 2024 (arXiv 2403.03206), section 4. The released code leaves open how the heads begin:
    zero here, as in DiT, whose design the paper inherits. `head=shared` is DiT-Air's placement (arXiv 2503.10618), with
    `signals=timestep` the streams are told as in Qwen-Image.
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
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.hears(signals)
        self.told = Adaptive("scale+shift", parse_gate(gate))
        self.heads = parse_placement(head, d, [self.told, self.told])
        self.trunk, self.text_trunk = self.heads.trunk(), self.heads.trunk()
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.signal(e_t, prompt)  # (B, D)
        mask = self.joint_mask(prompt.mask)
        return Condition(c, (self.trunk(c), self.text_trunk(c)), prompt.tokens, mask)

    def enter(self, x: Tensor, c: Condition) -> Pair:
        assert c.tokens is not None
        return x, c.tokens

    def block(self, index: int) -> nn.Module:
        return LastBlock(self) if index == self.backbone.depth - 1 else DualBlock(self)

    def leave(self, h: Pair, c: Condition) -> Tensor:
        return self.final(h[0], c.vector)


class DualBlock(nn.Module):
    """(x, y) -> (x, y): each stream told by its own head, one attention over both."""

    def __init__(self, scheme: SD3) -> None:
        super().__init__()
        d = scheme.backbone.width
        self.head = scheme.heads.head()
        self.attention = SubLayer(scheme.self_attention(), LayerNorm(d), scheme.told)
        self.mlp = SubLayer(scheme.mlp(), LayerNorm(d), scheme.told)
        self.text(scheme, d)

    def text(self, scheme: SD3, d: int) -> None:
        """Makes the text side."""
        own = SelfAttention(d, scheme.backbone.heads, qk_norm=scheme.backbone.qk_norm)
        self.text_head = scheme.heads.head()
        self.text_attention = prompt_path(SubLayer(own, LayerNorm(d), scheme.told))
        self.text_mlp = prompt_path(SubLayer(scheme.mlp(), LayerNorm(d), scheme.told))

    def forward(self, h: Pair, c: Condition) -> Pair:
        (x, y), (told, told_y) = h, c.modulation  # type: ignore[misc]
        (m1, m2), (n1, n2) = self.head(told), self.text_head(told_y)
        u, w = self.attention.before(x, m1), self.text_attention.before(y, n1)
        a, b = attend_jointly(u, w, self.attention.op, self.text_attention.op, c.mask)  # type: ignore[arg-type]
        x, y = self.attention.after(x, u, a, m1), self.text_attention.after(y, w, b, n1)
        return self.mlp(x, c, m2), self.text_mlp(y, c, n2)


class LastBlock(DualBlock):
    """The same with a text side that is only read: b, s = W silu(c) + b, q, k, v, and no more."""

    def text(self, scheme: SD3, d: int) -> None:
        self.text_norm = FinalNorm(LayerNorm(d), "scale+shift", d)
        own = SelfAttention(d, scheme.backbone.heads, qk_norm=scheme.backbone.qk_norm, read_only=True)
        self.text_attention = prompt_path(own)

    def forward(self, h: Pair, c: Condition) -> Pair:
        (x, y), (told, _) = h, c.modulation  # type: ignore[misc]
        m1, m2 = self.head(told)
        u, w = self.attention.before(x, m1), self.text_norm(y, c.vector)
        a, _ = attend_jointly(u, w, self.attention.op, self.text_attention, c.mask)  # type: ignore[arg-type]
        return self.mlp(self.attention.after(x, u, a, m1), c, m2), y


def prompt_path(module: nn.Module) -> Any:
    """Counts a module's parameters to the prompt's path."""
    module.role = "prompt"  # type: ignore[assignment]
    return module
