"""Whether one variant is better than another, and how sure one can be. Imports no torch.

Two cells of one seed share initial weights, images, noise and times. In tables of images variants are compared by the
differences of their seeds, d_s = a_s - b_s, with the t-interval of their mean (a bootstrap over three seeds covers far
less than it claims: `tests/test_compare.py` measures both). Tasks, where seeds were measured to be no pairs, and claims
that say so are compared with a pooled variance: `bench.findings.peers` says which rule, `bench.findings.contrasts` how.

A verdict needs two things: the interval, at Holm's level over all that is compared at once, holds no zero; and the gap
is wider than the metric's margin. Rates and times are compared within a run alone, peaks of memory within a machine:
what else a machine did in another hour is no property of a scheme.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.config.claim import ERRORS
from bench.findings import peers as peering
from bench.findings.contrasts import Rule
from bench.findings.difference import HEADINGS, Difference, lines, mark, verdict
from bench.findings.mastery import CUT, cut_early
from bench.findings.origins import origins, same_code
from bench.findings.statistics import LEVEL, holm, interval, levels, paired_p
from bench.findings.summary import VariantSummary, columns, find_row, summaries
from bench.findings.unpaired import undecided, unpaired
from bench.store.metrics import MASTERED, UNTIL, Measurement
from bench.store.table import Table

__all__ = ["HEADINGS", "Difference", "compare", "difference", "lines", "verdict"]
APART = "timed in different runs"
MACHINES = "measured on different machines"
LOSSES = "losses of different targets are different quantities"
IMAGES = "on different images, whose errors have no common scale"


# --- two variants -----------------------------------------------------------------------------------------------------


def compare(table: Table, a: str, b: str, metrics: Sequence[str] | None = None) -> list[Difference]:
    """Variant `a` against `b`, rows of the table, with Holm's correction over all metrics that are compared.

    These are the metrics that both have, or those named.

    Raises:
        ValueError: for a row that the table has not, with the nearest.
    """
    rows = summaries(table)
    ours, theirs = find_row(rows, a), find_row(rows, b)
    rule, beside = peering.rule_of(table), peering.peers(rows, ours, theirs)
    keys = metrics or shared_metrics(ours, theirs)
    return judged([difference(ours, theirs, key, rule, beside) for key in keys])


def comparable(table: Table, a: str, b: str) -> list[str]:
    """Metrics that are compared and that either row has a number of."""
    rows = summaries(table)
    return shared_metrics(find_row(rows, a), find_row(rows, b))


def shared_metrics(a: VariantSummary, b: VariantSummary) -> list[str]:
    """The same of two rows."""
    return [key for key in dict.fromkeys([*a.by_seed, *b.by_seed]) if Measurement.parse(key).compared]


def difference(
    a: VariantSummary, b: VariantSummary, key: str, rule: Rule = "paired", beside: Sequence[VariantSummary] = ()
) -> Difference:
    """One metric, before any verdict.

    Args:
        a: a row.
        b: the row it is compared with.
        key: of the metric.
        rule: how they are compared.
        beside: all rows of the comparison, a and b among them, over which a variance is pooled.
    """
    ours, theirs = a.by_seed.get(key, {}), b.by_seed.get(key, {})
    seeds = tuple(sorted(ours.keys() & theirs.keys() if rule == "paired" else ours.keys() | theirs.keys()))
    why = apart(a, b, seeds, key)
    if ours and theirs and seeds and (rule != "paired" or _unpaired(key)):
        named = Difference(key, a.name, b.name, seeds, math.nan, math.nan, math.nan, why=why, unlike=bool(why))
        return unpaired(named, a, b, beside or [a, b], rule)
    if rule != "paired":
        seeds = ()
    if not seeds:
        return Difference(key, a.name, b.name, (), math.nan, math.nan, math.nan, why=_missing(a, b, key))
    left, right = [ours[s] for s in seeds], [theirs[s] for s in seeds]
    gaps = [x - y for x, y in zip(left, right, strict=True)]
    least = math.sqrt(2 * peering.floor(Measurement.parse(key)))
    bounds, spread = interval(gaps, least=least), max(least, statistics.stdev(gaps)) if len(gaps) > 1 else 0.0
    return Difference(
        key, a.name, b.name, seeds, statistics.fmean(left), statistics.fmean(right), statistics.fmean(gaps),
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        p=None if why else paired_p(gaps, least),
        effect=statistics.fmean(gaps) / spread if spread else None,
        why=why,
        unlike=bool(why),
        gaps=tuple(gaps),
        least=least,
    )  # fmt: skip


def _unpaired(key: str) -> bool:
    """Whether a metric has no pairs in any table: a ratio of errors or images, and whether a run mastered its task."""
    metric = Measurement.parse(key).metric
    return metric.log or metric.kind == MASTERED


def apart(a: VariantSummary, b: VariantSummary, seeds: Sequence[int], *keys: str) -> str:
    """Why these metrics of two rows are not to be compared; empty where they may be.

    `APART` where one is a rate or a time of different runs, as of a cell that an earlier matrix had trained; `MACHINES`
    where one is a peak of memory of different machines; `LOSSES` where one is a validation loss of different targets;
    `IMAGES` where one is an error on different images; `CUT` where one is a time that a smaller budget cut off.
    Seeds 0 and 1 of both rows in one run and seed 2 of both in another may be compared.
    """
    metrics = [Measurement.parse(key).metric for key in keys]
    if any(one.kind.startswith("heldout_loss") for one in metrics) and _loss(a) != _loss(b):
        return LOSSES
    if any(one.kind.startswith(ERRORS) for one in metrics) and _unlike(a, b):
        return IMAGES
    if any(one.kind == UNTIL for one in metrics) and cut_early(a, b):
        return CUT
    if any(one.timed for one in metrics) and _differ(a.runs, b.runs, seeds):
        return APART
    if any("_bytes" in one.kind for one in metrics) and _differ(a.machines, b.machines, seeds):
        return MACHINES
    return ""


def _loss(row: VariantSummary) -> set[tuple[Any, ...]]:
    """What the loss of a row is of: its process and target, and what an image's weight is clamped at."""
    given = [one.config.get("train") for one in row.results.values()]
    trains = [one if isinstance(one, dict) else {} for one in given]  # a damaged file has anything
    targets = [(one.get("process", "flow"), one.get("target", "velocity"), one.get("clamp")) for one in trains]
    return {(process, target, clamp if target == "data" else None) for process, target, clamp in targets}


