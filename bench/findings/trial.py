"""What a test of a claim is about, and what its numbers say before Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.findings.words import counted
from bench.store.metrics import Measurement

More = Callable[[float], str]


@dataclass(frozen=True)
class Rows:
    """The values that a test is about.

    Attributes:
        named: row -> seed -> value, of the rows it names, in its order. peers: the same of all rows of the comparison.
        apart: why they cannot be compared, or empty. least: the variance of a value is at least this.
        lost: row -> how many of its seeds never master the task. below: row -> how many are below the ladder.
    """

    metric: Measurement
    named: Mapping[str, Mapping[int, float]]
    peers: Mapping[str, Mapping[int, float]]
    apart: str = ""
    least: float = 0.0
    lost: Mapping[str, int] | None = None
    below: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Trial:
    """A test before Holm's correction.

    Attributes:
        p: None where nothing can be decided, for the reason `why`. holds: whether the numbers lie on its side.
        gap, evidence: as text. same: p of equivalence within the margin of `beats`.
        more: the level -> how many more seeds give power, or why none do, as text.
    """

    why: str = ""
    p: float | None = None
    holds: bool = False
    gap: str = ""
    evidence: str = ""
    same: float | None = None
    more: More = lambda level: ""


def below_text(below: Mapping[str, int]) -> str:
    """That seeds are below the ladder: `2 seeds of a and 1 seed of b are lost at the lowest rate`."""
    listed = " and ".join(f"{counted(count, 'seed')} of {name}" for name, count in below.items() if count)
    return f"{listed} {'is' if sum(below.values()) == 1 else 'are'} lost at the lowest rate"
