"""Sana and HiDream-I1 against diffusers: totals at published sizes, outputs and gradients at tiny ones, files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from test_published import agree, old_names, prompts, tiny, total
from test_published_wan import a_wan, change_nothing, equal, hidden_from
from torch import Tensor, nn

import architectures
from architectures.backbone import parameter_roles
from architectures.layers import SelfAttention
from architectures.prompt import FeatureBatch
from architectures.systems.sana import on_grid

diffusers = pytest.importorskip("diffusers")

D, H = 32, 2
TIMES = torch.tensor([0.1, 0.8])

# --- totals -----------------------------------------------------------------------------------------------------------

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "sana": lambda: diffusers.SanaTransformer2DModel(),
    "sana-0.6b": lambda: diffusers.SanaTransformer2DModel(
        num_attention_heads=36, num_layers=28, num_cross_attention_heads=16, cross_attention_head_dim=72,
        cross_attention_dim=1152,
    ),
    "hidream-i1": lambda: diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=16, caption_channels=[4096, 4096], axes_dims_rope=(64, 32, 32)
    ),
}  # fmt: skip
TOTALS = {"sana": 1_604_462_752, "sana-0.6b": 591_747_872, "hidream-i1": 17_105_733_184}


@pytest.mark.parametrize("name", OTHERS)
def test_totals_are_diffusers_own(name: str) -> None:
    with torch.device("meta"):
        mine, theirs = architectures.published(name), OTHERS[name]()
    assert total(mine) == total(theirs) == TOTALS[name]


# --- outputs and gradients --------------------------------------------------------------------------------------------


def a_sana(**more: Any) -> Any:
    sizes = dict(num_attention_heads=H, attention_head_dim=D // H, in_channels=4, out_channels=4, num_layers=2)
    sizes |= dict(num_cross_attention_heads=4, cross_attention_head_dim=D // 4, cross_attention_dim=D)
    sizes |= dict(caption_channels=12, mlp_ratio=1.5, sample_size=8)
    return randomised(diffusers.SanaTransformer2DModel(**sizes | more))


def tiny_sana(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, cross_heads=4, depth=2, hidden=48, channels=4, text_width=12)
    return architectures.published("sana", **sizes | more)


@pytest.mark.parametrize(
    ("seen", "size", "patch", "interpolation"),
    [((7, 4), (4, 6), 1, None), ((3, 7), (5, 3), 1, 2.0), ((7, 7), (12, 8), 2, 1.0)],
    ids=str,
)
def test_sana_is_theirs(seen: tuple[int, int], size: tuple[int, int], patch: int, interpolation: float | None) -> None:
    """With captions of unequal length, whose padding is not attended to; without positions, and with those for 4K."""
    theirs = a_sana(patch_size=patch, interpolation_scale=interpolation)
    mine = tiny_sana(patch=patch, base_grid=8 // patch, interpolation=interpolation)
    p = prompts(12, lengths=seen)
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor, mask: Tensor = p.mask) -> Tensor:
        return theirs(x, y, 1000 * TIMES, encoder_attention_mask=mask.float()).sample

    def ours(x: Tensor, y: Tensor, model: Any = mine) -> Tensor:
        return model.velocity(x, TIMES, FeatureBatch(y, p.mask, p.pooled))

    def softmax(model: Any) -> None:
        op = SelfAttention(D, H, bias=(False, True))
        op.load_state_dict(model.blocks[0].attention.op.state_dict())
        model.blocks[0].attention.op = op

    agree(mine, theirs, ours, other, [x, y])
    assert not torch.allclose(other(x, y), other(x, y, hidden_from(p)), atol=1e-3), "another mask"
    changes: dict[str, Callable[[Any], None]] = {
        "softmax": softmax,
        "rows are columns": lambda model: setattr(model.blocks[0].mlp, "context", lambda c: on_grid(c)[::-1]),
        "the convolution's kernel": lambda model: model.blocks[1].mlp.op.depthwise.weight.copy_(
            mine.blocks[1].mlp.op.depthwise.weight.mT
        ),
        "the silu's half": lambda model: model.blocks[0].mlp.op.up.weight.copy_(
            mine.blocks[0].mlp.op.up.weight.roll(48, 0)
        ),
        "heads of the cross-attention": lambda model: setattr(model.blocks[0].cross.op, "heads", H),
        "the caption is not normed": lambda model: setattr(model.text[1], "weight", nn.Parameter(torch.ones(D))),
        "the maps' order": lambda model: model.trunk.weight.copy_(mine.trunk.weight.roll(D, 0)),
        "another block's table": lambda model: model.blocks[0].head.affine.table.copy_(
            mine.blocks[1].head.affine.table
        ),
        "shift and scale at the end": lambda model: model.final.table.table.copy_(mine.final.table.table.roll(D)),
        "positions": lambda model: setattr(model, "interpolation", 4.0),
    }
    assert not change_nothing(mine, changes, lambda model: ours(x, y, model))


HIDREAM_AXES = (8, 4, 4)


def a_hidream(*, experts_train: bool = True) -> Any:
    """With 3 layers of Llama, the last of them in two blocks.

    In evaluation, the experts of diffusers give no gradients; as in training they compute the same, with gradients.
    """
    theirs = randomised(
        diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=D // H,
            num_attention_heads=H,
            caption_channels=[12, 12],
            text_emb_dim=5,
            axes_dims_rope=HIDREAM_AXES,
            max_resolution=(12, 12),
            llama_layers=[0, 1, 2, 2],
        )
    )
    for module in theirs.modules():
        if hasattr(module, "experts"):
            module.train(experts_train)
    return theirs


def tiny_hidream(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, dual=2, single=2, hidden=256, shared_hidden=256, channels=4, text_width=12)
    sizes |= dict(layers=3, pooled_width=5, axes=HIDREAM_AXES, max_tokens=36)
    return architectures.published("hidream-i1", **sizes | more)


def exchanged(first: nn.Module, second: nn.Module) -> None:
    """The weights of one are the other's."""
    state = {name: value.clone() for name, value in first.state_dict().items()}
    first.load_state_dict(second.state_dict())
    second.load_state_dict(state)


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (12, 4)], ids=str)
def test_hidream_is_theirs(size: tuple[int, int]) -> None:
    """Also of images that are not square, which padding that is attended to fills up."""
    theirs, mine = a_hidream(), tiny_hidream()
    p = prompts(4 * 12)
    inputs = [x.requires_grad_() for x in (gaussian(2, 4, *size), p.tokens, p.pooled)]

    def other(x: Tensor, y: Tensor, v: Tensor, model: Any = theirs) -> Tensor:
        t5, llama = y[..., :12], y[..., 12:].unflatten(-1, (3, 12)).permute(2, 0, 1, 3)
        return -model(x, 1000 * TIMES, t5, llama, v).sample

    def ours(x: Tensor, y: Tensor, v: Tensor, model: Any = mine) -> Tensor:
        return model.velocity(x, TIMES, FeatureBatch(y, p.mask, v))

    agree(mine, theirs, ours, other, inputs)
    b = other(*inputs)
    with torch.no_grad():
        assert torch.allclose(b, other(*inputs, model=a_hidream(experts_train=False)), atol=1e-5)
    x, y, v = inputs
    assert not torch.allclose(ours(x, y.roll(12, -1), v), b, atol=1e-3), "each block has a layer of its own"
    changes: dict[str, Callable[[Any], None]] = {
        "an expert fewer": lambda model: setattr(model.dual[0].mlp.op, "chosen", 1),
        "experts": lambda model: exchanged(*model.single[1].mlp.op.experts[:2]),
        "image and caption": lambda model: exchanged(model.dual[1].head, model.dual[1].text_head),
        "blocks' captions": lambda model: exchanged(*model.texts[2:4]),
        "rows and columns": lambda model: setattr(model, "axes", (4, 8, 4)),
        "queries and keys": lambda model: exchanged(
            model.dual[0].attention.op.q_norm, model.dual[0].attention.op.k_norm
        ),
    }
    if size[0] != size[1]:
        changes["more padding"] = lambda model: setattr(model, "max_tokens", 40)
    assert not change_nothing(mine, changes, lambda model: ours(x, y, v, model))


