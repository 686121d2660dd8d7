"""Kandinsky 5 and GLM-Image against diffusers: totals at published sizes, outputs and gradients at tiny ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gaussians import gaussian, randomised
from test_published import AXES, D, H, agree, prompts, tiny, total
from test_published_wan import change_nothing, hidden_from
from torch import Tensor, nn

import architectures
from architectures.backbone import parameter_roles
from architectures.prompt import FeatureBatch

diffusers = pytest.importorskip("diffusers")

TIMES = torch.tensor([0.1, 0.8])
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "kandinsky5": lambda: diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=16, out_visual_dim=16, model_dim=2560, ff_dim=10240, num_visual_blocks=50, axes_dims=(32, 48, 48)
    ),
    "glm-image": lambda: diffusers.GlmImageTransformer2DModel(num_attention_heads=32, attention_head_dim=128),
}
TOTALS = {"kandinsky5": 6_022_080_576, "glm-image": 6_926_882_880}


@pytest.mark.parametrize("name", OTHERS)
def test_totals_are_diffusers_own(name: str) -> None:
    with torch.device("meta"):
        mine, theirs = architectures.published(name), OTHERS[name]()
    assert total(mine) == total(theirs) == TOTALS[name]


# --- outputs and gradients --------------------------------------------------------------------------------------------


def differ(a: Tensor, b: Tensor, why: str) -> None:
    assert not torch.allclose(a, b, atol=1e-3), why


def rolled(tensor: Tensor, by: int = D) -> None:
    """Changes the order of a map's vectors, or of what else it gives."""
    tensor.copy_(tensor.roll(by, 0))


def a_kandinsky5(**more: Any) -> Any:
    sizes = dict(in_visual_dim=4, out_visual_dim=4, in_text_dim=12, in_text_dim2=5, time_dim=24, model_dim=D, ff_dim=48)
    sizes |= dict(num_visual_blocks=2, axes_dims=AXES)
    return randomised(diffusers.Kandinsky5Transformer3DModel(**sizes | more))


def tiny_kandinsky5(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, depth=2, hidden=48, cond_width=24, channels=4, text_width=12, pooled_width=5)
    return architectures.published("kandinsky5", **sizes | dict(axes=AXES) | more)


