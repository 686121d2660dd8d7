"""Laws of facts: what a scheme declares of itself is what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from architectures.backbone import DiT, create, parameter_roles
from architectures.laws.core import (
    CONFIG,
    FEATURES,
    LABELS,
    MOVED,
    LawViolation,
    SchemeUnderTest,
    distance,
    law,
    require,
)
from architectures.laws.formula import formula
from architectures.options import few
from architectures.registry import scheme_class
from architectures.sublayer import Condition

COMMON = ("patches.", "time.", "head.")  # parameters outside the blocks that every scheme has


@law("beginning")
def beginning(s: SchemeUnderTest) -> str:
    """The output is zero at first; blocks are initialised as x <- x exactly if the facts declare it."""
    model, (x, t, prompt) = s.build(), s.inputs()
    require(
        model(x, t, prompt).abs().max() == 0, "the output Linear is initialised to zero, so the output must be zero"
    )
    c = model.condition(t, prompt)
    h = model.scheme.enter(torch.randn(4, 16, CONFIG.width, generator=torch.Generator().manual_seed(1)), c)
    still = list(_identities(model, h, c))
    if not s.published:
        return f"{sum(still)} of {len(still)} blocks are the identity at first (facts describe the default options)"
    if model.scheme.facts.identity_at_init:
        require(all(still), f"identity_at_init is declared, but {still.count(False)} of {len(still)} blocks move x")
        return "every block is initialised as x <- x, as declared"
    require(not any(still), "identity_at_init is not declared, but a block is initialised as x <- x")
    return "no block is initialised as x <- x, as declared"


@law("what feeds c")
def feeds(s: SchemeUnderTest) -> str:
    """The vector c sums what facts.vector declares: timestep, pooled prompt, both or none."""
    model, (_, t, prompt), facts = s.random(), s.inputs(), s.facts()
    declared = {word for word in facts.vector.split(" + ") if word != "none"}
    known = {"timestep", "pooled prompt"}
    require(
        declared <= known,
        f"facts.vector {facts.vector!r}: join of {', '.join(sorted(known))}, or write none",
    )
    encoded = model.read(prompt)
    vector = getattr(model.condition(t, encoded), "vector", None)
    sources: set[str] = set()
    if vector is not None:
        other: Any = model.condition(t * 0.5, encoded).vector
        sources |= {"timestep"} if not torch.allclose(vector, other, atol=1e-6) else set()
        other = model.condition(t, encoded._replace(pooled=encoded.pooled.roll(1, 0))).vector
        sources |= {"pooled prompt"} if not torch.allclose(vector, other, atol=1e-6) else set()
    observed = " + ".join(sorted(sources, reverse=True)) or "none"
    require(sources == declared, f"facts.vector is {facts.vector!r}, but c.vector depends on: {observed}")
    return observed


@law("what it reads")
def reads(s: SchemeUnderTest) -> str:
    """Of tokens and pooled prompt it reads what facts.reads declares, and nothing else."""
    model, (x, t, prompt) = s.random(FEATURES), s.inputs(FEATURES)
    out, declared = model(x, t, prompt), s.facts().reads
    changed = {
        "tokens": prompt._replace(tokens=prompt.tokens + prompt.tokens.roll(1)),
        "pooled": prompt._replace(pooled=prompt.pooled.roll(1, 0)),
    }
    for part, other in changed.items():
        moved = bool(distance(model(x, t, other), out).max() > MOVED)
        require(moved or part not in declared, f"facts.reads names {part}, but they change nothing")
        require(not moved or part in declared, f"it reads {part}, which facts.reads does not name")
    return " and ".join(sorted(declared))


@law("modulation parameters")
def modulation_parameters(s: SchemeUnderTest) -> str:
    """The number of modulation parameters is the declared formula in d (width) and n (depth)."""
    if not s.published:
        return "the formula describes the default options"
    for d, n in ((32, 3), (48, 5)):
        model = s.build(config=CONFIG.with_changes(width=d, depth=n))
        declared, counted = model.scheme.facts.modulation_parameters, model.parameter_split()["modulation"]
        due = formula(declared, d=d, n=n)
        require(due == counted, f"{declared} is {due:,} at d={d}, n={n}, but {counted:,} have the role `modulation`")
    return declared


@law("roles")
def roles(s: SchemeUnderTest) -> str:
    """The backbone's parameters are those that all schemes have; the others are modulation, prompt or scheme."""
    model, reference = s.build(), create("adaln-zero", CONFIG, image_size=16, in_channels=3, prompt=LABELS, seed=0)
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for parameter in module.parameters()
    }
    counted = [name for name, role in parameter_roles(model).items() if role == "backbone"]
    known = {name for name, role in parameter_roles(reference).items() if role == "backbone"}
    parameters = dict(model.named_parameters())
    added = [name for name in counted if name not in known and id(parameters[name]) not in norms]
    require(
        not added or s.facts().replaces,
        f"{few(added)} would count as the backbone's; set `role` of the module to modulation, prompt or scheme",
    )
    split = model.parameter_split()
    return ", ".join(f"{part} {number:,}" for part, number in split.items() if number)


