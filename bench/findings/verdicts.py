"""What became of a claim and of each of its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["supported", "contradicted", "equivalent", "undecided"]


@dataclass(frozen=True)
class TestResult:
    """One test of a claim as a sentence, its decision, and the numbers that rests on.

    Attributes:
        gap: of the evidence the difference (or the mean, where there is no rival) with its interval. p: after Holm.
    """

    __test__ = False  # no test of pytest's

    text: str
    verdict: Decision
    evidence: str
    gap: str = ""
    p: float | None = None


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim and what became of it.

    Attributes:
        name: of its matrix. says: the hypothesis. caveats: without which it could be read wrongly.
    """

    name: str
    says: str
    verdict: Decision
    tests: list[TestResult]
    caveats: list[str]


def together(decisions: set[Decision]) -> Decision:
    """The verdict on a claim of several tests.

    It is contradicted if one is, or if one is equivalent where others are supported: a difference that was asserted is
    shown not to be there.
    """
    if "contradicted" in decisions or decisions == {"equivalent", "supported"}:
        return "contradicted"
    return next(iter(decisions)) if len(decisions) == 1 else "undecided"
