"""The values that variants chose, as the file that a matrix names under `tuned`: which value, and where it comes from.

adaln-zero task=bind: {train.lr: 0.002}    of one point of the other axes
adaln-zero: {train.lr: 0.003}              of all of them together, where a point has no entry
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.findings.ladder import Choice, choices, outermost
from bench.findings.words import number
from bench.store.metrics import Measurement
from bench.store.table import Table


def together(chosen: Sequence[Choice]) -> dict[Any, float]:
    """Value -> the geometric mean of a metric over several points, the best first.

    Empty where no value was tried at each of them, or a mean has no logarithm.
    """
    shared = set.intersection(*(set(one.means) for one in chosen))
    if any(mean <= 0 for one in chosen for mean in one.means.values()):
        return {}
    means = {value: statistics.geometric_mean(one.means[value] for one in chosen) for value in shared}
    higher = Measurement.parse(chosen[0].metric).better == "higher"
    return dict(sorted(means.items(), key=lambda one: one[1], reverse=higher))


def tuned_file(table: Table, command: str, *, one_each: bool = False) -> tuple[str, list[str]]:
    """The text of the file, and warnings: of variants that chose an end of the range, or nothing.

    Args:
        table: of a matrix with `choose`.
        command: that writes the file.
        one_each: one value a variant, over all points of the other axes together, and none of a point.

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
        several = own[0].name != variant
        means = together(own) if several else {}
        for one in own if not (one_each and several) else []:
            lines += _entry(one.name, axis, one.value, one.edge, _tried(one.means))
            warnings += [_beyond(one.name, axis, one.value)] if one.edge else []
        if means:
            best = next(iter(means))
            edge = best in outermost(config["axes"][axis])
            lines += _entry(variant, axis, best, edge, f"{_tried(means)} over {len(own)} points")
            warnings += [_beyond(variant, axis, best)] if edge and one_each else []
        elif one_each and several:
            warnings.append(f"{variant} has no value of {axis} that every point has a mean above 0 at")
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


def _tried(means: Mapping[Any, float]) -> str:
    return ", ".join(f"{value} {number(means[value], 4)}" for value in sorted(means))


def _beyond(name: str, axis: str, value: Any) -> str:
    return f"{name} chose an end of the range, {axis} {value}: a better value may lie beyond"
