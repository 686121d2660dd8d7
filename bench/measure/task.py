"""What a cell has learned of a task: excess error over the exact denoiser, its score, and control by nearest template.

`excess_error` is E|x^ - x*|^2, a mean over pixels of fixed points, with x* = E[x_0 | x_t, prompt] exact; `score` is
1 - excess / E|x*_blind - x*|^2: 0 ignores the prompt, 1 uses all of it. `right_template_512` is the share of samples
whose attributes are all as requested, corrected for chance; `local_`, `global_` those of that reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.data.prompts import to_device
from bench.data.tasks.contract import Attribute, Task
from bench.measure.evaluate import Measured
from bench.measure.points import BATCH, Points
from bench.store.metrics import count_name
from bench.training.flow import data_prediction
from bench.training.model import LoadedCell, encoded, places

BINS = 5  # of points, by t
NEIGHBOURS = 16
Z = 1.96
Numbers = dict[str, float]
Intervals = dict[str, list[float]]


@torch.inference_mode()
def errors(subject: LoadedCell, points: Points, count: int | None = None) -> Tensor:
    """|x^ - x*|^2 (n, S, S), a mean over channels, with x^ the image that the model predicts."""
    count = len(points.t) if count is None else min(count, len(points.t))
    size = subject.pass_size if subject.config.train.compile == "on" else BATCH
    batches = list(places(count, size, subject.config.train))
    given = ((points.x_t[index], points.t[index], points.rows[index]) for index, _ in batches)
    guesses = subject.ranks.shared(_predicted, subject, given)
    return torch.cat(
        [
            (guess - points.conditional[index]).square().mean(1)[:kept]
            for (index, kept), guess in zip(batches, guesses, strict=True)
        ]
    )


@torch.inference_mode()
def _predicted(subject: LoadedCell, given: tuple[Tensor, Tensor, np.ndarray]) -> Tensor:
    """x^ (n, C, H, W) of x_t, t and the rows of the held-out images whose prompts they have."""
    x_t, t, rows = given
    prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)
    predict = data_prediction(subject.model, subject.config.train.target)
    with subject.autocast():
        return predict(x_t.to(subject.device), t.to(subject.device), encoded(subject.model, prompt)).float().cpu()


def excess(subject: LoadedCell, points: Points) -> tuple[Numbers, Intervals]:
    """Excess error, of object and rest and by t, and the score; with intervals for the finite number of points."""
    assert subject.data.task is not None and subject.data.heldout.z is not None
    error, gap = errors(subject, points), points.gap
    each = error.flatten(1).mean(1)  # (n,)
    found, half = {"excess_error": float(each.mean())}, Z * float(each.std()) / math.sqrt(len(each))
    z = torch.from_numpy(subject.data.heldout.z[points.rows])
    shown = _pixels(subject.data.task, subject.data.task.object(z))
    for name, part in (("object", shown), ("rest", ~shown)):
        if bool(part.any()) and not bool(shown.all()):
            found[f"excess_error_{name}"] = float(error[part].mean())
    for k, index in enumerate(points.t.argsort().tensor_split(BINS)):
        found[f"excess_error_bin{k}"] = float(each[index].mean())
    mean = found["excess_error"]
    intervals = {"excess_error": [max(0.0, mean - half), mean + half]}
    if gap > 0:
        found["score"] = 1 - mean / gap
        intervals["score"] = [1 - (mean + half) / gap, 1 - max(0.0, mean - half) / gap]
    return found, intervals


def _pixels(task: Task, tokens: Tensor) -> Tensor:
    """Tokens (n, N) as pixels (n, S, S)."""
    side = task.size // task.patch
    return tokens.view(-1, side, side).repeat_interleave(task.patch, 1).repeat_interleave(task.patch, 2)


def control(
    task: Task, samples: Tensor, z: Tensor, guesses: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """For each attribute and for `local`, `global`, `right`: share over chance, and the ends of its interval.

    Args:
        task: that the samples are of.
        samples: x_0 (n, 3, S, S), not clipped.
        z: what was requested (n, M).
        guesses: how often each group is right by chance, see `guesses`.
    """
    right = task.right(task.read(samples), z)
    found = {one.name: _over_chance(right[one.name], one.chance) for one in task.attributes}
    for name, those in _groups(task):
        found[name] = _over_chance(_every(right, those), guesses[name])
    return found


def _every(right: dict[str, Tensor], attributes: Sequence[Attribute]) -> Tensor:
    """Whether all of these attributes are right, (n,)."""
    return torch.stack([right[one.name] for one in attributes]).amin(0) == 1


def guesses(task: Task, z: Tensor) -> dict[str, float]:
    """How often `local`, `global` and `right` are so by chance: every z (m, M) of a split against its next neighbours.

    Measured, for attributes may depend on one another, as the places of several objects do. No z is its own neighbour.
    """
    turns = [task.right(z.roll(k, 0), z) for k in range(1, min(NEIGHBOURS, len(z) - 1) + 1)]
    return {
        name: float(torch.stack([_every(right, those).float().mean() for right in turns]).mean())
        for name, those in _groups(task)
    }


def _groups(task: Task) -> Iterator[tuple[str, list[Attribute]]]:
    """Attributes that are to be right together, under their name; those of which less is better are in none."""
    attributes = [one for one in task.attributes if not one.lower]
    for reach in ("local", "global"):
        if those := [one for one in attributes if one.reach == reach]:
            yield reach, those
    yield "right", attributes


def _over_chance(right: Tensor, chance: float) -> tuple[float, float, float]:
    """(a - c) / (1 - c) of the share a, and Wilson's interval likewise."""
    n, share = len(right), float(right.float().mean())  # of parts, where an attribute has some: then it is too wide
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    low, high = (min(1.0, max(0.0, end)) for end in (middle - half, middle + half))
    value, low, high = ((one - chance) / (1 - chance) for one in (share, low, high))
    return value, low, high


def measure(subject: LoadedCell, points: Points, samples: dict[str, tuple[Tensor, np.ndarray]]) -> Measured:
    """Excess error and score, and control on each set of samples.

    Args:
        subject: with averaged weights in place.
        points: of the excess error.
        samples: name of a split -> x_0 (n, 3, S, S) and the rows of that split whose prompts they have.
    """
    task = subject.data.task
    assert task is not None
    quality, sampling = excess(subject, points)
    for name, (x_0, rows) in samples.items():
        wanted = subject.data.splits[name].z
        assert wanted is not None
        every = torch.from_numpy(np.array(wanted))
        for kind, (value, low, high) in control(task, x_0, every[rows], guesses(task, every)).items():
            prefix = "" if name == "heldout" else f"{name}_"
            key = f"{prefix}{kind}_template_{count_name(len(x_0))}"
            quality[key], sampling[key] = value, [low, high]
    return Measured(quality, {}, {"points": len(points.t), "blind_gap": points.gap}, sampling)
