"""Measuring a trained cell: validation loss, samples from fixed noise and prompts, and their quality."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bench.data.pixels import to_images
from bench.measure import metrics, rows
from bench.measure.heldout import heldout_loss
from bench.measure.sampling import Say
from bench.measure.sets import generate_set, heldout_set, sampling_rate
from bench.store.metrics import Measurement
from bench.training.model import LoadedCell

MOST_RESAMPLED = 1000  # samples


@dataclass(frozen=True)
class Measured:
    """Quality, cost, sampling and probes as in a `Result`; `about` is what they were measured with."""

    quality: dict[str, float]
    cost: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, list[float]] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: Measured) -> Measured:
        return Measured(**{name: getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__})


def measure(subject: LoadedCell, folder: Path, cache: Path, say: Say, warn: Say) -> Measured:
    """Quality and cost of sampling, of a cell whose averaged weights are in place."""
    evaluate = subject.config.evaluate
    say("validation loss")
    quality = heldout_loss(subject)
    chosen = rows.sides(subject.data, evaluate)
    generated, passes = generate_set(subject, heldout_set(subject), folder, say, warn)
    cost = sampling_rate(subject, passes)
    if evaluate.extractor == "none":
        return Measured(quality, cost, {"samples": len(generated)})
    if subject.data.task is not None:
        generated = to_images(torch.from_numpy(generated)).contiguous().numpy()
    extractor = metrics.resolve(evaluate.extractor, warn=warn)
    say(f"features of {extractor.name}")
    real = metrics.reference_features(
        extractor,
        lambda: subject.data.heldout.images[chosen.real],
        data_digest=f"{subject.data.key}-heldout-{chosen.about['rows']}",
        count=len(chosen.real),
        cache=cache / "features",
        device=subject.device.type,
        warn=warn,
    )
    features = extractor.features(generated, device=subject.device.type)
    quality |= metrics.set_metrics(features, real, slug=extractor.slug)
    about: dict[str, Any] = {"extractor": extractor.name, "extractor_digest": extractor.digest, "dim": real.shape[1]}
    about |= {"samples": len(generated), "reference": len(chosen.real), **chosen.about}
    return Measured(quality, cost, about, _sampling(features, real, extractor.slug))


def _sampling(features: NDArray[Any], real: NDArray[Any], slug: str) -> dict[str, list[float]]:
    """Intervals of the distances for the finite number of samples; none where resampling would take long."""
    if len(features) > MOST_RESAMPLED:
        return {}
    return {
        Measurement.of("fid", slug, len(features)).key: list(metrics.frechet_interval(features, real)),
        Measurement.of("kid", slug, len(features)).key: list(metrics.kid_interval(features, real)),
    }
