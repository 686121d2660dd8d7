"""Quality of samples. The only door to torch-fidelity and torchmetrics."""

from bench.measure.metrics.extractors import INCEPTION_WEIGHTS, Extractor, MetricError, inception_here, resolve
from bench.measure.metrics.frechet import (
    Moments,
    features_distance,
    frechet_distance,
    frechet_interval,
    moments,
)
from bench.measure.metrics.sets import kid_interval, reference_features, set_metrics

__all__ = [
    "INCEPTION_WEIGHTS",
    "Extractor",
    "MetricError",
    "Moments",
    "features_distance",
    "frechet_distance",
    "frechet_interval",
    "inception_here",
    "kid_interval",
    "moments",
    "reference_features",
    "resolve",
    "set_metrics",
]
