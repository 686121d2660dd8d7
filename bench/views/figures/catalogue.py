"""Which figures there are, in the report's order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.findings.analysis import Analysis
from bench.views.figures import adherence, capability, dynamics, quality, samples
from bench.views.figures.style import FigureSpec

FIGURES: tuple[FigureSpec, ...] = (
    capability.CAPABILITY,
    capability.CAPABILITY_NARROW,
    capability.EVERY_LEVEL,
    capability.CONTROL,
    capability.LEARNING,
    quality.QUALITY_COST,
    adherence.PLANE,
    adherence.ATTRIBUTE_BARS,
    adherence.GUIDANCE,
    adherence.SWAP,
    samples.SAMPLES,
    samples.TRAINING,
    dynamics.LOSS,
    quality.VALIDATION,
    quality.LADDER,
    dynamics.OPENING,
    dynamics.GATES,
    dynamics.GATES_BY_TIME,
    dynamics.SCALES_BY_TIME,
    dynamics.GRADIENTS,
    quality.PARAMETERS,
)


MOST_ROWS = 40  # of a figure: more lines and names cannot be read, and take minutes


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        file: name of its PNG.
        data: the numbers it shows, a row a point; empty for images.
    """

    file: str
    title: str
    caption: str
    png: bytes
    data: list[dict[str, Any]]


def plot_all(
    analysis: Analysis, kept: Path | None = None, note: Callable[[str], None] = lambda text: None
) -> list[Figure]:
    """Every figure that the results hold something for. One that cannot be plotted ends no report.

    Args:
        analysis: of the matrix.
        kept: a record's folder, whose images are shown where those they are made of are not there.
        note: called with a sentence for each figure that is left out, or not whole.
    """
    figures, whole = [], analysis
    if len(analysis.rows) > MOST_ROWS:
        every, analysis = len(analysis.rows), _first_rows(analysis)
        note(f"Figures show the first {len(analysis.rows)} of {every} rows, the baseline among them; tables show all.")
    for spec in FIGURES:
        try:
            plot = spec.plot(whole if spec.whole else analysis)
        except Exception as error:  # probes of another version, a broken font, ...: the tables are written all the same
            if os.environ.get("DITBENCH_DEBUG"):
                raise
            note(f"Figure left out: {spec.title} ({type(error).__name__}: {' '.join(str(error).split())[:200]}).")
            continue
        if plot is None and kept is not None and (kept / spec.file).is_file():
            plot = (kept / spec.file).read_bytes(), []
        if plot is not None:
            figures.append(Figure(spec.file, spec.title, spec.caption, *plot))
    for damaged in samples.damaged(analysis):
        note(f"Left out of the figures of samples: {damaged}.")
    return figures


def _first_rows(analysis: Analysis) -> Analysis:
    """The part of an analysis that a figure can show."""
    kept = {analysis.baseline, *(row.name for row in analysis.rows[: MOST_ROWS - 1])}
    cells = [cell for cell in analysis.table.cells if cell.row.name in kept]
    return replace(
        analysis,
        table=replace(analysis.table, cells=cells),
        rows=[row for row in analysis.rows if row.name in kept],
        ladders=analysis.ladders[:MOST_ROWS],
    )
