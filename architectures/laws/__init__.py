"""The laws that every scheme obeys, built in or a plugin's: `ditbench check NAME` runs them, and so does pytest.

    @pytest.mark.parametrize("law", laws.LAWS, ids=str)
    def test_law(law):
        law.assert_holds("my-gate")          # raises laws.LawViolation with a sentence

A law checks a `SchemeUnderTest`, small models of one scheme, and describes what it observed. All but those of the
initial state make every parameter random: weights that are zero would hide what is wrong.
"""

from __future__ import annotations

from architectures.laws import conditioning, construction, facts, runtime
from architectures.laws.core import (
    CAPTIONS,
    CONFIG,
    FEATURES,
    LABELS,
    LAWS,
    PROMPTS,
    SLOTS,
    Law,
    LawViolation,
    SchemeUnderTest,
    Verdict,
    check,
    first_violation,
    inputs,
    randomised,
)
from architectures.laws.formula import formula

LAWS += [
    construction.builds,
    construction.shapes,
    construction.numbers,
    conditioning.depends_on_time,
    conditioning.depends_on_prompt,
    conditioning.padding,
    conditioning.batch,
    conditioning.gradients,
    facts.beginning,
    facts.feeds,
    facts.reads,
    facts.modulation_parameters,
    facts.roles,
    facts.fair_beginning,
    facts.options,
    runtime.low_precision,
    runtime.stream,
    runtime.encoded_prompt,
    runtime.compiles,
    runtime.saves,
    runtime.no_memory,
    runtime.deterministic,
]

__all__ = [
    "CAPTIONS",
    "CONFIG",
    "FEATURES",
    "LABELS",
    "LAWS",
    "PROMPTS",
    "SLOTS",
    "Law",
    "LawViolation",
    "SchemeUnderTest",
    "Verdict",
    "check",
    "first_violation",
    "formula",
    "inputs",
    "randomised",
]