KANDINSKY_CHANGES: dict[str, Callable[[Any], None]] = {
    "the axes' channels": lambda model: setattr(model, "axes", (6, 4, 6)),
    "the maps of the cross-attention are the attention's": lambda model: rolled(
        model.blocks[1].head.affine.weight, 3 * D
    ),
    "the caption's maps": lambda model: rolled(model.text_blocks[0].head.affine.weight),
    "the caption's blocks": lambda model: setattr(model, "text_blocks", nn.ModuleList(reversed(model.text_blocks))),
    "the pooled caption": lambda model: model.pooled[1].bias.zero_(),
    "norms of what is attended to": lambda model: setattr(model.blocks[0].cross.op, "k_norm", nn.Identity()),
    "keys and values": lambda model: rolled(model.blocks[0].cross.op.kv.weight),
    "shift and scale at the end": lambda model: rolled(model.final.head.affine.weight),
}


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (8, 12)), ((7, 7), (10, 6)), ((3, 6), (4, 4))])
def test_kandinsky5_is_theirs(seen: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one frame, with each caption as if it were alone: theirs has no mask. Its rounding is switched off."""
    theirs, mine = a_kandinsky5(), tiny_kandinsky5()
    p = prompts(12, lengths=seen)
    x, y, v = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_(), p.pooled.requires_grad_()
    places = [torch.arange(n) for n in (1, size[0] // 2, size[1] // 2)]

    def one(x: Tensor, t: Tensor, y: Tensor, v: Tensor, spacing: int = 1) -> Tensor:
        words = spacing * torch.arange(y.shape[1])
        out = theirs(x.permute(0, 2, 3, 1)[:, None], y, 1000 * t, v, places, words).sample
        return out[:, 0].permute(0, 3, 1, 2)

    def other(x: Tensor, y: Tensor, v: Tensor, spacing: int = 1) -> Tensor:
        rows = [slice(k, k + 1) for k in range(2)]
        return torch.cat([one(x[k], TIMES[k], y[k, :n], v[k], spacing) for k, n in zip(rows, seen, strict=True)])

    def ours(x: Tensor, y: Tensor, v: Tensor, model: Any = mine, mask: Tensor = p.mask) -> Tensor:
        return model.velocity(x, TIMES, FeatureBatch(y, mask, v))

    with monkeypatch.context() as whole:
        whole.setattr(torch, "bfloat16", torch.float32)
        agree(mine, theirs, ours, other, [x, y, v])
        b = other(x, y, v)
        differ(b, other(x, y, v, spacing=3), "the caption's positions")
        if len(set(seen)) == 1:
            assert torch.allclose(b, one(x, TIMES, y, v), atol=1e-5)
    rounded = other(x, y, v)
    assert not torch.allclose(b, rounded, atol=1e-5) and torch.allclose(b, rounded, atol=0.1)
    differ(b, ours(x, y, v, mask=hidden_from(p)), "another mask")
    assert not change_nothing(mine, KANDINSKY_CHANGES, lambda model: ours(x, y, v, model))
    assert "x <- x + g2 CA(LN(x) (1 + s2) + b2, y)\n" in repr(mine.blocks[0])


def a_glm_image() -> Any:
    sizes = dict(in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=H)
    sizes |= dict(text_embed_dim=12, time_embed_dim=24, condition_dim=8, prior_vq_quantizer_codebook_size=20)
    return randomised(diffusers.GlmImageTransformer2DModel(**sizes))


def tiny_glm_image(**more: Any) -> Any:
    sizes = dict(width=D, heads=H, depth=2, cond_width=24, crop_width=8, channels=4, text_width=12, codes=20)
    return architectures.published("glm-image", **sizes | dict(axes=(8, 8)) | more)


def exchanged(block: Any) -> None:
    """The maps of image and glyphs are one another's."""
    block.head, block.text_head = block.text_head, block.head


GLM_CHANGES: dict[str, Callable[[Any], None]] = {
    "the axes' channels": lambda model: setattr(model, "axes", (4, 12)),
    "the sides' maps": lambda model: exchanged(model.blocks[0]),
    "the glyphs' maps": lambda model: rolled(model.blocks[0].text_head.affine.weight),
    "the image's maps": lambda model: rolled(model.blocks[1].head.affine.weight),
    "shift and scale at the end": lambda model: rolled(model.final.head.affine.weight),
    "norms of queries": lambda model: setattr(model.blocks[0].attention.op, "q_norm", nn.Identity()),
    "order of the crop": lambda model: model.crop.up.weight.copy_(model.crop.up.weight.roll(16, 1)),
    "adjacent channels are turned": lambda model: setattr(
        model.blocks[0].attention.op, "rope", architectures.rotary.PrecomputedRoPE()
    ),
}


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (8, 12)), ((7, 7), (10, 6)), ((2, 5), (4, 4))])
def test_glm_image_is_theirs(seen: tuple[int, int], size: tuple[int, int]) -> None:
    """With glyphs that its pipeline pads in front with zeros, and a prior of which some tokens are dropped."""
    theirs, mine = a_glm_image(), tiny_glm_image()
    p, count = prompts(12, lengths=seen), size[0] * size[1] // 4
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()
    prior = torch.arange(2 * count).view(2, -1) * 7 % 20
    prior[0, :3] = prior[1, 1] = -1
    crop = torch.tensor([[0.0, 16.0, 64.0, 96.0], [8.0, 0.0, 128.0, 40.0]])

    def other(x: Tensor, y: Tensor, prior: Tensor = prior, crop: Tensor = crop, length: int = max(seen)) -> Tensor:
        glyphs = [F.pad(one[:n], (0, 0, length - n, 0)) for one, n in zip(y, seen, strict=True)]
        where = (crop[:, 2:], crop[:, :2])
        return theirs(x, torch.stack(glyphs), prior.clamp(min=0), prior < 0, 1000 * TIMES - 1, *where).sample

    def ours(x: Tensor, y: Tensor, model: Any = mine, mask: Tensor = p.mask, **more: Tensor) -> Tensor:
        return model(x, TIMES, FeatureBatch(y, mask, p.pooled), **dict(prior=prior, crop=crop) | more)

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    differ(b, other(x, y, prior=prior.roll(1, 1)), "another prior")
    differ(b, other(x, y, crop=crop.roll(1, 0)), "another crop")
    differ(b, other(x, y, length=9), "zeros are attended to")
    differ(b, ours(x, y, mask=hidden_from(p)), "another mask")
    assert not change_nothing(mine, GLM_CHANGES, lambda model: ours(x, y, model))
    whole = torch.tensor([[0.0, 0.0, 8.0 * size[0], 8.0 * size[1]]]).repeat(2, 1)
    null = other(x, y, prior=torch.full_like(prior, -1), crop=whole)
    assert torch.allclose(mine.velocity(x, TIMES, FeatureBatch(y, p.mask, p.pooled)), null, atol=1e-5)
    differ(null, other(x, y, crop=whole), "the prior matters")


