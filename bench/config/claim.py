"""What a claim may say: its tests, typed, and checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from architectures import as_number, nearest
from bench.store import metrics
from bench.store.metrics import LADDER

RULES = ("beats", "no_worse_than", "above", "below")
NUMBERS = ("above", "below", "within")
KEYS = {"metric", "variant", "per", "within", *RULES}


class ClaimError(ValueError):
    """A claim that cannot be tested as it is written; the message names the value and the choices."""


@dataclass(frozen=True)
class ClaimTest:
    """One test of a claim: `variant` by one of four rules on a metric, which `per` divides by a cost first.

    Attributes:
        within: of `no_worse_than`, the share of the rival's mean that does not count.
    """

    metric: str
    variant: str
    beats: str | None = None
    no_worse_than: str | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = None
    per: str | None = None

    @property
    def rule(self) -> str:
        """Its rule: one of `RULES`."""
        return next(rule for rule in RULES if getattr(self, rule) is not None)

    @property
    def rival(self) -> str | None:
        """The row that the variant is compared with."""
        return self.beats if self.beats is not None else self.no_worse_than

    @property
    def bound(self) -> float:
        """The value that the variant is to lie above or below."""
        return float(self.above if self.above is not None else self.below or 0.0)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it names."""
        return (self.variant,) if self.rival is None else (self.variant, self.rival)

    def __str__(self) -> str:
        return _text({key: value for key, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class ClaimSpec:
    """A hypothesis and the tests that decide it.

    Attributes:
        says: the hypothesis, a sentence.
    """

    says: str
    tests: tuple[ClaimTest, ...]


def check(claim: dict[str, Any] | None, names: Iterable[str], seeds: Sequence[int]) -> ClaimSpec | None:
    """The claim as it is written in a matrix, refused where no run could decide it; None if there is none.

    Args:
        claim: as the matrix's file has it.
        names: rows of its table.
        seeds: of the matrix.

    Raises:
        ClaimError: for an unknown variant or key, no rule or two, or fewer than two seeds.
    """
    if claim is None:
        return None
    for key in claim:
        if key not in ("says", "tests"):
            raise ClaimError(f"a claim has no key {key!r}{hint(key, ['says', 'tests'])}")
    says, tests = claim.get("says"), claim.get("tests")
    if not says or not tests:
        raise ClaimError("a claim needs `says`, its hypothesis as a sentence, and `tests`")
    if not isinstance(says, str) or not isinstance(tests, list):
        raise ClaimError(f"a claim's `says` is a sentence and its `tests` a list, got {says!r} and {tests!r}")
    if len(seeds) < 2:
        raise ClaimError(f"a claim needs two seeds or more to show any spread, got {list(seeds)}")
    names = list(names)
    return ClaimSpec(says, tuple(_test(test, names) for test in tests))


def with_numbers(claim: dict[str, Any] | None) -> dict[str, Any] | None:
    """The claim with the bounds of its tests as numbers, however they are written; what is none is left to `check`."""
    tests = (claim or {}).get("tests")
    if claim is None or not isinstance(tests, list):
        return claim
    return claim | {"tests": [_bounds(test) if isinstance(test, dict) else test for test in tests]}


def _bounds(test: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: as_number(value) for key, value in test.items() if key in NUMBERS}
    return test | {key: number for key, number in numbers.items() if number is not None}


def _test(test: Any, names: list[str]) -> ClaimTest:
    if not isinstance(test, dict):
        raise ClaimError(f"test {test!r}: write a mapping such as {{metric: fid, variant: A, beats: B}}")
    for key in test:
        if key not in KEYS:
            raise ClaimError(f"test {_text(test)}: unknown key {key!r}{hint(key, sorted(KEYS))}")
    test = {key: _typed(key, value, test) for key, value in test.items()}
    rules = [rule for rule in RULES if rule in test]
    if len(rules) != 1 or "metric" not in test or "variant" not in test:
        raise ClaimError(f"test {_text(test)}: it needs metric, variant and one of {', '.join(RULES)}")
    if ("within" in test) != (rules[0] == "no_worse_than"):
        raise ClaimError(f"test {_text(test)}: `within` goes with no_worse_than, and that needs it")
    rows = _off_the_ladder(names) if test["metric"] == LADDER else names
    for key in ("variant", "beats", "no_worse_than"):
        if key in test and test[key] not in rows:
            raise ClaimError(f"test {_text(test)}: unknown variant {test[key]!r}{hint(test[key], rows)}")
    for key in ("metric", "per"):
        if key in test and not metrics.known(str(test[key])):
            raise ClaimError(f"test {_text(test)}: unknown metric {test[key]!r}{hint(test[key], metrics.names())}")
    return ClaimTest(**test)


def _typed(key: str, value: Any, test: dict[str, Any]) -> Any:
    number = as_number(value)
    if key not in NUMBERS:
        if isinstance(value, str) or number is not None:
            return str(value)
        raise ClaimError(f"test {_text(test)}: {key} must be text, got {value!r}")
    if number is None or not math.isfinite(number):
        raise ClaimError(f"test {_text(test)}: {key} must be a number, got {value!r}")
    if key == "within" and not 0 <= number < 1:
        raise ClaimError(f"test {_text(test)}: within is a share of the rival's mean, in [0, 1), got {value!r}")
    return number


def _off_the_ladder(names: list[str]) -> list[str]:
    """Rows without their learning rate."""
    return list(dict.fromkeys(re.sub(r" lr=\S+", "", name) for name in names))


def _text(test: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in test.items()) + "}"


def hint(word: Any, choices: list[str]) -> str:
    """The nearest of the choices, or all of them."""
    return nearest(word, choices, f" (choose from {', '.join(choices)})")
