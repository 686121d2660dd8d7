"""What a test of a claim is about, and what its numbers say before Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.findings.words import counted
from bench.store.metrics import Measurement

More = Callable[[float], str]


@dataclass(frozen=True)
class Rows:
    """The values that a test is about.

    Attributes:
        named: row -> seed -> value, of the rows it names, in its order. peers: the same of all rows of the comparison.
        apart: why they cannot be compared, or empty. least: the variance of a value is at least this.
        lost: row -> how many of its seeds never master the task. below, beyond: row -> how many of its seeds the lowest
            rate of a ladder loses, and how many no rate loses.
    """

    metric: Measurement
    named: Mapping[str, Mapping[int, float]]
    peers: Mapping[str, Mapping[int, float]]
    apart: str = ""
    least: float = 0.0
    lost: Mapping[str, int] | None = None
    below: Mapping[str, int] = field(default_factory=dict)
    beyond: Mapping[str, int] = field(default_factory=dict)


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


def off_the_ladder(below: Mapping[str, int], beyond: Mapping[str, int]) -> str:
    """Seeds whose highest rate is not on the ladder: `1 seed of a is lost at the lowest rate, 2 seeds of b at none`.

    Empty where there are none.
    """
    ends = [(below, "at the lowest rate"), (beyond, "at none")]
    found = [(_listed(seeds), sum(seeds.values()), where) for seeds, where in ends if any(seeds.values())]
    first = [f"{listed} {'is' if count == 1 else 'are'} lost {where}" for listed, count, where in found[:1]]
    return ", ".join([*first, *(f"{listed} {where}" for listed, _, where in found[1:])])


def _listed(seeds: Mapping[str, int]) -> str:
    return " and ".join(f"{counted(count, 'seed')} of {name}" for name, count in seeds.items() if count)
