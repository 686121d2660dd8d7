"""The contract: what a conditioning scheme is, which facts it declares, and what it is given.

The backbone calls a scheme so, and only so:

    c = scheme.embed(e_t, prompt)          # once a pass
    h = scheme.enter(x, c)                 # (B, N, D) -> whatever the blocks pass on
    h = scheme.join(index, h, c)           # before each block: tokens that enter there
    h = block(h, c)                        # each made by scheme.block(index), the one hook without a default
    x = scheme.leave(h, c)                 # -> (B, N, D), normalised
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import options as declared
from architectures.backbone_config import BackboneConfig as BackboneConfig
from architectures.beside import BANK, TEXT_LAYERS, Bank, TextLayers, with_blanks, with_layer, with_room
from architectures.final import FinalNorm
from architectures.layers import (
    MLPS,
    CrossAttention,
    Init,
    SelfAttention,
    init_with,
    normal,
)
from architectures.modulation import Placement
from architectures.options import Option, choose, choose_all, nearest
from architectures.placement import parse_placement
from architectures.prompt import Encoded, with_image, with_time
from architectures.rotary import RoPE
from architectures.sides import PROMPT_TIME, SEES, KeysValues
from architectures.sublayer import Adaptive, Condition


@dataclass(frozen=True)
class Facts:
    """What a scheme with its default options says of itself; one test holds every scheme to it.

    Attributes:
        source: paper and section.
        vector: what feeds c, in words (`timestep + pooled prompt`, `none`).
        prompt: where the prompt enters (`modulation`, `cross-attention`, `self-attention`, `in-context`, `dual stream`,
            or several joined by ` + `).
        reads: which parts of the encoded prompt it uses, of `tokens` and `pooled`.
        identity_at_init: whether every block is x <- x at initialisation.
        modulation_parameters: their number, a formula in `d` (width) and `n` (depth).
        replaces: which of the backbone's `attention` and `mlp` the scheme has modules of its own for.
        length: `any`, or `tokens` where the prompt must have as many tokens as the image.
        time: where the timestep enters: `modulation` (c), `token`, `added` (to the image's tokens before the blocks),
            or `none`, where the velocity is no function of t.
    """

    source: str
    vector: str
    prompt: str
    reads: frozenset[str]
    identity_at_init: bool
    modulation_parameters: str = "0"
    replaces: frozenset[str] = frozenset()
    length: str = "any"
    time: str = "modulation"


SIGNALS = Option(
    "what conditions the model beside the prompt's tokens, summed to c; without any, gates are static",
    ("none", "timestep", "pooled", "timestep+pooled"),
)
POOLED = replace(SIGNALS, choices=("pooled", "timestep+pooled"))  # of a prompt that has no other way in than c
TIME = Option(
    "where the timestep enters: summed to c, as a token beside the prompt's, or added to the image's tokens",
    ("modulation", "token", "added"),
)
WITHOUT_C = replace(SIGNALS, choices=("none", "timestep")), replace(TIME, choices=("token", "added"))


M = TypeVar("M", bound=nn.Module)


def _of_backbone(module: M) -> M:
    """Counts a module's parameters to the backbone, see `parameter_roles`."""
    vars(module)["role"] = "backbone"
    return module


class Scheme(nn.Module):
    """How timestep and prompt enter the backbone.

    A subclass writes its equations in its docstring, declares its `facts`, and builds each block in `block`. Its
    options are the keyword arguments of its `__init__`, annotated with what they may be (`architectures/options.py`).

    Args:
        backbone: what is held fixed.
        image_size: in pixels; with the backbone's patch it gives N.
    """

    facts: Facts  # of the class; an option that changes them sets its own instance's
    prompt_time = "t"  # what modulates the prompt's side, see `PROMPT_TIME`
    sees_image = True  # whether the prompt's tokens attend to the image's
    start = 0  # before which block tokens enter beside the image's
    prompt_alone = False  # whether they depend on neither image nor t, so that a sampler computes them once

    def __init__(self, backbone: BackboneConfig, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid = backbone.grid(image_size)
        self.bank: Bank | None = None
        self.text_bank: Bank | None = None
        self.layerwise: TextLayers | None = None
        self.rope = RoPE(backbone.width // backbone.heads, self.grid) if backbone.positions == "rope" else None

    # --- the parts that the backbone holds fixed ------------------------------------------------------------------

    def self_attention(self) -> SelfAttention:
        """Attention over image tokens (tokens after the image's N keep position 0)."""
        return _of_backbone(self.attention_of_backbone(rope=self.rope))

    def cross_attention(self) -> CrossAttention:
        """Queries from image tokens, keys and values from prompt tokens."""
        d, heads, bias = self.backbone.width, self.backbone.heads, self.backbone.bias
        return CrossAttention(d, heads, bias=bias, out_bias=bias, qk_norm=self.backbone.qk_norm)

    def text_attention(self, *, last: bool = False) -> SelfAttention:
        """Attention of a prompt's own stream; `last`: nothing reads it after this block, so it is only attended to."""
        return _of_backbone(self.attention_of_backbone(read_only=last))

    def attention_of_backbone(self, **more: Any) -> SelfAttention:
        """Attention with the backbone's heads, biases, norms and gate."""
        config = self.backbone
        return SelfAttention(
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            bias=(config.bias, config.bias),
            qk_norm=config.qk_norm,
            gated=config.attention_gate,
            **more,
        )

    def prompt_keys(self) -> KeysValues:
        """Keys and values of prompt tokens, for the image's attention."""
        config = self.backbone
        return KeysValues(config.width, config.heads, qk_norm=config.qk_norm, bias=config.bias)

    def mlp(self) -> nn.Module:
        """The backbone's MLP."""
        config = self.backbone
        return _of_backbone(MLPS[config.mlp](config.width, config.mlp_ratio, bias=config.bias))

    def placement(self, head: str, adaptive: Sequence[Adaptive], init: Init | None = None, **more: Any) -> Placement:
        """Where the maps from c to shift, scale and gate are: the option `head`, for all blocks of the backbone.

        Args:
            head: one of the choices of `HEAD`.
            adaptive: what each sub-layer of a block takes, in order.
            init: of the maps; None is the placement's own rule.
            more: of `parse_placement`: how many blocks (`depth`), or what c is (`channels`, `activate`).

        Raises:
            ValueError: for any other text, or if no sub-layer takes a vector.
        """
        more = {"depth": self.backbone.depth, "static": self.without_c} | more
        return parse_placement(head, self.backbone.width, adaptive, init, **more)

    def final_norm(self, norm: nn.Module, modulation: str, channels: int | None = None) -> FinalNorm:
        """What precedes the output: a norm, modulated by c of so many channels (None: D)."""
        return FinalNorm(norm, modulation, self.backbone.width, channels, static=self.without_c)

    # --- what conditions it: the options `signals` and `time` ---------------------------------------------------------

    def set_signals(self, signals: str, time: str = "modulation") -> None:
        """Sets the facts for the options `signals` and `time`: what c sums, what is read, where the timestep enters.

        Raises:
            ValueError: for other words than those of `SIGNALS` and `TIME`, or for a way of a time that is no signal.
        """
        given = choose("signals", signals, SIGNALS.choices)[0].split("+")
        usual = own.default if (own := self.options().get("time")) else "modulation"
        if choose("time", time, TIME.choices)[0] != usual and "timestep" not in given:
            raise ValueError(
                f"time {time!r} is a way in for the timestep, which is none of the signals {signals!r}: choose signals "
                f"with it (c sums it where time is modulation alone), or leave time at {usual}"
            )
        time = time if "timestep" in given else "none"
        pooled = "pooled" in given
        summed = (["timestep"] if time == "modulation" else []) + (["pooled prompt"] if pooled else [])
        ways = [way for way in self.facts.prompt.split(" + ") if way != "modulation"]
        self.facts = replace(
            self.facts,
            vector=" + ".join(summed) or "none",
            prompt=" + ".join((["modulation"] if pooled else []) + ways),
            reads=(self.facts.reads | {"pooled"}) if pooled else (self.facts.reads - {"pooled"}),
            time=time,
        )

    @property
    def without_c(self) -> bool:
        """Whether c sums nothing, so that shift, scale and gate are the same for every image, t and prompt."""
        return self.facts.vector == "none"

    def conditioning_vector(self, e_t: Tensor, prompt: Encoded) -> Tensor | None:
        """c (B, D) as `set_signals` has it: the sum of e_t and the pooled prompt, one of them, or None."""
        pooled = "pooled" in self.facts.reads
        if self.facts.time == "modulation":
            return e_t + prompt.pooled if pooled else e_t
        return prompt.pooled if pooled else None

    # --- the prompt's side: the options `prompt_time` and `prompt_sees_image` ---------------------------------------

    def set_prompt_side(self, prompt_time: str, sees_image: str, *, static: bool = False) -> None:
        """Sets what modulates the prompt's side, and whether it attends to the image (`static`: no block updates it).

        Raises:
            ValueError: for other words than those of `PROMPT_TIME` and `SEES`, or for two that contradict one another.
        """
        self.prompt_time = choose("prompt_time", prompt_time, PROMPT_TIME.choices)[0]
        self.sees_image = choose("prompt_sees_image", sees_image, SEES.choices)[0] == "yes"
        if self.prompt_time == "zero" and self.facts.time != "modulation":
            raise ValueError(
                f"prompt_time 'zero' is the prompt's side modulated at t = 0, and no timestep modulates here (time "
                f"enters by: {self.facts.time}): choose prompt_time t or none"
            )
        if static and not self.sees_image:
            raise ValueError(
                "context 'static' updates no token of the prompt, so that none sees the image: leave "
                "prompt_sees_image at yes"
            )
        timeless = self.prompt_time != "t" or self.facts.time != "modulation"
        self.prompt_alone = (static or not self.sees_image) and timeless and self.facts.time != "token"

    @property
    def apart(self) -> bool:
        """Whether the prompt's tokens are a side of their own, where the image's have the same weights."""
        return self.prompt_time != "t" or not self.sees_image or self.prompt_alone

    def of_prompt(self, c: Tensor | None, prompt: Encoded) -> Tensor | None:
        """What the prompt's side is modulated by: c, or c with the embedding of t = 0."""
        if self.prompt_time != "zero":
            return c
        assert prompt.at_zero is not None
        return self.conditioning_vector(prompt.at_zero, prompt)

    def prompt_side(self, e_t: Tensor, prompt: Encoded) -> tuple[Tensor, Tensor | None]:
        """The prompt's tokens (B, L, D) and their mask, after e_t where time is a token: (B, 1 + L, D).

        Blank tokens are before them; with `text_layers=each` as many again are after, whose place block i's own take.
        """
        y, mask = with_time(e_t, prompt) if self.facts.time == "token" else (prompt.tokens, prompt.mask)
        if self.text_bank is not None:
            y, mask = with_blanks(self.text_bank(len(y)), y, mask)
        return (y, mask) if self.layerwise is None else with_room(y, mask, prompt)

    # --- the encoder's layers: the option `text_layers` ---------------------------------------------------------------

    def set_text_layers(self, layers: str, *, static: bool = False) -> None:
        """Makes the map V_i of each block's own layer of the encoder (`static`: no block updates the prompt's tokens).

        Raises:
            ValueError: for other words than those of `TEXT_LAYERS`, or where no block updates a token.
        """
        if choose("text_layers", layers, TEXT_LAYERS.choices)[0] == "last":
            return
        if static:
            raise ValueError(
                "text_layers 'each' is beside tokens of the prompt that blocks update, and context 'static' updates "
                "none: leave one of the two out"
            )
        self.layerwise = TextLayers(self.backbone.width, self.backbone.depth)

    @property
    def parts_read(self) -> frozenset[str]:
        """Which parts of the encoded prompt it uses: those of its facts, and `layers`."""
        return self.facts.reads | ({"layers"} if self.layerwise is not None else set())

    def with_prompt(self, e_t: Tensor, prompt: Encoded) -> Condition:
        """Of the prompt's side alone: its tokens, the mask of both sides, and y_i (B, L, D) of each block i, if any."""
        y, mask = self.prompt_side(e_t, prompt)
        layers = () if self.layerwise is None else self.layerwise(prompt)
        return Condition(tokens=y, mask=self.joint_mask(mask), layers=layers)

    # --- tokens beside the prompt's, and the image's: the options `registers` and `bank` -----------------------------

    def set_blanks(self, count: int) -> None:
        """Makes so many blank tokens beside the prompt's.

        Raises:
            ValueError: for fewer than none.
        """
        if count < 0:
            raise ValueError(f"registers {count}: 0 or more")
        if count:
            self.text_bank = init_with(Bank(count, self.backbone.width), tokens=normal(0.02))

    def set_bank(self, bank: str) -> None:
        """Makes the learned tokens of an option `bank`, and sets the block before which they enter.

        Raises:
            ValueError: for other words than those of `BANK`, or for a block that there is not.
        """
        name, (count, start) = (bank, (0, 0)) if bank == "none" else choose_all("bank", bank, BANK.choices)
        if start >= self.backbone.depth:
            raise ValueError(f"bank {bank!r} enters before block {start}, and the last is {self.backbone.depth - 1}")
        if start and self.facts.time == "token":
            raise ValueError(
                f"time 'token' enters with the bank {bank!r}, and blocks before it would have no timestep: choose a "
                "bank before block 0, or another time"
            )
        self.start, self.blank = int(start), name == "registers"
        if name != "none":
            self.bank = init_with(Bank(int(count), self.backbone.width), tokens=normal(0.02))

    def image_side(self, e_t: Tensor, prompt: Encoded) -> Tensor | None:
        """Tokens (B, k, D) beside the image's: e_t, where time is one and the prompt has none, and those of a bank."""
        tokens = [e_t[:, None]] if self.facts.time == "token" else []
        if self.bank is not None:
            tokens.append(self.bank(len(e_t)) if self.blank else self.bank(len(e_t)) + prompt.pooled[:, None])
        return torch.cat(tokens, dim=1) if tokens else None

    def joint_mask(self, mask: Tensor | None, beside: int = 0) -> Tensor | None:
        """Mask of tokens (B, L) -> of the image's N, those `beside` them and those tokens; None (no padding) stays."""
        return with_image(mask, self.grid**2 + beside)

    # --- the hooks --------------------------------------------------------------------------------------------------

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        """e_t (B, D) and the encoded prompt -> what every block receives. Default: nothing."""
        return Condition()

    def enter(self, x: Tensor, c: Condition) -> Any:
        """Image tokens (B, N, D) -> what the first block receives. Default: the tokens."""
        return x

    def join(self, index: int, h: Any, c: Condition) -> Any:
        """What block `index` receives. Default: h, with its own layer's tokens or before `start` [h ; c.beside]."""
        h = (h[0], with_layer(index, h[1], c)) if isinstance(h, tuple) else with_layer(index, h, c)
        return h if c.beside is None or index != self.start else torch.cat([h, c.beside.to(h.dtype)], dim=1)

    def block(self, index: int) -> nn.Module:
        """Builds block `index`, a module (h, c) -> h."""
        raise NotImplementedError

    def leave(self, h: Any, c: Condition) -> Tensor:
        """What the last block gave -> normalised image tokens (B, N, D). Default: LN without weights."""
        return F.layer_norm(h, h.shape[-1:], eps=1e-6)

    # --- options ----------------------------------------------------------------------------------------------------

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Option -> what it decides, its choices and default, from the signature of `__init__`."""
        return declared.of(cls)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """All options with their values.

        Raises:
            ValueError: for an unknown one or a value that it cannot have, with the choices and the nearest.
        """
        known = cls.options()
        for name in options:
            if name not in known:
                choices = ", ".join(known) or "none"
                raise ValueError(f"unknown option {name!r} (options: {choices}){nearest(name, known)}")
        given = {name: known[name].check(name, value) for name, value in options.items()}
        return {**{name: option.default for name, option in known.items()}, **given}


@dataclass(frozen=True)
class Description:
    """What `architectures.describe` gives of a scheme.

    Attributes:
        name: its own.
        equations: its docstring.
        facts: what it declares.
        options: by name.
        origin: where it comes from.
        computed: the equations that its default blocks compute, a text for each kind of block in order, written from
            the parts they are made of; empty where a block is none of `architectures.parts`.
    """

    name: str
    equations: str
    facts: Facts
    options: dict[str, Option]
    origin: dict[str, str] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
