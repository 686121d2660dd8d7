"""A set sorted by class, as every image folder is: its first n rows are its first classes, and FID saw these alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.config.schema import Data
from bench.data import datasets as data
from bench.data.subsets import chosen

datasets = pytest.importorskip("datasets")


def sorted_set(folder: Path, counts: tuple[int, ...], *, captions: bool = False) -> Path:
    """Two parquet files of rows sorted by label; pixel 0 of each image is its row."""
    folder.mkdir()
    labels = [index for index, count in enumerate(counts) for _ in range(count)]
    names = [f"class {index}" for index in range(len(counts))]
    target = {"text": datasets.Value("string")} if captions else {"label": datasets.ClassLabel(names=names)}
    kinds = datasets.Features({"image": datasets.Image(), **target})
    for split in ("train", "test"):
        images = []
        for row in range(len(labels)):
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), row, np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        values = [names[label] for label in labels] if captions else labels
        rows = {"image": images, next(iter(target)): values}
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(folder / f"{split}.parquet")
    return folder


def prepared(tmp_path: Path, **changes) -> data.Dataset:
    kept = {"source": "huggingface", "path": str(tmp_path / "set"), "image_size": 8, "label_column": "label"}
    return data.load(data.prepare(Data(**(kept | changes)), tmp_path / "cache"))


def test_a_count_samples_every_class_in_its_share(tmp_path: Path) -> None:
    """A long-tailed sorted set: the subset has the shares of the whole, the same at each preparation."""
    sorted_set(tmp_path / "set", (60, 30, 10))
    found = prepared(tmp_path, train_count=20, heldout_count=10)
    assert np.bincount(found.train.labels).tolist() == [12, 6, 2]
    assert np.bincount(found.heldout.labels).tolist() == [6, 3, 1]
    rows = found.train.images[:, 0, 0, 0].tolist()
    assert rows != list(range(20)) and rows == sorted(rows)
    assert [sum(row >= start for start in (60, 90)) for row in rows] == found.train.labels.tolist()
    other = prepared(tmp_path, train_count=20, heldout_count=10, seed=1)
    assert other.train.images[:, 0, 0, 0].tolist() != rows and other.digest != found.digest


def test_captions_are_sampled_from_the_whole(tmp_path: Path) -> None:
    """Captions sorted by subject: a count must not take the first subject only."""
    sorted_set(tmp_path / "set", (50, 50), captions=True)
    found = prepared(tmp_path, train_count=30, label_column=None, caption_column="text")
    assert 8 <= (found.train.captions or []).count("class 0") <= 22


def test_a_subset_for_the_metrics_has_the_shares_too(tmp_path: Path) -> None:
    sorted_set(tmp_path / "set", (60, 30, 10))
    found = prepared(tmp_path)
    rows = found.subset("heldout", 10, seed=1234)
    assert np.bincount(found.heldout.labels[rows]).tolist() == [6, 3, 1]
    assert found.subset("heldout", 1000, seed=1234).tolist() == list(range(100))


def test_scenes_keep_their_first(tmp_path: Path) -> None:
    """Scene k is a function of (seed, k): the first n are a sample, and their numbers stay as they were."""
    found = data.load(data.prepare(Data(image_size=16, train_count=6, heldout_count=6, unseen_count=2), tmp_path))
    assert found.rendered and found.subset("heldout", 4, seed=9).tolist() == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_every_share_is_its_quota_rounded(labels: list[int], count: int, seed: int) -> None:
    rows = chosen(count, len(labels), seed=seed, labels=labels)
    assert len(rows) == min(count, len(labels)) == len(set(rows.tolist())) and rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() == chosen(count, len(labels), seed=seed, labels=[f"c{label}" for label in labels]).tolist()
    taken = np.bincount(np.asarray(labels)[rows], minlength=6)
    quota = np.bincount(labels, minlength=6) * len(rows) / len(labels)
    assert (np.abs(taken - quota) < 1).all()


def test_more_classes_than_rows_favours_none() -> None:
    """A thousand classes of five, a hundred rows: all remainders tie, so chance decides, not the classes' order."""
    labels = np.repeat(np.arange(1000), 5)
    taken = labels[chosen(100, 5000, seed=0, labels=labels)]
    assert len(set(taken.tolist())) == 100 and 350 < taken.mean() < 650


def test_names_make_samples_that_differ() -> None:
    assert chosen(10, 100, seed=0, name="train").tolist() != chosen(10, 100, seed=0, name="heldout").tolist()
