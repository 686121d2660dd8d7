"""Short names of metrics for people: `FID`, `images/s`; the longer one where two would be the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.store.metrics import Measurement, count_name

SHORT = {  # kind -> its name, where the heading is longer than it need be
    "excess_error": "excess",
    "local": "local",
    "global": "global",
    "right": "right",
    "control": "control",
    "train_images_per_second": "images/s",
    "sample_images_per_second": "images/s sampling",
    "sample_ms": "ms to sample",
    "train_ms": "ms to train",
    "train_peak_resident_bytes": "memory",
    "train_peak_allocated_bytes": "GPU memory",
    "parameters_total": "parameters",
    "macs_forward": "multiply-adds",
}


def short_name(one: Measurement, *, whole: bool = False) -> str:
    """`unseen local`, `FID`; `whole` says what made it, too: `FID inception-tf1 5k`.

    A unit is left to the heading: see `short_heading`.
    """
    name = SHORT.get(one.metric.kind, one.metric.heading)
    if one.metric.made_by == "bin":
        return f"{name} {one.made_by}"
    if one.subset:
        name = f"{name} {one.subset.replace('guidance', 'guidance ')}"
    return f"{name} {one.made_by.replace('_', '-')} {count_name(one.count)}" if whole and one.made_by else name


def short_heading(one: Measurement, name: str) -> str:
    """A short name with its unit: `memory, MiB`."""
    return name + (f", {one.metric.unit}" if one.metric.unit not in ("", "%") else "")


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Key on disk -> short name, one each: where two keys share a name, both say what made them, or keep their key."""
    every = {key: Measurement.parse(key) for key in dict.fromkeys(keys)}
    names = {key: short_name(one) for key, one in every.items()}
    for longer in (lambda key: short_name(every[key], whole=True), str):
        counts = Counter(names.values())
        names = {key: name if counts[name] == 1 else longer(key) for key, name in names.items()}
    return names
