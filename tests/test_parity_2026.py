"""The conditioning of 2025-26 against diffusers' own blocks, or an independent formulation where it has none.

In float32, outputs and gradients, with every parameter random; each comparison has a twin that must fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gaussians import gaussian
from test_parity import CONFIG, D, H, Ours, compare, put, streams_of
from test_parity_options import GATED, made, passed, streams
from torch import Tensor, nn

import architectures
from architectures import Labels
from architectures.prompt import Encoded
from architectures.sides import attend_jointly

pytest.importorskip("diffusers")

ZERO = gaussian(1, D, seed=6)  # the embedding of t = 0
R = 12  # channels of a narrow c


def normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, (D,), eps=1e-6)


class Called(Ours):
    """Our attention, or cross-attention, where theirs is called by diffusers' names."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **unused: Any) -> Tensor:
        return self.op(hidden_states, *([] if encoder_hidden_states is None else [encoder_hidden_states]))


# --- FLUX.3: each stream alone, then a joined sequence with maps of their own, all beside the MLP ---------------------


class Flux3(nn.Module):
    """diffusers' blocks of FLUX.3 around our attentions and MLPs, modulated by four of its heads with our weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from diffusers.models.transformers import transformer_flux3 as theirs

        self.maps = nn.ModuleList(theirs.Flux3Modulation(D, bias=True) for _ in model.scheme.trunks)
        for trunk, other in zip(model.scheme.trunks, self.maps, strict=True):
            put(trunk, other.linear)
        first, *rest = model.blocks
        sizes = (D, H, D // H)
        self.early = nn.ModuleList(theirs.Flux3ModeTransformerBlock(*sizes) for _ in range(2))
        for other, attention, mlp in zip(
            self.early, (first.attention, first.text_attention), (first.mlp, first.text_mlp), strict=True
        ):
            other.attn, other.ff = Called(attention.op), mlp.op
        self.joined = nn.ModuleList(theirs.Flux3SingleTransformerBlock(*sizes) for _ in rest)
        for other, block in zip(self.joined, rest, strict=True):
            other.attn, other.ff = Called(block.attention.op), block.mlp.op

    def forward(self, x: Tensor, y: Tensor, c: Tensor, order: Sequence[int] = (0, 1, 2, 3)) -> Tensor:
        """The image's tokens; `order`: which map is of image, prompt, and both joined."""
        at = (c, ZERO.expand(len(x), -1)[:, None])
        image, text, joined, side = (self.maps[k](F.silu(at[n % 2])) for n, k in enumerate(order))
        x, y = self.early[0](x, image, None), self.early[1](y, text, None)
        for block in self.joined:
            y, x = block(x, y, joined, side, None)
        return x


def test_streams_apart_and_then_joined_are_flux_3s() -> None:
    model = made("flux3")
    other, (x, y, c) = Flux3(model), streams()
    mine = passed(model, x, y, c, zero=ZERO)[:, :16]
    pairs = [(a.weight, b.linear.weight) for a, b in zip(model.scheme.trunks, other.maps, strict=True)]
    compare(mine, other(x, y, c), [x, y, c], pairs)
    assert not torch.allclose(mine, other(x, y, c, (0, 1, 3, 2)), atol=1e-3), "a joined prompt's map is the image's"
    joint = made("flux3", early="joint")
    joint.load_state_dict(model.state_dict())
    assert not torch.allclose(mine, passed(joint, x, y, c, zero=ZERO)[:, :16], atol=1e-3), "streams that are not apart"


# --- HiDream-I1: the encoder's layers, another in each block ----------------------------------------------------------


class Jointly(nn.Module):
    """Our attention over two streams, where theirs takes a mask and positions."""

    def __init__(self, image: Any, text: Any) -> None:
        super().__init__()
        self.image, self.text = image, text

    def forward(self, x: Tensor, mask: None, y: Tensor, **unused: Any) -> tuple[Tensor, Tensor | None]:
        return attend_jointly(x, y, self.image, self.text)


