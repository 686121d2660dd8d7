"""Numbers and lists as they are written in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bench.findings.statistics import interval


def number(value: float, digits: int = 3) -> str:
    """A value to so many digits; from 1,000 on without decimals."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def counted(count: int, what: str) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def bounds(values: Sequence[float], least: float = 0.0) -> str:
    """The interval of the mean of two values or more, whose spread is at least `least`: `[0.77, 0.87]`."""
    ends = interval(values, least=least)
    assert ends is not None
    return f"[{number(ends[0])}, {number(ends[1])}]"


def p_value(value: float) -> str:
    """A p value: `0.012`, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def machine(provenance: dict[str, Any]) -> str:
    """The processor or GPU that a cell was measured on, with how many there were of several: rates depend on both."""
    hardware, devices = provenance.get("hardware", {}), provenance.get("devices", 1)
    cut = " (fsdp)" if provenance.get("sharded") else ""
    return (f"{devices} x " if devices != 1 else "") + str(hardware.get("gpu") or hardware.get("cpu")) + cut


def seeds(found: Collection[int]) -> str:
    """`seed 3`, `seeds 0, 1`, `seeds 2 to 4`."""
    listed = sorted(set(found))
    if len(listed) > 2 and listed[-1] - listed[0] == len(listed) - 1:
        return f"seeds {listed[0]} to {listed[-1]}"
    return f"seed{'s' if len(listed) > 1 else ''} {', '.join(map(str, listed))}"


def in_letters(count: int) -> str:
    """`three` of 3; from eleven on as a number."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else f"{count:,}"
