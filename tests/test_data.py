"""Data: prepared once, whole or not at all; what is wrong is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.config.schema import Data
from bench.data import datasets as data
from bench.data.datasets import DataError

datasets = pytest.importorskip("datasets")


def encoded(index: int, size: int = 20) -> bytes:
    pixels = np.full((size, size + 4, 3), index * 10, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def folder_of_parquet(folder: Path, *, broken: int | None = None, count: int = 6) -> Path:
    """A Hugging Face folder with train and test parquet, class names, and (if wished) one damaged image."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for split in ("train", "test"):
        bytes_of = [encoded(k) if k != broken or split == "test" else b"\x89PNG no image" for k in range(count)]
        rows = {"image": [{"bytes": b, "path": None} for b in bytes_of], "label": [k % 2 for k in range(count)]}
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(folder / f"{split}.parquet")
    return folder


def config(path: Path | None = None, **changes) -> Data:
    kept = (
        dict(source="huggingface", path=str(path), image_size=16, label_column="label") if path else dict(image_size=16)
    )
    return Data(**(kept | changes))


def test_parquet_is_read_with_classes_and_resized(tmp_path: Path) -> None:
    folder = data.prepare(config(folder_of_parquet(tmp_path / "set")), tmp_path / "cache")
    found = data.load(folder)
    assert found.classes == ["cat", "dog"] and found.train.images.shape == (6, 16, 16, 3)
    assert found.train.labels is not None and found.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert [int(image[0, 0, 0]) for image in found.heldout.images] == [0, 10, 20, 30, 40, 50]


def test_a_folder_of_images_is_read_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            place = tmp_path / "set" / split / name
            place.mkdir(parents=True)
            (place / "0.png").write_bytes(encoded(3))
    found = data.load(data.prepare(config(tmp_path / "set"), tmp_path / "cache"))
    assert found.classes == ["cat", "dog"] and len(found.train) == 2


def test_captions_are_read(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    kinds = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for split in ("train", "test"):
        rows = {
            "image": [{"bytes": encoded(k), "path": None} for k in range(3)],
            "text": ["a\ncat", "two  dogs", "three"],
        }
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(place / f"{split}.parquet")
    found = data.load(data.prepare(config(place, label_column=None, caption_column="text"), tmp_path / "cache"))
    assert found.train.captions == ["a cat", "two dogs", "three"] and found.classes is None


def test_the_digest_is_of_the_bytes_not_of_the_place(tmp_path: Path) -> None:
    a, b = folder_of_parquet(tmp_path / "a"), tmp_path / "b"
    b.mkdir()
    for file in a.iterdir():
        (b / file.name).write_bytes(file.read_bytes())
    assert data.data_digest(config(a)) == data.data_digest(config(b))
    assert data.data_digest(config(a)) != data.data_digest(config(a, image_size=32))
    assert data.data_digest(config(a)) != data.data_digest(config(folder_of_parquet(tmp_path / "c", count=5)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_column": "lable"}, "no column 'lable' (columns: image, label)"),
        ({"image_column": "img"}, "no column 'img'"),
        ({"heldout_split": "validation"}, "no split 'validation' (splits: train, test)"),
        ({"label_column": None}, "name data.label_column or data.caption_column"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(tmp_path: Path, changes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        data.prepare(config(folder_of_parquet(tmp_path / "set"), **changes), tmp_path / "cache")
    assert said in str(caught.value)


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        data.prepare(config(tmp_path / "nowhere"), tmp_path / "cache")


def test_a_damaged_image_is_named_and_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 4 of split 'train'"):
        data.prepare(config(folder_of_parquet(tmp_path / "set", broken=4)), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache" / "data").iterdir() if path.is_dir()] == []


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    place = folder_of_parquet(tmp_path / "set")
    whole = (place / "test.parquet").read_bytes()
    (place / "test.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"test\.parquet: damaged"):
        data.prepare(config(place), tmp_path / "cache")


def test_scenes_are_prepared_once(tmp_path: Path) -> None:
    reports: list[str] = []
    kept = config(train_count=8, heldout_count=4)
    folder = data.prepare(kept, tmp_path, lambda what, done, total: reports.append(what))
    found = data.load(folder)
    assert found.train.images.shape == (8, 16, 16, 3) and len(found.heldout.captions or []) == 4 and reports
    reports.clear()
    assert data.prepare(kept, tmp_path, lambda what, done, total: reports.append(what)) == folder and not reports


def test_damaged_prepared_data_says_the_way_out(tmp_path: Path) -> None:
    folder = data.prepare(config(train_count=8, heldout_count=4), tmp_path)
    (folder / "train-images.npy").write_bytes(b"junk")
    with pytest.raises(DataError, match="delete .* and run again"):
        data.load(folder)
