"""Krea 2 and ERNIE-Image against diffusers, as `test_published.py` has it for other systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gaussians import gaussian, randomised
from test_published import AXES, D, H, agree, pack, prompts, tiny, total, unpack
from torch import Tensor, nn

import architectures
from architectures.backbone import parameter_roles
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE
from architectures.systems.parts import CentredRMSNorm

diffusers = pytest.importorskip("diffusers")

TOTALS: dict[str, tuple[Callable[[], nn.Module], float]] = {  # of diffusers, in millions
    "krea2": (lambda: diffusers.Krea2Transformer2DModel(), 12820.1),
    "ernie-image": (
        lambda: diffusers.ErnieImageTransformer2DModel(
            hidden_size=4096, num_attention_heads=32, num_layers=36, ffn_hidden_size=12288, text_in_dim=3072
        ),
        8033.5,
    ),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_diffusers_own(name: str) -> None:
    with torch.device("meta"):
        mine, theirs = architectures.published(name), TOTALS[name][0]()
    assert total(mine) == total(theirs)
    assert round(total(mine) / 1e6, 1) == TOTALS[name][1]


@pytest.mark.parametrize("name", TOTALS)
def test_modulation_and_the_caption_s_path_are_what_they_serve(name: str) -> None:
    with torch.device("meta"):
        roles = parameter_roles(architectures.published(name))
    assert {key.split(".")[0] for key, role in roles.items() if role == "prompt"} == {"text"}
    own = {key.split(".")[0] for key, role in roles.items() if role == "modulation"}
    assert own == ({"trunk", "blocks", "final"} if name == "krea2" else {"trunk", "last"})
    tables = {key.split(".", 2)[2] for key, role in roles.items() if role == "modulation" and key.startswith("blocks")}
    assert tables == ({"head.affine.table"} if name == "krea2" else set())


# --- Krea 2 -----------------------------------------------------------------------------------------------------------

K, I = 3, 12  # layers of the text encoder, and their channels
MASKS = {  # of two captions of 7 places; the pipeline's own padding is between a caption and what follows it
    "at the end": [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]],
    "between": [[1, 1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 1, 1]],
}


def a_krea2() -> nn.Module:
    made = randomised(
        diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=40,
            text_hidden_dim=I,
            num_text_layers=K,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=20,
            axes_dims_rope=AXES,
        )
    )
    for name, weight in made.named_parameters():
        if "norm" in name:  # of which 1 + w is the factor
            weight.data.sub_(1)
    return made


def tiny_krea2() -> Any:
    return architectures.published(
        "krea2",
        width=D,
        heads=H,
        kv_heads=1,
        depth=2,
        hidden=40,
        channels=4,
        text_width=I,
        text_layers=K,
        text_heads=2,
        text_kv_heads=1,
        text_hidden=20,
        axes=AXES,
    )


@pytest.mark.parametrize(("padding", "size"), [("at the end", (8, 12)), ("between", (10, 6))])
def test_krea2_is_theirs(padding: str, size: tuple[int, int]) -> None:
    """With layers, positions and masks as its pipeline gives them."""
    from diffusers import Krea2Pipeline

    theirs, mine = a_krea2(), tiny_krea2()
    p, t, seen = prompts(K * I), torch.tensor([0.1, 0.8]), torch.tensor(MASKS[padding]).bool()
    x, y = gaussian(2, 4, *size).requires_grad_(), p.tokens.requires_grad_()
    places = Krea2Pipeline.prepare_position_ids(7, size[0] // 2, size[1] // 2, torch.device("cpu"))

    def other(x: Tensor, y: Tensor, seen: Tensor = seen, places: Tensor = places) -> Tensor:
        return unpack(theirs(pack(x), y.unflatten(2, (K, I)), t, places, seen).sample, *size)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, t, FeatureBatch(y, seen, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    assert torch.equal(mine.velocity(x, t, FeatureBatch(y, seen, p.pooled)), ours(x, y))
    assert not torch.allclose(b, other(x, y, seen.roll(1, 1)), atol=1e-3), "another mask"
    moved = places + torch.nn.functional.pad(torch.arange(7.0)[:, None], (0, 2, 0, len(places) - 7))
    assert not torch.allclose(b, other(x, y, places=moved), atol=1e-3), "a caption with positions"
    assert not torch.allclose(b, ours(x, y.unflatten(2, (K, I)).roll(1, 2).flatten(2)), atol=1e-3), "layers in order"
    first, second = (block.head.affine for block in mine.blocks)
    first.table, second.table = second.table, first.table
    assert not torch.allclose(ours(x, y), b, atol=1e-3), "the tables of two blocks are one another's"


def test_krea2_s_norms_are_exact_in_bfloat16() -> None:
    """Of 1 + w, w = 2^-10, which bfloat16 rounds to 1."""
    norm, x = CentredRMSNorm(D), gaussian(2, D)
    with torch.no_grad():
        norm.weight.fill_(2**-10)
        plain, whole = torch.nn.functional.rms_norm(x, (D,), eps=1e-5), norm(x)
        assert torch.allclose(whole, plain * (1 + 2**-10), atol=1e-6) and not torch.allclose(whole, plain, atol=1e-6)
        norm.bfloat16()
        assert torch.equal(norm(x), whole) and float(1 + norm.weight[0]) == 1
        assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_a_released_krea2_is_what_diffusers_makes_of_it() -> None:
    """Released names, with shapes of the release, through diffusers' own converter or straight: the same weights."""
    from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers as converted

    state, straight, around = dict(a_krea2().state_dict()), tiny_krea2(), tiny_krea2()
    old: dict[str, Tensor] = {}
    for one, other in zip(straight.moves("original"), straight.moves("diffusers"), strict=True):
        assert one.target == other.target
        old |= {name: state[theirs] for name, theirs in zip(one.names, other.names, strict=True)}
    old |= {name: table.flatten() for name, table in old.items() if name.endswith("mod.lin")}
    theirs = converted({f"model.diffusion_model.{name}": value for name, value in old.items()})
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[name], state[name]) for name in state)
    assert architectures.load_published(straight, old) == "original"
    assert architectures.load_published(around, state) == "diffusers"
    for (name, a), b in zip(straight.state_dict().items(), around.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for file in (old, state):
        with pytest.raises(architectures.WeightsError, match="not weights of flux.*they look like krea2"):
            architectures.load_published(tiny(), file)


# --- ERNIE-Image ------------------------------------------------------------------------------------------------------


def an_ernie_image() -> nn.Module:
    return randomised(
        diffusers.ErnieImageTransformer2DModel(
            hidden_size=D,
            num_attention_heads=H,
            num_layers=2,
            ffn_hidden_size=40,
            in_channels=8,
            out_channels=8,
            text_in_dim=12,
            rope_axes_dim=AXES,
        )
    )


def tiny_ernie_image() -> Any:
    return architectures.published(
        "ernie-image", width=D, heads=H, depth=2, hidden=40, channels=8, text_width=12, axes=AXES
    )


@pytest.mark.parametrize(("seen", "size"), [((7, 4), (4, 6)), ((7, 7), (5, 3)), ((2, 7), (3, 3))])
def test_ernie_image_is_theirs(seen: tuple[int, int], size: tuple[int, int]) -> None:
    """With captions of unequal length, after which the image's positions come."""
    theirs, mine = an_ernie_image(), tiny_ernie_image()
    p, t, count = prompts(12, lengths=seen), torch.tensor([20.0, 900.0]), torch.tensor(seen)
    x, y = gaussian(2, 8, *size).requires_grad_(), p.tokens.requires_grad_()

    def other(x: Tensor, y: Tensor, count: Tensor = count) -> Tensor:
        return theirs(x, t, y, count).sample

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return mine(x, t, FeatureBatch(y, p.mask, p.pooled))

    agree(mine, theirs, ours, other, [x, y])
    b = other(x, y)
    assert torch.allclose(mine.velocity(x, t / 1000, p), b, atol=1e-4)
    assert not torch.allclose(b, other(x, y, count - 1), atol=1e-3), "another mask and other positions"
    mine.last.slots = (("scale", "shift"),)
    assert not torch.allclose(ours(x, y), b, atol=1e-3), "shift and scale of the last norm are one another's"
    mine.last.slots = (("shift", "scale"),)
    assert torch.allclose(ours(x, y), b, atol=1e-5)
    for block in mine.blocks:
        block.attention.op.rope = PrecomputedRoPE()
    assert not torch.allclose(ours(x, y), b, atol=1e-3), "positions that turn adjacent channels"


def test_ernie_image_s_layouts_are_one() -> None:
    """The single file has diffusers' names under a prefix."""
    state, mine = dict(an_ernie_image().state_dict()), tiny_ernie_image()
    file = {f"model.diffusion_model.{name}": value for name, value in state.items()}
    assert architectures.load_published(mine, file) == "diffusers"
    assert torch.equal(mine.trunk.weight, state["adaLN_modulation.1.weight"])
    with pytest.raises(architectures.WeightsError, match="not weights of krea2.*they look like ernie-image"):
        architectures.load_published(tiny_krea2(), file)
    with pytest.raises(ValueError, match="captions are padded at the end"):
        p = prompts(12)
        mine(gaussian(2, 8, 4, 4), torch.ones(2), p._replace(mask=p.mask.flip(1)))
