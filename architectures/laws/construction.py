"""Laws of construction: a scheme builds, keeps shapes, and gives finite numbers."""

from __future__ import annotations

import torch

from architectures.laws.core import (
    CAPTIONS,
    CONFIG,
    FEATURES,
    LABELS,
    SchemeUnderTest,
    law,
    require,
)
from architectures.laws.formula import formula
from architectures.options import few
from architectures.registry import scheme_class
from architectures.scheme import Facts, Scheme


@law("builds")
def builds(s: SchemeUnderTest) -> str:
    """Built from (backbone, image_size) and its options, with facts and equations, on `meta` too."""
    cls = scheme_class(s.scheme)
    require(isinstance(cls, type) and issubclass(cls, Scheme), f"{cls!r} is no subclass of architectures.Scheme")
    facts = getattr(cls, "facts", None)
    require(isinstance(facts, Facts), "it has no `facts = Facts(...)`")
    assert isinstance(facts, Facts)
    require((cls.__doc__ or "").strip() and cls.__doc__ != Scheme.__doc__, "its docstring holds no equations")
    require(facts.source.strip(), "facts.source names neither a paper nor `none`")
    require(facts.length in ("any", "tokens"), f"facts.length {facts.length!r}: choose any or tokens")
    require(facts.reads <= {"tokens", "pooled"}, f"facts.reads {set(facts.reads)}: choose of tokens, pooled")
    formula(facts.modulation_parameters, d=8, n=2)
    model = s.build()
    with torch.device("meta"):
        s.build()
    return f"{sum(p.numel() for p in model.parameters()):,} parameters at width {CONFIG.width}, depth {CONFIG.depth}"


@law("shapes")
def shapes(s: SchemeUnderTest) -> str:
    """(B, C, H, W) in, (B, C_out, H, W) out, at three sizes and for each kind of prompt."""
    for size, patch, kind in ((16, 4, LABELS), (8, 2, CAPTIONS), (24, 8, FEATURES)):
        config = CONFIG.with_changes(patch=patch)
        x, t, prompt = s.inputs(kind, size=size, patch=patch)
        model = s.build(kind, size=size, config=config, out_channels=6)
        c = model.condition(t, prompt)
        h = model.scheme.enter(torch.zeros(4, (size // patch) ** 2, config.width), c)
        for index in range(len(model.blocks)):
            h = model.step(index, h, c)
        left, due = model.scheme.leave(h, c), (4, (size // patch) ** 2, config.width)
        require(left.shape == due, f"leave gives {tuple(left.shape)} where (B, N, D) is {due}")
        out, expected = model(x, t, prompt), (4, 6, size, size)
        require(out.shape == expected, f"{tuple(out.shape)} where {expected} is due ({size} px, patch {patch})")
        require(out.dtype == torch.float32, f"{out.dtype} where float32 went in")
    with torch.device("meta"):  # where a plan counts what it costs
        s.build()(torch.empty(2, 3, 16, 16), torch.empty(2), s.kind().null(2, "meta"))
    return "16, 8 and 24 px; labels, captions, features"


@law("numbers")
def numbers(s: SchemeUnderTest) -> str:
    """Finite outputs and gradients at t = 0, t = 1 and between, for the null prompt too."""
    for model in (s.build(), s.random()):
        x, _, prompt = s.inputs()
        for p in (prompt, s.kind().null(4)):
            out = model(x, torch.tensor([0.0, 0.3, 0.7, 1.0]), p)
            require(out.isfinite().all(), f"{int((~out.isfinite()).sum())} of {out.numel()} outputs are NaN or Inf")
        out.square().mean().backward()
        bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        require(not bad, f"the gradient of {few(bad)} is NaN or Inf")
    return "all finite"
