"""FLUX.3 and Qwen-Image-2.1, whose captions are at t = 0, against diffusers: as `test_published.py` has the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from test_published import AXES, D, H, agree, old_names, prompts, tiny_flux2, total
from torch import Tensor, nn

import architectures
from architectures.backbone import parameter_roles
from architectures.prompt import FeatureBatch
from architectures.sequence import SidedBlock

diffusers = pytest.importorskip("diffusers")

SYSTEMS = ("flux3", "qwen-image-2.1")
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "flux3": lambda: diffusers.Flux3Transformer2DModel(),
    "qwen-image-2.1": lambda: diffusers.QwenImage21Transformer2DModel(),
}
MILLIONS = {"flux3": (4868.0, 5538.5), "qwen-image-2.1": (7115.1, 7115.1)}  # of ours, and of diffusers'
TIMES = torch.tensor([0.1, 0.8])


@pytest.mark.parametrize("name", SYSTEMS)
def test_totals_are_diffusers_own(name: str) -> None:
    """Without what reference images alone pass through."""
    with torch.device("meta"):
        mine, theirs = architectures.published(name), OTHERS[name]()
    references = sum(p.numel() for key, p in theirs.named_parameters() if ".image_cond." in key)
    assert total(mine) == total(theirs) - references
    assert (round(total(mine) / 1e6, 1), round(total(theirs) / 1e6, 1)) == MILLIONS[name]


# --- outputs and gradients --------------------------------------------------------------------------------------------


def a_flux3(**more: Any) -> Any:
    sizes = dict(in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2)
    sizes |= dict(joint_attention_dim=12, axes_dims_rope=(4, 4, 4, 4), **more)
    return randomised(diffusers.Flux3Transformer2DModel(**sizes))


def tiny_flux3() -> Any:
    return architectures.published(
        "flux3", width=D, heads=H, early=2, joint=2, channels=16, text_width=12, axes=(4, 4, 4, 4)
    )


def differ(a: Tensor, b: Tensor, why: str) -> None:
    assert not torch.allclose(a, b, atol=1e-3), why


def later_caption(mine: Any) -> Any:
    """The same model, whose captions are at t = 0.5: the one time of one row alone is theirs."""
    return mine.time.register_forward_pre_hook(lambda module, given: tuple(t + 0.5 * (len(t) == 1) for t in given))


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_flux3_is_theirs(size: tuple[int, int]) -> None:
    """With positions of image and caption as its pipeline gives them; it has no mask."""
    from diffusers.modular_pipelines.flux3.before_denoise import Flux3TextRoPEInputsStep, _prepare_image_ids

    theirs, mine = a_flux3(), tiny_flux3()
    p = prompts(12)
    x, y = gaussian(2, 16, *size).requires_grad_(), p.tokens.requires_grad_()
    image, text = _prepare_image_ids(*size, image_rope_scale=0.5), Flux3TextRoPEInputsStep._prepare_text_ids(y)

    def other(x: Tensor, y: Tensor, image: Tensor = image, text: Tensor = text) -> Tensor:
        return theirs(x.flatten(2).mT, y, TIMES, image, text).sample.mT.unflatten(2, size)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, TIMES, FeatureBatch(y, p.mask, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    differ(b, other(x, y, image=2 * image), "rows and columns of the image without the spacing")
    differ(b, other(x, y, text=torch.zeros_like(text)), "a caption without positions")
    later = later_caption(mine)
    differ(ours(x, y), b, "the caption is at t = 0")
    later.remove()
    for k in (0, 2):
        mine.trunks[k], mine.trunks[k + 1] = mine.trunks[k + 1], mine.trunks[k]
        differ(ours(x, y), b, "the maps of image and caption are one another's")
        mine.trunks[k], mine.trunks[k + 1] = mine.trunks[k + 1], mine.trunks[k]
    assert torch.allclose(ours(x, y), b, atol=1e-5)


def a_qwen_image_21() -> Any:
    return randomised(
        diffusers.QwenImage21Transformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=12,
            axes_dims_rope=AXES,
        )
    )


def tiny_qwen_image_21() -> Any:
    return architectures.published("qwen-image-2.1", width=D, heads=H, depth=2, channels=16, text_width=12, axes=AXES)


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (4, 6)), ((7, 7), (6, 2)), ((3, 7), (3, 4))])
def test_qwen_image_21_is_theirs(seen: tuple[int, int], size: tuple[int, int]) -> None:
    """With captions of unequal length, whose padding is attended to by nothing that is read."""
    theirs, mine = a_qwen_image_21(), tiny_qwen_image_21()
    p, count = prompts(12, lengths=seen), size[0] * size[1]
    x, y = gaussian(2, 16, *size).requires_grad_(), p.tokens.requires_grad_()
    slots = torch.arange(7 + count // 4).expand(2, -1) >= 7  # of an image a slot has 2 x 2 tokens

    def other(x: Tensor, y: Tensor, mask: Tensor = p.mask, size: tuple[int, int] = size) -> Tensor:
        out = theirs(x.flatten(2).mT, y, TIMES, [[(1, *size)]] * 2, slots, mask, return_dict=False)[0]
        return out[:, -count:].mT.unflatten(2, x.shape[2:])

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, TIMES, FeatureBatch(y, p.mask, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    differ(b, other(x, y, mask=p.mask & (p.mask.cumsum(1) < 3)), "shorter captions")
    differ(b, other(x, y, size=size[::-1]), "rows are columns")
    theirs.register_to_config(causal_condition=False)
    differ(b, other(x, y), "the caption is at t = 0")
    later = later_caption(mine)
    differ(ours(x, y), b, "the caption is at t = 0")
    later.remove()
    assert torch.allclose(ours(x, y), b, atol=1e-5)
    for block in mine.blocks:
        block.__class__ = SidedBlock
    differ(ours(x, y), b, "the caption is causal")


def test_a_caption_padded_in_front_is_refused() -> None:
    p = prompts(12)
    with pytest.raises(ValueError, match="captions are padded at the end"):
        tiny_qwen_image_21()(gaussian(2, 16, 4, 4), TIMES, p._replace(mask=p.mask.flip(1)))


@pytest.mark.parametrize("tiny", [tiny_flux3, tiny_qwen_image_21])
def test_the_caption_s_path_is_its_embedder_and_its_own_blocks(tiny: Callable[[], nn.Module]) -> None:
    roles = parameter_roles(tiny())
    assert {name for name, role in roles.items() if role == "prompt"} == {n for n in roles if n.startswith("text")}
    assert {name for name, role in roles.items() if role == "modulation"} == {
        n for n in roles if n.startswith(("trunk", "final"))
    }


def test_a_causal_block_says_so() -> None:
    assert "a_y = CausalAttention(LN(y) (1 + s1'))" in repr(tiny_qwen_image_21().blocks[0])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_released_file_is_what_diffusers_makes_of_it(system: str) -> None:
    """Through diffusers' own converter and its model's layout, or straight: the same weights."""
    from diffusers.loaders import single_file_utils as theirs

    tiny, converter = {
        "flux3": (tiny_flux3, theirs.convert_flux3_transformer_checkpoint_to_diffusers),
        "qwen-image-2.1": (tiny_qwen_image_21, theirs.convert_qwen_image21_transformer_checkpoint_to_diffusers),
    }[system]
    straight, around = tiny(), tiny()
    old = old_names(straight)
    if system == "flux3":  # what a released file has beside: of reference images, and of its training
        beside = ("emb_in.image_cond", "content_mode_blocks.image_cond.0.q_proj", "repa_projectors.0")
        old |= {f"{name}.weight": torch.ones(1) for name in beside}
    assert architectures.load_published(straight, old) == "original"
    assert architectures.load_published(around, converter(dict(old))) == "diffusers"
    own = around.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in straight.state_dict().items())
    with pytest.raises(architectures.WeightsError, match=f"not weights of flux2.*they look like {system}"):
        architectures.load_published(tiny_flux2(), old)


def test_a_model_distilled_into_few_steps_is_refused() -> None:
    """It has an embedder of the time that a step leads to."""
    with pytest.raises(architectures.WeightsError, match="2 left over .target_timestep_embedder"):
        architectures.load_published(tiny_flux3(), a_flux3(flow_map=True).state_dict())
