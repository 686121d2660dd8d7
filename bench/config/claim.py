"""What a claim may say: its tests, typed, and checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from architectures import as_number, nearest
from bench.store import metrics
from bench.store.metrics import LADDER, MASTERED, UNTIL, Measurement

RULES = ("beats", "no_worse_than", "above", "below", "equivalent_to", "all_equivalent")
RIVALS = ("beats", "no_worse_than", "equivalent_to")
NUMBERS = ("above", "below", "within", "by")
KEYS = {"metric", "variant", "per", "within", "by", *RULES}
CLAIM_KEYS = ("says", "tests", "compare", "unequal")
COMPARE = ("pooled", "paired", "welch")
ERRORS = ("kid", "fid", "excess_error", "heldout_loss")  # prefixes of metrics that each task has on its own scale
BUDGETS = {"train.steps": "images of training", "backbone.width": "width", "backbone.depth": "depth"}


class ClaimError(ValueError):
    """A claim that cannot be tested as it is written; the message names the value and the choices."""


@dataclass(frozen=True)
class ClaimTest:
    """One test of a claim: `variant` by one rule on a metric, which `per` divides by a cost first.

    Attributes:
        all_equivalent: rows of which every two are equivalent; `variant` is the first.
        within: the margin of `no_worse_than`, of equivalence, and, with `beats`, of the verdict `equivalent`.
        by: by how much `beats` is to be better: a factor, or a difference where a metric is no ratio.
    """

    metric: str
    variant: str
    beats: str | None = None
    no_worse_than: str | None = None
    equivalent_to: str | None = None
    all_equivalent: tuple[str, ...] | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = None
    by: float | None = None
    per: str | None = None

    @property
    def rule(self) -> str:
        """Its rule: one of `RULES`."""
        return next(rule for rule in RULES if getattr(self, rule) is not None)

    @property
    def rival(self) -> str | None:
        """The row that the variant is compared with."""
        return next((getattr(self, rule) for rule in RIVALS if getattr(self, rule) is not None), None)

    @property
    def bound(self) -> float:
        """The value that the variant is to lie above or below."""
        return float(self.above if self.above is not None else self.below or 0.0)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it names."""
        if self.all_equivalent is not None:
            return self.all_equivalent
        return (self.variant,) if self.rival is None else (self.variant, self.rival)

    def __str__(self) -> str:
        return _text({key: value for key, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class ClaimSpec:
    """A hypothesis and the tests that decide it.

    Attributes:
        says: the hypothesis, a sentence.
        compare: how rows are compared (`bench.findings.peers`); empty where the claim says nothing.
        unequal: of `BUDGETS`, those that may differ between rows compared, being what the claim is about.
    """

    says: str
    tests: tuple[ClaimTest, ...]
    compare: str = ""
    unequal: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowFacts:
    """What is known of a row before it is run.

    Attributes:
        task: its task, or empty. attributes: of that task. budget: by the names of `BUDGETS`.
    """

    task: str = ""
    attributes: tuple[str, ...] = ()
    budget: Mapping[str, float] = field(default_factory=dict)


def check(
    claim: dict[str, Any] | None,
    names: Iterable[str],
    seeds: Sequence[int],
    facts: Mapping[str, RowFacts] | None = None,
) -> ClaimSpec | None:
    """The claim as it is written in a matrix, refused where no run could decide it; None if there is none.

    Args:
        claim: as the matrix's file has it.
        names: rows of its table.
        seeds: of the matrix.
        facts: of rows by name, as far as they are known.

    Raises:
        ClaimError: for an unknown variant or key, no rule or two, fewer than two seeds, an attribute that a task does
            not have, errors of different tasks, or rows of different budgets.
    """
    if claim is None:
        return None
    for key in claim:
        if key not in CLAIM_KEYS:
            raise ClaimError(f"a claim has no key {key!r}{hint(key, list(CLAIM_KEYS))}")
    says, tests = claim.get("says"), claim.get("tests")
    if not says or not tests:
        raise ClaimError("a claim needs `says`, its hypothesis as a sentence, and `tests`")
    if not isinstance(says, str) or not isinstance(tests, list):
        raise ClaimError(f"a claim's `says` is a sentence and its `tests` a list, got {says!r} and {tests!r}")
    if len(seeds) < 2:
        raise ClaimError(f"a claim needs two seeds or more to show any spread, got {list(seeds)}")
    compare, unequal = _one_of(claim, "compare", COMPARE), _unequal(claim)
    names = list(names)
    spec = ClaimSpec(says, tuple(_test(test, names, compare, facts or {}) for test in tests), compare, unequal)
    for test in spec.tests:
        _fits(test, spec, facts or {})
    return spec


def _one_of(claim: dict[str, Any], key: str, choices: Sequence[str]) -> str:
    """The value of a key of the claim; empty where it has none."""
    value = claim.get(key)
    if value is not None and value not in choices:
        raise ClaimError(f"a claim's {key} {value!r}{hint(value, list(choices))}")
    return str(value or "")


def _unequal(claim: dict[str, Any]) -> tuple[str, ...]:
    value = claim.get("unequal") or []
    if not isinstance(value, list) or not all(one in BUDGETS for one in value):
        raise ClaimError(f"a claim's `unequal` is a list of some of {', '.join(BUDGETS)}, got {value!r}")
    return tuple(value)


def _fits(test: ClaimTest, claim: ClaimSpec, facts: Mapping[str, RowFacts]) -> None:
    """Refuses what the rows of a test cannot show."""
    if len(set(test.rows)) < len(test.rows):
        raise ClaimError(f"test {test}: it compares a row with itself")
    known = [(name, facts[name]) for name in test.rows if name in facts]
    for name, fact in known:
        if fact.task and test.metric.removeprefix("unseen_") in set().union(
            metrics.ATTRIBUTES, *(one.attributes for one in facts.values())
        ) - {*fact.attributes, *_EVERY_TASK}:
            raise ClaimError(
                f"test {test}: task {fact.task!r} of {name} has no attribute {test.metric.removeprefix('unseen_')!r} "
                f"(attributes: {', '.join(fact.attributes)})"
            )
    tasks = dict.fromkeys(fact.task for _, fact in known if fact.task)
    if len(tasks) > 1 and test.metric.startswith(ERRORS):
        raise ClaimError(
            f"test {test}: {test.metric} of {' and '.join(tasks)} have no common scale; compare rows of one task, or "
            "take `score` or `control`, which are 0 at a guess and 1 at best of every task"
        )
    for key, what in BUDGETS.items():
        values = {name: fact.budget[key] for name, fact in known if key in fact.budget}
        if len(set(values.values())) > 1 and key not in claim.unequal:
            text = " and ".join(f"{name} {value:,.0f}" for name, value in values.items())
            raise ClaimError(
                f"test {test}: different budgets, {what}: {text}; make them equal, or write `unequal: [{key}]` into "
                "the claim if that is what it is about"
            )


_EVERY_TASK = ("local", "global", "right", "control")


def with_numbers(claim: dict[str, Any] | None) -> dict[str, Any] | None:
    """The claim with the bounds of its tests as numbers, however they are written; what is none is left to `check`."""
    tests = (claim or {}).get("tests")
    if claim is None or not isinstance(tests, list):
        return claim
    return claim | {"tests": [_bounds(test) if isinstance(test, dict) else test for test in tests]}


def _bounds(test: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: as_number(value) for key, value in test.items() if key in NUMBERS}
    return test | {key: number for key, number in numbers.items() if number is not None}


def _test(test: Any, names: list[str], compare: str, facts: Mapping[str, RowFacts]) -> ClaimTest:
    if not isinstance(test, dict):
        raise ClaimError(f"test {test!r}: write a mapping such as {{metric: fid, variant: A, beats: B}}")
    for key in test:
        if key not in KEYS:
            raise ClaimError(f"test {_text(test)}: unknown key {key!r}{hint(key, sorted(KEYS))}")
    test = {key: _typed(key, value, test) for key, value in test.items()}
    rules = [rule for rule in RULES if rule in test]
    named = ("variant" in test) != ("all_equivalent" in test)
    if len(rules) != 1 or "metric" not in test or not named:
        raise ClaimError(f"test {_text(test)}: it needs metric, variant and one of {', '.join(RULES)}")
    _margins(test, rules[0], compare)
    rows = off_the_ladder(names) if test["metric"] == LADDER else names
    given = [test[key] for key in ("variant", *RIVALS) if key in test] + list(test.get("all_equivalent", ()))
    for name in given:
        if name not in rows:
            raise ClaimError(f"test {_text(test)}: unknown variant {name!r}{hint(name, rows)}")
    own = sorted({word for fact in facts.values() for word in fact.attributes})
    for key in ("metric", "per"):
        if key in test and not metrics.known(test[key]) and test[key].removeprefix("unseen_") not in own:
            choices = [*metrics.names(), *own]
            listed = f" (attributes of its tasks: {', '.join(own)}; metrics such as score, right, local)" if own else ""
            near = nearest(test[key], choices, listed) if own else hint(test[key], choices)
            raise ClaimError(f"test {_text(test)}: unknown metric {test[key]!r}{near}")
    return ClaimTest(**{"variant": given[0]} | test)


def _margins(test: dict[str, Any], rule: str, compare: str) -> None:
    """Refuses a margin where none belongs, none where one does, and one that can decide nothing."""
    text, within, by = _text(test), test.get("within"), test.get("by")
    needed, possible = rule not in ("beats", "above", "below"), rule not in ("above", "below")
    if (needed and within is None) or (within is not None and not (possible and (needed or compare))):
        raise ClaimError(f"test {text}: `within` goes with no_worse_than and equivalence, and they need it")
    if "per" in test and test["metric"] in (MASTERED, UNTIL):
        how = "by counts or ranks of seeds, which a cost would change"
        raise ClaimError(f"test {text}: {test['metric']} is decided {how}; leave `per` out")
    if by is not None and rule != "beats":
        raise ClaimError(f"test {text}: `by` goes with beats")
    new = "equivalent" in rule or by is not None
    if new and not compare:
        raise ClaimError(f"test {text}: it needs `compare` in the claim, one of {', '.join(COMPARE)}")
    if new and rule != "beats" and not within:
        raise ClaimError(f"test {text}: equivalence needs a margin `within` above zero")
    if by is not None and by <= (1 if _ratio(test["metric"]) else 0):
        what = "a factor above 1" if _ratio(test["metric"]) else "a difference above 0"
        raise ClaimError(f"test {text}: of this metric `by` is {what}, got {by:g}")


def _ratio(metric: str) -> bool:
    """Whether a margin on a metric is a factor or a share, not a difference: zero is no value of chance."""
    try:
        return Measurement.of(metric.removeprefix("unseen_")).metric.relative
    except KeyError:
        one = Measurement.parse(metric)
        return one.metric.relative and one.metric in metrics.METRICS


def _typed(key: str, value: Any, test: dict[str, Any]) -> Any:
    if key == "all_equivalent":
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) for one in value):
            raise ClaimError(f"test {_text(test)}: all_equivalent is a list of two rows or more, got {value!r}")
        return tuple(value)
    number = as_number(value)
    if key not in NUMBERS:
        if isinstance(value, str) or number is not None:
            return str(value)
        raise ClaimError(f"test {_text(test)}: {key} must be text, got {value!r}")
    if number is None or not math.isfinite(number):
        raise ClaimError(f"test {_text(test)}: {key} must be a number, got {value!r}")
    if key == "within" and not 0 <= number < 1:
        raise ClaimError(f"test {_text(test)}: within is a margin in [0, 1), got {value!r}")
    return number


def off_the_ladder(names: list[str]) -> list[str]:
    """Rows without their learning rate."""
    return list(dict.fromkeys(re.sub(r" lr=\S+", "", name) for name in names))


def _text(test: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in test.items()) + "}"


def hint(word: Any, choices: list[str]) -> str:
    """The nearest of the choices, or all of them."""
    return nearest(word, choices, f" (choose from {', '.join(choices)})")
