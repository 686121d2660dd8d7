"""What was equal between the cells of a matrix and what was not, by hashes of what they used. Needs no torch.

Cells are compared at one point of the axes, so that two tasks are no difference; references (`blind`, `oracle`) are
left out of what concerns the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from architectures import few
from bench.findings.origins import run
from bench.findings.summary import ARMS
from bench.findings.words import counted, machine
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
MODELLED = ("data.", "prompt.", "backbone.")  # axes of what a model is and is given
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
    schemes = [cell for cell in cells if not _is_reference(cell)] or cells
    statements = [_hashed(schemes, *one) for one in HASHED]
    statements += [_config(schemes)]
    statements += [_recorded(cells, what, read) for what, read in RECORDED]
    missing = len(table.cells) - len(cells)
    if missing:
        statements.append(Statement("cells", "differs", f"{missing} of {len(table.cells)} have no result"))
    return statements


def _hashed(cells: list[CellRecord], what: str, key: str, by_seed: bool) -> Statement:
    """Whether a hash is one for all cells that should share it: of one point, and `by_seed` of one seed."""
    groups_of: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for cell in cells:
        hashed = _result(cell).provenance.get("digests", {}).get(key)
        if hashed is None:
            return Statement(what, "unknown", f"{cell.row.name} seed {cell.row.seed} holds no hash of it")
        shared = (*_point(cell), *([f"seed {cell.row.seed}"] if by_seed else []))
        groups_of.setdefault(shared, {}).setdefault(hashed, []).append(cell.row.name)
    for shared, groups in groups_of.items():
        if len(groups) > 1:
            where = f" ({', '.join(shared)})" if shared else ""
            odd: list[str] = min(groups.values(), key=len)
            return Statement(what, "differs", f"{few(odd)}{where} and the others have different hashes")
    points, seeds = {_point(cell) for cell in cells}, {cell.row.seed for cell in cells} if by_seed else set()
    parts = [f"{len(points)} points of the axes"] if len(points) > 1 else []
    each = " and ".join([*parts, *([counted(len(seeds), "seed")] if len(seeds) > 1 else [])])
    return Statement(what, "equal", f"one hash for all {len(cells)} cells{f' of each of {each}' if each else ''}")


def _point(cell: CellRecord) -> tuple[str, ...]:
    """Where on its matrix's axes of data, prompt and backbone a cell is: two tasks or widths have nothing to share."""
    return tuple(f"{key} {value}" for key, value in cell.row.axes.items() if key.startswith(MODELLED))


def _is_reference(cell: CellRecord) -> bool:
    """Whether it is `blind` or `oracle`, whose prompts are others on purpose."""
    prompt = _result(cell).config.get("prompt")
    return isinstance(prompt, dict) and prompt.get("arm") in ARMS


def _config(cells: list[CellRecord]) -> Statement:
    """Keys of the resolved config that differ between cells of one point, apart from scheme, options and seed."""
    groups_of: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        kept = {k: v for k, v in _result(cell).config.items() if k not in ("scheme", "options", "seed")}
        groups_of.setdefault(_point(cell), []).append(flat(kept))
    keys = sorted({key for group in groups_of.values() for one in group for key in one})
    differing = {
        key: dict.fromkeys(repr(one.get(key)) for group in groups_of.values() for one in group)
        for key in keys
        if any(len({repr(one.get(key)) for one in group}) > 1 for group in groups_of.values())
    }
    what = "config but for scheme, options and seed"
    if differing:
        return Statement(
            what, "differs", few([f"{key} ({', '.join(sorted(values))})" for key, values in differing.items()], 6)
        )
    each = f" for each of {len(groups_of)} points of the axes" if len(groups_of) > 1 else ""
    return Statement(what, "equal", f"{len(keys)} values{each}")


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
