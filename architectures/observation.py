"""What blocks do to their stream: how far each moves it, how its branches are gated, and the first training steps.

with observe(model) as observed:
    model(x, t, prompt)
observed.blocks[i]                      # (B,) |h_out - h_in| / |h_in| of the streams that block i changes
observed.branches[i, "attention"]       # of sub-layers made by the rule: share, gate, scale, each for the batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from architectures.backbone import DiT, create, fitting
from architectures.prompt import Labels
from architectures.scheme import BackboneConfig
from architectures.sublayer import Observer, SubLayer, Vectors


class Branch(NamedTuple):
    """One sub-layer in one pass.

    Attributes:
        share: (B,) |gate(g) y| / |what is carried|.
        gate: gate(g) (B, D), or None where there is none; of vectors of each token's own (B, N D).
        scale: s (B, D), or None.
        g: the gate's vector itself, in the graph.
    """

    share: Tensor
    gate: Tensor | None
    scale: Tensor | None
    g: Tensor | None


@dataclass
class Observation:
    """The last pass under `observe`; `blocks` by depth, `branches` by (depth, name), of blocks that have such."""

    blocks: dict[int, Tensor] = field(default_factory=dict)
    branches: dict[tuple[int, str], Branch] = field(default_factory=dict)


@contextmanager
def observe(model: DiT) -> Iterator[Observation]:
    """Observes every pass of a model's `forward`; the model computes the same as without."""
    observed = Observation()
    undo: list[Callable[[], None]] = []
    for index, block in enumerate(model.blocks):
        undo.append(block.register_forward_hook(_block_hook(observed, index)).remove)
        for name, part in block.named_modules():
            if isinstance(part, SubLayer):
                part.observer = _branch_observer(observed, (index, name), part)
                undo.append(partial(setattr, part, "observer", None))
    try:
        yield observed
    finally:
        for step in undo:
            step()


def _block_hook(observed: Observation, index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(block: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        before, after = (torch.cat(parts, dim=1) for parts in changed(args[0], out))
        if before.shape == after.shape:
            observed.blocks[index] = _ratio(after - before, before)

    return hook


def changed(h: Any, out: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The streams that a block changes, before and after it; all where it joins them, or changes none.

    What it hands on as it was is left out: a stream that it reads alone, or vectors that modulate (DDT).
    """
    before, after = ([streams] if isinstance(streams, Tensor) else list(streams) for streams in (h, out))
    pairs = [(one, other) for one, other in zip(before, after, strict=False) if one is not other]
    if len(before) == len(after) and pairs:
        return [one for one, _ in pairs], [other for _, other in pairs]
    return before, after


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """|part| / |whole| of every image, (B,)."""
    part, whole = part.detach().flatten(1).float(), whole.detach().flatten(1).float()
    return part.norm(dim=1) / whole.norm(dim=1).clamp(min=1e-12)


def _branch_observer(observed: Observation, key: tuple[int, str], part: SubLayer) -> Observer:
    def observer(x: Tensor, u: Tensor, out: Tensor, m: Vectors) -> None:
        carried = part.carry(x, u)
        gate = part.gate.function(m.gate) if part.gate.function is not None and m.gate is not None else None
        gate, scale = (v.detach().flatten(1) if v is not None else None for v in (gate, m.scale))
        observed.branches[key] = Branch(_ratio(out - carried, carried), gate, scale, m.gate)

    return observer


# --- the first training steps
# ----------------------------------------------------------------------------------------------

TRIAL = BackboneConfig(width=32, depth=3, heads=2, patch=4)


class InitialStep(NamedTuple):
    """A model before training step `step`.

    Attributes:
        step: from 0.
        identity: whether every block is x <- x.
        gates: norm of the loss's gradient with respect to the gates' vectors g; None where there is no gate.
        branches: norm of its gradient with respect to the weights inside the gated branches; None where there are none.
    """

    step: int
    identity: bool
    gates: float | None
    branches: float | None


def initial_steps(scheme: str, *, live: bool, steps: int = 3, seed: int = 0, **options: Any) -> list[InitialStep]:
    """The first steps of a small model, in float64 and by plain gradient descent, so that zeros are exactly zero.

    Args:
        scheme: a registered name.
        live: with an output layer of random weights instead of zero: a block as analysed alone.
        steps: how many.
        seed: of weights and inputs.
        options: the scheme's own.
    """
    g = torch.Generator().manual_seed(seed)
    kind, tokens = fitting(scheme, Labels(5), TRIAL.grid(16) ** 2), TRIAL.grid(16) ** 2
    model = create(scheme, TRIAL, image_size=16, in_channels=3, prompt=kind, seed=seed, **options).double()
    prompt = torch.arange(4) if isinstance(kind, Labels) else 1 + torch.arange(4 * tokens).view(4, tokens) % 5
    if live:
        with torch.no_grad():
            model.head.weight.normal_(std=0.1, generator=g)
    x, noise = (torch.randn(4, 3, 16, 16, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.rand(4, generator=g, dtype=torch.float64)
    results = []
    for step in range(steps):
        with observe(model) as observed:
            model.zero_grad()
            out = model(x, t, prompt)
            gates = [branch.g for branch in observed.branches.values() if branch.g is not None]
            for gate in gates:
                gate.retain_grad()
            (out - noise).square().mean().backward()
        identity = all(bool((moved == 0).all()) for moved in observed.blocks.values()) and bool(observed.blocks)
        gate_norm = _norm(gate.grad for gate in gates) if gates else None
        results.append(InitialStep(step, identity, gate_norm, _norm(_inside(model))))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
    return results


def _inside(model: DiT) -> Iterator[Tensor | None]:
    """Gradients of the weights of what gated sub-layers compute."""
    for part in model.blocks.modules():
        if isinstance(part, SubLayer) and part.gate.function is not None:
            yield from (parameter.grad for parameter in part.op.parameters())


def _norm(gradients: Iterable[Tensor | None]) -> float | None:
    squares = [g.square().sum() for g in gradients if g is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else None
