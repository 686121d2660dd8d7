"""Whether one variant is better than another, and how sure one can be. Needs no torch.

Two cells of one seed share first weights, pictures, noise and times, so variants are compared by the differences of
their seeds, d_s = a_s - b_s, with the t-interval of their mean. The bootstrap over seeds is there too, but with three
seeds it covers far less than it says (`tests/test_compare.py` measures both).

A verdict needs two things: the interval, at Holm's level over all that is compared at once, holds no zero; and the gap
is wider than the metric's margin. Rates and times are compared within a run alone: what else a machine did in another
hour is no property of a scheme. FID of one and the same model varies by 1 to 2 % from training seed to training seed
(Dufour, Efros, Perez 2026, arXiv 2606.20536), so gaps under 1.3 % of it are undecided whatever the interval says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from architectures import nearest
from bench.findings.analysis import columns, half_width, summaries
from bench.store.folders import name_of
from bench.store.metrics import Measurement, numbers
from bench.store.table import CellRecord, Table

Word = Literal["better", "worse", "undecided"]
LEVEL = 0.05
MOST_SEEDS = 1000
APART = "timed in different runs"


@dataclass(frozen=True)
class Difference:
    """Variant `a` against `b` on one metric.

    Attributes:
        seeds: that both finished. mean_a, mean_b: over these seeds.
        gap: mean of a - b; low, high: its 95 % interval, not corrected; None for fewer than two seeds.
        p: of a paired t-test; corrected: after Holm. effect: gap over the standard deviation of the differences.
        verdict: of `a`. why: in words, where it is undecided. more: further seeds that would decide if mean and spread
            of the differences stay as they are; None if none would, or it is decided.
    """

    metric: str
    a: str
    b: str
    seeds: tuple[int, ...]
    mean_a: float
    mean_b: float
    gap: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    effect: float | None = None
    verdict: Word = "undecided"
    why: str = ""
    more: int | None = None

    @property
    def relative(self) -> float:
        """The gap as a share of b's mean."""
        if not self.gap:
            return 0.0
        return self.gap / abs(self.mean_b) if self.mean_b else math.copysign(math.inf, self.gap)


# --- intervals --------------------------------------------------------------------------------------------------------


def interval(
    values: Sequence[float], level: float = LEVEL, method: Literal["t", "bootstrap"] = "t"
) -> tuple[float, float] | None:
    """A (1 - level) interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    if statistics.stdev(values) == 0:
        return mean, mean
    if method == "bootstrap":
        import numpy as np
        from scipy.stats import bootstrap

        told = bootstrap(
            (np.asarray(values),), np.mean, confidence_level=1 - level, n_resamples=2000, method="percentile",
            random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        return float(told.low), float(told.high)
    half = half_width(values, level)
    return mean - half, mean + half


def paired_p(differences: Sequence[float], least: float = 0.0) -> float | None:
    """Two-sided p of a paired t-test; None for fewer than two. `least`: the spread is at least this."""
    n = len(differences)
    if n < 2:
        return None
    mean, spread = statistics.fmean(differences), max(least, statistics.stdev(differences))
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(mean) * n**0.5 / spread, n - 1))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values corrected for all that are compared at once (Holm 1979); None stays and does not count."""
    order = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, k) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[k] = largest
    return corrected


def more_seeds(differences: Sequence[float], level: float = LEVEL) -> int | None:
    """How many more seeds an interval without zero would take, not corrected for anything else, if mean and spread
    stay; None beyond `MOST_SEEDS`."""
    if len(differences) < 2 or not (mean := abs(statistics.fmean(differences))):
        return None
    import numpy as np
    from scipy.stats import t

    n = np.arange(len(differences), MOST_SEEDS)
    enough = t.ppf(1 - level / 2, n - 1) * statistics.stdev(differences) / np.sqrt(n) < mean
    return int(enough.argmax()) if enough.any() else None


def hope(more: int) -> str:
    """`more_seeds` in words."""
    return f"{more} more seed{'s' if more > 1 else ''} would decide it alone, if mean and spread stay"


# --- two variants -----------------------------------------------------------------------------------------------------


def compare(table: Table, a: str, b: str, metrics: Sequence[str] | None = None) -> list[Difference]:
    """Variant `a` against `b`, rows of the table, on every metric that has a better direction (or on those named), with
    Holm's correction over all of them.

    Raises:
        ValueError: for a row or metric that the table has not, with the nearest.
    """
    pairs = [difference(table, a, b, key) for key in (metrics or comparable(table, a, b))]
    return judged(pairs)


