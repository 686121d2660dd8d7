"""Every pair of options of every scheme is built, or refused in a sentence with the reason."""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

import pytest
import torch

import architectures
from architectures import BackboneConfig

SMALL = BackboneConfig(width=16, depth=2, heads=2, patch=4)
REASONS = (  # what does not fit, and what would
    "modulation 'none' without a gate leaves the blocks unmodulated: choose another of the two",
    "an approximator has one map for all vectors, .*: choose gate zero",
    "head '.*' reads c, and with these signals there is none: choose per-block, shared, shared.table, or signals",
    "prompt_time 'zero' .* no timestep modulates here .*: choose prompt_time t or none",
    "text 'plain' .* prompt_time 'zero' .*: leave one of the two out",
    "context 'static' updates no token of the prompt, .*: leave prompt_sees_image at yes",
)
SCHEMES = architectures.schemes()


def built(scheme: str, options: dict[str, Any]) -> str:
    """Why a scheme's blocks are not built with these options; empty if they are."""
    kind = architectures.scheme_class(scheme)
    try:
        made = kind(SMALL, 16, **kind.resolve(options))
        blocks = [made.block(index) for index in range(SMALL.depth)]
    except ValueError as error:
        return str(error)
    assert all(repr(block) for block in blocks)
    return ""


def pairs(scheme: str) -> list[dict[str, Any]]:
    """All pairs of choices of two options."""
    listed = {name: option.choices for name, option in architectures.describe(scheme).options.items() if option.choices}
    both = itertools.combinations(listed, 2)
    return [{a: x, b: y} for a, b in both for x, y in itertools.product(listed[a], listed[b])]


@functools.cache
def refusals(scheme: str) -> dict[str, str]:
    """The pairs that are refused, with what is said."""
    with torch.device("meta"):
        return {str(options): said for options in pairs(scheme) if (said := built(scheme, options))}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_pair_of_options_is_built_or_refused_with_the_reason(scheme: str) -> None:
    refused = refusals(scheme)
    unexplained = {options: said for options, said in refused.items() if not any(re.search(r, said) for r in REASONS)}
    assert not unexplained
    assert len(refused) <= len(pairs(scheme)) // 5, "an option that most others exclude is none"


def test_each_reason_is_given_by_some_pair() -> None:
    """No sentence of the list is of the past."""
    said = {one for scheme in ("sd3", "lumina2") for one in refusals(scheme).values()}
    unused = [reason for reason in REASONS if not any(re.search(reason, one) for one in said)]
    assert unused == [], sorted(said)
    assert sum(len(pairs(scheme)) for scheme in SCHEMES) > 3000