def test_hidream_refuses_an_image_beyond_its_padding() -> None:
    p = prompts(4 * 12)
    with pytest.raises(ValueError, match="tokens of an image that is not square: 40, but the model's limit is 36"):
        tiny_hidream()(gaussian(2, 4, 16, 10), TIMES, p)


def test_a_block_of_sana_as_equations() -> None:
    lines = repr(tiny_sana().blocks[0]).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        "x <- x + g1 LinearAttention(LN(x) (1 + s1) + b1)",
        "x <- x + CA(x, y)",
        "x <- x + g2 MixFFN(LN(x) (1 + s2) + b2)",
    ]


def test_sana_s_caption_and_modulation_are_counted_apart() -> None:
    roles = parameter_roles(tiny_sana())
    assert {n for n, role in roles.items() if role == "prompt"} == {n for n in roles if n[:4] == "text" or "cross" in n}
    assert {n for n, role in roles.items() if role == "modulation"} == {
        n for n in roles if n.startswith(("trunk", "final")) or "head.affine" in n
    }


def test_hidream_s_caption_and_modulation_are_counted_apart() -> None:
    roles = parameter_roles(tiny_hidream())
    assert {n for n, role in roles.items() if role == "modulation"} == {n for n in roles if "head.affine" in n}
    assert {n for n, role in roles.items() if role == "prompt"} == {
        n for n in roles if n.startswith(("texts", "pooled")) or ".text_attention" in n or ".text_mlp" in n
    }
    assert "x <- x + g2 MoE(LN(x) (1 + s2) + b2)" in repr(tiny_hidream().dual[0])