def comparable(table: Table, a: str, b: str) -> list[str]:
    """Metrics with a direction that either row has a number of, in the order of the table."""
    cells = [cell for name in (a, b) for cell in _row(table, name)]
    keys = dict.fromkeys(key for cell in cells if cell.result for key in numbers(cell.result))
    return [key for key in keys if Measurement.parse(key).compared]


def difference(table: Table, a: str, b: str, key: str) -> Difference:
    """One metric, before any verdict."""
    ours, theirs = (_by_seed(_row(table, name), key) for name in (a, b))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return Difference(key, a, b, (), math.nan, math.nan, math.nan, why=_missing(table, a, b, key))
    left, right = [ours[s] for s in seeds], [theirs[s] for s in seeds]
    gaps = [x - y for x, y in zip(left, right, strict=True)]
    why = apart(table, a, b, seeds, key)
    bounds, spread = interval(gaps), statistics.stdev(gaps) if len(gaps) > 1 else 0.0
    return Difference(
        key, a, b, seeds, statistics.fmean(left), statistics.fmean(right), statistics.fmean(gaps),
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        p=None if why else paired_p(gaps),
        effect=statistics.fmean(gaps) / spread if spread else None,
        why=why,
        more=more_seeds(gaps),
    )  # fmt: skip


def apart(table: Table, a: str, b: str, seeds: Sequence[int], *keys: str) -> str:
    """`APART` where one of these metrics is a rate or a time, and a seed of the two rows was measured in different runs
    (as a cell is that an earlier matrix had trained); else nothing."""
    if not any(Measurement.parse(key).metric.timed for key in keys):
        return ""
    runs = [{c.row.seed: c.result.provenance.get("command") for c in _row(table, name) if c.result} for name in (a, b)]
    return APART if any(runs[0].get(seed) != runs[1].get(seed) for seed in seeds) else ""


def judged(pairs: Sequence[Difference]) -> list[Difference]:
    """The same with verdicts, Holm's correction over all of them."""
    return [_judge(replace(one, corrected=p)) for one, p in zip(pairs, holm([one.p for one in pairs]), strict=True)]


def _judge(one: Difference) -> Difference:
    if one.why:
        return replace(one, more=None)
    if len(one.seeds) < 2:
        return replace(one, why="one seed shows no spread", more=None)
    assert one.corrected is not None
    if one.gap == 0:
        return replace(one, why="no difference", more=None)
    margin = Measurement.parse(one.metric).metric.margin
    if abs(one.relative) <= margin:
        said = f"a gap of {abs(one.relative):.1%}, under the {margin:.1%} of seed noise"
        return replace(one, why=said, more=None)
    if one.corrected > LEVEL:
        return replace(one, why=f"p {one.corrected:.2g} after Holm")
    good = (one.gap > 0) == (Measurement.parse(one.metric).better == "higher")
    return replace(one, verdict="better" if good else "worse", more=None)


def _row(table: Table, name: str) -> list[CellRecord]:
    found = [cell for cell in table.cells if name_of(cell.row) == name]
    if not found:
        known = [row.name for row in summaries(table)]
        hint = nearest(name, known, f": choose from {', '.join(known)}")
        raise ValueError(f"matrix {table.name!r} has no row {name!r}{hint}")
    return found


def _by_seed(cells: list[CellRecord], key: str) -> dict[int, float]:
    told = {cell.row.seed: numbers(cell.result) for cell in cells if cell.result is not None}
    return {seed: values[key] for seed, values in told.items() if key in values}


def _missing(table: Table, a: str, b: str, key: str) -> str:
    """Why no seed has the metric in both rows: another number of pictures, or no finished cell."""
    one = replace(Measurement.parse(key), count=0)
    counts = {
        name: sorted(
            {
                k
                for cell in _row(table, name)
                if cell.result
                for k in numbers(cell.result)
                if replace(Measurement.parse(k), count=0) == one
            }
        )
        for name in (a, b)
    }
    if one.made_by and counts[a] and counts[b] and counts[a] != counts[b]:
        return f"made of unequal numbers of images: {', '.join(counts[a])} and {', '.join(counts[b])}"
    short = [name for name in (a, b) if not any(cell.result for cell in _row(table, name))]
    if short:
        return f"{' and '.join(short)} has no finished cell"
    lacking = [name for name in (a, b) if not _by_seed(_row(table, name), key)]
    return f"{' and '.join(lacking)} has no {key}" if lacking else "no seed is finished in both"