def _unlike(a: VariantSummary, b: VariantSummary) -> bool:
    """Whether two rows are measured on different images: by their configs, and by digests, as a folder may be moved."""
    return a.images != b.images and not (a.contents and a.contents == b.contents)


def _differ(a: Mapping[int, str], b: Mapping[int, str], seeds: Sequence[int]) -> bool:
    """Whether two rows are of several places, and not seed by seed of the same."""
    ours, theirs = ({seed: one[seed] for seed in seeds if seed in one} for one in (a, b))
    return len({*ours.values(), *theirs.values()}) > 1 and ours != theirs


def together(rows: Sequence[VariantSummary], key: str) -> bool:
    """Whether a metric of all these rows may be compared, by the rule of `apart`."""
    known = [row for row in rows if row.results]
    return not any(apart(row, known[0], sorted({*row.runs, *known[0].runs}), key) for row in known[1:])


def judged(pairs: Sequence[Difference]) -> list[Difference]:
    """The same with verdicts, Holm's correction over all of them."""
    ps = [one.p for one in pairs]
    found = zip(pairs, holm(ps), levels(ps), strict=True)
    return [decided(replace(one, corrected=p), LEVEL if level is None else level) for one, p, level in found]


def decided(one: Difference, level: float = LEVEL) -> Difference:
    """A difference with its corrected p, and the verdict that follows; `level` is what Holm's correction leaves it."""
    if one.why:
        return one
    if one.corrected is None:
        return replace(one, why="one seed shows no spread")
    if one.higher is None:
        return replace(one, why="no difference")
    metric = Measurement.parse(one.metric)
    if metric.metric.margin and abs(one.relative) <= metric.metric.margin:
        return replace(one, why=f"a gap of {abs(one.relative):.1%}, under the {metric.metric.margin:.1%} of seed noise")
    if one.corrected > LEVEL:
        if one.exact or one.contrast is not None:
            return undecided(one, level)
        return replace(one, why=f"p {one.corrected:.2g} after Holm", level=LEVEL)
    good = one.higher == (metric.better == "higher")
    return replace(one, verdict="better" if good else "worse")