# --- released layouts -------------------------------------------------------------------------------------------------


def released_sana() -> dict[str, Tensor]:
    """Random tensors under the released names, of the released shapes, with what the file holds beside."""
    old = old_names(tiny_sana())
    for name in [name for name in old if name.endswith(("conv.weight", "x_embedder.proj.weight"))]:
        old[name] = old[name].reshape(*old[name].shape[:2], *(3, 3) if "depth" in name else (1, 1))
    for name in [name for name in old if name.endswith("table")]:
        old[name] = old[name].reshape(-1, D)
    return old | {"pos_embed": gaussian(1, 64, D), "y_embedder.y_embedding": gaussian(9, 12)}


def test_a_released_sana_is_what_diffusers_makes_of_it() -> None:
    """Through diffusers' own converter and its model's layout, or straight: the same weights, and all of its model."""
    from diffusers.loaders.single_file_utils import convert_sana_transformer_to_diffusers as converted

    straight, around, other = tiny_sana(), tiny_sana(), a_sana()
    old = released_sana()
    theirs = converted(dict(old))
    other.load_state_dict(theirs)
    assert architectures.load_published(straight, old) == "original"
    assert architectures.load_published(around, theirs) == "diffusers"
    assert not equal(straight, around)
    first, second = (f"blocks.{k}.mlp.depth_conv.conv.weight" for k in (0, 1))
    architectures.load_published(straight, old | {first: old[second], second: old[first]})
    assert equal(straight, around) == [f"blocks.{k}.mlp.op.depthwise.weight" for k in (0, 1)]


def test_files_of_another_system_are_named() -> None:
    pixart = architectures.published("pixart", width=48, heads=2, depth=2)
    for state in (a_sana().state_dict(), released_sana()):
        for model in (tiny(), pixart):
            with pytest.raises(architectures.WeightsError, match="they look like sana;"):
                architectures.load_published(model, state)
    with pytest.raises(architectures.WeightsError, match="not weights of sana.*they look like wan"):
        architectures.load_published(tiny_sana(), a_wan().state_dict())
    with pytest.raises(architectures.WeightsError, match="not weights of flux.*they look like hidream-i1;"):
        architectures.load_published(tiny(), a_hidream().state_dict())


def test_a_released_hidream_has_diffusers_names() -> None:
    """As diffusers' own reader of single files takes them, with a prefix."""
    from diffusers.loaders.single_file_utils import convert_hidream_transformer_to_diffusers as converted

    mine, theirs = tiny_hidream(), a_hidream().state_dict()
    old = {f"model.diffusion_model.{name}": value for name, value in theirs.items()}
    assert converted(dict(old)).keys() == theirs.keys()
    assert architectures.load_published(mine, old) == "diffusers"


def test_sana_1_5_is_refused() -> None:
    """Its queries and keys are normed."""
    state = a_sana(qk_norm="rms_norm_across_heads").state_dict()
    with pytest.raises(architectures.WeightsError, match="8 left over .transformer_blocks.0.attn1.norm_k.weight"):
        architectures.load_published(tiny_sana(), state)
