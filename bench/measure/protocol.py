"""The papers' numbers of images on disk, against reference images or reference statistics.

FID and sFID, Inception score, KID, precision and recall, each where both sides have what it needs; the notes say what
is left out and why. Features are kept in parts of 500 images, named by their bytes, so that 50,000 resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.errors import DataError
from bench.data.reading.convert import VERSION as DECODED
from bench.data.reading.stored import SAMPLES, StoredImages, StoredPart, holds, open_images
from bench.measure import metrics
from bench.measure.metrics import Extractor, MetricError, Moments, Outputs, Statistics
from bench.store.files import digest, file_digest, make_folder, sources
from bench.store.kept import load_array, save_array
from bench.store.metrics import Measurement

Progress = Callable[[str, int, int], None]  # what, done, total
Warn = Callable[[str], None]
FEWEST = 5  # images


@dataclass(frozen=True)
class Evaluated:
    """Numbers by key, what they were measured with, and what a reader should know, in sentences."""

    values: dict[str, float]
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: statistics, images' features, or both; `about` says which."""

    statistics: Statistics | None
    outputs: Outputs | None
    size: tuple[int, int] | None
    about: dict[str, Any]


@dataclass(frozen=True)
class Features:
    """How features are computed: by what, where they are kept, and on which device."""

    extractor: Extractor
    cache: Path
    device: str = "cpu"
    progress: Progress = lambda what, done, total: None
    warn: Warn = lambda text: None

    def of(self, images: StoredImages, what: str) -> Outputs:
        """All outputs of images on disk, a part at a time; parts that are kept are read.

        Raises:
            DataError, MetricError: naming the image that cannot be read, or the weights.
        """
        rows: np.ndarray | None = None
        widths: list[int] = []
        for start, array, widths in self.parts(images, what):  # noqa: B007 (used after the loop)
            if rows is None:  # at once: parts and their copy would be twice the memory
                rows = np.empty((images.count, array.shape[1]), array.dtype)
            rows[start : start + len(array)] = array
        assert rows is not None
        return _divided(rows, widths)

    def parts(self, images: StoredImages, what: str) -> Iterator[tuple[int, np.ndarray, list[int]]]:
        """The first row, all outputs side by side and the width of each, of a part of the images after the other.

        Raises:
            DataError, MetricError: as `of`.
        """
        code = [sources(Path(metrics.__file__).parent), DECODED]
        name = digest(
            [self.extractor.digest, self.extractor.layer, self.extractor.logits, self.extractor.spatial, code], 16
        )
        folder = self.cache / "evaluate" / f"{self.extractor.slug}-{name}"
        make_folder(folder)
        done = 0
        for part in images.parts():
            array, widths = self._part(part, folder / f"{part.key[:32]}.npy")
            if done + part.count > images.count:
                break
            yield done, array, widths
            done += part.count
            self.progress(what, done, images.count)
        if done != images.count:
            raise DataError(f"{images.path}: changed while it was read")

    def _part(self, part: StoredPart, file: Path) -> tuple[np.ndarray, list[int]]:
        kept = load_array(file, self.warn)
        if kept is not None and len(kept[0]) == part.count:
            return kept[0], list(kept[1]["widths"])
        found = self.extractor.outputs(part.read(), device=self.device)
        every = [np.zeros((part.count, 0), np.float32) if one is None else one for one in _listed(found)]
        array, widths = np.concatenate(every, 1), [one.shape[1] for one in every]
        save_array(file, array, widths=widths, extractor=self.extractor.name)
        return array, widths


def _listed(found: Outputs) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    return found.features, found.logits, found.spatial


def _divided(rows: np.ndarray, widths: list[int]) -> Outputs:
    features, logits, spatial = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    return Outputs(features, logits if widths[1] else None, spatial if widths[2] else None)


def evaluate(images: Path, reference: Path, features: Features) -> Evaluated:
    """The numbers of images on disk against a reference.

    Args:
        images: a folder of images or arrays, or a `.npz` file with `arr_0`.
        reference: the same, or a `.npz` file with `mu` and `sigma`.
        features: how they are computed.

    Raises:
        DataError, MetricError: in one sentence, if either side cannot be used.
    """
    own = open_images(images)
    if own.count < FEWEST:
        raise MetricError(f"{images}: {own.count} images; at least {FEWEST} are needed")
    real = _reference(reference, features)  # first: what is wrong with it ends this before the long part
    found = features.of(own, "features of the samples")
    notes = list(_notes(own, real, found, features.extractor))
    values = {
        Measurement.of(kind, features.extractor.slug, own.count).key: value
        for kind, value in _values(found, real).items()
    }
    about = {
        "extractor": features.extractor.name,
        "extractor_digest": features.extractor.digest,
        "dim": found.features.shape[1],
        "samples": own.count,
        "pixels": list(own.size),
        "stored as": own.kind,
        "reference": real.about,
    }
    return Evaluated(values, about, notes)