@law("fair beginning")
def fair_beginning(s: SchemeUnderTest) -> str:
    """What all schemes have is initialised with the same weights, whatever torch's own seed is."""
    mine = dict(s.build().named_parameters())
    theirs = dict(create("adaln-zero", CONFIG, image_size=16, in_channels=3, prompt=LABELS, seed=0).named_parameters())
    shared = [part for part in ("attention", "mlp") if part not in s.facts().replaces]
    common = tuple(part for part in COMMON if part != "time." or s.facts().time != "none")
    names = [n for n in theirs if n.startswith(common) or any(f".{part}.op." in n for part in shared)]
    missing = [n for n in names if n not in mine]
    require(not missing, f"{few(missing)} is not there; name sub-layers attention and mlp, or declare facts.replaces")
    other = [n for n in names if not torch.equal(mine[n], theirs[n])]
    require(not other, f"{few(other)} is initialised otherwise than in other schemes")
    torch.manual_seed(123)
    again = s.build().state_dict()
    random = [n for n, value in s.build().state_dict().items() if not torch.equal(value, again[n])]
    require(not random, f"{few(random)} depends on torch's global seed; declare its initial values with `init_with`")
    require(
        not torch.equal(mine["patches.weight"], s.build(seed=1).patches.weight), "another seed gives the same weights"
    )
    return f"{len(names)} tensors equal those of adaln-zero"


@law("options")
def options(s: SchemeUnderTest) -> str:
    """Every choice of every option builds and runs; any other is refused."""
    x, t, prompt = s.inputs()
    tried = 0
    for name, option in scheme_class(s.scheme).options().items():
        for choice in option.choices:
            try:
                model = SchemeUnderTest(s.scheme, {name: choice}).random()
            except ValueError as error:
                raise LawViolation(f"its option {name} offers {choice!r}, but: {error}") from error
            require(model(x, t, prompt).isfinite().all(), f"{name}={choice} gives NaN or Inf")
            tried += 1
        if option.choices:
            try:
                SchemeUnderTest(s.scheme, {name: "nonsense"}).build()
            except ValueError:
                continue
            raise LawViolation(f"its option {name} takes 'nonsense'")
    return f"{tried} choices" if tried else "none that list their choices"


def _identities(model: DiT, h: Any, c: Condition) -> Iterator[bool]:
    """Whether each block gives what it received."""
    for index in range(len(model.blocks)):
        before = model.scheme.join(index, h, c)
        h = model.step(index, h, c)
        if torch.is_tensor(h) and not torch.is_tensor(before):
            before = torch.cat(before, dim=1)  # this block joins the streams
        yield _same(h, before)


def _same(a: Any, b: Any) -> bool:
    """Equality of what blocks pass on: tokens, or a pair of streams."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
