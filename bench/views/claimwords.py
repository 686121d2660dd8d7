"""What the tests of a claim found, in words that name both rows, and what their tasks can decide. Imports no torch."""

from __future__ import annotations

import re
from typing import Any

from bench.config.claim import RIVALS
from bench.findings.analysis import Analysis
from bench.findings.verdicts import TestResult

MASTERED = 0.95  # score from which a row has mastered its task: such rows differ in error, not in what they can do
WORDS = {"excess": "excess error", "sampling ms an image": "ms to sample an image"}  # of a heading, in a sentence
READ_AS = {  # a claim's matrix -> what was measured, where the sentence committed before the run says more
    "claim-t-10-edge": "On two cores of a server's CPU modulation takes less time and memory than a dual stream, and "
    "binds worse.",
}
NOT_MEASURED = {  # and what `CLAIMS.md`, which keeps that sentence, says beside it
    "claim-t-10-edge": "No edge device was measured: two cores of a server's CPU.",
}


def found(one: Analysis, verdict: str) -> str:
    """What the tests of a claim found that came to its verdict, in words, with the rule where it has a margin.

    Of a contradicted claim also what was tested, and what became of its other tests.
    """
    text = _found(one, verdict, ruled=verdict == "contradicted")
    if verdict != "contradicted":
        return text
    if others := _found(one, "supported", ruled=True):
        text += f". Its other tests: supported {others}"
    undecided = sum(result.verdict == "undecided" for _, result in _tests(one))
    return text + (f". Undecided: {undecided} of its tests" if undecided else "")


def _found(one: Analysis, verdict: str, *, ruled: bool) -> str:
    texts, before = [], ""
    for test, result in _tests(one):
        if result.verdict == verdict:
            place, rows, rule, heading = _parts(one, test, result)
            start = f"on {place}, " if place and place != before else ""
            tested = f"; tested was: {rule}" if ruled or test.get("within") else ""
            texts.append(start + in_words(rows, heading, result.gap) + _mastered_by(one, test) + tested)
            before = place
    return "; ".join(texts)


def all_mastered(one: Analysis) -> bool:
    """Whether every test of a claim compares rows that all have mastered their task."""
    tests = _tests(one)
    return bool(tests) and all(_mastered_by(one, test) for test, _ in tests)


def in_words(rows: list[str], heading: str, gap: str) -> str:
    """A result that cannot be read backwards: `lumina2 has 3.28 times the excess error of sd3 [2.69, 4.01]`.

    Args:
        rows: what is compared, in the order of the difference.
        heading: of the metric.
        gap: as a table of claims has it: `x 3.28 [2.69, 4.01]` where it is a factor.
    """
    what = WORDS.get(heading, re.sub(r" \(template, \d+\)", "", heading))
    factor = gap.startswith("x ")
    if len(rows) > 2:
        between = "the largest over the least" if factor else "the largest minus the least"
        return f"{what} of {', '.join(rows)}: {between} is {gap}"
    if len(rows) == 1:
        return f"{what} of {rows[0]} is {gap}"
    if factor:
        size, _, ends = gap.removeprefix("x ").partition(" ")
        return f"{rows[0]} has {size if '.' in size else f'{size}.00'} times the {what} of {rows[1]} {ends}"
    return f"{what}: {rows[0]} {'against' if ' against ' in gap else 'minus'} {rows[1]} is {gap}"


def _tests(one: Analysis) -> list[tuple[dict[str, Any], TestResult]]:
    """The tests of its claim, each with its result."""
    written = (one.table.manifest["config"].get("claim") or {}).get("tests") or []
    return list(zip(written, one.claim.tests, strict=True)) if one.claim and one.claim.tests else []


def _parts(one: Analysis, test: dict[str, Any], result: TestResult) -> tuple[str, list[str], str, str]:
    """The task of a test, the rows it compares and what it asks, both without the task, and its metric."""
    rule, _, heading = result.text.rpartition(": ")
    names = _rows(test)
    points = {name.partition(" ")[2] for name in names}
    if len(points) > 1 or points == {""}:
        return _task(one), names, rule, heading
    point = f" {points.pop()}"
    place = " ".join(part.partition("=")[2] for part in point.split())
    return place, [name.removesuffix(point) for name in names], rule.replace(point, ""), heading


def _rows(test: dict[str, Any]) -> list[str]:
    """The rows that a test names."""
    rival = next((test[key] for key in RIVALS if test.get(key)), None)
    return list(test.get("all_equivalent") or [test["variant"], *([rival] if rival else [])])


def _mastered_by(one: Analysis, test: dict[str, Any]) -> str:
    """The scores of the rows that a test compares, as a remark, if each of them has mastered its task."""
    named = _rows(test)
    means = {row.name: row.mean("score") for row in one.rows}
    scores = [score for name in named if (score := means.get(name)) is not None]
    if len(named) < 2 or len(scores) < len(named) or min(scores) < MASTERED:
        return ""
    texts = [f"{score:.3f}".removeprefix("0") for score in scores]
    return f" ({'both' if len(texts) == 2 else 'all'} master it: scores {', '.join(texts[:-1])} and {texts[-1]})"


def _task(one: Analysis) -> str:
    """The task of a matrix whose rows name none."""
    config = one.table.manifest["config"]
    named = "data.task" in (config.get("axes") or {})
    return "" if named else str((config.get("data") or {}).get("task") or "")
