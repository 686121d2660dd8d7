"""Wan and PRX against diffusers: totals at published sizes, outputs and gradients at tiny ones, both layouts."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gaussians import gaussian, randomised
from test_published import agree, old_names, prompts, tiny, total
from torch import Tensor, nn

import architectures
from architectures.prompt import FeatureBatch
from architectures.systems.parts import AcrossHeadsNorm
from architectures.systems.weights import cut

diffusers = pytest.importorskip("diffusers")

D, H = 32, 2

# --- totals -----------------------------------------------------------------------------------------------------------

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "wan": lambda: diffusers.WanTransformer3DModel(),
    "wan-1.3b": lambda: diffusers.WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30),
    "prx": lambda: diffusers.PRXTransformer2DModel(),
}
TOTALS = {"wan": 14_288_491_584, "wan-1.3b": 1_418_996_800, "prx": 1_170_691_648}


@pytest.mark.parametrize("name", OTHERS)
def test_totals_are_diffusers_own(name: str) -> None:
    with torch.device("meta"):
        mine, theirs = architectures.published(name), OTHERS[name]()
    assert total(mine) == total(theirs) == TOTALS[name]


def test_prx_s_latents_of_dc_ae_are_a_size_of_it() -> None:
    with torch.device("meta"):
        mine = architectures.published("prx", channels=32, patch=1)
        theirs = diffusers.PRXTransformer2DModel(in_channels=32, patch_size=1)
    assert total(mine) == total(theirs)


# --- outputs and gradients --------------------------------------------------------------------------------------------


def hidden_from(p: FeatureBatch) -> Tensor:
    """A mask of other tokens than the batch's."""
    return p.mask.roll(2, 1) if not bool(p.mask.all()) else p.mask & (p.mask.cumsum(1) < 4)


def change_nothing(mine: Any, changes: dict[str, Callable[[Any], None]], wanted: Callable[[Any], Tensor]) -> list[str]:
    """The changes that leave what a copy of the model computes as it is: none should."""
    same = wanted(mine)
    copies = {name: deepcopy(mine) for name in changes}
    for name, change in changes.items():
        with torch.no_grad():
            change(copies[name])
    return [name for name, copy in copies.items() if torch.allclose(wanted(copy), same, atol=1e-3)]


