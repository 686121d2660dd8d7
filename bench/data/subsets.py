"""Which rows a subset takes: a seeded sample, with the labels' shares of the whole; never the first n rows.

A set on disk is often sorted (every folder of class folders is), so that its first rows are its first classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.store.seeds import derive

RULE = (
    "a sample without replacement, a function of (seed, name, count); of labelled rows stratified: each label's share "
    "of the subset is its share of the whole, rounded by largest remainder"
)  # for the provenance


def chosen(
    count: int | None, of: int, *, seed: int, name: str = "", labels: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Indices of a subset, in rising order.

    Args:
        count: rows wanted; None, or at least `of`, takes all.
        of: rows there are.
        seed: of the sample; the same for every cell.
        name: of the subset, so that two of one seed do not depend on each other.
        labels: (of,) of any type that can be sorted, or None: every row is alike.
    """
    if count is None or count >= of:
        return np.arange(of)
    rng = np.random.default_rng(derive(seed, "subset", name))
    order = rng.permutation(of)
    if labels is None:
        return np.sort(order[:count])
    kinds, sizes = np.unique(np.asarray(labels)[order], return_inverse=True, return_counts=True)[1:]
    shares = apportioned(count, sizes, rng)
    by_kind = np.argsort(kinds, kind="stable")  # the rows of one label after the other, each in seeded order
    place = np.arange(of) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of a row among those of its label
    return np.sort(order[by_kind[place < np.repeat(shares, sizes)]])


def apportioned(count: int, sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` seats shared out in proportion to `sizes`, (labels,): largest remainder, ties by chance of the seed."""
    shares, remainder = np.divmod(count * sizes, sizes.sum())  # of whole numbers: exact
    ties = rng.permutation(len(sizes))
    first = ties[np.argsort(-remainder[ties], kind="stable")]
    shares[first[: count - shares.sum()]] += 1
    return shares
