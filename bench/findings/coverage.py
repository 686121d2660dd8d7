"""How much of a matrix its cells are: which seeds are whole, and what is missing, in words. Imports no torch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.findings.words import counted, seeds
from bench.store.table import CellRecord, Table

ENDED = ("done", "diverged")  # what a cell came to that is a finding


def missing(table: Table) -> list[CellRecord]:
    """The cells that a matrix lacks; one that diverged is there."""
    return [cell for cell in table.cells if cell.status not in ENDED]


def whole(table: Table) -> set[int]:
    """The seeds of which every cell ended."""
    return {cell.row.seed for cell in table.cells} - {cell.row.seed for cell in missing(table)}


def has_spread(table: Table) -> bool:
    """Whether two seeds or more are whole: a mean of fewer is not shown as one."""
    return len(whole(table)) > 1


def coverage(table: Table) -> str:
    """Which seeds are whole and what is missing, as `seeds 0, 1 are whole; 918 cells of seeds 2, 3 were not run`.

    Empty where every cell ended and no seed was left out.
    """
    return "; ".join([*_incomplete(table), *_left_out(table.manifest.get("left_out"))])


def _incomplete(table: Table) -> list[str]:
    lacking = missing(table)
    if not lacking:
        return []
    planned, gaps = Counter(cell.row.seed for cell in table.cells), Counter(cell.row.seed for cell in lacking)
    done = whole(table)
    absent = {seed for seed, count in gaps.items() if count == planned[seed]}
    text = [f"{seeds(done)} {'are' if len(done) > 1 else 'is'} whole" if done else "no seed is whole"]
    text += [
        f"seed {seed} has {planned[seed] - gaps[seed]:,} of {counted(planned[seed], 'cell')}"
        for seed in sorted(gaps.keys() - absent)
    ]
    if absent:
        statuses = {cell.status for cell in lacking if cell.row.seed in absent}
        count = sum(gaps[seed] for seed in absent)
        verb = ("was" if count == 1 else "were") + " not run" if statuses == {"planned"} else "without a result"
        text.append(f"{counted(count, 'cell')} of {seeds(absent)} {verb}")
    return text


def _left_out(left: dict[str, Any] | None) -> list[str]:
    if not left:
        return []
    verb = "were" if len(left["seeds"]) > 1 else "was"
    ended = f"{left['ended']:,} of {counted(left['cells'], 'cell')} had ended"
    return [f"{seeds(set(left['seeds']))} {verb} planned too and {verb} left out ({ended})"]


def whole_seeds(table: Table) -> Table:
    """The matrix of those seeds alone of which every cell ended; its manifest says what was left out.

    Raises:
        ValueError: if no seed is whole.
    """
    lacking = {cell.row.seed for cell in missing(table)}
    kept = [cell for cell in table.cells if cell.row.seed not in lacking]
    if not kept:
        raise ValueError(f"no seed of {table.name!r} is whole; run it further, or record it with --allow-partial")
    if not lacking:
        return table
    config = dict(table.manifest["config"])
    config["seeds"] = [seed for seed in config.get("seeds", []) if seed not in lacking]
    cells = [row for row in table.manifest["cells"] if row["seed"] not in lacking]
    others = [cell for cell in table.cells if cell.row.seed in lacking]
    ended = sum(cell.status in ENDED for cell in others)
    left = {"seeds": sorted(lacking), "cells": len(others), "ended": ended}
    return Table(table.name, kept, table.manifest | {"config": config, "cells": cells, "left_out": left})
