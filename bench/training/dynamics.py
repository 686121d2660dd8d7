"""How a cell learns: how far its blocks move the stream, how their gates and scales stand, what their gradients are.

Looked at before training, after steps 1, 2, 4, ... and then every `train.probe_every` steps, between steps: one pass of
a few held-out pictures without gradients. Names in the journal: `dynamics/open/block03` (|h_out - h_in| / |h_in|),
`dynamics/share/block03.mlp` (of the carried stream that the branch adds), `dynamics/gate/block03.mlp` (mean |gate|),
`gate_spread`, `gate_saturation` (share beyond 0.97), the same of `scale`, and `dynamics/gradient/block03`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from architectures import Branch, Observation, observe
from bench.data.prompts import to_device
from bench.store.seeds import generator
from bench.training.flow import from_images, interpolate

PREFIX = "dynamics/"
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
PICTURES = 2  # at each of the times
BEYOND = 0.97  # where a gate or a scale counts as saturated


def due(step: int, every: int) -> bool:
    """Whether a step is one that is looked at: 0, the powers of two before `every`, and its multiples."""
    return step % every == 0 or (step < every and step & (step - 1) == 0)


class Probe:
    """The same few held-out pictures, noise and times at every look, and in every cell."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        rows = np.arange(PICTURES * len(TIMES)) % len(subject.data.heldout)
        pictures = from_images(torch.from_numpy(np.asarray(subject.data.heldout.images[rows])))
        noise = torch.randn(pictures.shape, generator=generator(subject.config.evaluate.seed, "dynamics"))
        self.t = torch.tensor(TIMES).repeat_interleave(PICTURES).to(subject.device)
        self.x = interpolate(pictures.to(subject.device), noise.to(subject.device), self.t)
        self.prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)

    @torch.no_grad()
    def look(self) -> Observation:
        """One pass, without gradients and without the compiled graph."""
        with observe(self.subject.model) as seen, self.subject.autocast():
            self.subject.model.forward(self.x, self.t, self.prompt)
        return seen


def numbers(seen: Observation) -> dict[str, float]:
    """What the journal keeps of a look, means over its pictures."""
    told = {f"open/{_block(index)}": moved.mean().item() for index, moved in seen.blocks.items()}
    for (index, name), branch in seen.branches.items():
        where = f"{_block(index)}.{name}"
        told[f"share/{where}"] = branch.share.mean().item()
        for kind, value in (("gate", branch.gate), ("scale", branch.scale)):
            if value is not None:
                size = value.float().abs()
                told |= {
                    f"{kind}/{where}": size.mean().item(),
                    f"{kind}_spread/{where}": value.float().std().item(),
                    f"{kind}_saturation/{where}": (size > BEYOND).float().mean().item(),
                }
    return {PREFIX + name: value for name, value in told.items()}


def _block(index: int) -> str:
    return f"block{index:02d}"


def gradients(model: Any) -> Tensor:
    """The norm of each block's gradient, (depth,), still on the device."""
    norms = []
    for block in model.blocks:
        found = [p.grad for p in block.parameters() if p.grad is not None]
        norms.append(torch.stack(torch._foreach_norm(found)).norm() if found else torch.zeros(()))
    return torch.stack([norm.detach().float().to(norms[-1].device) for norm in norms])


def named(gradients: Tensor) -> dict[str, float]:
    """The same as the journal keeps it."""
    return {f"{PREFIX}gradient/{_block(k)}": value for k, value in enumerate(gradients.tolist())}


# --- at the end -------------------------------------------------------------------------------------------------------


def summary(curves: dict[str, dict[int, float]], steps: int) -> dict[str, float]:
    """Numbers of a whole training, from its journal.

    `open_first`: how far blocks move the stream before training (0: identity), the largest; `open_last`: at the end,
    their mean. `opening_step`: when a block has opened half as far as it ends, a share of training, mean over blocks;
    `opening_order`: rank correlation of depth with that step (1: shallow blocks open first); `opening_depth`: rank
    correlation of depth with how far blocks are open at the end. `gate_first`, `gate_last`: mean |gate|. `spikes`:
    steps whose loss was over three times the mean of the window before.
    """
    depth = rows(curves, "open")
    told: dict[str, float] = {}
    if depth:
        table = np.array([list(points.values()) for points in depth.values()])  # (depth, looks)
        at = list(next(iter(depth.values())))
        half = [_reaches(at, row, row[-1] / 2) / steps for row in table]
        told = {
            "open_first": float(table[:, 0].max()),
            "open_last": float(table[:, -1].mean()),
            "opening_step": float(np.mean(half)),
        }
        told |= _correlations(half, table[:, -1])
    gates = rows(curves, "gate")
    if gates:
        first, last = zip(
            *((list(points.values())[0], list(points.values())[-1]) for points in gates.values()), strict=True
        )
        told |= {"gate_first": float(np.mean(first)), "gate_last": float(np.mean(last))}
    if "spikes" in curves:
        told["spikes"] = sum(curves["spikes"].values())
    return told


def _reaches(steps: list[int], values: np.ndarray, level: float) -> float:
    """The step from which on values stand at or above a level, between two looks by a straight line."""
    below = np.flatnonzero(values < level)
    if not len(below):
        return float(steps[0])
    k = int(below[-1])
    if k + 1 == len(values):
        return float(steps[-1])
    return float(np.interp(level, [values[k], values[k + 1]], [steps[k], steps[k + 1]]))


def _correlations(half: list[float], last: np.ndarray) -> dict[str, float]:
    from scipy.stats import spearmanr

    told = {}
    for name, values in (("opening_order", half), ("opening_depth", last)):
        if len(values) > 2 and np.ptp(values) > 0:
            told[name] = float(spearmanr(np.arange(len(values)), values).statistic)
    return told


def rows(curves: dict[str, dict[int, float]], kind: str) -> dict[str, dict[int, float]]:
    """`block03` or `block03.mlp` -> step -> value, of one kind of number, by depth."""
    start = f"{PREFIX}{kind}/"
    return {name.removeprefix(start): curves[name] for name in sorted(curves) if name.startswith(start)}


def heat(curves: dict[str, dict[int, float]]) -> dict[str, Any]:
    """What heat maps show: for each kind the steps, the blocks or branches, and their values, to 4 digits."""
    made = {}
    for kind in ("open", "gradient", "gate", "scale", "share"):
        found = rows(curves, kind)
        if found:
            steps = sorted(set.intersection(*(set(points) for points in found.values())))
            values = [[float(f"{points[step]:.4g}") for step in steps] for points in found.values()]
            made[kind] = {"steps": steps, "rows": list(found), "values": values}
    return made


def by_time(seen: Observation) -> dict[str, Any]:
    """Mean |gate| and |scale| of every branch at each of the times, of the trained model."""
    made: dict[str, Any] = {}
    for kind in ("gate", "scale"):
        table = {
            f"{_block(index)}.{name}": [float(f"{v:.4g}") for v in _at_times(branch, kind)]
            for (index, name), branch in sorted(seen.branches.items())
            if getattr(branch, kind) is not None
        }
        if table:
            made[kind] = {"t": list(TIMES), "rows": list(table), "values": list(table.values())}
    return made


def _at_times(branch: Branch, kind: str) -> list[float]:
    value: Tensor = getattr(branch, kind)
    value = value.float().abs().mean(-1)
    value = value.expand(PICTURES * len(TIMES)) if len(value) == 1 else value
    return value.view(len(TIMES), PICTURES).mean(1).tolist()
