"""What a report says first: a sentence a decided claim or verdict, and who is on the front of quality against cost."""

from __future__ import annotations

from dataclasses import dataclass

from bench.findings.analysis import Analysis
from bench.findings.compare import apart
from bench.findings.words import number
from bench.store.metrics import Measurement
from bench.views.capability import Capability, capability
from bench.views.short import short_name

COSTS = ("train_images_per_second", "train_peak_allocated_bytes", "train_peak_resident_bytes")


FRONT = " No other is better in one beyond the intervals and not worse in the other."
MOST_TASKS = 6  # of which each has a sentence
JUDGED = "excess_error"  # the metric that these are about


@dataclass(frozen=True)
class Answer:
    """A sentence, with the word that it is led by (`supported`, `front`, ...)."""

    word: str
    text: str


def answers(analysis: Analysis) -> list[Answer]:
    """In the order of the first screen."""
    table = capability(analysis)
    void = [
        Answer("void", f"{task}: {why}; its column says nothing.")
        for task, why in (table.void if table else {}).items()
    ]
    return [*_claims(analysis), *void, *_fronts(analysis, table), *_by_task(analysis, table)]


def _claims(analysis: Analysis) -> list[Answer]:
    """Decided tests of the claim, and how many are open."""
    claim = analysis.claim
    if claim is None:
        return []
    decided = [test for test in claim.tests if test.verdict != "undecided"]
    found = [Answer(claim.verdict, claim.says)] if claim.verdict != "undecided" else []
    if len(claim.tests) > 1 or not found:
        found += [
            Answer(test.verdict, f"{test.text}: {test.gap or test.evidence}.".replace("..", ".")) for test in decided
        ]
    left = len(claim.tests) - len(decided)
    return found + (
        [Answer("undecided", f"{left} of {len(claim.tests)} tests of the claim: {claim.says}")] if left else []
    )


@dataclass(frozen=True)
class _Point:
    """A mean of quality and one of cost, each with half its interval, higher is better."""

    name: str
    quality: tuple[float, float]
    cost: tuple[float, float]

    def beats(self, other: _Point) -> bool:
        """Whether it is better in one beyond both intervals, and in the other not worse."""
        gaps = [
            (a[0] - b[0], (a[1] ** 2 + b[1] ** 2) ** 0.5)
            for a, b in ((self.quality, other.quality), (self.cost, other.cost))
        ]
        return all(gap >= 0 for gap, _ in gaps) and any(gap > half for gap, half in gaps)


def _fronts(analysis: Analysis, table: Capability | None) -> list[Answer]:
    """A sentence a cost that was measured."""
    found = []
    for key in COSTS:
        points = _of_tasks(table, key) if table else _of_rows(analysis, key)
        if len(points) < 2:
            continue
        front = [one.name for one in points if not any(other.beats(one) for other in points)]
        what = "mean score" if table else short_name(analysis.columns[0])
        cost = short_name(Measurement.parse(key))
        note = "" if not Measurement.parse(key).metric.timed or _together(analysis, table) else (
            " The rates are of several runs: read them with care."
        )  # fmt: skip
        found.append(Answer("front", f"{what} against {cost}: {', '.join(front)}.{note}"))
    return [*found[:-1], Answer("front", found[-1].text + FRONT)] if found else []


def _by_task(analysis: Analysis, table: Capability | None) -> list[Answer]:
    """A sentence a task: which schemes are better and worse than the baseline by the excess error, and which open."""
    if table is None or len(table.tasks) > MOST_TASKS:
        return []
    found, base = [], analysis.row(analysis.baseline).cells[0].row.variant
    for task in table.tasks:
        words: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for scheme in table.schemes:
            row = table.rows.get((scheme, task))
            for one in analysis.verdicts.get(row.name, []) if row else []:
                if one.metric == JUDGED and one.seeds:
                    gap = f" (x {number(one.gap, 2)})" if one.verdict != "undecided" else ""
                    words[one.verdict].append(f"{scheme}{gap}")
        parts = [f"{word}: {', '.join(names)}" for word, names in words.items() if names]
        if parts and words["better"] + words["worse"]:
            found.append(Answer("decided", f"{task}, excess error beside {base}: {'; '.join(parts)}."))
    return found


def _together(analysis: Analysis, table: Capability | None) -> bool:
    if table:
        return table.timed_together()
    rows = [row for row in analysis.rows if row.values]
    return not any(apart(row, rows[0], sorted(row.runs), COSTS[0]) for row in rows[1:])


def _signed(key: str, value: float) -> float:
    return -value if Measurement.parse(key).better == "lower" else value


def _of_tasks(table: Capability, key: str) -> list[_Point]:
    points = []
    for name in table.schemes:
        quality, cost = table.mean(name), table.cost(name, key)
        if quality is not None and cost is not None:
            rows = [row for (scheme, _), row in table.rows.items() if scheme == name]
            half = sum((row.interval(key) or 0.0) ** 2 for row in rows) ** 0.5 / len(rows)
            points.append(_Point(name, quality, (_signed(key, cost), half)))
    return points


def _of_rows(analysis: Analysis, key: str) -> list[_Point]:
    """Rows of a matrix without tasks, by its first quality column."""
    if not analysis.columns or not analysis.columns[0].better or analysis.columns[0].metric.section == "cost":
        return []
    quality, points = analysis.columns[0], []
    for row in analysis.rows:
        a, b = row.mean(quality.key), row.mean(key)
        if a is not None and b is not None and row.complete:
            points.append(
                _Point(
                    row.name,
                    (_signed(quality.key, a), row.interval(quality.key) or 0.0),
                    (_signed(key, b), row.interval(key) or 0.0),
                )
            )
    return points
