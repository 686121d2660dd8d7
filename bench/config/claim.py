"""What a claim may say: its tests, checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from architectures import nearest
from bench.store import metrics
from bench.store.metrics import LADDER

RULES = ("beats", "no_worse_than", "above", "below")
KEYS = {"metric", "variant", "per", "within", *RULES}


class ClaimError(ValueError):
    """A claim that cannot be tested as it is written; the message names the value and the choices."""


# --- what may be written ----------------------------------------------------------------------------------------------


def check(claim: dict[str, Any] | None, names: Iterable[str], seeds: Sequence[int]) -> None:
    """Refuses a claim that no run could decide.

    Args:
        names: rows of its table.

    Raises:
        ClaimError: for an unknown variant or key, no rule or two, or fewer than two seeds.
    """
    if claim is None:
        return
    names = list(names)
    if not claim.get("says") or not claim.get("tests"):
        raise ClaimError("a claim needs `says`, its hypothesis in words, and `tests`")
    if len(seeds) < 2:
        raise ClaimError(f"a claim needs two seeds or more to show any spread, got {list(seeds)}")
    for test in claim["tests"]:
        if not isinstance(test, dict):
            raise ClaimError(f"test {test!r}: write a mapping such as {{metric: fid, variant: A, beats: B}}")
        for key in test:
            if key not in KEYS:
                raise ClaimError(f"test {test_text(test)}: unknown key {key!r}{hint(key, sorted(KEYS))}")
        rules = [rule for rule in RULES if rule in test]
        if len(rules) != 1 or "metric" not in test or "variant" not in test:
            raise ClaimError(f"test {test_text(test)}: it needs metric, variant and one of {', '.join(RULES)}")
        if ("within" in test) != (rules[0] == "no_worse_than"):
            raise ClaimError(f"test {test_text(test)}: `within` goes with no_worse_than, and that needs it")
        known = _off_the_ladder(names) if test["metric"] == LADDER else names
        for key in ("variant", "beats", "no_worse_than"):
            if key in test and test[key] not in known:
                raise ClaimError(f"test {test_text(test)}: unknown variant {test[key]!r}{hint(test[key], known)}")
        for key in ("metric", "per"):
            if key in test and not metrics.known(str(test[key])):
                raise ClaimError(
                    f"test {test_text(test)}: unknown metric {test[key]!r}{hint(test[key], metrics.names())}"
                )


def _off_the_ladder(names: list[str]) -> list[str]:
    """Rows without their learning rate."""
    return list(dict.fromkeys(re.sub(r" lr=\S+", "", name) for name in names))


def test_text(test: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in test.items()) + "}"


def hint(word: Any, choices: list[str]) -> str:
    return nearest(word, choices, f" (choose from {', '.join(choices)})")
