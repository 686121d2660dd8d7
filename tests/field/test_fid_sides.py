"""Samples and real images of one distance have one distribution of labels, however a set is ordered or balanced."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.config.schema import ConfigError, Evaluate
from bench.config.spec import CellConfig
from bench.data.datasets import Dataset, Split
from bench.measure import metrics
from bench.measure.rows import sampled, sides
from bench.run.checks import check_cell
from bench.store.metrics import Measurement


def labelled(sizes: tuple[int, ...], seed: int = 0) -> Dataset:
    """A set sorted by class, as every folder of class folders is: class k has its own colour and noise."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(7).integers(0, 256, (len(sizes), 1, 1, 3))
    images = np.clip(base[labels] + rng.normal(0, 40, (len(labels), 16, 16, 3)), 0, 255).astype(np.uint8)
    split = Split(images, labels, None)
    return Dataset("made", split, split, [f"class {k}" for k in range(len(sizes))])


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean colour of quarters, (n, 12): enough to distinguish classes."""
    quarters = images.reshape(len(images), 2, 8, 2, 8, 3).mean((2, 4)).reshape(len(images), -1)
    return quarters.astype(np.float32)


def fid(samples: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    key = Measurement.of("fid", "x", len(samples)).key
    return metrics.set_metrics(features(samples), features(real), slug="x")[key]


def perfect(data: Dataset, evaluate: Evaluate) -> float:
    """FID of a model that gives each prompt another image of its class."""
    chosen, others = sides(data, evaluate), labelled(tuple(np.bincount(data.heldout.labels)), seed=1)
    return fid(others.heldout.images[chosen.prompts], data.heldout.images[chosen.real])


def test_a_perfect_model_on_a_sorted_set() -> None:
    """The real side was the first n rows, which are the first classes: FID was 7 times what the classes make of it."""
    data = labelled((100,) * 10)
    others = labelled((100,) * 10, seed=1)
    before = fid(others.heldout.images[::5], data.heldout.images[:200])
    after = perfect(data, Evaluate(samples=200, reference=200))
    print(f"sorted set, perfect model: FID {before:.1f} before, {after:.1f} after")
    assert after < before / 20


def test_a_perfect_model_on_a_long_tail() -> None:
    """Samples were of every class alike, and compared with images of which 9 in 10 are of one class."""
    data = labelled((360, 20, 10, 10))
    others = labelled((360, 20, 10, 10), seed=1)
    every = np.concatenate([np.resize(np.flatnonzero(others.heldout.labels == k), 50) for k in range(4)])
    before = fid(others.heldout.images[every], data.heldout.images)
    after = {kind: perfect(data, Evaluate(samples=200, reference=400, labels=kind)) for kind in ("heldout", "uniform")}
    print(f"long tail, perfect model: FID {before:.1f} before, {after} after")
    assert after["heldout"] < before / 20 and after["uniform"] < before / 20


@pytest.mark.parametrize(("kind", "shares"), [("heldout", [0.9, 0.05, 0.025, 0.025]), ("uniform", [0.25] * 4)])
def test_both_sides_have_the_same_labels(kind: str, shares: list[float]) -> None:
    data = labelled((360, 20, 10, 10))
    chosen = sides(data, Evaluate(samples=200, reference=200, labels=kind))  # type: ignore[arg-type]
    assert data.heldout.labels is not None
    for rows in (chosen.prompts, chosen.real):
        assert np.allclose(np.bincount(data.heldout.labels[rows]) / len(rows), shares, atol=0.006)
    assert len(set(chosen.real)) == len(chosen.real), "no real image counts twice"
    assert chosen.about["labels"].startswith("Samples and real images both")


def test_the_first_rows_of_a_subset_are_a_sample_too() -> None:
    """Precision and recall take at most 10,000 of each side, the guidance sweep the first prompts."""
    split = labelled((500, 500)).heldout
    assert split.labels is not None
    first = split.labels[sampled(split, 800, seed=3, name="x")[:200]]
    assert 60 < first.sum() < 140


def test_more_samples_than_images_take_each_as_often() -> None:
    split = labelled((30, 10)).heldout
    assert set(np.bincount(sampled(split, 100, seed=1, name="x"))) == {2, 3}


def test_classes_alike_need_enough_of_each() -> None:
    with pytest.raises(ValueError, match="as many samples"):
        sides(labelled((20,) * 30), Evaluate(samples=20, reference=200, labels="uniform"))
    with pytest.raises(ValueError, match=r"'class 1' has 1 held-out images"):
        sides(labelled((20, 1)), Evaluate(samples=20, reference=40, labels="uniform"))


def test_classes_that_cannot_be_alike_are_refused_before_anything_is_trained() -> None:
    config = CellConfig("adaln", {}, evaluate=Evaluate(samples=20, reference=40, heldout=21, bins=4, labels="uniform"))
    with pytest.raises(ConfigError, match="adaln: evaluate.labels uniform: class 'class 1' has 1 held-out images"):
        check_cell(config, labelled((20, 1)), "adaln")
