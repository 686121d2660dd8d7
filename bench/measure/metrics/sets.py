"""Distances of a set of samples from a set of real images, by their features. Names hold extractor and count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from bench.measure.metrics.extractors import Extractor, MetricError, Warn
from bench.measure.metrics.frechet import features_distance
from bench.store.files import digest, sources, sweep
from bench.store.kept import load_array, save_array
from bench.store.metrics import Measurement
from bench.training.signals import beat

BLOCK = 2000  # rows that precision and recall compare at a time: 0.4 GB of distances for 50,000 images
FEWEST_OF_SCORE = 20  # images of an Inception score, which is a mean over ten parts


def fidelity_options(**options: Any) -> dict[str, Any]:
    """Options for torch-fidelity, which would pass over an unknown one in silence.

    Raises:
        TypeError: for a name it does not have.
    """
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise TypeError(f"torch-fidelity has no option {', '.join(sorted(unknown))}")
    return {"verbose": False, **options}


def set_metrics(generated: np.ndarray, reference: np.ndarray, *, slug: str) -> dict[str, float]:
    """FID, KID, precision and recall of features (n, d) against (m, d), as `fid_<slug>_<n>` and so on.

    KID is torch-fidelity's mean over 100 subsets of at most 1,000, or over one if that is all images; precision and
    recall are its k-nearest-neighbour estimates (k = 3) over all images; FID is this project's float64 distance, equal
    to its own.

    Raises:
        MetricError: for fewer than 5 images on a side.
    """
    n = len(generated)
    kid = kernel_distance(generated, reference)
    values = {"kid": kid, "fid": features_distance(generated, reference), **neighbourhoods(generated, reference)}
    return {Measurement.of(kind, slug, n).key: value for kind, value in values.items()}


def kernel_distance(generated: np.ndarray, reference: np.ndarray) -> float:
    """KID of features (n, d) against (m, d): torch-fidelity's, over subsets.

    Raises:
        MetricError: for fewer than 5 images on a side.
    """
    n, m = len(generated), len(reference)
    if min(n, m) < 5:
        raise MetricError(f"metrics need at least 5 images a side, got {n} generated and {m} real")
    subset = min(1000, n, m)
    found = kid_features_to_metric(
        torch.from_numpy(generated).double(),
        torch.from_numpy(reference).double(),
        **fidelity_options(kid_subset_size=subset, kid_subsets=1 if subset == n == m else 100, rng_seed=2020),
    )
    return float(found[KEY_METRIC_KID_MEAN])


def neighbourhoods(generated: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Precision and recall of features (n, d) against (m, d): torch-fidelity's, k = 3, over every pair.

    Of 50,000 on a side and d = 2,048 these are 40 TFLOP, some seven minutes of two cores.
    """
    beat()  # nothing shows that the cell lives until all is compared
    near = prc_features_to_metric(
        torch.from_numpy(generated),
        torch.from_numpy(reference),
        **fidelity_options(prc_neighborhood=3, save_cpu_ram=True, prc_batch_size=BLOCK),
    )
    return {"precision": near[KEY_METRIC_PRECISION], "recall": near[KEY_METRIC_RECALL]}


def inception_score(logits: np.ndarray) -> float:
    """exp E KL(p(y | x) | p(y)) of class scores (n, classes): torch-fidelity's mean over ten shuffled parts.

    Raises:
        MetricError: for fewer than 20 images.
    """
    if len(logits) < FEWEST_OF_SCORE:
        raise MetricError(f"an Inception score needs at least {FEWEST_OF_SCORE} images, got {len(logits)}")
    return float(isc_features_to_metric(torch.from_numpy(logits))[KEY_METRIC_ISC_MEAN])


def kid_interval(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of KID of features (n, d) against (m, d), for the chance of these n.

    KID is a U-statistic, so its variance is that of each sample's contribution, over n (Hoeffding's first
    projection): 2 (mean_j k(x_i, x_j) - mean_j k(x_i, y_j)), with torch-fidelity's k = (x.y / d + 1)^3.
    """
    x, y = (torch.from_numpy(np.asarray(side)).double() for side in (features, reference))
    n, d = x.shape
    own, across, theirs = (((a @ b.T) / d + 1) ** 3 for a, b in ((x, x), (x, y), (y, y)))
    within = (own.sum(1) - own.diagonal()) / (n - 1)
    given = 2 * (within - across.mean(1))
    m = len(y)
    value = within.mean() + (theirs.sum() - theirs.trace()) / (m * (m - 1)) - 2 * across.mean()
    half = 1.96 * given.std() / n**0.5
    return float(value - half), float(value + half)


def reference_features(
    extractor: Extractor,
    images: Callable[[], np.ndarray],
    *,
    data_digest: str,
    count: int,
    cache: Path,
    device: str = "cpu",
    warn: Warn = lambda text: None,
) -> np.ndarray:
    """Features (count, d) of real images, computed once for each data set, extractor and count, and verified when read.

    Args:
        extractor: of the features.
        images: gives uint8 (count, H, W, 3); called only if they are not cached.
        data_digest: names the data, its split and its resolution.
        count: of images.
        cache: the folder of the features.
        device: where they are computed.
        warn: called with a sentence for each cached file that is damaged.
    """
    name = digest([data_digest, extractor.digest, extractor.layer, count, sources(Path(__file__).parent)], 24)
    file = cache / f"{extractor.slug}-{name}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        for made in (file.name, file.with_suffix(".json").name):
            sweep(cache, made)
        kept = load_array(file, warn)
        if kept is None:
            save_array(file, extractor.features(images(), device=device))
            kept = load_array(file, warn)
            assert kept is not None
    return kept[0]
