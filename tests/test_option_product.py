"""Every pair of options of every scheme is built, or refused in a sentence with the reason."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch

import architectures
from architectures import BackboneConfig

SMALL = BackboneConfig(width=16, depth=2, heads=2, patch=4)
REASONS = {  # what does not fit, and what would: and a pair of flux's or sd3's that it is said of
    "modulation 'none' without a gate leaves the blocks unmodulated: choose another of the two": {
        "modulation": "none",
        "gate": "one",
    },
    "an approximator has one map for all vectors, .*: choose gate zero": {
        "head": "approximator(D, 2)",
        "gate": "gaussian(1e-3)",
    },
    "an approximator gives vectors of D channels, and an angle has half as many: choose modulation": {
        "head": "approximator(D, 2)",
        "modulation": "rotate",
    },
    "early 'separate' keeps the prompt from the image where all have two streams: choose dual": {
        "dual": "all",
        "early": "separate",
    },
    "head '.*' reads c, and with these signals there is none: choose per-block, shared, shared.table, or signals": {
        "head": "low-rank(D/8)",
        "signals": "none",
    },
    "prompt_time 'zero' .* no timestep modulates here .*: choose prompt_time t or none": {
        "prompt_time": "zero",
        "signals": "pooled",
    },
    "text 'plain' .* prompt_time 'zero' .*: leave one of the two out": {"text": "plain", "prompt_time": "zero"},
    "context 'static' updates no token of the prompt, .*: leave prompt_sees_image at yes": {
        "context": "static",
        "prompt_sees_image": "no",
    },
    "time '.*' is a way in for the timestep, which is none of the signals": {"signals": "pooled", "time": "token"},
    "context 'static' gives the prompt's tokens a map in each block: leave head at per-block": {
        "context": "static",
        "head": "shared",
    },
    "text_layers 'each' .* context 'static' updates none: leave one of the two out": {
        "context": "static",
        "text_layers": "each",
    },
}
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


def refusals(scheme: str, tried: list[dict[str, Any]]) -> dict[str, str]:
    """The pairs that are refused, with what is said."""
    with torch.device("meta"):
        return {str(options): said for options in tried if (said := built(scheme, options))}


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_pair_of_options_is_built_or_refused_with_the_reason(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)  # a third of the time
    tried = pairs(scheme)
    refused = refusals(scheme, tried)
    unexplained = {options: said for options, said in refused.items() if not any(re.search(r, said) for r in REASONS)}
    assert not unexplained
    assert len(refused) <= max(1, len(tried) // 5), "an option that most others exclude is none"


def test_each_reason_is_given_by_some_pair() -> None:
    """No sentence of the list is of the past."""
    for reason, options in REASONS.items():
        scheme = "flux" if "early" in options else "sd3"
        assert options in pairs(scheme) and re.search(reason, built(scheme, options)), reason
    assert sum(len(pairs(scheme)) for scheme in SCHEMES) > 5000
