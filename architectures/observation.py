"""What blocks do to their stream: how far each moves it, how its branches are gated. And how a scheme begins to learn.

with observe(model) as seen:
    model(x, t, prompt)
seen.blocks[i]                      # (B,) |h_out - h_in| / |h_in|, of any block
seen.branches[i, "attention"]       # of sub-layers made by the rule: share, gate, scale, each for the batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from architectures.backbone import DiT, create
from architectures.prompt import Labels
from architectures.scheme import BackboneConfig
from architectures.sublayer import SubLayer, Vectors


class Branch(NamedTuple):
    """One sub-layer in one pass.

    Attributes:
        share: (B,) |gate(g) y| / |what is carried|. gate: gate(g) (B, D), or None where there is none.
        scale: s (B, D), or None. told: g itself, in the graph.
    """

    share: Tensor
    gate: Tensor | None
    scale: Tensor | None
    told: Tensor | None


@dataclass
class Observation:
    """The last pass under `observe`; `blocks` by depth, `branches` by (depth, name), of blocks that have such."""

    blocks: dict[int, Tensor] = field(default_factory=dict)
    branches: dict[tuple[int, str], Branch] = field(default_factory=dict)


@contextmanager
def observe(model: DiT) -> Iterator[Observation]:
    """Watches every pass of a model's `forward`; the model computes the same as without."""
    seen = Observation()
    undo: list[Callable[[], Any]] = []
    for index, block in enumerate(model.blocks):
        undo.append(block.register_forward_hook(_block_hook(seen, index)).remove)
        for name, part in block.named_modules():
            if isinstance(part, SubLayer):
                part.after = _after(seen, (index, name), part)  # type: ignore[method-assign]
                undo.append(partial(part.__dict__.pop, "after"))
    try:
        yield seen
    finally:
        for back in undo:
            back()


def _block_hook(seen: Observation, index: int) -> Callable[..., None]:
    def hook(block: nn.Module, given: tuple, out: Any) -> None:
        before, after = _whole(given[0]), _whole(out)
        if before.shape == after.shape:
            seen.blocks[index] = _ratio(after - before, before)

    return hook


def _whole(h: Any) -> Tensor:
    """The image's stream, with the prompt's behind it where there are two."""
    return h if isinstance(h, Tensor) else torch.cat(list(h), dim=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """|part| / |whole| of every picture, (B,)."""
    part, whole = part.detach().flatten(1).float(), whole.detach().flatten(1).float()
    return part.norm(dim=1) / whole.norm(dim=1).clamp(min=1e-12)


def _after(seen: Observation, key: tuple[int, str], part: SubLayer) -> Callable[..., Tensor]:
    own = part.after

    def after(x: Tensor, u: Tensor, y: Tensor, m: Vectors) -> Tensor:
        out = own(x, u, y, m)
        carried = part.carry(x, u)
        gate = part.gate.function(m.gate).detach() if part.gate.function is not None and m.gate is not None else None
        scale = m.scale.detach() if m.scale is not None else None
        seen.branches[key] = Branch(_ratio(out - carried, carried), gate, scale, m.gate)
        return out

    return after


# --- how a scheme begins ----------------------------------------------------------------------------------------------

TRIAL = BackboneConfig(width=32, depth=3, heads=2, patch=4)


class Beginning(NamedTuple):
    """Before training step `step`: whether every block is x <- x, and the norms of the loss's gradients with respect to
    the gates' vectors g and to the weights inside the gated branches. None where there is nothing of the kind."""

    step: int
    identity: bool
    gates: float | None
    branches: float | None


def beginning(scheme: str, *, live: bool, steps: int = 3, seed: int = 0, **options: Any) -> list[Beginning]:
    """The first steps of a small model, in float64 and by plain gradient descent, so that what is zero is exactly zero.

    Args:
        live: with an output layer that is drawn instead of zero: a block as analysed alone.
    """
    draw = torch.Generator().manual_seed(seed)
    model = create(scheme, TRIAL, image_size=16, in_channels=3, prompt=Labels(5), seed=seed, **options).double()
    if live:
        with torch.no_grad():
            model.head.weight.normal_(std=0.1, generator=draw)
    x, noise = (torch.randn(4, 3, 16, 16, generator=draw, dtype=torch.float64) for _ in range(2))
    t = torch.rand(4, generator=draw, dtype=torch.float64)
    told = []
    for step in range(steps):
        with observe(model) as seen:
            model.zero_grad()
            out = model(x, t, torch.arange(4))
            gates = [branch.told for branch in seen.branches.values() if branch.told is not None]
            for g in gates:
                g.retain_grad()
            (out - noise).square().mean().backward()
        identity = all(bool((moved == 0).all()) for moved in seen.blocks.values()) and bool(seen.blocks)
        told.append(Beginning(step, identity, _norm(g.grad for g in gates) if gates else None, _norm(_inside(model))))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
    return told


def _inside(model: DiT) -> Iterator[Tensor | None]:
    """Gradients of the weights of what gated sub-layers compute."""
    for part in model.blocks.modules():
        if isinstance(part, SubLayer) and part.gate.function is not None:
            yield from (parameter.grad for parameter in part.op.parameters())


def _norm(gradients: Any) -> float | None:
    found = [g.square().sum() for g in gradients if g is not None]
    return float(torch.stack(found).sum().sqrt()) if found else None
