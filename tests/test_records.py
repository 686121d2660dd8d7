"""Every committed record still says what it said: means, intervals, verdicts, claims, ladders and what was equal.

`records.json.gz` holds the numbers that commit 6a0657f gave for the records of that day. They are compared as numbers,
by metric and row, so that headings and sentences are free to change. Where a rule was wrong and is now another, the
numbers are those of the new rule; `CHANGELOG.md` says which verdicts changed.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bench.findings import claims, compare, fairness, ladder
from bench.findings.analysis import summaries
from bench.views.records import load_record

ROOT = Path(__file__).parent.parent
KNOWN: dict[str, Any] = json.loads(gzip.decompress((Path(__file__).parent / "records.json.gz").read_bytes()))
KEYS = ("metric", "a", "b", "seeds", "gap", "low", "high", "p", "corrected", "effect", "verdict")


def same(value: Any, known: Any, where: str) -> None:
    """Numbers to nine digits; NaN is written as None in the file."""
    if isinstance(known, list):
        assert len(value) == len(known), where
        for k, (a, b) in enumerate(zip(value, known, strict=True)):
            same(a, b, f"{where}, {k}")
    elif isinstance(known, float):
        assert value == pytest.approx(known, rel=1e-8, abs=1e-300), where
    elif known is None:
        assert value is None or value != value or abs(value) == float("inf"), f"{where}: {value}"
    else:
        assert value == known, where


@pytest.mark.parametrize("folder", KNOWN)
def test_a_record_gives_the_numbers_it_gave(folder: str) -> None:
    known, table = KNOWN[folder], load_record(ROOT / folder)
    rows = {row.name: row for row in summaries(table)}
    assert list(rows) == list(known["rows"])
    for name, row in rows.items():
        assert row.seeds == known["rows"][name]["seeds"]
        for key, (mean, interval, count) in known["rows"][name]["values"].items():
            same([row.mean(key), row.interval(key), len(row.values[key])], [mean, interval, count], f"{name} {key}")
    assert compare.baseline(table) == known["baseline"]
    verdicts = [one for differences in compare.against(table).values() for one in differences]
    values = sorted(([getattr(one, key) for key in KEYS] for one in verdicts), key=lambda one: one[:3])
    same(values, sorted(known["verdicts"], key=lambda one: one[:3]), "verdicts")
    names = list(rows)
    compared = [one for name in names[1:3] for one in compare.compare(table, name, names[0])]
    same([[getattr(one, key) for key in KEYS] for one in compared], known["compare"], "compare")
    decided = claims.decide(table)
    if known["claim"] is None:
        assert decided is None
    else:
        assert decided is not None and decided.verdict == known["claim"]["verdict"]
        same([[one.verdict, one.p, one.gap] for one in decided.tests], known["claim"]["tests"], "claim")
    found = [
        [one.name, one.limit, one.unlost, [[g.value, g.loss, g.lost, g.seeds] for g in one.rungs]]
        for one in ladder.ladders(table)
    ]
    same(found, known["ladders"], "ladders")
    chosen = [[c.variant, c.value, c.row, c.own, c.own_row, c.edge] for c in ladder.choices(table)]
    same(chosen, known["choices"], "choices")
    assert [one.verdict for one in fairness.statement(table)] == known["fairness"]
