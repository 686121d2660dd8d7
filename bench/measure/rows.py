"""Which held-out images a number is of.

Every subset is a seeded sample, the same for every cell, and the two sides of a distance have one distribution of
labels: as the held-out images have it, or each class alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Evaluate
from bench.data.datasets import Dataset, Split
from bench.data.subsets import RULE, chosen
from bench.store.files import digest
from bench.store.seeds import derive

Rows = NDArray[np.int64]
SAME = {
    "heldout": "Samples and real images both have the label distribution of the held-out images.",
    "uniform": "Samples and real images both have every class alike, whatever the held-out images have.",
}


def sampled(split: Split, count: int, *, seed: int, name: str) -> Rows:
    """`count` images of a split in seeded order, of each label its share; all of them first where it has fewer."""
    whole, rest = divmod(count, len(split))
    rounds = [np.arange(len(split))] * whole
    rounds += [chosen(rest, len(split), seed=seed, name=name, labels=split.labels)] if rest else []
    return _shuffled(np.concatenate(rounds), seed, name)


def alike(split: Split, each: Rows, *, seed: int, name: str) -> Rows:
    """`each[k]` images of the k-th label, in seeded order; an image comes again where its class has too few."""
    assert split.labels is not None
    rng, rows = np.random.default_rng(derive(seed, "alike", name)), []
    for label, count in zip(np.unique(split.labels), each, strict=True):
        rows.append(np.resize(rng.permutation(np.flatnonzero(split.labels == label)), count))
    return _shuffled(np.concatenate(rows), seed, name)


def _shuffled(rows: Rows, seed: int, name: str) -> Rows:
    return np.random.default_rng(derive(seed, "order", name)).permutation(rows)


@dataclass(frozen=True)
class Sides:
    """The rows of both sides of a distance.

    Attributes:
        prompts: of the samples, (n,).
        real: of the images that they are compared with, (m,).
        about: how they were chosen, for the provenance.
    """

    prompts: Rows
    real: Rows
    about: dict[str, Any]


def sides(data: Dataset, evaluate: Evaluate) -> Sides:
    """The prompts that samples are generated from, and the real images, by `evaluate.labels`.

    Raises:
        ValueError: if classes are to be alike, and there are too few samples or images for it.
    """
    split, seed = data.heldout, evaluate.seed
    if evaluate.labels == "uniform" and split.labels is not None:
        prompts, real = _uniform(data, split, evaluate)
    else:
        prompts = sampled(split, evaluate.samples, seed=seed, name="samples")
        real = sampled(split, min(evaluate.reference, len(split)), seed=seed, name="reference")
    about: dict[str, Any] = {"rule": RULE, "rows": digest([prompts.tolist(), real.tolist()], 16)}
    about |= {"labels": SAME[evaluate.labels]} if split.labels is not None else {}
    return Sides(prompts, real, about)


def _uniform(data: Dataset, split: Split, evaluate: Evaluate) -> tuple[Rows, Rows]:
    """As many prompts of each class as can be, and as many real images of each as the smallest class has."""
    assert split.labels is not None
    present, sizes = np.unique(split.labels, return_counts=True)
    least, smallest = min(evaluate.samples, evaluate.reference), int(sizes.argmin())
    if least < len(present):
        raise ValueError(
            f"evaluate.labels uniform: {len(present)} classes need as many samples and reference images, got {least}"
        )
    several = np.full(len(present), evaluate.samples // len(present))
    ranks = np.random.default_rng(derive(evaluate.seed, "alike", "rest")).permutation(len(present))
    several[ranks < evaluate.samples % len(present)] += 1
    each = min(evaluate.reference // len(present), int(sizes[smallest]))
    if each * len(present) < 5:
        name = (data.classes or [])[int(present[smallest])]
        raise ValueError(f"evaluate.labels uniform: class {name!r} has {sizes[smallest]} held-out images, too few")
    prompts = alike(split, several, seed=evaluate.seed, name="samples")
    return prompts, alike(split, np.full(len(present), each), seed=evaluate.seed, name="reference")


def grid(data: Dataset, count: int) -> Rows:
    """Held-out images whose prompts a grid shows: one class after the other, or as they come."""
    labels = data.heldout.labels
    if labels is None:
        return np.arange(count) % len(data.heldout)
    by_class = [np.flatnonzero(labels == index) for index in np.unique(labels)]
    turns = [(by_class[k % len(by_class)], k // len(by_class)) for k in range(count)]
    return np.array([members[turn % len(members)] for members, turn in turns])
