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


def test_the_overview_of_the_readme_is_current() -> None:
    """`make readme` writes it."""
    assert (ROOT / "docs" / "images" / "schemes.svg").read_text(encoding="utf-8") == scheme_figure(SHOWN)