def hidream(model: Any) -> nn.ModuleList:
    """diffusers' blocks of HiDream-I1 without experts, around our attentions and MLPs, with our maps."""
    from diffusers.models.transformers import transformer_hidream_image as theirs

    first, *rest = model.blocks
    two = theirs.HiDreamImageTransformerBlock(D, H, D // H, num_routed_experts=0)
    with torch.no_grad():
        for part in ("weight", "bias"):
            both = [getattr(head.affine, part) for head in (first.head, first.text_head)]
            getattr(two.adaLN_modulation[1], part).copy_(torch.cat(both))
    two.attn1 = Jointly(first.attention.op, first.text_attention.op)
    two.ff_i, two.ff_t = first.mlp.op, first.text_mlp.op
    blocks = nn.ModuleList([two])
    for block in rest:
        one = theirs.HiDreamImageSingleTransformerBlock(D, H, D // H, num_routed_experts=0)
        put(block.head.affine, one.adaLN_modulation[1])
        one.attn1, one.ff_i = Ours(block.attention.op), block.mlp.op
        blocks.append(one)
    return blocks


def test_another_layer_of_the_encoder_in_each_block_is_hidream_i1s() -> None:
    """As diffusers' model passes its blocks a caption: a block's own layer enters, and is cut off after."""
    model, x, y, c, _ = streams_of("hidream-i1")
    layers = tuple(gaussian(3, 5, D, seed=s).requires_grad_() for s in (7, 8))  # of two, for three blocks
    blocks, maps = hidream(model), [one.weight for one in model.scheme.layerwise.maps]

    def theirs(order: Sequence[int] = (0, 1, 1)) -> Tensor:
        own = [F.linear(layers[k], v) for k, v in zip(order, maps, strict=True)]
        h, text = blocks[0](x, None, torch.cat([y, own[0]], dim=1), temb=c[:, 0])
        z = torch.cat([h, text[:, : y.shape[1]]], dim=1)
        for block, added in zip(blocks[1:], own[1:], strict=True):
            z = block(torch.cat([z, added], dim=1), None, temb=c[:, 0])[:, : z.shape[1]]
        return z[:, : x.shape[1]]

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D), layers=layers))
    h: Any = (x, condition.tokens)
    for index, block in enumerate(model.blocks):
        h = block(model.scheme.join(index, h, condition), condition)
    pairs = [
        (a.head.affine.weight, b.adaLN_modulation[1].weight) for a, b in zip(model.blocks[1:], blocks[1:], strict=True)
    ]
    mine = h[:, : x.shape[1]]
    compare(mine, theirs(), [x, y, c, *layers], pairs)
    assert not torch.allclose(mine, theirs((1, 0, 1)), atol=1e-3), "it is not the same which layer a block has"


# --- AuraFlow: the attention enters by what the MLP reads alone, and blank tokens are beside the prompt's -------------