def _missing(a: VariantSummary, b: VariantSummary, key: str) -> str:
    """Why no seed has the metric in both rows: another number of images, or no finished cell."""
    one = replace(Measurement.parse(key), count=0)
    made = [sorted(k for k in row.by_seed if replace(Measurement.parse(k), count=0) == one) for row in (a, b)]
    if one.made_by and all(made) and made[0] != made[1]:
        return f"made of unequal numbers of images: {', '.join(made[0])} and {', '.join(made[1])}"
    short = [row.name for row in (a, b) if not row.results]
    if short:
        return f"{' and '.join(short)} has no finished cell"
    lacking = [row.name for row in (a, b) if not row.by_seed.get(key)]
    return f"{' and '.join(lacking)} has no {key}" if lacking else "no seed is finished in both"


def caveats(table: Table, *names: str) -> list[str]:
    """What a reader must know of the rows compared: cells without a result, uncommitted changes, several commits."""
    rows = summaries(table)
    cells = [cell for name in names for cell in find_row(rows, name).cells]
    text = [
        f"{cell.row.name} seed {cell.row.seed}: {cell.status}{': ' + cell.reason if cell.reason else ''}"
        for cell in cells
        if cell.result is None
    ]
    return text + origins(cells, same=same_code(table))


# --- a whole matrix ---------------------------------------------------------------------------------------------------


def baseline(table: Table, rows: Sequence[VariantSummary] | None = None) -> str:
    """The row that others are compared with: the config's `baseline`, or the first scheme; of a variant its first row.

    Raises:
        ValueError: if there is no such row.
    """
    rows = rows or summaries(table)
    name = table.manifest["config"].get("baseline") or [*peering.schemes(rows), *rows][0].name
    if peering.of_variant(table):
        return next(row.name for row in rows if row.cells[0].row.variant == name)
    return find_row(rows, name).name


def against(table: Table, rows: Sequence[VariantSummary] | None = None) -> dict[str, list[Difference]]:
    """Every other scheme against the baseline on the metrics of the table, Holm's correction over the whole matrix.

    Arms are no schemes: they are in no family and lend no variance.

    In a matrix of tasks each row is compared with the baseline on the same task, and Holm corrects over a metric of
    that task: of 18 metrics of other questions none makes a gap undecided that a claim supports. A baseline that is a
    variant is that variant at each point of the axes, so that sizes are compared within a size.
    """
    rows = rows or summaries(table)
    base, rule = find_row(rows, baseline(table, rows)), peering.rule_of(table)
    metrics = [column.key for column in columns(rows) if column.better]
    by_row: dict[str, list[Difference]] = {}
    for learners in peering.groups(table, rows):
        own = base if any(row is base for row in learners) else peering.twin(table, learners, base)
        if own is None:
            continue
        group = peering.schemes(learners, own)
        others = [row for row in group if row is not own]
        for family in [[key] for key in metrics] if peering.of_tasks(table) else [metrics]:
            for one in judged([difference(row, own, key, rule, group) for row in others for key in family]):
                by_row.setdefault(one.a, []).append(one)
    return by_row


def base_name(table: Table, rows: Sequence[VariantSummary]) -> str:
    """The baseline for people: its variant, where each task has its own."""
    base = find_row(rows, baseline(table, rows))
    return base.cells[0].row.variant if len(peering.groups(table, rows)) > 1 else base.name


def how(table: Table) -> str:
    """How rows are compared, for the text beside a table."""
    return {
        "paired": "paired by seed",
        "pooled": "variance pooled over all rows (of a task), Welch's where variances differ",
        "welch": "Welch's intervals",
    }[peering.rule_of(table)]


def verdict_table(base: str, verdicts: dict[str, list[Difference]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text: ▲ better, ▼ worse or · undecided than the baseline, for every row and metric.

    With the gap, as a share where the metric has one. Nothing with a single row or a single seed: those decide nothing.
    """
    every = [one for row in verdicts.values() for one in row]
    if not any(len(one.seeds) > 1 for one in every):
        return [], []
    metrics = list(dict.fromkeys(one.metric for one in every if one.seeds))
    headings = [f"against {base}", *(Measurement.parse(key).heading for key in metrics)]
    by_metric = {name: {one.metric: one for one in row} for name, row in verdicts.items()}
    return headings, [[name, *(mark(row[key]) for key in metrics)] for name, row in by_metric.items()]
