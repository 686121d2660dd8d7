from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from architectures.beside import BLANKS
from architectures.layers import NORM, init_with, parse_norm, zeros
from architectures.options import Option, choose
from architectures.placement import HEAD
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sublayer import (
    GATE,
    MODULATION,
    PLAIN,
    Adaptive,
    Block,
    Condition,
    SubLayer,
    Vectors,
    modulate,
    parse_gate,
    prompt_tokens,
)
from architectures.symbols import modulated_symbol

CROSS = Option(
    "the cross-attention's branch: neither modulated nor gated, gated, or with shift, scale and gate as the others",
    ("plain", "gated", "modulated"),
)
PROMPT_SIDE = Option(
    "what modulates the prompt's tokens before they are attended to: nothing, a constant that each block learns, or c",
    ("none", "static", "c"),
)


class AdaLNZeroCross(Scheme):
    """adaLN-Zero for time and pooled prompt, cross-attention for the prompt's tokens.

        c = e_t + prompt
        b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i          (W_i and b_i initialised at zero)
        x <- x + g1 SA(LN(x) (1 + s1) + b1)
        x <- x + CA(LN(x), prompt tokens)                   (its output Linear is initialised at zero)
        x <- x + g2 MLP(LN(x) (1 + s2) + b2)
        b, s = W silu(c) + b
        x = LN(x) (1 + s) + b

    The block of DiT (Peebles and Xie 2023, section 3.2) with the cross-attention that PixArt (Chen et al. 2023, section
    2.3) adds to it, here with a norm before it; every block is the identity at init. `cross=gated` weighs that branch
    by a g of its own, `cross=modulated` gives it b, s and g (Kandinsky 5); where that g is initialised at zero, the
    output Linear is not. `prompt_side` modulates the prompt's tokens, too, y (1 + s') + b' (LTX-2; static: LTX-2.5).
    `registers` are blank tokens beside them.
    """

    facts = Facts(
        source="DiT, arXiv 2212.09748, section 3.2; PixArt, arXiv 2310.00426, section 2.3",
        vector="timestep + pooled prompt",
        prompt="modulation + cross-attention",
        reads=frozenset({"pooled", "tokens"}),
        identity_at_init=True,
        modulation_parameters="n*(6*d*d + 6*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        gate: Annotated[str, GATE] = "zero",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        norm: Annotated[str, NORM] = "layer",
        head: Annotated[str, HEAD] = "per-block",
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        cross: Annotated[str, CROSS] = "plain",
        prompt_side: Annotated[str, PROMPT_SIDE] = "none",
        registers: Annotated[int, BLANKS] = 0,
    ) -> None:
        super().__init__(backbone, image_size)
        d = backbone.width
        self.set_signals(signals, time)
        self.set_blanks(registers)
        self.norm = parse_norm(norm)
        self.modulation, self.gate = modulation, parse_gate(gate)
        branch = Adaptive(self.modulation, self.gate)
        self.cross = {"plain": PLAIN, "gated": Adaptive("none", self.gate), "modulated": branch}[cross]
        self.heads = self.placement(head, [branch, self.cross, branch])
        self.trunk = self.heads.trunk()
        self.text_heads, self.text_trunk = None, None  # of the prompt's tokens
        if choose("prompt_side", prompt_side, PROMPT_SIDE.choices)[0] != "none":
            static = self.without_c or prompt_side == "static"
            own = "per-block" if static else head
            self.text_heads = self.placement(own, [Adaptive("scale+shift")], static=static)
            self.text_trunk = self.text_heads.trunk()
        self.final = self.final_norm(self.norm(d), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        y, mask = self.prompt_side(e_t, prompt)
        text = None if self.text_trunk is None else self.text_trunk(c)
        return Condition(vector=c, modulation=self.trunk(c), text=text, tokens=y, mask=mask)

    def block(self, index: int) -> nn.Module:
        d = self.backbone.width
        cross = self.cross_attention()
        if not self.cross.gate.closed:  # a gate at zero before a map at zero would leave both there
            init_with(cross.out, weight=zeros)
        return Block(
            self.heads.head(index),
            attention=SubLayer(op=self.self_attention(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
            cross=self.cross_branch(cross, index),
            mlp=SubLayer(op=self.mlp(), norm=self.norm(d), modulation=self.modulation, gate=self.gate),
        )

    def cross_branch(self, op: nn.Module, index: int) -> SubLayer:
        """The cross-attention, to the prompt's tokens as they are, or modulated."""
        norm, adaptive = self.norm(self.backbone.width), self.cross
        more: dict[str, Any] = dict(modulation=adaptive.modulation, gate=adaptive.gate, context=prompt_tokens)
        if self.text_heads is None:
            return SubLayer(op, norm, **more)
        return ModulatedPrompt(op, norm, text_head=self.text_heads.head(index), **more)

    def leave(self, h: Tensor, c: Condition) -> Tensor:
        return self.final(h, c.vector)


class ModulatedPrompt(SubLayer):
    """A branch whose op attends to the prompt's tokens, y (1 + s') + b'.

    Args:
        text_head: reads c.text, for y.
        more: as of `SubLayer`.
    """

    def __init__(self, *parts: Any, text_head: nn.Module, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.text_head = text_head

    def forward(self, x: Tensor, c: Condition, m: Vectors) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        assert c.tokens is not None
        (n,) = self.text_head(c.text)
        return super().forward(x, c._replace(tokens=modulate(c.tokens, n.shift, n.scale).to(c.tokens.dtype)), m)

    def equations(self, x: str, k: str) -> list[str]:
        """The branch, of modulated tokens."""
        return [
            line.replace(", y", ", " + modulated_symbol("y", ("shift", "scale"), "'"))
            for line in super().equations(x, k)
        ]
