"""Whether the order of schemes on the tasks is their order on images: rank correlations by a rule fixed beforehand.

    python -m bench.studies.validation [--rule configs/rules/validation.yaml] [--results results] [--out FOLDER]

The rule says which records and metrics. Where the seeds of a metric disagree on the ranks themselves, no predictor can
agree with them: their mean rank correlation is printed beside as what there is to predict.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.findings.statistics import LEVEL, holm
from bench.findings.summary import VariantSummary, summaries
from bench.store import provenance
from bench.store.files import write_atomic
from bench.store.metrics import Measurement, find
from bench.views.records import load_record, newest_records

ORDERS = 100_000  # of one side that are tried: all of 8 schemes'


@dataclass(frozen=True)
class Correlation:
    """How well the tasks predict one metric of one record.

    Attributes:
        schemes: that both have. rho: Spearman's. p: two-sided, corrected by Holm. agreement: mean rank correlation
            between the metric's own seeds; None for one seed.
    """

    record: str
    metric: str
    schemes: list[str]
    rho: float
    p: float
    agreement: float | None
    verdict: str = "undecided"


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, ties shared."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The rank correlation; 0 where either side has one value only."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else 0.0


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p of a rank correlation, over all orders of one side where they are few, else over `ORDERS`."""
    from scipy.stats import permutation_test

    x, y = ranks(a), ranks(b) - ranks(b).mean()

    def product(order: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray((order * y).sum(axis))

    orders = {
        "permutation_type": "pairings",
        "vectorized": True,
        "n_resamples": ORDERS,
        "rng": np.random.default_rng(0),
    }
    return float(permutation_test((x,), product, **orders).pvalue)


def agreement(by_scheme: Sequence[Mapping[int, float]]) -> float | None:
    """The mean rank correlation between every two seeds that all schemes have; None for fewer than two."""
    seeds = sorted(set.intersection(*(set(values) for values in by_scheme)))
    pairs = [[[one[seed] for one in by_scheme] for seed in pair] for pair in itertools.combinations(seeds, 2)]
    return statistics.fmean(spearman(a, b) for a, b in pairs) if pairs else None


def task_scores(rows: Sequence[VariantSummary], which: str, metric: str) -> dict[str, float]:
    """Scheme -> its mean over the tasks whose rows end with `which`, of schemes that have every one of them."""
    by_scheme: dict[str, dict[str, float]] = {}
    for row in rows:
        scheme, _, rest = row.name.partition(" ")
        value = row.mean(find(row.by_seed, metric)) if which in rest and row.by_seed else None
        if value is not None:
            by_scheme.setdefault(scheme, {})[rest] = value
    most = max(map(len, by_scheme.values()), default=0)
    return {scheme: statistics.fmean(own.values()) for scheme, own in by_scheme.items() if len(own) == most}


def correlation(scores: Mapping[str, float], rows: Sequence[VariantSummary], record: str, metric: str) -> Correlation:
    """One metric of one record against the tasks; p is not corrected yet.

    Raises:
        ValueError: if fewer than four schemes are in both.
    """
    key = find((key for row in rows for key in row.by_seed), metric)
    sign = -1 if Measurement.parse(key).better == "lower" else 1
    shared = [row for row in rows if row.name in scores and row.by_seed.get(key)]
    if len(shared) < 4:
        raise ValueError(f"{record} and the tasks share {len(shared)} schemes with {metric}: ranks need four or more")
    theirs = [sign * statistics.fmean(row.values[key]) for row in shared]
    ours = [scores[row.name] for row in shared]
    names = [row.name for row in shared]
    seeds = agreement([row.by_seed[key] for row in shared])
    return Correlation(record, metric, names, spearman(ours, theirs), permutation_p(ours, theirs), seeds)


def judged(found: Sequence[Correlation]) -> list[Correlation]:
    """The same with verdicts, Holm's correction over all."""
    corrected = holm([one.p for one in found])
    return [_judge(one, p) for one, p in zip(found, corrected, strict=True) if p is not None]


def _judge(one: Correlation, p: float) -> Correlation:
    decided = "supported" if one.rho > 0 else "contradicted"
    return Correlation(**asdict(one) | {"p": p, "verdict": decided if p <= LEVEL else "undecided"})


def validate(rule: Mapping[str, Any], results: Path) -> list[Correlation]:
    """All that the rule asks, of the newest records.

    Raises:
        ValueError: naming the record that is not there.
    """
    records = newest_records(results)
    for name in (rule["tasks"], *(one["record"] for one in rule["against"])):
        if name not in records:
            raise ValueError(f"there is no record {name!r} under {results.name}; there are {', '.join(records)}")
    scores = task_scores(summaries(load_record(records[rule["tasks"]])), rule["rows"], rule["metric"])
    return judged(
        [
            correlation(scores, summaries(load_record(records[one["record"]])), one["record"], one["metric"])
            for one in rule["against"]
        ]
    )


def main() -> None:
    """`python -m bench.studies.validation`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", type=Path, default=Path("configs/rules/validation.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rule = yaml.safe_load(given.rule.read_text())
    try:
        found = validate(rule, given.results)
    except ValueError as error:
        sys.exit(f"validation: {error}")
    print(rule["says"])
    for one in found:
        seeds = "one seed" if one.agreement is None else f"its seeds agree by {one.agreement:+.2f}"
        print(
            f"  {one.record} {one.metric}: rank correlation {one.rho:+.2f} over {len(one.schemes)} schemes, "
            f"p {one.p:.2g}, {seeds}: {one.verdict}"
        )
    if given.out:
        command = "python -m bench.studies.validation " + " ".join(sys.argv[1:])
        summary = {"rule": rule, "found": [asdict(one) for one in found], "command": command, **provenance.about("cpu")}
        write_atomic(given.out / "validation.json", (json.dumps(summary, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
