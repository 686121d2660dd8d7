"""Quality of samples. The only door to torch-fidelity and torchmetrics."""

from bench.measure.metrics.extractors import (
    INCEPTION_WEIGHTS,
    Extractor,
    MetricError,
    Outputs,
    inception_here,
    resolve,
)
from bench.measure.metrics.frechet import (
    Moments,
    Running,
    features_distance,
    frechet_distance,
    frechet_interval,
    moments,
)
from bench.measure.metrics.sets import (
    FEWEST_OF_SCORE,
    inception_score,
    kernel_distance,
    kid_interval,
    neighbourhoods,
    reference_features,
    set_metrics,
)
from bench.measure.metrics.statistics import Statistics, read_statistics, write_statistics

__all__ = [
    "FEWEST_OF_SCORE",
    "INCEPTION_WEIGHTS",
    "Extractor",
    "MetricError",
    "Moments",
    "Outputs",
    "Running",
    "Statistics",
    "features_distance",
    "frechet_distance",
    "frechet_interval",
    "inception_here",
    "inception_score",
    "kernel_distance",
    "kid_interval",
    "moments",
    "neighbourhoods",
    "read_statistics",
    "reference_features",
    "resolve",
    "set_metrics",
    "write_statistics",
]
