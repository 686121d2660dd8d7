"""Heat maps of depth, whose places are given to them: nothing lies over anything; and how a figure becomes its PNG."""

from __future__ import annotations

import io
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from bench.views.figures import dynamics
from bench.views.figures.style import DPI, canvas, render


def analysis(maps: int, rows: list[str]) -> Any:
    values = [[0.1 * k for k in range(11)] for _ in rows]
    probe = {"steps": [0, *(2**k for k in range(10))], "rows": rows, "values": values}
    cell = SimpleNamespace(result=SimpleNamespace(probes={"dynamics": {"gate": probe}}))
    return SimpleNamespace(first_cells={f"shared-modulation task=scene level=hard {k}": cell for k in range(maps)})


@pytest.mark.parametrize("maps", [1, 5, 40])
@pytest.mark.parametrize("blocks", [1, 28])
@pytest.mark.parametrize("name", ["mlp", "text_attention"])
def test_axes_names_and_the_bar_have_places_of_their_own(
    maps: int, blocks: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Figure] = []

    def kept(figure: Figure) -> bytes:
        seen.append(figure)
        return b"png"

    monkeypatch.setattr(dynamics, "render", kept)
    assert dynamics.depth_maps(analysis(maps, [f"block{k:02d}.{name}" for k in range(blocks)]), "gate")
    figure = seen[0]
    figure.savefig(io.BytesIO())
    found = [axis.get_tightbbox(for_layout_only=True) for axis in figure.axes if axis.axison]
    boxes = [box for box in found if box is not None]
    assert len(boxes) == maps + 1
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, box
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, box
    apart = [not one.overlaps(other) for one, other in combinations(boxes, 2)]
    plt.close(figure)
    assert all(apart), f"{apart.count(False)} pairs lie over each other"


def test_a_figure_is_what_matplotlib_saves() -> None:
    """Which renders it twice, for the same bytes."""

    def plotted() -> Figure:
        figure, axis = canvas(4, 3)
        axis.plot([1, 2], [3, 5], label="x")
        axis.set(xlabel="step", ylabel="loss", title="of a cell")
        axis.legend()
        return figure

    saved = io.BytesIO()
    plotted().savefig(saved, format="png", dpi=DPI, metadata={"Software": "ditbench"})
    assert render(plotted()) == saved.getvalue()
    plt.close("all")
