"""Figures of schemes: each is read from the built model, so it shows what the facts declare."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import architectures
from bench.views.diagram import figure, read_anatomy
from bench.views.frontpage import SHOWN, scheme_figure

ROOT = Path(__file__).parent.parent
FILM = ROOT / "tests" / "example_plugin" / "ditbench_film.py"


def slots(scheme: str, **options: str) -> list[tuple[str, ...]]:
    """Of every sub-layer of every kind of block."""
    return [part.slots for block in read_anatomy(scheme, **options).blocks for part in block.parts]


@pytest.mark.parametrize("scheme", architectures.schemes())
def test_every_scheme_has_a_figure_that_shows_its_facts(scheme: str) -> None:
    anatomy, facts = read_anatomy(scheme), architectures.describe(scheme).facts
    root = ElementTree.fromstring(figure([anatomy]))
    texts = {"".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")}
    assert scheme in texts
    assert ("timestep" in anatomy.signals) == ("timestep" in str(facts.vector))
    assert (len(anatomy.blocks[0].streams) == 2) == ("dual stream" in str(facts.prompt))


def test_pills_are_those_of_the_heads() -> None:
    assert slots("adaln-zero") == [("shift", "scale", "gate")] * 2
    assert slots("adaln") == [("shift", "scale")] * 2
    assert slots("cross-attention") == [()] * 3
    assert slots("shift-free") == [("scale", "gate")] * 2
    assert slots("adaln-zero", gate="one", modulation="scale") == [("scale",)] * 2
    assert [part.tokens for block in read_anatomy("cross-attention").blocks for part in block.parts] == [
        False,
        True,
        False,
    ]


def pills(scheme: str) -> dict[str, int]:
    """How many pills of each kind the figure shows, its legend left out."""
    root = ElementTree.fromstring(figure([read_anatomy(scheme)], legend=False))
    kinds = [element.get("class", "") for element in root.iter()]
    return {kind: kinds.count(f"pill {kind}") for kind in ("scale", "shift", "gate")}


def test_the_figure_shows_every_pill_once() -> None:
    assert pills("adaln-zero") == {"scale": 2, "shift": 2, "gate": 2}
    assert pills("shift-free") == {"scale": 2, "shift": 0, "gate": 2}
    assert pills("cross-attention") == {"scale": 0, "shift": 0, "gate": 0}
    assert pills("sd3") == {"scale": 4, "shift": 4, "gate": 4}  # two streams of two sub-layers


def test_head_is_inside_or_outside_the_block_by_its_placement() -> None:
    heads = {name: (read_anatomy(name).blocks[0].once, read_anatomy(name).blocks[0].own) for name in SHOWN}
    assert heads["adaln-zero"] == ("", "own head")
    assert heads["shared-modulation"] == ("shared head", "+ own table")
    assert heads["in-context"] == ("", "")
    (low_rank,) = read_anatomy("adaln-zero", head="low-rank(16)").blocks
    assert (low_rank.once, low_rank.own) == ("shared head", "+ own low rank")
    (bottleneck,) = read_anatomy("adaln-zero", head="bottleneck(64)").blocks
    assert (bottleneck.once, bottleneck.own) == ("bottleneck", "own head")


@pytest.mark.usefixtures("forgotten")
def test_the_scheme_of_a_plugin_has_a_figure() -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    if "film" not in architectures.schemes():
        spec = spec_from_file_location("ditbench_film_of_the_diagram", FILM)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        architectures.register("film-of-the-diagram")(module.FiLM)
    name = "film" if "film" in architectures.schemes() else "film-of-the-diagram"
    assert pills(name) == {"scale": 1, "shift": 1, "gate": 0}
    assert read_anatomy(name).blocks[0].once == "shared head"


def test_a_block_without_sublayers_is_one_box_that_receives_c() -> None:
    from torch import nn

    from bench.views.diagram.anatomy import BlockAnatomy, Part, SchemeAnatomy, _block, _Pass

    class MyOwnBlock(nn.Module):
        pass

    block = _block(MyOwnBlock(), _Pass(None, None, {}), ("timestep",), ())
    assert block == BlockAnatomy(((Part("My own block", vector=True),),))
    text = figure([SchemeAnatomy("mine", "-", "modulation", ("timestep",), (), (block,))])
    assert "My own block" in {element.text for element in ElementTree.fromstring(text).iter()}


def test_the_overview_of_the_readme_is_current() -> None:
    """`make readme` writes it."""
    assert (ROOT / "docs" / "images" / "schemes.svg").read_text(encoding="utf-8") == scheme_figure(SHOWN)