def write_reference(images: Path, out: Path, features: Features) -> Evaluated:
    """Writes the statistics of images as a reference for later; returns what they are of."""
    own = open_images(images)
    running, spatial = metrics.Running(), metrics.Running()
    for _, array, widths in features.parts(own, "features of the reference"):  # of a million images none is kept
        found = _divided(array, widths)
        running.add(found.features)
        if found.spatial is not None:
            spatial.add(found.spatial)
    kept = spatial.moments() if spatial.count else None
    metrics.write_statistics(out, features.extractor, running.moments(), kept)
    return Evaluated({}, {"extractor": features.extractor.name, "images": own.count, "pixels": list(own.size)})


def _reference(path: Path, features: Features) -> Reference:
    if not path.exists():
        raise DataError(f"--reference {path}: no such folder or file")
    statistics, about = None, {"name": path.name}
    if path.is_file() and path.suffix.lower() != ".npy":
        held = holds(path)
        if "mu" in held or SAMPLES not in held:  # of a file that holds neither the reader says so
            statistics = metrics.read_statistics(path, features.extractor)
            about |= {"statistics": file_digest(path)[:16]}
        if SAMPLES not in held:
            return Reference(statistics, None, None, about)
    images = open_images(path)
    if images.count < FEWEST:
        raise MetricError(f"{path}: {images.count} images; at least {FEWEST} are needed")
    outputs = features.of(images, "features of the reference")
    return Reference(statistics, outputs, images.size, about | {"images": images.count, "pixels": list(images.size)})


def _values(found: Outputs, real: Reference) -> dict[str, float]:
    """Every number that both sides have what it needs for, by kind."""
    values = {"fid": _distance(found.features, real, "features")}
    if found.spatial is not None and (real.statistics is None or real.statistics.spatial is not None):
        values["sfid"] = _distance(found.spatial, real, "spatial")
    if found.logits is not None and len(found.logits) >= metrics.FEWEST_OF_SCORE:
        values["inception_score"] = metrics.inception_score(found.logits)
    if real.outputs is not None:
        values["kid"] = metrics.kernel_distance(found.features, real.outputs.features)
        values |= metrics.neighbourhoods(found.features, real.outputs.features)
    return values


def _distance(samples: np.ndarray, real: Reference, which: str) -> float:
    """The Frechet distance, from the statistics of the file where it has them, as ADM's evaluator takes it."""
    if real.statistics is not None:
        theirs: Moments = getattr(real.statistics, which)
        return metrics.frechet_distance(metrics.moments(samples), theirs)
    return metrics.features_distance(samples, getattr(real.outputs, which))


def _notes(own: StoredImages, real: Reference, found: Outputs, extractor: Extractor) -> Iterator[str]:
    n, d = found.features.shape
    if n < 2 * d:
        yield f"{n:,} samples for {d:,} features: FID is biased upward (papers take 50,000), and no two n compare"
    if extractor.name != "inception":
        yield f"{extractor.name}'s FID is another number than a paper's, whose extractor is inception"
    if real.size is not None and real.size != own.size:
        shown = [f"{one[1]} x {one[0]}" for one in (own.size, real.size)]
        yield f"samples have {shown[0]} pixels and the reference {shown[1]}: part of the distance is of sizes"
    if real.outputs is None:
        yield "no KID, precision and recall: the reference is statistics without images"
    if found.spatial is None:
        yield f"no sFID: {extractor.name} has no spatial features of it"
    elif real.statistics is not None and real.statistics.spatial is None:
        yield "no sFID: the reference has no mu_s and sigma_s"
    if found.logits is None:
        yield f"no Inception score: {extractor.name} has no classes"
    elif n < metrics.FEWEST_OF_SCORE:
        yield f"no Inception score: it needs at least {metrics.FEWEST_OF_SCORE} samples for its ten parts"
