"""What was equal between the cells of a matrix and what was not, by hashes of what they used. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from architectures import few
from bench.findings.origins import run
from bench.findings.words import machine
from bench.store.result import Result
from bench.store.table import CellRecord, Table


@dataclass(frozen=True)
class Statement:
    """One thing: `equal`, `differs` or `unknown`, and the evidence or what differs."""

    what: str
    verdict: str
    detail: str


HASHED = (  # what, where its hash is, whether it may differ between seeds
    ("initial weights of what all schemes have", "initial_backbone_weights", True),
    ("images and prompts of every probed step", "batch", True),
    ("noise, times and dropped prompts of these steps", "chance", True),
    ("training data", "data", False),
    ("prompts", "prompts", False),
)
RECORDED: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("commit", lambda p: p.get("commit")),
    ("hardware", machine),
    ("threads", lambda p: p.get("threads")),
    ("versions of Python and packages", lambda p: str(sorted(p.get("versions", {}).items()))),
    ("run that they were measured in, on which rates depend", run),
    ("seed of evaluation", lambda p: p.get("seeds", {}).get("evaluate")),
    ("extractor, judge and number of images", lambda p: str(sorted(_measured(p).items()))),
)


def _measured(provenance: dict[str, Any]) -> dict[str, Any]:
    kept = ("extractor", "extractor_digest", "judge_digest", "samples", "reference", "rows")
    return {key: provenance.get("measured", {}).get(key) for key in kept}


def statement(table: Table) -> list[Statement]:
    """What was equal and what differed, a line each; nothing without two finished cells."""
    cells = [cell for cell in table.cells if cell.result is not None]
    if len(cells) < 2:
        return []
    statements = [_hashed(cells, *one) for one in HASHED]
    statements += [_config(cells)]
    statements += [_recorded(cells, what, read) for what, read in RECORDED]
    missing = len(table.cells) - len(cells)
    if missing:
        statements.append(Statement("cells", "differs", f"{missing} of {len(table.cells)} have no result"))
    return statements


def _hashed(cells: list[CellRecord], what: str, key: str, by_seed: bool) -> Statement:
    groups_of: dict[int, dict[str, list[str]]] = {}
    for cell in cells:
        hashed = _result(cell).provenance.get("digests", {}).get(key)
        if hashed is None:
            return Statement(what, "unknown", f"{cell.row.name} seed {cell.row.seed} holds no hash of it")
        groups_of.setdefault(cell.row.seed if by_seed else 0, {}).setdefault(hashed, []).append(cell.row.name)
    split = {seed: groups for seed, groups in groups_of.items() if len(groups) > 1}
    if not split:
        number = len(cells)
        each = f" of each of {len(groups_of)} seeds" if by_seed and len(groups_of) > 1 else ""
        return Statement(what, "equal", f"one hash for all {number} cells{each}")
    seed, groups = next(iter(split.items()))
    odd = min(groups.values(), key=len)
    where = f" (seed {seed})" if by_seed else ""
    return Statement(what, "differs", f"{few(odd)}{where} and the others have different hashes")


def _config(cells: list[CellRecord]) -> Statement:
    """Keys of the resolved config that differ, apart from scheme, options and seed."""
    every = [
        flat({k: v for k, v in _result(cell).config.items() if k not in ("scheme", "options", "seed")})
        for cell in cells
    ]
    keys = sorted({key for one in every for key in one})
    differing = {key: {repr(one.get(key)) for one in every} for key in keys}
    differing_text = [f"{key} ({', '.join(sorted(values))})" for key, values in differing.items() if len(values) > 1]
    what = "config but for scheme, options and seed"
    if differing_text:
        return Statement(what, "differs", few(differing_text, 6))
    return Statement(what, "equal", f"{len(keys)} values")


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _recorded(cells: list[CellRecord], what: str, read: Callable[[dict[str, Any]], Any]) -> Statement:
    groups_of: dict[str, list[str]] = {}
    for cell in cells:
        groups_of.setdefault(str(read(_result(cell).provenance)), []).append(cell.row.name)
    if len(groups_of) == 1:
        value = next(iter(groups_of))
        return Statement(what, "equal", value if len(value) < 60 else "the same for all")
    differing_text = [
        f"{value if len(value) < 60 else 'one'} of {few(dict.fromkeys(rows))}" for value, rows in groups_of.items()
    ]
    return Statement(what, "differs", "; ".join(differing_text))


def _result(cell: CellRecord) -> Result:
    assert cell.result is not None
    return cell.result
