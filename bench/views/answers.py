"""What a report says first: a sentence a decided claim or verdict, and who is on the front of quality against cost."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from bench.findings.analysis import Analysis
from bench.findings.compare import Difference, together
from bench.findings.peers import of_variant
from bench.findings.statistics import half_width_of_means
from bench.findings.summary import VariantSummary
from bench.findings.words import number
from bench.store.metrics import Measurement
from bench.views.capability import MEMORY, Capability, Task, capability
from bench.views.short import short_name

COSTS = ("train_images_per_second", "train_peak_allocated_bytes", "train_peak_resident_bytes")


APART = {
    True: " The rates are of several runs: read them with care.",
    False: " The memory is of several machines: read it with care.",
}  # whether a cost is timed -> what is said where it may not be compared
FRONT = " No other is better in one of the two by more than the intervals, and as good in the other."
MOST_TASKS = 6  # of which each has a sentence
FAMILY = " By this metric alone, 95 % after Holm's correction over the schemes of a task."
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
            Answer(test.verdict, f"{brief(test.text)}: {test.gap or test.evidence}.".replace("..", "."))
            for test in decided
        ]
    left = len(claim.tests) - len(decided)
    return found + (
        [Answer("undecided", f"{left} of {len(claim.tests)} tests of the claim: {claim.says}")] if left else []
    )


def brief(text: str) -> str:
    """`bind: sd3 beats adaln: score` of `sd3 task=bind beats adaln task=bind: score`."""
    form = r"(?P<a>\S+)(?P<point>(?: [\w.]+=\S+)+) (?P<rule>.+?) (?P<b>\S+)(?P=point)(?P<rest>[: ].*)"
    found = re.fullmatch(form, text)
    if not found:
        return text
    point = " ".join(part.partition("=")[2] for part in found["point"].split())
    return f"{point}: {found['a']} {found['rule']} {found['b']}{found['rest']}"


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
        note = "" if together(_rows(analysis, table), key) else APART[Measurement.parse(key).metric.timed]
        found.append(Answer("front", f"{what} against {cost}: {', '.join(front)}.{note}"))
    return [*found[:-1], Answer("front", found[-1].text + FRONT)] if found else []


def _by_task(analysis: Analysis, table: Capability | None) -> list[Answer]:
    """A sentence a task: which schemes are better and worse than the baseline by the excess error, and which open.

    Of many tasks one sentence, with how often each scheme is. That one metric is what tasks are for; the table of
    verdicts has the others, each corrected over the schemes too.
    """
    if table is None:
        return []
    baseline, every = analysis.row(analysis.baseline), of_variant(analysis.table)
    name = next((name for (name, _), row in table.rows.items() if row is baseline), "")
    base = baseline.cells[0].row.variant if every else name
    verdicts = {task: _beside(analysis, table, task) for task in table.tasks if task not in table.void}
    if len(table.tasks) > MOST_TASKS:
        return _counted(list(verdicts.values()), base)
    found = []
    for task, own in verdicts.items():
        if words := _sorted_out(own):
            word = "undecided" if words.startswith("undecided") else "decided"
            found.append(Answer(word, f"{task}, excess error beside {base}: {words}."))
    return [*found[:-1], Answer(found[-1].word, found[-1].text + FAMILY)] if found else []


def _beside(analysis: Analysis, table: Capability, task: Task) -> dict[str, Difference]:
    """Every other scheme on a task -> its excess error beside that of the baseline, judged; nothing without that."""
    own = {name: row for (name, at), row in table.rows.items() if at == task and name not in table.arms}
    found = ((name, one) for name, row in own.items() for one in analysis.verdicts.get(row.name, []))
    return {name: one for name, one in found if one.metric == JUDGED}


def _counted(verdicts: list[dict[str, Difference]], base: str) -> list[Answer]:
    """On how many tasks each scheme is better, worse and open, those that are better most often first."""
    names = dict.fromkeys(name for own in verdicts for name in own)
    words = ("better", "worse", "undecided")
    every = {name: Counter[str](own[name].verdict for own in verdicts if name in own) for name in names}
    counts = {name: tuple(every[name][word] for word in words) for name in names}
    if not any(sum(one[:2]) for one in counts.values()):
        return []
    order = sorted(counts, key=lambda name: counts[name][1] - counts[name][0])
    text = ", ".join(f"{name} {'/'.join(map(str, counts[name]))}" for name in order)
    what = f"excess error beside {base} on {len(verdicts)} tasks and levels that are not void, better/worse/undecided"
    return [Answer("decided", f"{what}: {text}.{FAMILY}")]


def _sorted_out(verdicts: dict[str, Difference]) -> str:
    """`better: sd3 (x 0.07); undecided: adaln`; nothing without numbers."""
    words: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    for name, one in verdicts.items():
        if one.seeds and one.low is not None:
            words[one.verdict].append(f"{name} (x {number(one.gap, 2)})")
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)


def _rows(analysis: Analysis, table: Capability | None) -> list[VariantSummary]:
    return list(table.rows.values()) if table else [row for row in analysis.rows if row.values]


def _signed(key: str, value: float) -> float:
    return -value if Measurement.parse(key).better == "lower" else value


def _of_tasks(table: Capability, key: str) -> list[_Point]:
    points = []
    for name in table.schemes:
        quality, cost = table.mean(name), table.cost(name, key)
        if quality is not None and cost is not None:
            rows = table.costed(name, key)
            if key in MEMORY:  # the cost is that of the largest row, and so is its interval
                half = max(rows, key=lambda row: row.mean(key) or 0.0).interval(key)
            else:
                half = half_width_of_means([row.values[key] for row in rows])
            if quality[1] is not None and half is not None:
                points.append(_Point(name, (quality[0], quality[1]), (_signed(key, cost), half)))
    return points


def _of_rows(analysis: Analysis, key: str) -> list[_Point]:
    """Rows of a matrix without tasks, by its first quality column."""
    if not analysis.columns or not analysis.columns[0].better or analysis.columns[0].metric.section == "cost":
        return []
    quality, points = analysis.columns[0], []
    for row in analysis.rows:
        a, b = row.mean(quality.key), row.mean(key)
        near, half = row.interval(quality.key), row.interval(key)  # None of one seed, which establishes no difference
        if a is not None and b is not None and near is not None and half is not None and row.complete:
            points.append(_Point(row.name, (_signed(quality.key, a), near), (_signed(key, b), half)))
    return points