def test_glm_image_s_block_is_of_two_sides() -> None:
    assert "a_x, a_y = Attention([LN(x) (1 + s1) + b1 ; LN(y) (1 + s1') + b1'])" in repr(tiny_glm_image().blocks[0])


# --- roles, files, what is wrong is said ------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny_one", [tiny_kandinsky5, tiny_glm_image])
def test_modulation_is_the_heads_and_the_caption_s_path_is_all_else_of_it(tiny_one: Callable[[], nn.Module]) -> None:
    roles = parameter_roles(tiny_one())
    heads = {name for name in roles if "head.affine" in name}
    caption = {name for name in roles if name.startswith(("text", "pooled", "prior")) or ".cross." in name}
    assert {name for name, role in roles.items() if role == "modulation"} == heads
    assert {name for name, role in roles.items() if role == "prompt"} == caption - heads


def test_files_of_another_system_are_named() -> None:
    for other, name in ((a_kandinsky5(), "kandinsky5"), (a_glm_image(), "glm-image")):
        with pytest.raises(architectures.WeightsError, match=f"not weights of flux.*they look like {name};"):
            architectures.load_published(tiny(), other.state_dict())
    with pytest.raises(architectures.WeightsError, match="not weights of glm-image.*they look like kandinsky5"):
        architectures.load_published(tiny_glm_image(), a_kandinsky5().state_dict())


def test_kandinsky5_conditioned_on_an_image_is_refused_with_what_works() -> None:
    with pytest.raises(architectures.WeightsError, match=r"conditioned on an image: take a text-to-image one"):
        architectures.load_published(tiny_kandinsky5(), a_kandinsky5(visual_cond=True).state_dict())
    with pytest.raises(architectures.WeightsError, match="another size"):  # of neither kind
        architectures.load_published(tiny_kandinsky5(), a_kandinsky5(in_visual_dim=5).state_dict())


def test_sizes_captions_and_priors_beyond_a_model_s_own_are_refused() -> None:
    model, p = tiny_kandinsky5(max_grid=4, max_tokens=9), prompts(12)
    with pytest.raises(ValueError, match="tokens a side: 5, but the model's limit is 4"):
        model(gaussian(2, 4, 10, 8), TIMES, p)
    with pytest.raises(ValueError, match="caption tokens: 12, but the model's limit is 9"):
        model(gaussian(2, 4, 8, 8), TIMES, prompts(12, lengths=(12, 4)))
    with pytest.raises(ValueError, match=r"a prior of shape \(2, 5\): one token a patch is \(2, 16\)"):
        tiny_glm_image()(gaussian(2, 4, 8, 8), TIMES, p, torch.zeros(2, 5, dtype=torch.long))
