"""Laws of conditioning: what the output depends on, and what it must not depend on."""

from __future__ import annotations

import torch

from architectures.laws.core import (
    CAPTIONS,
    FEATURES,
    MOVED,
    PROMPTS,
    SchemeUnderTest,
    distance,
    law,
    require,
    rows,
)
from architectures.options import few


@law("image and time")
def depends_on_time(s: SchemeUnderTest) -> str:
    """Every image's output depends on its x, and on its t unless the facts declare that it is no function of t."""
    model, (x, t, prompt) = s.random(), s.inputs()
    out = model(x, t, prompt)
    image, moment = distance(model(x + 0.1, t, prompt), out).min(), distance(model(x, t * 0.5, prompt), out).min()
    require(image > MOVED, "another x gives the same output")
    if s.facts().time == "none":
        require(moment == 0, f"facts.time is none, but another t moves the output by {moment.item():.1e}")
        return "no function of t, as declared"
    require(moment > MOVED, f"another t gives the same output (it moved by {moment.item():.1e})")
    return f"another t moves it by {moment:.2g}"


@law("prompt")
def depends_on_prompt(s: SchemeUnderTest) -> str:
    """Every image's output depends on its prompt, of each kind, and null is another prompt."""
    least = float("inf")
    for name, kind in PROMPTS.items():
        model, (x, t, prompt), kind = s.random(kind), s.inputs(kind), s.kind(kind)
        out = model(x, t, prompt)
        moved = distance(model(x, t, rows(prompt, [1, 2, 3, 0])), out).min()
        require(moved > MOVED, f"another prompt ({name}) gives the same output (it moved by {moved:.1e})")
        null = model(x, t, kind.null(4))
        require(distance(null, out).min() > MOVED, f"the null prompt ({name}) gives the output of a prompt")
        dropped = model(x, t, kind.drop(prompt, torch.tensor([True, False, True, False])))
        whole = torch.stack([null[0], out[1], null[2], out[3]])
        require(distance(dropped, whole).max() < 1e-4, f"a dropped prompt ({name}) is not the null prompt")
        least = min(least, moved.item())
    return f"{', '.join(PROMPTS)}; another prompt moves it by {least:.2g} or more"


@law("padding")
def padding(s: SchemeUnderTest) -> str:
    """Tokens that the mask hides change nothing."""
    model, (x, t, prompt) = s.random(FEATURES), s.inputs(FEATURES)
    other = prompt._replace(tokens=torch.where(prompt.mask[..., None], prompt.tokens, 9.0))
    moved = distance(model(x, t, other), model(x, t, prompt)).max()
    require(moved < 1e-5, f"padding moves the output by {moved:.1e}; pass c.mask to whatever reads the tokens")
    return "hidden tokens move nothing"


@law("batch")
def batch(s: SchemeUnderTest) -> str:
    """Images of a batch do not depend on one another: permuting it permutes the output."""
    model, (x, t, prompt) = s.random(CAPTIONS).eval(), s.inputs(CAPTIONS)
    out, order = model(x, t, prompt), [2, 0, 3, 1]
    size = out.abs().max().clamp(min=1)
    moved = distance(model(x[order], t[order], rows(prompt, order)), out[order]).max() / size
    require(moved < 1e-4, f"the order of the batch moves an image's output by {moved:.1e}")
    alone = distance(model(x[:1], t[:1], rows(prompt, [0])), out[:1]).max() / size
    require(alone < 1e-4, f"an image alone differs from the same in a batch by {alone:.1e}")
    return f"differences up to {max(moved.item(), alone.item()):.0e}"


@law("gradients")
def gradients(s: SchemeUnderTest) -> str:
    """Every parameter learns, once weights have left their initial values."""
    for kind in PROMPTS.values():
        model, (x, t, prompt), kind = s.random(kind), s.inputs(kind), s.kind(kind)
        prompt = kind.drop(prompt, torch.tensor([False, False, False, True]))
        model(x, t, prompt).square().mean().backward()
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        silent = [n for n, p in trained if p.grad is None or not p.grad.abs().sum() > 0]
        require(not silent, f"no gradient reaches {few(silent)}")
    return f"{len(trained)} tensors"
