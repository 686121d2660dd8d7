from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from architectures.beside import BLANKS, TEXT_LAYERS
from architectures.layers import LayerNorm
from architectures.options import Option, choose
from architectures.order import make_through
from architectures.placement import HEAD, TRUNK, Trunks
from architectures.prompt import Encoded
from architectures.scheme import SIGNALS, TIME, BackboneConfig, Facts, Scheme
from architectures.sides import PROMPT_TIME, SEES, Pair
from architectures.streams import JoinedBlock, branch, dual_block
from architectures.sublayer import (
    GATE,
    MODULATION,
    Adaptive,
    Condition,
    SubLayer,
    joint_mask,
    parse_gate,
)

DUAL = Option(
    "how many of the blocks, from the first on, have two streams", ("third", "none", "ninth", "seventh", "half", "all")
)
EARLY = Option("what the two streams attend to: both of them, or each itself alone", ("joint", "separate"))
BESIDE = {"joined": (False, True), "none": (False, False), "all": (True, True)}  # in blocks of two streams, and of one
PARALLEL = Option(
    "which blocks have the attention beside the MLP, with one triple for both, where the others have one for each; "
    "through: none, and a block adds its MLP alone, which reads what the attention gave",
    (*BESIDE, "through"),
)


class Flux(Scheme):
    """FLUX.1: a third of the blocks have two streams, the others one, with attention beside the MLP.

        c = e_t + prompt
        the first n // 3 blocks (all heads are initialised at zero):
            b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i      and for y b1', ..., g2' = W_i' silu(c) + b_i'
            a_x, a_y = Attention([LN(x) (1 + s1) + b1 ; LN(y) (1 + s1') + b1'])
            x <- x + g1 a_x,  y <- y + g1' a_y
            x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y <- y + g2' MLP'(LN(y) (1 + s2') + b2')
        the others, on z = [x ; y]:
            b, s, g = W_i silu(c) + b_i
            u = LN(z) (1 + s) + b
            z <- z + g (SA(u) + MLP(u))
        b, s = W silu(c) + b
        x = LN(z[:N]) (1 + s) + b

    y is initially the prompt's tokens; `prompt` is the pooled prompt. Black Forest Labs 2024, as its code computes it
    (19 blocks of two streams, then 38). How the heads are initialised is not published: zero here. The guidance
    embedding of FLUX.1 dev belongs to its distillation; rotary positions and normed queries and keys belong to its
    backbone.

    FLUX.3 (2026) has `early=separate` and `parallel=all`, and `trunk=side`: in the joined blocks, too, y is modulated
    by a map of its own, at t = 0. `trunk=one` with an approximator is Chroma's one network for all vectors. With
    `text_layers=each` block i attends to [x ; y ; V_i l_i], l_i the tokens of the encoder's layer i, and with
    `parallel=none` the joined blocks, too, have the MLP after the attention (HiDream-I1). With `parallel=through` that
    MLP reads the input with the attention added, and is added to the input without it; AuraFlow has that, and in y
    `registers`, blank tokens.
    """

    facts = Facts(
        source="FLUX.1, black-forest-labs/flux",
        vector="timestep + pooled prompt",
        prompt="modulation + dual stream",
        reads=frozenset({"pooled", "tokens"}),
        identity_at_init=True,
        modulation_parameters="n//3*(12*d*d + 12*d) + (n - n//3)*(3*d*d + 3*d) + 2*d*d + 2*d",
    )

    def __init__(
        self,
        backbone: BackboneConfig,
        image_size: int,
        *,
        dual: Annotated[str, DUAL] = "third",
        early: Annotated[str, EARLY] = "joint",
        parallel: Annotated[str, PARALLEL] = "joined",
        registers: Annotated[int, BLANKS] = 0,
        gate: Annotated[str, GATE] = "zero",
        head: Annotated[str, HEAD] = "per-block",
        trunk: Annotated[str, TRUNK] = "stream",
        signals: Annotated[str, SIGNALS] = "timestep+pooled",
        time: Annotated[str, TIME] = "modulation",
        modulation: Annotated[str, MODULATION] = "scale+shift",
        prompt_time: Annotated[str, PROMPT_TIME] = "t",
        prompt_sees_image: Annotated[str, SEES] = "yes",
        text_layers: Annotated[str, TEXT_LAYERS] = "last",
    ) -> None:
        super().__init__(backbone, image_size)
        n = backbone.depth
        self.set_signals(signals, time)
        self.set_prompt_side(prompt_time, prompt_sees_image)
        self.set_text_layers(text_layers)
        self.set_blanks(registers)
        self.plain = prompt_time == "none"
        few = {"ninth": max(1, n // 9), "seventh": max(1, n // 7)}  # of AuraFlow's 36 blocks and of FLUX.2's 56
        self.dual = {"none": 0, "third": n // 3, "half": n // 2, "all": n, **few}[dual]
        self.joint = choose("early", early, EARLY.choices)[0] == "joint"
        self.through = choose("parallel", parallel, PARALLEL.choices)[0] == "through"
        self.beside, self.joined_beside = BESIDE["none" if self.through else parallel]
        self.own_side = choose("trunk", trunk, TRUNK.choices)[0] == "side" and not self.plain
        if not self.joint and self.dual == n:
            raise ValueError("early 'separate' keeps the prompt from the image where all have two streams: choose dual")
        self.adaptive = Adaptive(modulation, parse_gate(gate))
        two = [self.adaptive] * (1 if self.beside else 2), self.dual
        joined = [self.adaptive] * (1 if self.joined_beside else 2), n - self.dual
        kinds = {"image": two, "prompt": two, "joined": joined, "joined prompt": joined}  # what each has a map for
        unused = (["prompt"] if self.plain else []) + ([] if self.own_side else ["joined prompt"])
        self.heads = {
            name: self.placement(head, adaptive, depth=count)
            for name, (adaptive, count) in kinds.items()
            if count > 0 and name not in unused
        }
        if not self.own_side and "joined" in self.heads:
            self.heads["joined prompt"] = self.heads["joined"]
        self.trunks = Trunks(self.heads, trunk)
        self.final = self.final_norm(LayerNorm(backbone.width), modulation)

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        c = self.conditioning_vector(e_t, prompt)  # (B, D)
        c_y = self.of_prompt(c, prompt)  # of the prompt's side
        m = self.trunks.read({"image": c, "prompt": c_y, "joined": c, "joined prompt": c_y})
        own, other = self.with_prompt(e_t, prompt), Condition(c_y, joint=m["joined prompt"])
        return own._replace(vector=c, modulation=m["image"], text=m["prompt"], joint=m["joined"], prompt=other)

    def enter(self, x: Tensor, c: Condition) -> Pair:
        assert c.tokens is not None
        return x, c.tokens

    def block(self, index: int) -> nn.Module:
        built = self.two_streams(index) if index < self.dual else self.one_stream(index)
        if self.through:
            make_through(built)
        return built

    def two_streams(self, index: int) -> nn.Module:
        """Block `index`, of the first ones."""
        return dual_block(
            self.heads["image"],
            self.adaptive.gate,
            text_heads=self.heads.get("prompt"),
            index=index,
            attention=self.self_attention(),
            text_attention=self.text_attention(last=index == self.backbone.depth - 1),
            mlp=self.mlp,
            modulation=self.adaptive.modulation,
            plain=self.plain,
            sees=self.sees_image,
            joint=self.joint,
            beside=self.beside,
        )

    def one_stream(self, index: int) -> nn.Module:
        """Block `index`, of the others."""
        d = self.backbone.width
        return JoinedBlock(
            self.heads["joined"].head(index - self.dual),
            attention=branch(d, self.adaptive, self.self_attention(), joint_mask),
            mlp=SubLayer(op=self.mlp()) if self.joined_beside else branch(d, self.adaptive, self.mlp()),
            beside=self.joined_beside,
            apart=self.apart or self.own_side,
            sees=self.sees_image,
            plain=self.plain,
            text_head=self.heads["joined prompt"].head(index - self.dual) if self.own_side else None,
        )

    def leave(self, h: Pair | Tensor, c: Condition) -> Tensor:
        x = h[0] if isinstance(h, tuple) else h[:, : self.grid**2]
        return self.final(x, c.vector)
