"""Whether your numbers lie inside a record's tolerance band. Imports no torch.

Sigma is a metric's spread from seed to seed, pooled over a task's schemes where their variances are equal and the
row's own is no larger than the others', else of the row alone; an arm's is its own. The band is the prediction interval
of the difference between a mean of your n seeds and the record's of N, t sigma sqrt(1/n + 1/N), all bands together at
95 % (Bonferroni). Costs are left out: they are a machine's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from architectures import few
from bench.findings.contrasts import pooled_variance, unequal
from bench.findings.fairness import flat
from bench.findings.peers import groups, sample, samples, schemes
from bench.findings.statistics import LEVEL, quantile
from bench.findings.summary import VariantSummary, columns, summaries
from bench.findings.words import machine, number
from bench.store.metrics import Measurement
from bench.store.table import Table


@dataclass(frozen=True)
class Sigma:
    """Spread of a metric from seed to seed: `value` on the scale compared, its degrees of freedom.

    Attributes:
        rows: over which it is pooled. log: whether it is of logarithms, so that 0.05 is 5 %.
    """

    value: float
    freedom: int
    rows: int
    log: bool


@dataclass(frozen=True)
class Band:
    """One number of yours beside the record's.

    Attributes:
        low, high: of the band, where your mean is expected; None where the record shows no spread.
    """

    row: str
    metric: str
    yours: float
    theirs: float
    seeds: tuple[int, int]
    low: float | None
    high: float | None

    @property
    def inside(self) -> bool | None:
        """Whether it is; None where that is not known."""
        return None if self.low is None or self.high is None else self.low <= self.yours <= self.high


def sigmas(table: Table) -> dict[str, dict[str, Sigma]]:
    """Row -> metric -> sigma, of all compared metrics that are no costs."""
    rows = summaries(table)
    found: dict[str, dict[str, Sigma]] = {row.name: {} for row in rows}
    for group in groups(table, rows):
        keys = {key: Measurement.parse(key) for row in group for key in row.by_seed}
        learn = schemes(group)
        for key, one in keys.items():
            for among in (learn, *([row] for row in group if row not in learn)) if _banded(one) else ():
                for name, sigma in _of_group(one, among).items():
                    found[name][key] = sigma
    return found


def _banded(one: Measurement) -> bool:
    return one.compared and one.metric.section != "cost"


def _of_group(one: Measurement, group: Sequence[VariantSummary]) -> dict[str, Sigma]:
    """Pooled for a row as its verdicts are, else its own."""
    every = samples(one, group)
    peers, found = list(every.values()), {}
    for name, own in every.items():
        among = [own] if own.freedom and unequal([own], peers) else peers
        variance, freedom = pooled_variance(among)
        if freedom:
            found[name] = Sigma(math.sqrt(variance), freedom, sum(row.freedom > 0 for row in among), one.metric.log)
    return found


def bands(yours: Table, record: Table, metrics: Sequence[str] | None = None) -> list[Band]:
    """A band for each row that both have, and each metric, or each of the table's columns.

    Raises:
        ValueError: if they share no row or no metric.
    """
    ours, theirs = ({row.name: row for row in summaries(table)} for table in (yours, record))
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ValueError(f"no row in common: {', '.join(ours)} here and {', '.join(theirs)} in the record")
    keys = metrics or [one.key for one in columns(list(ours.values())) if _banded(one)]
    pairs = [
        (name, key) for name in shared for key in keys if ours[name].values.get(key) and theirs[name].values.get(key)
    ]
    if not pairs:
        raise ValueError("no metric in common: neither of " + (", ".join(keys) or "your columns"))
    known = sigmas(record)
    return [_band(ours[name], theirs[name], key, known[name].get(key), LEVEL / len(pairs)) for name, key in pairs]


def _band(ours: VariantSummary, theirs: VariantSummary, key: str, sigma: Sigma | None, level: float) -> Band:
    one = Measurement.parse(key)
    back = math.exp if one.metric.log else float
    a, b = sample(one, ours.values[key]), sample(one, theirs.values[key])
    seeds = len(a.values), len(b.values)
    if sigma is None:
        return Band(ours.name, key, back(a.mean), back(b.mean), seeds, None, None)
    half = quantile(1 - level / 2, sigma.freedom) * sigma.value * math.sqrt(1 / seeds[0] + 1 / seeds[1])
    return Band(ours.name, key, back(a.mean), back(b.mean), seeds, back(b.mean - half), back(b.mean + half))


# --- as text ----------------------------------------------------------------------------------------------------------

HEADINGS = ("row", "metric", "yours", "record", "band", "")


def lines(found: Sequence[Band]) -> list[list[str]]:
    """A row of text each."""
    words = {True: "inside", False: "OUTSIDE", None: "no spread"}
    return [
        [one.row, _short(one.metric), number(one.yours, 4), number(one.theirs, 4), _ends(one), words[one.inside]]
        for one in found
    ]


def _short(key: str) -> str:
    one = Measurement.parse(key)
    return one.metric.heading + (f", {one.subset}" if one.subset else "")


def _ends(one: Band) -> str:
    return "" if one.low is None or one.high is None else f"{number(one.low, 4)} to {number(one.high, 4)}"


def closing(found: Sequence[Band], differing: Sequence[str]) -> str:
    """One sentence: whether they are the record's numbers, and what differs."""
    outside = [one for one in found if one.inside is False]
    known = [one for one in found if one.inside is not None]
    what = (
        f" What differs: {'; '.join(differing)}." if differing else " Config, versions and hardware are the record's."
    )
    if not known:
        return f"The record shows no spread over seeds, so nothing can be said.{what}"
    if not outside:
        return f"Your numbers are those of the record: all {len(known)} lie inside its bands.{what}"
    names = few([f"{one.row} {_short(one.metric)}" for one in outside], 6)
    return f"{len(outside)} of {len(known)} of your numbers lie outside the record's bands: {names}.{what}"


def differing(yours: Table, record: Table) -> list[str]:
    """What is not the record's: keys of the config, versions, hardware, commit."""
    mine = {(cell.row.name, cell.row.seed): cell.result for cell in yours.done}
    kept = {cell.row.name: cell.result for cell in record.done}
    keys: dict[str, None] = {}
    for (name, _), result in mine.items():
        other = kept.get(name)
        if result is None or other is None:
            continue
        a, b = (flat({k: v for k, v in one.config.items() if k != "seed"}) for one in (result, other))
        paths = [key for key in {**a, **b} if not key.endswith("path")]
        keys |= {f"{key} {a.get(key)!s} (record: {b.get(key)!s})": None for key in paths if a.get(key) != b.get(key)}
    text = [f"config: {few(keys, 4)}"] if keys else []
    one, other = (next((cell.result for cell in table.done if cell.result), None) for table in (yours, record))
    if one is None or other is None:
        return text
    versions = (one.provenance.get("versions", {}), other.provenance.get("versions", {}))
    apart = [f"{key} {versions[0].get(key)} (record: {versions[1].get(key)})" for key in versions[1]
             if versions[0].get(key) != versions[1].get(key)]  # fmt: skip
    text += [f"versions: {few(apart, 4)}"] if apart else []
    machines = [machine(p) for p in (one.provenance, other.provenance)]
    text += [f"hardware: {machines[0]} (record: {machines[1]})"] if machines[0] != machines[1] else []
    commits = [str(p.get("commit", "unknown"))[:8] for p in (one.provenance, other.provenance)]
    return text + ([f"commit {commits[0]} (record: {commits[1]})"] if commits[0] != commits[1] else [])
