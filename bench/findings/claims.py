"""Claims about conditioning, tested: a matrix with its hypothesis and its decision rule, fixed before it is run.

    claim:
      says: A shift is dispensable.
      tests:
        - {metric: fid, variant: scale-only, no_worse_than: adaln-zero, within: 0.03}

A test is one of
    variant: A, beats: B              the paired interval of A - B lies on the better side (bench/compare.py)
    variant: A, no_worse_than: B,     it ends before A is worse by the share `within` of B's mean
      within: 0.03
    variant: A, above: X / below: X   the interval of A's mean over seeds lies there
with `per: COST` to divide a metric by a cost first; a variant is a row as the table writes it, axes included. p values
are corrected by Holm over a claim's tests. The metric `highest_lr` is that of a learning-rate ladder: the decimal
logarithm of the highest rate below the first that a seed of the variant does not survive.

A claim is *supported* if every test is, *contradicted* if one is, else *undecided*. Needs no torch: it is read from a
record alone.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.config.claim import RULES, ClaimError, check, hint, test_text
from bench.findings import compare
from bench.findings.analysis import summaries
from bench.findings.compare import LEVEL, holm, hope, interval, more_seeds, paired_p
from bench.findings.ladder import ladders
from bench.store.folders import name_of
from bench.store.metrics import LADDER, Measurement, find, numbers
from bench.store.table import CellRecord, Table

Word = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Finding:
    """One test of a claim: what it asks, in words; the verdict; and the numbers it rests on.

    Attributes:
        gap: of the evidence the difference (or the mean, where there is no rival) with its interval. p: after Holm.
    """

    asks: str
    verdict: Word
    evidence: str
    gap: str = ""
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim with what became of it.

    Attributes:
        name: of its matrix. says: the hypothesis. caveats: without which it could be read wrongly.
    """

    name: str
    says: str
    verdict: Word
    findings: list[Finding]
    caveats: list[str]


# --- what becomes of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A test with its values: of the differences (or of the variant alone), in the metric's better direction."""

    test: dict[str, Any]
    key: str
    seeds: tuple[int, ...]
    ours: list[float]
    theirs: list[float]
    p: float | None
    why: str = ""

    @property
    def gaps(self) -> list[float]:
        if "beats" in self.test or "no_worse_than" in self.test:
            return [a - b for a, b in zip(self.ours, self.theirs, strict=True)]
        bound = float(self.test["above"] if "above" in self.test else self.test["below"])
        return [a - bound for a in self.ours]


def decide(table: Table) -> Verdict | None:
    """What became of the claim that a matrix or record holds; None if it holds none.

    Raises:
        ClaimError: if it names a variant or a metric that is not there.
    """
    claim = table.manifest["config"].get("claim")
    if not claim:
        return None
    rows = [row.name for row in summaries(table)]
    check(claim, rows, sorted({cell.row.seed for cell in table.cells}) or [0])
    asked = [_ask(table, test) for test in claim["tests"]]
    findings = [_finding(one, p) for one, p in zip(asked, holm([one.p for one in asked]), strict=True)]
    words = {finding.verdict for finding in findings}
    verdict: Word = (
        "contradicted" if "contradicted" in words else "supported" if words == {"supported"} else "undecided"
    )
    named = dict.fromkeys(
        str(test[key]) for test in claim["tests"] for key in ("variant", "beats", "no_worse_than") if key in test
    )
    caveats = compare.caveats(table, *(name for name in named if name in rows))
    caveats += _at_chance(asked)
    if not set(named) <= set(rows):  # a ladder's runs are lost on purpose
        caveats += [note for note in compare.origins(table.cells) if note not in caveats]
    return Verdict(table.name, claim["says"], verdict, findings, caveats)


def _at_chance(asked: list[_Asked]) -> list[str]:
    """Metrics of control on which nothing that is tested has learned anything yet."""
    judged = ((Measurement.parse(one.key), one) for one in asked if one.seeds)
    low = [metric for metric, one in judged if metric.over_chance and max(*one.ours, *one.theirs) <= 0]
    return [f"{one.heading}: no cell is above chance, so training is too short to decide" for one in dict.fromkeys(low)]


def _ask(table: Table, test: dict[str, Any]) -> _Asked:
    """The numbers that a test is about."""
    known = [key for cell in table.done if cell.result for key in numbers(cell.result)]
    if not known:
        return _Asked(test, str(test["metric"]), (), [], [], None, "no cell has a result yet")
    if test["metric"] == LADDER:
        return _climbed(table, test)
    try:
        key, per = find(known, test["metric"]), find(known, test["per"]) if "per" in test else None
    except ValueError as error:
        raise ClaimError(f"test {test_text(test)}: {error}") from error
    rivals = [test[rule] for rule in ("beats", "no_worse_than") if rule in test]
    ours = _by_seed(table, test["variant"], key, per)
    theirs = _by_seed(table, rivals[0], key, per) if rivals else ours
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    one = _Asked(test, key, seeds, [ours[s] for s in seeds], [theirs[s] for s in seeds], None)
    if len(seeds) < 2:
        return replace(one, why="no seed has it" if not seeds else "one seed shows no spread")
    why = compare.apart(table, test["variant"], rivals[0], seeds, key, per or "") if rivals else ""
    return replace(one, why=why, p=None if why else paired_p(_against(one)))