def a_wan(**more: Any) -> Any:
    sizes = dict(num_attention_heads=H, attention_head_dim=D // H, in_channels=4, out_channels=4, text_dim=12)
    return randomised(diffusers.WanTransformer3DModel(**sizes | dict(ffn_dim=48, num_layers=2) | more))


def tiny_wan(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, depth=2, hidden=48, channels=4, text_width=12, text_length=9, axes=(8, 4, 4))
    return architectures.published("wan", **sizes | more)


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (8, 12)), ((7, 7), (10, 6))])
def test_wan_is_theirs(seen: tuple[int, int], size: tuple[int, int]) -> None:
    """Of one frame, with captions that its pipeline fills up with zeros."""
    theirs, mine = a_wan(), tiny_wan()
    p, t = prompts(12, lengths=seen), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor, mask: Tensor = p.mask, length: int = 9) -> Tensor:
        filled = F.pad(y * mask[..., None], (0, 0, 0, length - y.shape[1]))
        return theirs(x[:, :, None], timestep=1000 * t, encoder_hidden_states=filled).sample[:, :, 0]

    def ours(x: Tensor, y: Tensor, model: Any = mine) -> Tensor:
        return model.velocity(x, t, FeatureBatch(y, p.mask, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    assert not torch.allclose(b, other(x, y, hidden_from(p)), atol=1e-3), "another caption"
    assert not torch.allclose(b, other(x, y, length=7), atol=1e-3), "zeros are attended to"
    changes: dict[str, Callable[[Any], None]] = {
        "rows and columns": lambda model: setattr(model, "axes", (4, 4, 8)),
        "the maps' order": lambda model: model.trunk.weight.copy_(model.trunk.weight.roll(D, 0)),
        "another block's table": lambda model: model.blocks[0].head.affine.table.copy_(
            mine.blocks[1].head.affine.table
        ),
        "no norm before the cross-attention": lambda model: setattr(model.blocks[0].cross, "norm", nn.Identity()),
        "shift and scale at the end": lambda model: model.final.table.table.copy_(mine.final.table.table.roll(D)),
    }
    assert not change_nothing(mine, changes, lambda model: ours(x, y, model))
    assert "x <- x + CA(LN_w(x), y)\n  x <- x + g2 MLP(LN(x) (1 + s2) + b2)" in repr(mine.blocks[0])


def test_wan_s_queries_and_keys_are_normed_across_heads() -> None:
    norm = randomised(AcrossHeadsNorm(D, H))
    q = gaussian(2, H, 5, D // H)
    joined = q.transpose(1, 2).flatten(2)
    theirs = F.rms_norm(joined, (D,), norm.weight.flatten(), 1e-6).unflatten(-1, (H, -1)).transpose(1, 2)
    assert torch.allclose(norm(q), theirs, atol=1e-6)
    assert not torch.allclose(F.rms_norm(q, (D // H,), eps=1e-6) * norm.weight[:, None], theirs, atol=1e-3)


def a_prx(**more: Any) -> Any:
    sizes = dict(in_channels=4, context_in_dim=12, hidden_size=D, mlp_ratio=1.5, num_heads=H, depth=2)
    return randomised(diffusers.PRXTransformer2DModel(**sizes | dict(axes_dim=[4, 12]) | more))


def tiny_prx(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, depth=2, hidden=48, channels=4, text_width=12, axes=(4, 12))
    return architectures.published("prx", **sizes | more)


@pytest.mark.parametrize(
    ("seen", "size", "patch"), [((7, 4), (8, 12), 2), ((7, 7), (10, 6), 2), ((3, 7), (5, 3), 1)], ids=str
)
def test_prx_is_theirs(seen: tuple[int, int], size: tuple[int, int], patch: int) -> None:
    """With captions of unequal length, whose padding no token of the image attends to."""
    theirs, mine = a_prx(patch_size=patch), tiny_prx(patch=patch)
    p, t = prompts(12, lengths=seen), torch.tensor([0.1, 0.8])
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor, mask: Tensor = p.mask) -> Tensor:
        return theirs(x, t, y, mask).sample

    def ours(x: Tensor, y: Tensor, model: Any = mine) -> Tensor:
        return model.velocity(x, t, FeatureBatch(y, p.mask, p.pooled))

    def swapped(tensor: Tensor) -> None:
        tensor.copy_(tensor.roll(len(tensor) // 2, 0))

    agree(mine, theirs, ours, other, [x, y])
    assert not torch.allclose(other(x, y), other(x, y, hidden_from(p)), atol=1e-3), "another mask"
    changes: dict[str, Callable[[Any], None]] = {
        "rows and columns": lambda model: setattr(model, "axes", (12, 4)),
        "attention's maps are the MLP's": lambda model: swapped(model.blocks[0].head.affine.weight),
        "keys and values": lambda model: swapped(model.blocks[0].text.kv.weight),
        "the gelu's half": lambda model: swapped(model.blocks[1].mlp.op.up.weight),
        "the caption's keys are not normed": lambda model: setattr(model.blocks[0].text, "k_norm", nn.Identity()),
    }
    assert not change_nothing(mine, changes, lambda model: ours(x, y, model))


# --- released layouts -------------------------------------------------------------------------------------------------


def equal(a: nn.Module, b: nn.Module) -> list[str]:
    """Names of parameters that differ."""
    return [
        name for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True) if not x.equal(y)
    ]


def released_wan() -> dict[str, Tensor]:
    """Random tensors under the released names, of the released shapes: a convolution, tables with a leading axis."""
    old = old_names(tiny_wan())
    old["patch_embedding.weight"] = old["patch_embedding.weight"].reshape(D, 4, 1, 2, 2)
    for name in [name for name in old if name.endswith("modulation")]:
        old[name] = old[name].reshape(1, -1, D)
    return old | {name: value.flatten() for name, value in old.items() if re.search(r"norm_[qk]\.weight$", name)}


def test_a_released_wan_is_what_diffusers_makes_of_it() -> None:
    """Through diffusers' own converter and its model's layout, or straight: the same weights, and all of its model."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers as converted

    straight, around, other = tiny_wan(), tiny_wan(), a_wan()
    old = released_wan()
    theirs = converted(dict(old))
    other.load_state_dict(theirs)
    assert architectures.load_published(straight, old) == "original"
    assert architectures.load_published(around, theirs) == "diffusers"
    assert not equal(straight, around)
    name = "blocks.1.cross_attn.norm_{}.weight"
    swapped = old | {name.format("q"): old[name.format("k")], name.format("k"): old[name.format("q")]}
    architectures.load_published(straight, swapped)
    assert equal(straight, around) == ["blocks.1.cross.op.q_norm.weight", "blocks.1.cross.op.k_norm.weight"]


PRX_NAMES = {  # in a block: diffusers' -> Photoroom/PRX's, written apart from the moves
    "attention.img_qkv_proj": "img_qkv_proj",
    "attention.txt_kv_proj": "txt_kv_proj",
    "attention.to_out.0": "attn_out",
    "attention.norm_q.weight": "qk_norm.query_norm.scale",
    "attention.norm_k.weight": "qk_norm.key_norm.scale",
    "attention.norm_added_k.weight": "k_norm.scale",
}


def test_prx_s_released_layout_is_the_same_model() -> None:
    state, mine, other = dict(a_prx().state_dict()), tiny_prx(), tiny_prx()
    old = {}
    for name, value in state.items():
        for theirs, ours in PRX_NAMES.items():
            name = name.replace(theirs, ours)
        old[name] = value
    assert old.keys() != state.keys()
    assert architectures.load_published(mine, state) == "diffusers"
    assert architectures.load_published(other, old) == "original"
    assert not equal(mine, other)
    query, key = (f"blocks.0.qk_norm.{u}_norm.scale" for u in ("query", "key"))
    architectures.load_published(other, old | {query: old[key], key: old[query]})
    assert equal(mine, other) == ["blocks.0.attention.op.q_norm.weight", "blocks.0.attention.op.k_norm.weight"]


# --- what is wrong is said --------------------------------------------------------------------------------------------


def test_files_of_another_system_are_named() -> None:
    pixart = architectures.published("pixart", width=48, heads=2, depth=2)
    for state, name in ((a_wan().state_dict(), "wan"), (released_wan(), "wan"), (a_prx().state_dict(), "prx")):
        for model in (tiny(), pixart):
            with pytest.raises(architectures.WeightsError, match=f"they look like {name};"):
                architectures.load_published(model, state)
    with pytest.raises(architectures.WeightsError, match="not weights of prx.*they look like wan"):
        architectures.load_published(tiny_prx(), released_wan())


def test_wan_for_image_to_video_is_refused_with_what_works() -> None:
    """With an image embedder (2.1), or by its input channels alone (2.2)."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers as converted

    old, wide = released_wan(), gaussian(D, 2 * 4 + 4, 1, 2, 2)
    embedder = {"img_emb.proj.1.weight": gaussian(6, 6)}
    variants = [old | {"patch_embedding.weight": wide}, old | embedder]
    for state in (*variants, *(converted(dict(one)) for one in variants)):
        with pytest.raises(architectures.WeightsError, match=r"image-to-video model.*take a text-to-video one"):
            architectures.load_published(tiny_wan(), state)
    with pytest.raises(architectures.WeightsError, match="another size"):  # of neither kind
        architectures.load_published(tiny_wan(), old | {"patch_embedding.weight": cut(0, 5, 1)(wide)})


def test_wan_refuses_frames_sizes_and_captions_beyond_its_own() -> None:
    model, p, t = tiny_wan(max_grid=4), prompts(12), torch.tensor([0.1, 0.8])
    with pytest.raises(ValueError, match=r"\(2, 4, 5, 8, 8\): one frame is modelled here, as \(B, 4, H, W\)"):
        model(gaussian(2, 4, 5, 8, 8), t, p)
    with pytest.raises(ValueError, match="tokens a side: 5, but the model's limit is 4"):
        model(gaussian(2, 4, 10, 8), t, p)
    with pytest.raises(ValueError, match="caption tokens: 12, but the model's limit is 9"):
        model(gaussian(2, 4, 8, 8), t, prompts(12, lengths=(12, 4)))