def caveats(table: Table, *names: str) -> list[str]:
    """What a reader must know of the rows compared: cells without a result, uncommitted changes, several commits."""
    cells = [cell for name in names for cell in _row(table, name)]
    said = [
        f"{name_of(cell.row)} seed {cell.row.seed}: {cell.status}{': ' + cell.reason if cell.reason else ''}"
        for cell in cells
        if cell.result is None
    ]
    return said + origins(cells)


def origins(cells: Sequence[CellRecord]) -> list[str]:
    """What speaks against comparing cells by where they come from."""
    said, told = [], [cell.result.provenance for cell in cells if cell.result]
    if any(p.get("dirty") for p in told):
        said.append("measured with uncommitted changes")
    commits = sorted({str(p.get("commit", "unknown"))[:8] for p in told})
    if len(commits) > 1:
        said.append(f"measured at different commits: {', '.join(commits)}")
    machines = sorted({str(p.get("hardware", {}).get("gpu") or p.get("hardware", {}).get("cpu")) for p in told})
    if len(machines) > 1:
        said.append(f"measured on different machines: {', '.join(machines)}; costs cannot be compared")
    return said


# --- as text ----------------------------------------------------------------------------------------------------------


def lines(found: Sequence[Difference]) -> list[list[str]]:
    """A row of words each: metric, a, b, gap with its interval, share, effect, seeds, verdict."""
    return [
        [
            Measurement.parse(one.metric).heading,
            _number(one, one.mean_a),
            _number(one, one.mean_b),
            _number(one, one.gap)
            + (f" [{_number(one, one.low)}, {_number(one, one.high)}]" if one.low is not None else ""),
            f"{one.relative:+.1%}" if one.seeds and Measurement.parse(one.metric).metric.relative else "",
            f"{one.effect:+.1f}" if one.effect is not None else "",
            str(len(one.seeds)),
            verdict(one),
        ]
        for one in found
    ]


HEADINGS = ("metric", "{a}", "{b}", "gap (95 %)", "of {b}", "effect", "seeds", "verdict on {a}")


def verdict(one: Difference) -> str:
    """The verdict with what a reader asks next: why not, and how many more seeds."""
    if one.verdict != "undecided":
        return one.verdict
    more = f"; {hope(one.more)}" if one.more else ""
    return f"undecided: {one.why}{more}"


def _number(one: Difference, value: float | None) -> str:
    """A value as the table of means would write it, or to four digits."""
    if value is None or math.isnan(value):
        return ""
    metric = Measurement.parse(one.metric).metric
    if metric.unit or metric.timed:
        return metric.write(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


# --- a whole matrix ---------------------------------------------------------------------------------------------------


def baseline(table: Table) -> str:
    """The row that others are compared with: the config's `baseline`, or the first.

    Raises:
        ValueError: if there is no such row.
    """
    wanted = table.manifest["config"].get("baseline")
    rows = [row.name for row in summaries(table)]
    if wanted:
        _row(table, wanted)
    return wanted or rows[0]


def against(table: Table) -> dict[str, list[Difference]]:
    """Every other row against the baseline on the metrics of the table, Holm's correction over the whole matrix."""
    base = baseline(table)
    rows = summaries(table)
    metrics = [column.key for column in columns(rows) if column.better]
    pairs = judged([difference(table, row.name, base, key) for row in rows if row.name != base for key in metrics])
    found: dict[str, list[Difference]] = {}
    for one in pairs:
        found.setdefault(one.a, []).append(one)
    return found


MARKS = {"better": "▲", "worse": "▼", "undecided": "·"}


def verdict_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of words: for every row and metric ▲ better, ▼ worse or · undecided than the baseline, and the
    gap, as a share where the metric has one. Nothing with a single row or a single seed: of those nothing can be said.
    """
    found = against(table)
    if not found or not any(len(one.seeds) > 1 for row in found.values() for one in row):
        return [], []
    metrics = list(dict.fromkeys(one.metric for row in found.values() for one in row if one.seeds))
    headings = [f"against {baseline(table)}", *(Measurement.parse(key).heading for key in metrics)]
    rows = []
    for name, row in found.items():
        told = {one.metric: one for one in row}
        rows.append([name, *(_mark(told[key]) for key in metrics)])
    return headings, rows


def _mark(one: Difference) -> str:
    if not one.seeds:
        return ""
    if not Measurement.parse(one.metric).metric.relative:
        return f"{MARKS[one.verdict]} {one.gap:+.3f}"
    return MARKS[one.verdict] + (f" {one.relative:+.1%}" if math.isfinite(one.relative) else "")