def _climbed(table: Table, test: dict[str, Any]) -> _Asked:
    """A test on the learning-rate ladder. Its rungs round: a difference spreads by a rung's width / sqrt 6 at least."""
    found = {one.name: one for one in ladders(table)}
    names = [test[rule] for rule in ("variant", "beats", "no_worse_than") if rule in test]
    missing = [name for name in names if name not in found]
    if missing:
        raise ClaimError(
            f"test {test_text(test)}: {missing[0]!r} is on no ladder of train.lr{hint(missing[0], list(found))}"
        )
    highest = [{seed: math.log10(value) for seed, value in found[name].highest.items()} for name in names]
    seeds = tuple(sorted(set.intersection(*(set(one) for one in highest))))
    ours, theirs = ([one[seed] for seed in seeds] for one in (highest[0], highest[-1]))
    one = _Asked(test, LADDER, seeds, ours, theirs, None)
    if len(seeds) < 2:
        return replace(one, why="fewer than two seeds survive the lowest rate")
    rungs = sorted(rung.value for rung in found[names[0]].rungs)
    width = max(math.log10(b / a) for a, b in zip(rungs, rungs[1:], strict=False))
    return replace(one, p=paired_p(_against(one), least=width / 6**0.5))


def _against(one: _Asked) -> list[float]:
    """Numbers whose mean is above zero where the test holds."""
    sign = 1 if _higher(one) else -1
    room = one.test["within"] * abs(statistics.fmean(one.theirs)) if "within" in one.test else 0.0
    return [sign * gap + room for gap in one.gaps]


def _higher(one: _Asked) -> bool:
    if "above" in one.test or "below" in one.test:
        return "above" in one.test
    return Measurement.parse(one.key).better != "lower"


def _by_seed(table: Table, name: str, key: str, per: str | None) -> dict[int, float]:
    cells = [cell for cell in table.cells if name_of(cell.row) == name and cell.result is not None]
    told = {cell.row.seed: _value(cell, key, per) for cell in cells}
    return {seed: value for seed, value in told.items() if value is not None}


def _value(cell: CellRecord, key: str, per: str | None) -> float | None:
    assert cell.result is not None
    found = numbers(cell.result)
    if key not in found or (per is not None and not found.get(per)):
        return None
    return found[key] / (found[per] / _per(per)[0] if per else 1.0)


def _per(key: str) -> tuple[float, str]:
    """Scale and name of a cost that a metric is divided by."""
    one = Measurement.parse(key)
    return one.metric.per or (1.0, one.heading)


def _finding(one: _Asked, corrected: float | None) -> Finding:
    test = one.test
    rule = next(rule for rule in RULES if rule in test)
    per = test.get("per", "")
    metric = Measurement.parse(one.key).heading + (f" per {_per(per)[1]}" if per else "")
    share = f" by more than {test['within']:.0%}" if "within" in test else ""
    words = {"beats": "beats", "no_worse_than": "is no worse than", "above": "is above", "below": "is below"}
    asks = f"{test['variant']} {words[rule]} {test[rule]}{share}: {metric}"
    if corrected is None:
        return Finding(asks, "undecided", one.why)
    against = _against(one)
    mean = statistics.fmean(against)
    if rule in ("beats", "no_worse_than"):
        base, mean_gap = statistics.fmean(one.theirs), statistics.fmean(one.gaps)
        gap = f"{_number(mean_gap)} {_bounds(one.gaps)}"
        gap += f" ({mean_gap / abs(base):+.1%})" if base and Measurement.parse(one.key).metric.relative else ""
        said = f"{_number(statistics.fmean(one.ours), 4)} against {_number(base, 4)}, gap {gap}"
    else:
        said = gap = f"{_number(statistics.fmean(one.ours))} {_bounds(one.ours)}"
    said += f", {len(one.seeds)} seeds, p {_p(corrected)} after Holm"
    small = rule == "beats" and "per" not in test and _within_margin(one)
    verdict: Word = "undecided"
    if small:
        said += f"; under the {Measurement.parse(one.key).metric.margin:.1%} of seed noise"
    elif corrected <= LEVEL:
        verdict = "supported" if mean > 0 else "contradicted"
    else:
        more = more_seeds(against)
        said += f"; {hope(more)}" if more else ""
    return Finding(asks, verdict, said, gap, corrected)


def _within_margin(one: _Asked) -> bool:
    base = statistics.fmean(one.theirs)
    return bool(base) and abs(statistics.fmean(one.gaps) / base) <= Measurement.parse(one.key).metric.margin


def _bounds(values: list[float]) -> str:
    found = interval(values)
    assert found is not None
    return f"[{_number(found[0])}, {_number(found[1])}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _number(value: float, digits: int = 3) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


# --- many of them -----------------------------------------------------------------------------------------------------


def markdown(verdicts: Sequence[tuple[Verdict, str]]) -> str:
    """A table of claims, each with a link (or an empty one) to what it rests on, its tests under it."""
    out = ["| claim and its tests | verdict | gap | p |", "|---|---|---|---:|"]
    for one, link in verdicts:
        says = f"[{one.says}]({link})" if link else one.says
        out.append(f"| **{says}** | **{one.verdict}** | {' '.join(one.caveats)} | |")
        for finding in one.findings:
            p = "" if finding.p is None else _p(finding.p)
            out.append(f"| {finding.asks} | {finding.verdict} | {finding.gap or finding.evidence} | {p} |")
    return "\n".join(out) + "\n"


def newest(results: Path) -> dict[str, Path]:
    """The newest record of each matrix under `results`, by when its last cell ended; matrices by name."""
    found: dict[str, list[Path]] = {}
    for file in sorted(results.glob("*/*/cells.json")):
        found.setdefault(file.parent.parent.name, []).append(file.parent)
    return {name: folders[0] if len(folders) == 1 else max(folders, key=_ended) for name, folders in found.items()}


def _ended(record: Path) -> float:
    cells = json.loads((record / "cells.json").read_text())["cells"]
    return max((cell["result"]["provenance"]["ended"] for cell in cells if cell["result"]), default=0.0)
