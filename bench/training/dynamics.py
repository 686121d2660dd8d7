"""How a cell learns: how far its blocks move the stream, how large gates, scales and gradients are.

Observed before training, after steps 1, 2, 4, ... and then every `train.probe_every` steps, between steps: one pass of
a few held-out images without gradients. Names in the journal: `dynamics/open/block03` (|h_out - h_in| / |h_in|),
`dynamics/share/block03.mlp` (of the carried stream that the branch adds), `dynamics/gate/block03.mlp` (mean |gate|),
`gate_spread`, `gate_saturation` (share beyond 0.97), the same of `scale`, and `dynamics/gradient/block03`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from architectures import Branch, DiT, Observation, observe
from bench.data.pixels import from_images
from bench.data.prompts import to_device
from bench.data.subsets import chosen
from bench.store.seeds import derive, generator
from bench.training.model import LoadedCell
from bench.training.process import process_of
from bench.training.sharded import gathered

PREFIX = "dynamics/"
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
IMAGES = 2  # at each of the times
BEYOND = 0.97  # where a gate or a scale counts as saturated


def due(step: int, every: int) -> bool:
    """Whether a step is observed: 0, the powers of two before `every`, and its multiples."""
    return step % every == 0 or (step < every and step & (step - 1) == 0)


class Probe:
    """A pass of the same few held-out images, noise and times, at every step and in every cell."""

    def __init__(self, subject: LoadedCell) -> None:
        self.subject = subject
        heldout, seed, count = subject.data.heldout, subject.config.evaluate.seed, IMAGES * len(TIMES)
        rows = chosen(count, len(heldout), seed=seed, name="dynamics", labels=heldout.labels)
        rows = np.resize(np.random.default_rng(derive(seed, "dynamics rows")).permutation(rows), count)
        x_0 = from_images(torch.from_numpy(np.asarray(subject.data.heldout.exact[rows])))
        noise = torch.randn(x_0.shape, generator=generator(subject.config.evaluate.seed, "dynamics"))
        self.t = torch.tensor(TIMES).repeat_interleave(IMAGES).to(subject.device)
        self.x = process_of(subject.config.train).noisy(x_0.to(subject.device), noise.to(subject.device), self.t)
        self.prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)

    @torch.no_grad()
    def observe(self) -> Observation:
        """One pass, without gradients and without the compiled graph."""
        with observe(self.subject.model) as observed, self.subject.autocast():
            self.subject.model.forward(self.x, self.t, self.prompt)
        return observed


def curves_of(observed: Observation) -> dict[str, float]:
    """What the journal keeps of an observation, means over its images, which the host waits for once."""
    values = {f"open/{_block(index)}": moved.mean() for index, moved in observed.blocks.items()}
    for (index, name), branch in observed.branches.items():
        where = f"{_block(index)}.{name}"
        values[f"share/{where}"] = branch.share.mean()
        for kind, value in (("gate", branch.gate), ("scale", branch.scale)):
            if value is not None:
                size = value.float().abs()
                values |= {
                    f"{kind}/{where}": size.mean(),
                    f"{kind}_spread/{where}": value.float().std(),
                    f"{kind}_saturation/{where}": (size > BEYOND).float().mean(),
                }
    numbers = torch.stack([value.float() for value in values.values()]).tolist() if values else []
    return {PREFIX + name: number for name, number in zip(values, numbers, strict=True)}


def _block(index: int) -> str:
    return f"block{index:02d}"


def gradient_norms(model: DiT) -> Tensor:
    """The norm of each block's gradient, (depth,), still on the device."""
    norms = []
    for block in model.blocks:
        grads = [p.grad for p in block.parameters() if p.grad is not None]
        each = [gathered(norm) for norm in torch._foreach_norm(grads)] if grads else [torch.zeros(())]
        norms.append(torch.stack(each).norm())
    return torch.stack([norm.detach().float().to(norms[-1].device) for norm in norms])


def gradient_curves(norms: Tensor) -> dict[str, float]:
    """What the journal keeps of them."""
    return {f"{PREFIX}gradient/{_block(k)}": value for k, value in enumerate(norms.tolist())}


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
    values: dict[str, float] = {}
    if depth:
        table = np.array([list(points.values()) for points in depth.values()])  # (depth, observations)
        at = list(next(iter(depth.values())))
        half = [_reaches(at, row, row[-1] / 2) / steps for row in table]
        values = {
            "open_first": float(table[:, 0].max()),
            "open_last": float(table[:, -1].mean()),
            "opening_step": float(np.mean(half)),
        }
        values |= _correlations(half, table[:, -1])
    gates = rows(curves, "gate")
    if gates:
        first, last = zip(
            *((next(iter(points.values())), list(points.values())[-1]) for points in gates.values()), strict=True
        )
        values |= {"gate_first": float(np.mean(first)), "gate_last": float(np.mean(last))}
    if "spikes" in curves:
        values["spikes"] = sum(curves["spikes"].values())
    return values


def _reaches(steps: list[int], values: np.ndarray, level: float) -> float:
    """The step from which on values are at or above a level, interpolated between two observations."""
    below = np.flatnonzero(values < level)
    if not len(below):
        return float(steps[0])
    k = int(below[-1])
    if k + 1 == len(values):
        return float(steps[-1])
    return float(np.interp(level, [values[k], values[k + 1]], [steps[k], steps[k + 1]]))


def _correlations(half: list[float], last: np.ndarray) -> dict[str, float]:
    from scipy.stats import spearmanr

    ranks = {}
    for name, values in (("opening_order", half), ("opening_depth", last)):
        if len(values) > 2 and np.ptp(values) > 0:
            ranks[name] = float(spearmanr(np.arange(len(values)), values).statistic)
    return ranks


def rows(curves: dict[str, dict[int, float]], kind: str) -> dict[str, dict[int, float]]:
    """`block03` or `block03.mlp` -> step -> value, of one kind of number, by depth."""
    start = f"{PREFIX}{kind}/"
    return {name.removeprefix(start): curves[name] for name in sorted(curves) if name.startswith(start)}


def heat_maps(curves: dict[str, dict[int, float]]) -> dict[str, Any]:
    """What heat maps show: for each kind the steps, the blocks or branches, and their values, to 4 digits."""
    maps = {}
    for kind in ("open", "gradient", "gate", "scale", "share"):
        series = rows(curves, kind)
        if series:
            steps = sorted(set.intersection(*(set(points) for points in series.values())))
            values = [[float(f"{points[step]:.4g}") for step in steps] for points in series.values()]
            maps[kind] = {"steps": steps, "rows": list(series), "values": values}
    return maps


def by_time(observed: Observation) -> dict[str, Any]:
    """Mean |gate| and |scale| of every branch at each of the times, of the trained model."""
    tables: dict[str, Any] = {}
    for kind in ("gate", "scale"):
        table = {
            f"{_block(index)}.{name}": [float(f"{v:.4g}") for v in _at_times(branch, kind)]
            for (index, name), branch in sorted(observed.branches.items())
            if getattr(branch, kind) is not None
        }
        if table:
            tables[kind] = {"t": list(TIMES), "rows": list(table), "values": list(table.values())}
    return tables


def _at_times(branch: Branch, kind: str) -> list[float]:
    value: Tensor = getattr(branch, kind)
    value = value.float().abs().mean(-1)
    value = value.expand(IMAGES * len(TIMES)) if len(value) == 1 else value
    return value.view(len(TIMES), IMAGES).mean(1).tolist()
