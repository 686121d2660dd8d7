"""The values that variants chose, as the file that a matrix names under `tuned`: which value, and where it comes from.

adaln-zero task=bind: {train.lr: 0.002}    of one point of the other axes
adaln-zero: {train.lr: 0.003}              of all of them together, where a point has no entry
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench.findings.ladder import Choice, choices
from bench.findings.words import number
from bench.store.metrics import Measurement
from bench.store.table import Table


def together(chosen: Sequence[Choice]) -> tuple[Any, bool] | None:
    """The value that is best over several points, by the mean logarithm of a metric; and whether it is an end.

    None where no value was tried at each of them, or a mean has no logarithm.
    """
    shared = set.intersection(*(set(one.means) for one in chosen))
    if not shared or any(mean <= 0 for one in chosen for mean in one.means.values()):
        return None
    sign = -1 if Measurement.parse(chosen[0].metric).better == "higher" else 1
    best = min(shared, key=lambda value: sign * statistics.fmean(math.log(one.means[value]) for one in chosen))
    return best, best in (min(shared), max(shared))


def tuned_file(table: Table, command: str) -> tuple[str, list[str]]:
    """The text of the file, and warnings: of variants that chose an end of the range, or nothing.

    Args:
        table: of a matrix with `choose`.
        command: that writes the file.

    Raises:
        ValueError: if the matrix chooses nothing, or no cell has a result.
    """
    config, chosen = table.manifest["config"], choices(table)
    axis = config.get("choose")
    if not axis:
        raise ValueError(f"matrix {table.name!r} chooses nothing; give it `choose: train.lr` and an axis of rates")
    if not chosen:
        raise ValueError(f"no variant of {table.name!r} has a value at which every seed has a result")
    by_variant: dict[str, list[Choice]] = {}
    for one in chosen:
        by_variant.setdefault(one.variant, []).append(one)
    lines, warnings = _head(table, axis, chosen[0].metric, command), []
    for variant, own in by_variant.items():
        for one in own:
            tried = ", ".join(f"{value} {number(mean, 4)}" for value, mean in one.means.items())
            lines += _entry(one.name, axis, one.value, one.edge, tried)
            warnings += [_beyond(one.name, axis, one.value)] if one.edge else []
        if own[0].name != variant and (best := together(own)):
            lines += _entry(variant, axis, *best, f"of {len(own)} points together")
    lost = sorted({cell.row.variant for cell in table.cells} - set(by_variant))
    warnings += [f"{name} has no value of {axis} at which every seed has a result" for name in lost]
    return "\n".join(lines) + "\n", warnings


def _head(table: Table, axis: str, metric: str, command: str) -> list[str]:
    results = [cell.result for cell in table.done if cell.result]
    commits = sorted({str(one.provenance.get("commit", "unknown"))[:8] for one in results})
    ended = max(float(one.provenance.get("ended", 0.0)) for one in results)
    seeds = ", ".join(str(seed) for seed in sorted({cell.row.seed for cell in table.cells}))
    values = ", ".join(str(value) for value in table.manifest["config"]["axes"][axis])
    return [
        f"# {axis} of each variant: the best of {values} by {metric}, its mean over seeds {seeds}.",
        f"# Matrix {table.name}, commit {', '.join(commits)}, {time.strftime('%Y-%m-%d', time.gmtime(ended))}.",
        f"# Written by: {command}",
    ]


def _entry(name: str, axis: str, value: Any, edge: bool, why: str) -> list[str]:
    end = "; an end of the range" if edge else ""
    return [f"# {why}{end}", f"{json.dumps(name)}: {{{axis}: {json.dumps(value)}}}"]


def _beyond(name: str, axis: str, value: Any) -> str:
    return f"{name} chose an end of the range, {axis} {value}: a better value may lie beyond"
