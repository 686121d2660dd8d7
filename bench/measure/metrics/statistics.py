"""Reference statistics from a file: ADM's `.npz` (mu, sigma, mu_s, sigma_s), pytorch-fid's and EDM's, or our own.

mu (d,)  sigma (d, d)        of the features that FID compares
mu_s (s,)  sigma_s (s, s)    of the spatial features that sFID compares, where the extractor has them
extractor, digest, count     in files written here: by what, with which weights, of how many images
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.measure.metrics.extractors import Extractor, MetricError
from bench.measure.metrics.frechet import Moments
from bench.store.files import write_atomic

SIZES = {2048: "inception", 1280: "efficientnet-lite0"}  # of features: the extractor that has as many


@dataclass(frozen=True)
class Statistics:
    """What is known of reference images without the images.

    Attributes:
        features: moments of the features.
        spatial: of the spatial ones, or None.
        extractor, digest: of what made them; empty where the file does not say.
    """

    features: Moments
    spatial: Moments | None = None
    extractor: str = ""
    digest: str = ""


def read_statistics(path: Path, extractor: Extractor) -> Statistics:
    """The statistics of a file, which must be of this extractor.

    Raises:
        MetricError: if they are of another size or extractor, or the file is damaged.
    """
    arrays = _arrays(path)
    found = Statistics(
        _moments(path, arrays, "mu", "sigma"),
        _moments(path, arrays, "mu_s", "sigma_s") if "mu_s" in arrays else None,
        str(arrays.get("extractor", "")),
        str(arrays.get("digest", "")),
    )
    size = len(found.features.mean)
    if size != extractor.dim:
        hint = f"; evaluate with --extractor {SIZES[size]}" if size in SIZES else ""
        raise MetricError(f"{path}: statistics of {size} features, and {extractor.name} has {extractor.dim}{hint}")
    if found.extractor and found.extractor != extractor.name:
        raise MetricError(
            f"{path}: statistics of extractor {found.extractor}, not {extractor.name}; "
            f"evaluate with --extractor {found.extractor}"
        )
    if found.digest and found.digest != extractor.digest:
        raise MetricError(
            f"{path}: statistics of {extractor.name} with other weights ({found.digest}, here {extractor.digest})"
        )
    return found


def write_statistics(path: Path, extractor: Extractor, features: Moments, spatial: Moments | None) -> None:
    """Writes statistics as `read_statistics` and ADM's evaluator read them."""
    arrays: dict[str, Any] = {"mu": features.mean.numpy(), "sigma": features.covariance.numpy()}
    arrays |= {"extractor": np.array(extractor.name), "digest": np.array(extractor.digest)}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean.numpy(), "sigma_s": spatial.covariance.numpy()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, count=np.array(features.count))
    write_atomic(path, buffer.getvalue())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Everything but images; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as opened:
            names = ("mu", "sigma", "mu_s", "sigma_s", "extractor", "digest", "count")
            arrays = {name: opened[name] for name in names if name in opened.files}
            held = ", ".join(opened.files[:10])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise MetricError(
            f"{path}: no reference statistics (a .npz file of mu and sigma) can be read: {said}"
        ) from error
    if not {"mu", "sigma"} <= set(arrays):
        raise MetricError(f"{path}: no reference statistics: mu and sigma are needed (it holds {held or 'nothing'})")
    return arrays


def _moments(path: Path, arrays: dict[str, np.ndarray], mean: str, covariance: str) -> Moments:
    if covariance not in arrays:
        raise MetricError(f"{path}: {mean} without {covariance}")
    mu, sigma = (np.asarray(arrays[name]) for name in (mean, covariance))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise MetricError(f"{path}: {mean} {mu.shape} and {covariance} {sigma.shape} do not fit; (d,) and (d, d) do")
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f" or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise MetricError(f"{path}: {mean} or {covariance} are not all finite numbers")
    if not np.allclose(sigma, sigma.T, atol=1e-6 * max(float(np.abs(sigma).max()), 1e-30)):
        raise MetricError(f"{path}: {covariance} is no covariance: it is not symmetric")
    count = int(arrays["count"]) if "count" in arrays else 0
    return Moments(count, torch.from_numpy(mu).double(), torch.from_numpy(sigma).double())
