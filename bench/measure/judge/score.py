"""How much of a caption an image fulfils.

The objects requested (1 to 3) and the objects read (0 to 9) are matched one to one so that as many of their attributes
agree as can. A local attribute's score is the share of objects, of those requested or those read, whichever are more,
that have it correct: a missing object and one too many count as wrong, and noise full of objects earns nothing. A
global attribute's score is 0 or 1.

Chance is what real images get against the captions of others: by matching, more than one over the number of values.
A corrected score is (score - chance) / (1 - chance): 0 is no better than an image of something else, 1 is
every attribute correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.data.scenes import GLOBAL, LOCAL, Scene
from bench.measure.judge.reading import Seen
from bench.store.metrics import ATTRIBUTES


@dataclass(frozen=True)
class Scores:
    """One number an image, (n,) each.

    Attributes:
        by: attribute -> score in [0, 1].
        count: whether the number of objects is correct. right: whether every attribute is.
    """

    by: dict[str, np.ndarray]
    count: np.ndarray
    right: np.ndarray

    def rows(self, chosen: np.ndarray) -> Scores:
        """Those of some images."""
        return Scores({name: value[chosen] for name, value in self.by.items()}, self.count[chosen], self.right[chosen])

    def __len__(self) -> int:
        return len(self.right)


def score(requested: Sequence[Scene], seen: Sequence[Seen]) -> Scores:
    """Scores of images against the scenes they should show.

    Raises:
        ValueError: if there are not as many of one as of the other.
    """
    if len(requested) != len(seen):
        raise ValueError(f"{len(requested)} scenes requested, {len(seen)} images read")
    by = {name: np.zeros(len(requested)) for name in ATTRIBUTES}
    for k, (scene, shown) in enumerate(zip(requested, seen, strict=True)):
        agree = agreement(scene, shown)  # (requested, read, 4)
        rows, columns = linear_sum_assignment(agree.sum(-1), maximize=True)
        share = agree[rows, columns].sum(0) / max(len(scene.items), len(shown.items), 1)
        for name, value in zip(LOCAL, share, strict=True):
            by[name][k] = value
        for name in GLOBAL:
            by[name][k] = getattr(scene, name) == getattr(shown, name)
    count = np.array([len(scene.items) == len(shown.items) for scene, shown in zip(requested, seen, strict=True)])
    right = count & np.all([value == 1 for value in by.values()], axis=0)
    return Scores(by, count.astype(float), right.astype(float))


def agreement(scene: Scene, shown: Seen) -> np.ndarray:
    """Which attributes agree, (objects requested, objects read, 4)."""
    return np.array(
        [[[getattr(a, name) == getattr(b, name) for name in LOCAL] for b in shown.items] for a in scene.items],
        dtype=float,
    ).reshape(len(scene.items), len(shown.items), len(LOCAL))


def chance(requested: Sequence[Scene], seen: Sequence[Seen], shifts: int = 10) -> dict[str, float]:
    """What images get against the captions of others, a mean over `shifts` ways to deal them out."""
    shifts = min(shifts, len(requested) - 1)
    dealt = [score([*requested[k:], *requested[:k]], seen) for k in range(1, shifts + 1)]
    return {name: float(np.mean([one.by[name].mean() for one in dealt])) for name in ATTRIBUTES}


def corrected(scores: Scores, floor: dict[str, float]) -> dict[str, np.ndarray]:
    """Attribute -> (score - chance) / (1 - chance), and `local` and `global`, the means over four attributes; (n,)."""
    by = {name: (scores.by[name] - floor[name]) / (1 - floor[name]) for name in ATTRIBUTES}
    means = {
        kind: np.mean([by[name] for name in names], axis=0) for kind, names in (("local", LOCAL), ("global", GLOBAL))
    }
    return by | means


def summary(scores: Scores, floor: dict[str, float]) -> dict[str, float]:
    """Means over images.

    `local`, `global`, `control` (their mean), `right`, `count`, an attribute's corrected score under its name and its
    raw one as `raw_<name>`.
    """
    by = {name: float(value.mean()) for name, value in corrected(scores, floor).items()}
    by["control"] = (by["local"] + by["global"]) / 2
    by |= {f"raw_{name}": float(scores.by[name].mean()) for name in ATTRIBUTES}
    return by | {"right": float(scores.right.mean()), "count": float(scores.count.mean())}


def intervals(scores: Scores, floor: dict[str, float], *, seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals for the finite number of images.

    Of `local` and `global` by bootstrap over them (none where all are alike), of the share `right` by Wilson.
    """
    from scipy.stats import binomtest, bootstrap

    by = corrected(scores, floor)
    share = binomtest(int(scores.right.sum()), len(scores)).proportion_ci(method="wilson")
    bounds = {"right": [float(share.low), float(share.high)]}
    for name in ("local", "global"):
        values = by[name]
        if len(values) < 2 or np.ptp(values) == 0:
            continue
        generator = np.random.default_rng(seed)
        interval = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", random_state=generator)
        bounds[name] = [float(interval.confidence_interval.low), float(interval.confidence_interval.high)]
    return bounds