def auraflow(model: Any) -> tuple[nn.Module, ...]:
    """diffusers' blocks of AuraFlow, with our maps and attentions' weights, around our MLPs; heads are not normed."""
    from diffusers.models.transformers import auraflow_transformer_2d as theirs

    blocks: list[nn.Module] = []
    for block in model.blocks:
        two = hasattr(block, "text_head") and hasattr(block, "text_mlp")
        kind: Any = theirs.AuraFlowJointTransformerBlock if two else theirs.AuraFlowSingleTransformerBlock
        other: Any = kind(D, H, D // H)
        other.norm1.linear = nn.Linear(D, 6 * D)  # with the backbone's bias
        put(block.head.affine, other.norm1.linear)
        other.ff = block.mlp.op
        if two:
            other.norm1_context.linear = nn.Linear(D, 6 * D)
            put(block.text_head.affine, other.norm1_context.linear)
            other.attn, other.ff_context = JointlyNamed(block.attention.op, block.text_attention.op), block.text_mlp.op
        else:
            other.attn = Called(block.attention.op)
        for norm in (m for m in other.modules() if isinstance(m, nn.LayerNorm)):
            norm.eps = 1e-6  # ours, the backbone's; theirs is 1e-5
        blocks.append(other)
    return tuple(blocks)


class JointlyNamed(Jointly):
    """Our attention over two streams, where theirs takes them by diffusers' names."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return attend_jointly(hidden_states, encoder_hidden_states, self.image, self.text)


def test_an_mlp_that_alone_is_added_and_blank_tokens_are_auraflows() -> None:
    model, (x, y, c) = made("auraflow", CONFIG), streams()
    first, *rest = auraflow(model)
    blanks = model.scheme.text_bank.tokens

    def theirs(blank: Tensor = blanks) -> Tensor:
        text, h = first(x, torch.cat([blank.expand(len(y), -1, -1), y], dim=1), c[:, 0])
        z = torch.cat([text, h], dim=1)
        for block in rest:
            z = block(z, c[:, 0])
        return z[:, text.shape[1] :]

    mine = passed(model, x, y, c)[:, : x.shape[1]]
    pairs = [(a.head.affine.weight, b.norm1.linear.weight) for a, b in zip(model.blocks, (first, *rest), strict=True)]
    compare(mine, theirs(), [x, y, c, blanks], pairs)
    assert not torch.allclose(mine, theirs(0 * blanks), atol=1e-3), "blank tokens are attended to"
    both = made("auraflow", CONFIG, parallel="none")
    both.load_state_dict(model.state_dict())
    assert not torch.allclose(mine, passed(both, x, y, c)[:, : x.shape[1]], atol=1e-3), "an attention that is added"
    equations = repr(model.blocks[0])
    assert "x <- x_0 + g2 MLP(LN(x) (1 + s2) + b2)" in equations and "x <- x + g1 a_x" in equations


def test_an_mlp_that_reads_the_attention_is_not_beside_it_and_no_tokens_are_fewer_than_none() -> None:
    with pytest.raises(ValueError, match="with option parallel 'through' the MLP reads what the attention gave"):
        made("auraflow", CONFIG.with_changes(parallel=True))
    with pytest.raises(ValueError, match="registers -1: 0 or more"):
        made("flux", registers=-1)


# --- Ideogram 4: Z-Image with silu before the maps --------------------------------------------------------------------


def test_silu_of_the_narrow_vector_is_ideogram_4s() -> None:
    """Its block around our attention and MLP, and its last layer; c is computed as its model does."""
    from diffusers.models.transformers import transformer_ideogram4 as theirs

    model = made("ideogram4", rank=R)
    own, e_t, x = model.blocks[0], gaussian(3, D, seed=3).requires_grad_(), gaussian(3, 16, D, seed=4).requires_grad_()
    other, last = theirs.Ideogram4TransformerBlock(D, 4 * D, H, 1e-5, R), theirs.Ideogram4FinalLayer(D, 8, R)
    narrow = nn.Linear(D, R)
    put(model.scheme.trunk[0], narrow)
    put(own.head.affine, other.adaln_modulation)
    put(model.scheme.final.head.affine, last.adaln_modulation)
    with torch.no_grad():
        for part, ours in (("attention", own.attention), ("ffn", own.mlp)):
            getattr(other, f"{part}_norm1").weight.copy_(ours.norm.weight)
            getattr(other, f"{part}_norm2").weight.copy_(ours.post.weight)
    other.attention, other.feed_forward, last.linear = Ours(own.attention.op), own.mlp.op, nn.Identity()

    def passed(activate: Any = F.silu) -> Tensor:
        c = activate(narrow(e_t[:, None]))
        return last(other(x, None, None, c), c)

    condition = model.scheme.embed(e_t, Encoded(gaussian(3, 5, D, seed=5), None, torch.zeros(3, D)))
    mine = model.scheme.leave(own(x, condition), condition)
    compare(mine, passed(), [x, e_t], [(own.head.affine.weight, other.adaln_modulation.weight)])
    assert not torch.allclose(mine, passed(lambda c: c), atol=1e-3), "without silu it is Z-Image"


# --- two streams with one map and tables: E-MMDiT, JoyImage -----------------------------------------------------------


class Handed(nn.Module):
    """In place of a norm with a head of its own: LN of x, and six vectors that are handed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.empty(0)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        shift, scale, gate, *second = self.vectors.unbind(1)
        return normed(x) * (1 + scale[:, None]) + shift[:, None], gate, *second


def test_one_map_with_a_table_and_factors_a_stream_is_e_mmdits() -> None:
    """S_i = E_i + P (1 + F_i), with one P for both streams, in whole joint blocks of diffusers'."""
    from test_parity import joint_block

    model = made("e-mmdit", CONFIG)
    x, y, c = streams()
    (trunk,) = model.scheme.trunks
    blocks: list[Any] = []
    for k, block in enumerate(model.blocks[:-1]):
        heads = block.head, block.text_head
        block.head = block.text_head = nn.Module()  # `joint_block` reads an affine map, which these heads are not
        block.head.affine = nn.Linear(D, 6 * D)
        other = joint_block(block, last=False)
        block.head, block.text_head = heads
        other.norm1, other.norm1_context = Handed(), Handed()
        blocks.append(other)
        assert k < len(model.blocks) - 1

    def theirs(factor: float = 1.0) -> tuple[Tensor, Tensor]:
        h, text = x, y
        shared = F.linear(F.silu(c[:, 0]), trunk.weight, trunk.bias).unflatten(-1, (6, D))
        for block, other in zip(model.blocks[:-1], blocks, strict=True):
            for norm, head in ((other.norm1, block.head), (other.norm1_context, block.text_head)):
                own = head.affine
                norm.vectors = own.table.view(6, D) + shared * (1 + factor * own.factor.view(6, D))
            text, h = other(h, text, c[:, 0])
        return h, text

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    h = (x, y)
    for block in model.blocks[:-1]:
        h = block(h, condition)
    mine, others = torch.cat(h, 1), torch.cat(theirs(), 1)
    compare(mine, others, [x, y, c], [(trunk.weight, trunk.weight)])
    assert not torch.allclose(mine, torch.cat(theirs(0.0), 1), atol=1e-3), "a table without factors"


def test_one_map_with_a_table_a_stream_is_joyimages() -> None:
    """Its blocks around our MLPs, with our attentions' weights."""
    from diffusers.models.transformers.transformer_joyimage import JoyImageTransformerBlock

    model, (x, y, c) = made("joyimage", CONFIG.with_changes(qk_norm=True)), streams()
    (trunk,) = model.scheme.trunks
    blocks = []
    for block in model.blocks[:-1]:
        other = JoyImageTransformerBlock(D, H, D // H)
        for side, own in (("img", block.attention.op), ("txt", block.text_attention.op)):
            put(own.qkv, getattr(other.attn, f"{side}_attn_qkv"))
            put(own.out, getattr(other.attn, f"{side}_attn_proj"))
            for u in "qk":
                getattr(other.attn, f"{side}_attn_{u}_norm").load_state_dict(getattr(own, f"{u}_norm").state_dict())
        other.img_mlp, other.txt_mlp = block.mlp.op, block.text_mlp.op
        with torch.no_grad():
            other.img_mod.modulate_table.copy_(block.head.affine.table.view(1, 6, D))
            other.txt_mod.modulate_table.copy_(block.text_head.affine.table.view(1, 6, D))
        blocks.append(other)

    def theirs() -> Tensor:
        h, text, vectors = x, y, trunk(c[:, 0]).unflatten(-1, (6, D))
        for block in blocks:
            h, text = block(h, text, vectors)
        return torch.cat([h, text], 1)

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    h = (x, y)
    for block in model.blocks[:-1]:
        h = block(h, condition)
    mine = torch.cat(h, 1)
    own = [(a.head.affine.table, b.img_mod.modulate_table) for a, b in zip(model.blocks, blocks, strict=False)]
    compare(mine, theirs(), [x, y, c], own)
    blocks[0].img_mod, blocks[0].txt_mod = blocks[0].txt_mod, blocks[0].img_mod
    assert not torch.allclose(mine, theirs(), atol=1e-3), "the streams' tables are one another's"


# --- one sequence, each side with a map of its own: GLM-Image ---------------------------------------------------------


class TextFirst(Ours):
    """Our attention to [x ; y] in place of one of [y ; x], which gives both apart."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        count = hidden_states.shape[1]
        a = self.op(torch.cat([hidden_states, encoder_hidden_states], 1))
        return a[:, :count], a[:, count:]


def test_maps_of_each_side_s_own_are_glm_images() -> None:
    """Twelve vectors a block of one Linear, shared attention and MLP."""
    from diffusers.models.transformers.transformer_glm_image import GlmImageTransformerBlock

    model, (x, y, c) = made("glm-image", CONFIG), streams()
    blocks = []
    for block in model.blocks:
        other = GlmImageTransformerBlock(D, H, D // H, D)
        other.attn1, other.ff = TextFirst(block.attention.op), block.mlp.op
        for norm in (other.norm1.norm, other.norm1.norm_context, other.norm2, other.norm2_context):
            norm.eps = 1e-6  # ours, the backbone's; theirs is 1e-5
        image, text = block.head.affine, block.text_head.affine
        with torch.no_grad():  # theirs alternates: shift of the image, of the prompt, scale of the image, ...
            for name in ("weight", "bias"):
                sides = [getattr(one, name).unflatten(0, (6, D)) for one in (image, text)]
                getattr(other.norm1.linear, name).copy_(torch.stack(sides, 1).flatten(0, 2))
        blocks.append(other)

    def theirs(text: Tensor) -> Tensor:
        h = x
        for block in blocks:
            h, text = block(h, text, F.silu(c[:, 0]))
        return torch.cat([h, text], 1)

    mine = passed(model, x, y, c)
    compare(mine, theirs(y), [x, y, c], [])
    linear = blocks[0].norm1.linear
    with torch.no_grad():  # each side with the other's vectors
        linear.weight.copy_(linear.weight.unflatten(0, (6, 2, D)).flip(1).flatten(0, 2))
    assert not torch.allclose(mine, theirs(y), atol=1e-3)


# --- a cross-attention whose queries and prompt are modulated: LTX-2 --------------------------------------------------


@pytest.mark.parametrize("prompt_side", ["c", "static"])
def test_a_cross_attention_of_a_modulated_prompt_is_ltx_2s(prompt_side: str) -> None:
    """Its block of video alone around our attentions and MLP; static: LTX-2.5, whose prompt is the same at every t."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock

    model, (x, y, c) = made("ltx2", CONFIG, prompt_side=prompt_side), streams()
    blocks = []
    for block in model.blocks:
        for sublayer in (block.attention, block.cross, block.mlp):
            nn.init.ones_(sublayer.norm.weight)  # theirs has no weights
        other = LTX2VideoTransformerBlock(D, H, D // H, D, D, H, D // H, D, video_cross_attn_adaln=True, eps=1e-5)
        other.attn1, other.attn2, other.ff = Called(block.attention.op), Called(block.cross.op), block.mlp.op
        table, own = block.head.affine.table.view(9, D), block.cross.text_head.affine
        with torch.no_grad():  # theirs: the self-attention's three, the MLP's, and the cross-attention's
            other.scale_shift_table.copy_(table[[0, 1, 2, 6, 7, 8, 3, 4, 5]])
            other.prompt_scale_shift_table.copy_(own.table.view(2, D))
        blocks.append(other)

    def theirs(roll: int = 0) -> Tensor:
        h, vectors = x, model.scheme.trunk(c[:, 0]).unflatten(-1, (9, D))[:, [0, 1, 2, 6, 7, 8, 3, 4, 5]].roll(roll, 1)
        text = model.scheme.text_trunk(c[:, 0])[:, None] if prompt_side == "c" else None
        for block in blocks:
            given = dict.fromkeys(("temb_ca_scale_shift", "temb_ca_audio_scale_shift", "temb_ca_gate"))
            h, _ = block(
                h, x.detach(), y, y.detach(), vectors.flatten(1)[:, None], vectors[:, :6].flatten(1)[:, None],
                **given, temb_ca_audio_gate=None, temb_prompt=text, temb_prompt_audio=text,
                use_a2v_cross_attention=False, use_v2a_cross_attention=False,
            )  # fmt: skip
        return h

    condition = model.scheme.embed(c[:, 0], Encoded(y, None, torch.zeros(3, D)))
    mine = x
    for block in model.blocks:
        mine = block(mine, condition)
    compare(mine, theirs(), [x, y, c], [])
    assert not torch.allclose(mine, theirs(3), atol=1e-3), "the MLP's vectors for the attention's"
    with torch.no_grad():
        blocks[0].prompt_scale_shift_table.copy_(blocks[0].prompt_scale_shift_table.flip(0))
    assert not torch.allclose(mine, theirs(), atol=1e-3), "shift for scale of the prompt"


# --- an encoder that modulates each token of a decoder: DDT -----------------------------------------------------------


def ddt(model: Any, x: Tensor, e_t: Tensor, prompt: Tensor, *, per_token: bool = True) -> Tensor:
    """DDT by its equations on the numbers of a state_dict: an encoder's s, then c = silu(e_t + s) for each token."""
    state = {name: value for name, value in model.named_parameters()}

    def linear(name: str, h: Tensor) -> Tensor:
        return h @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attention(name: str, h: Tensor) -> Tensor:
        q, k, v = linear(f"{name}.qkv", h).unflatten(-1, (3, H, D // H)).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) / (D // H) ** 0.5).softmax(-1) @ v
        return linear(f"{name}.out", a.transpose(1, 2).flatten(2))

    def block(k: int, h: Tensor, c: Tensor) -> Tensor:
        b1, s1, g1, b2, s2, g2 = linear(f"blocks.{k}.head.affine", c).chunk(6, -1)
        h = h + g1 * attention(f"blocks.{k}.attention.op", normed(h) * (1 + s1) + b1)
        u = linear(f"blocks.{k}.mlp.op.up", normed(h) * (1 + s2) + b2)
        return h + g2 * linear(f"blocks.{k}.mlp.op.down", F.gelu(u, approximate="tanh"))

    s = x
    for k in range(2):
        s = block(k, s, F.silu(e_t + prompt)[:, None])
    s = F.silu(e_t[:, None] + (s if per_token else s.mean(1, keepdim=True)))
    shift, scale = linear("scheme.final.head.affine", s).chunk(2, -1)
    return normed(block(2, x, s)) * (1 + scale) + shift


def test_an_encoder_that_modulates_each_token_is_ddts() -> None:
    model = made("ddt", CONFIG)
    x, e_t, prompt = (
        gaussian(*shape, seed=s).requires_grad_() for shape, s in (((3, 16, D), 3), ((3, D), 4), ((3, D), 5))
    )
    mine = decoded(model, x, e_t, prompt)
    weights = [p for name, p in model.named_parameters() if name.startswith("blocks")]
    compare(mine, ddt(model, x, e_t, prompt), [x, e_t, prompt, *weights], [])
    assert not torch.allclose(mine, ddt(model, x, e_t, prompt, per_token=False), atol=1e-3), "one vector for all tokens"


def decoded(model: Any, x: Tensor, e_t: Tensor, prompt: Tensor) -> Tensor:
    condition = model.scheme.embed(e_t, Encoded(torch.zeros(0), None, prompt))
    h: Any = model.scheme.enter(x, condition)
    for index in range(len(model.blocks)):
        h = model.step(index, h, condition)
    return model.scheme.leave(h, condition)


def test_ddt_without_an_encoder_s_say_is_adaln_zero_of_time() -> None:
    """Where the encoder gives zero, each token of the decoder has e_t: a block of adaLN-Zero; else not."""
    model, plain = made("ddt", CONFIG), made("adaln-zero", CONFIG, signals="timestep+pooled")
    for own, other in zip(model.blocks[2:], plain.blocks[2:], strict=True):
        other.load_state_dict(own.state_dict())
    plain.scheme.final.load_state_dict(model.scheme.final.state_dict())
    x, e_t = gaussian(3, 16, D, seed=3), gaussian(3, D, seed=4)
    c = plain.scheme.embed(e_t, Encoded(torch.zeros(0), None, torch.zeros(3, D)))
    wanted = plain.scheme.leave(plain.blocks[2](x, c), c)
    own = model.scheme.embed(e_t, Encoded(torch.zeros(0), None, torch.zeros(3, D)))
    silent = model.step(2, (torch.zeros_like(x), x), own)
    assert torch.allclose(model.scheme.leave(silent, own), wanted, atol=1e-5)
    assert not torch.allclose(model.scheme.leave(model.step(2, (x, x), own), own), wanted, atol=1e-3)


# --- rotation in place of shift: arXiv 2505.19122 ---------------------------------------------------------------------


@pytest.mark.parametrize("modulation", ["rotate", "rotate+scale"])
def test_a_rotation_turns_pairs_of_channels_as_complex_numbers(modulation: str) -> None:
    """In a whole block of adaLN-Zero, with and without the scale."""
    model = made("adaln-zero", CONFIG, modulation=modulation)
    block, scaled = model.blocks[0], modulation == "rotate+scale"
    x, c = gaussian(3, 16, D, seed=3).requires_grad_(), gaussian(3, D, seed=5).requires_grad_()

    def theirs(sign: float = 1.0) -> Tensor:
        sizes = ([D // 2, D, D] if scaled else [D // 2, D]) * 2
        vectors = block.head.affine(F.silu(c))[:, None].split(sizes, -1)
        h = x
        for (angle, *scale, gate), op in zip(
            (vectors[: len(sizes) // 2], vectors[len(sizes) // 2 :]), (block.attention.op, block.mlp.op), strict=True
        ):
            z = torch.complex(*normed(h).chunk(2, -1)) * torch.polar(torch.ones_like(angle), sign * angle)
            u = torch.cat([z.real, z.imag], -1)
            h = h + gate * op(u * (1 + scale[0]) if scaled else u)
        return h

    condition = model.scheme.embed(c, Encoded(torch.zeros(0), None, torch.zeros(3, D)))
    mine = block(x, condition)
    compare(mine, theirs(), [x, c, block.head.affine.weight], [])
    assert not torch.allclose(mine, theirs(-1.0), atol=1e-3), "turned the other way"


def test_a_rotation_keeps_the_length_of_every_token() -> None:
    from architectures.sublayer import modulate, rotate

    x, angle = gaussian(2, 5, D), gaussian(2, D // 2, seed=2)
    assert torch.allclose(rotate(x, angle).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.allclose(rotate(rotate(x, angle), -angle), x, atol=1e-5)
    assert not torch.allclose(modulate(x, scale=gaussian(2, D)).norm(dim=-1), x.norm(dim=-1), atol=1e-2)


# --- one network for all vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "count"), [("chroma", 2 * 6 + 2 * 3), ("sd3", 2 * 3 * 6), ("qwen-image", 2 * 3 * 6)]
)
def test_one_trunk_numbers_all_vectors_once(scheme: str, count: int) -> None:
    """Image's, prompt's and joined blocks in order, no number twice; with a trunk a stream each is numbered from 0."""
    options: dict[str, Any] = {"head": "approximator(8, 1)"}
    model = made(scheme, CONFIG, **options, trunk="one")
    (trunk,) = model.scheme.trunks
    heads = [
        module.affine
        for module in model.modules()
        if type(module).__name__ == "Head" and hasattr(module.affine, "first")
    ]
    used = sorted(k for head in heads for k in range(head.first, head.first + head.count))
    whole = scheme == "chroma"  # elsewhere the last block's prompt is only attended to, by a norm with a map of its own
    assert len(trunk.numbers) == count and len(set(used)) == len(used) == (count if whole else count - 6)
    apart = made(scheme, CONFIG, **options, trunk="stream")
    assert [len(one.numbers) for one in apart.scheme.trunks] != [count] and len(apart.scheme.trunks) > 1


def test_the_maps_of_both_streams_are_one_with_one_trunk() -> None:
    """With the same vectors for x and y, two trunks with the same weights are one."""
    one, two = (made("sd3", GATED, head="shared", trunk=trunk, signals="timestep") for trunk in ("one", "stream"))
    state = one.state_dict()
    twice = {name.replace("trunks.0", "trunks.1"): v for name, v in state.items() if "trunks.0" in name}
    two.load_state_dict(state | twice)
    (x, y, c) = streams()
    assert torch.allclose(passed(one, x, y, c)[0], passed(two, x, y, c)[0], atol=1e-6)
    with torch.no_grad():
        two.scheme.trunks[1].weight.mul_(1.5)
    assert not torch.allclose(passed(one, x, y, c)[0], passed(two, x, y, c)[0], atol=1e-3)


def test_streams_that_never_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="early 'separate' keeps the prompt from the image where all have two streams"):
        architectures.create(
            "flux", CONFIG, image_size=8, in_channels=4, prompt=Labels(7), early="separate", dual="all"
        )
