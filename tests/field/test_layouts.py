"""Folders, files and archives as users have them: read by one order of rules, or refused with what there is."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
import time
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_sets import captioned, greys, labelled, parquet, png, read
from PIL import Image

from bench.config.schema import Data
from bench.data import datasets as data
from bench.data.errors import DataError
from bench.data.reading.layouts import read_layout


def images(root: Path, *places: str) -> Path:
    """Images at these places below a folder; image k is of grey k."""
    for index, place in enumerate(places):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(png(index))
    return root


CLASSES = ("train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png")


def understood(found: data.Dataset) -> tuple[Any, ...]:
    """Classes, and for both splits the names of labels with the images' greys."""
    assert found.classes is not None
    splits = []
    for split in (found.train, found.heldout):
        assert split.labels is not None
        splits.append([(found.classes[label], grey) for label, grey in zip(split.labels, greys(split), strict=True)])
    return tuple(splits)


EXPECTED = ([("cat", 0), ("dog", 1)], [("cat", 2), ("dog", 3)])


@pytest.mark.parametrize(
    "places",
    [
        CLASSES,
        tuple(f"wrapped/{place}" for place in CLASSES),
        tuple(f"a/b/{place}" for place in CLASSES),
        ("training/cat/0.PNG", "training/dog/1.Png", "Test/cat/2.PNG", "Test/dog/3.png"),
        ("train/images/cat/0.png", "train/images/dog/1.png", "test/images/cat/2.png", "test/images/dog/3.png"),
        ("train/cat/images/0.png", "train/dog/images/1.png", "test/cat/images/2.png", "test/dog/images/3.png"),
    ],
    ids=lambda places: places[0],
)
def test_class_folders_in_every_nesting(tmp_path: Path, places: tuple[str, ...]) -> None:
    assert understood(read(images(tmp_path / "set", *places), tmp_path / "cache")) == EXPECTED


def test_what_systems_leave_beside_images_is_no_data(tmp_path: Path) -> None:
    """A `.DS_Store` made it another data set, and `._0.png` a damaged image."""
    root = images(tmp_path / "set", *CLASSES)
    clean = data.data_digest(config(root))
    for junk in (".DS_Store", "Thumbs.db", "train/cat/.DS_Store", "train/cat/._0.png", "__MACOSX/train/cat/._0.png"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"junk")
    for junk in (
        "README.md",
        "train/cat/notes.md",
        "train/.ipynb_checkpoints/0.png",
        "train/cat/0.png~",
        "desktop.ini",
    ):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"junk")
    assert data.data_digest(config(root)) == clean
    assert understood(read(root, tmp_path / "cache")) == EXPECTED


def config(path: Path, **changes: Any) -> Data:
    return Data(**({"source": "huggingface", "path": str(path), "image_size": 8, "label_column": "label"} | changes))


def test_other_splits_beside_are_no_classes_and_not_read(tmp_path: Path) -> None:
    root = images(tmp_path / "set", *CLASSES, "unlabelled/4.png", "logo.png")
    before = read(root, tmp_path / "cache")
    assert understood(before) == EXPECTED and "not read, in the folder of no split: logo.png" in before.notes
    (root / "unlabelled/5.png").write_bytes(b"never read")
    assert read(root, tmp_path / "cache").digest == before.digest


def test_a_class_named_as_a_split_is_is_a_class(tmp_path: Path) -> None:
    """Vehicles: car, train, ship. The folder `train` is no split there."""
    root = images(tmp_path / "set", *(f"{name}/{k}.png" for name in ("car", "ship", "train") for k in range(4)))
    found = read(root, tmp_path / "cache", heldout_split="train", heldout_count=3)
    assert found.classes == ["car", "ship", "train"] and len(found.train) == 9
    names = ("car", "train", "test")
    root = images(tmp_path / "split", *(f"{split}/{name}/0.png" for split in ("train", "test") for name in names))
    assert read(root, tmp_path / "cache").classes == sorted(names)


def test_classes_with_signs_in_front_are_classes(tmp_path: Path) -> None:
    names = ("__background__", "@home", "$1", "cat~")
    root = images(tmp_path / "set", *(f"{split}/{name}/0.png" for split in ("train", "test") for name in names))
    assert read(root, tmp_path / "cache").classes == sorted(names)


def test_images_in_no_class_folder_are_refused(tmp_path: Path) -> None:
    root = images(tmp_path / "set", *CLASSES, "train/stray.png")
    with pytest.raises(DataError, match=r"row 2 of split 'train' \(.*/train/stray.png\), column 'label': nothing"):
        read(root, tmp_path / "cache")
    flat = images(tmp_path / "flat", "train/0.png", "test/1.png")
    with pytest.raises(DataError, match=r"no column 'label' \(columns: image\)"):
        read(flat, tmp_path / "cache")


def test_texts_beside_images_are_captions(tmp_path: Path) -> None:
    root = images(tmp_path / "set", "train/0.png", "train/1.png", "test/2.png")
    for place, text in (("train/0", "a cat"), ("train/1", "une bête"), ("test/2", "a dog")):
        (root / f"{place}.txt").write_text(text, encoding="utf-8")
    found = read(root, tmp_path / "cache", caption_column="text")
    assert found.train.captions == ["a cat", "une bête"] and greys(found.heldout) == [2]
    (root / "train/1.txt").write_text("another", encoding="utf-8")
    assert read(root, tmp_path / "cache", caption_column="text").train.captions == ["a cat", "another"]


def test_texts_beside_images_are_those_that_the_walk_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image asked the disk for a text beside it, twice, whether the folder had one or none."""
    root = images(tmp_path / "set", *CLASSES)
    (root / "train/cat/0.txt").write_text("a cat")
    asked: list[Path] = []
    monkeypatch.setattr(Path, "is_file", lambda self: asked.append(self) or os.path.isfile(self))
    layout = read_layout(root, Data("huggingface", path=str(root), caption_column="text"))
    assert list(layout.splits["train"].values("text")) == ["a cat", None]
    assert not [path for path in asked if path.suffix in (".txt", ".png")]


# --- tables of text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tsv", "jsonl", "bom"])
@pytest.mark.parametrize("place", ["root", "split"])
def test_metadata_of_an_image_folder(tmp_path: Path, kind: str, place: str) -> None:
    """`metadata.csv` and .jsonl, at the root or in each split; files are named relative to it."""
    root = images(tmp_path / "set", "train/0.png", "train/1.png", "test/2.png")
    rows = {"train": [("0.png", 'a; cat, "one"'), ("1.png", "None")], "test": [("2.png", "a dog")]}
    if place == "root":
        rows = {"": [(f"{split}/{name}", text) for split, own in rows.items() for name, text in own]}
    for split, own in rows.items():
        ending = {"semicolon": "csv", "bom": "csv"}.get(kind, kind)
        write_rows(root / split / f"metadata.{ending}", kind, [{"file_name": name, "text": text} for name, text in own])
    found = read(root, tmp_path / "cache", caption_column="text")
    assert found.train.captions == ['a; cat, "one"', "None"] and greys(found.train) == [0, 1]
    assert found.heldout.captions == ["a dog"] and greys(found.heldout) == [2]


def write_rows(file: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    import csv

    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    encoding = "utf-8-sig" if kind == "bom" else "utf-8"
    with open(file, "w", newline="\r\n" if kind == "bom" else "", encoding=encoding) as stream:
        mark = {"semicolon": ";", "tsv": "\t"}.get(kind, ",")
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=mark, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_from_windows_or_by_hand(tmp_path: Path) -> None:
    """Backward slashes, blanks after commas and in the header."""
    root = images(tmp_path / "set", "pixels/0.png", "pixels/1.png")
    text = 'image , text\r\npixels\\0.png, "a cat, red"\r\n"pixels\\1.png",  two\r\n'
    (root / "train.csv").write_bytes(text.encode())
    found = read(root / "train.csv", tmp_path / "cache", caption_column="text", heldout_split="train", heldout_count=1)
    assert sorted([*(found.train.captions or []), *(found.heldout.captions or [])]) == ["a cat, red", "two"]


def test_a_csv_with_labels_is_a_path_of_its_own(tmp_path: Path) -> None:
    """train.csv and test.csv name images in a folder; numbers of text are numbers, `NA` is a class and not missing."""
    root = images(tmp_path / "set", "pixels/0.png", "pixels/1.png", "pixels/2.png")
    write_rows(
        root / "train.csv", "csv", [{"image": f"pixels/{k}.png", "label": name} for k, name in ((0, "NA"), (1, "nan"))]
    )
    write_rows(root / "test.csv", "csv", [{"image": "pixels/2.png", "label": "NA"}])
    found = read(root, tmp_path / "cache")
    assert understood(found) == ([("NA", 0), ("nan", 1)], [("NA", 2)])
    alone = read(root / "train.csv", tmp_path / "cache", heldout_split="train", heldout_count=1)
    assert len(alone.train) == len(alone.heldout) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.csv", "file_name,label\n0.png,a,b\n", "row 0 has 3 fields, the header 2"),
        ("metadata.csv", "file_name,label\nabsent.png,a\n", "row 0 of split 'train': no image 'absent.png'"),
        ("metadata.csv", f"file_name,label\n{'x' * 5000},a\n", "no image 'xxx"),
        ("metadata.csv", "file_name,label\nhttp://x/0.png,a\n", "is an address"),
        ("metadata.csv", "", "an empty file; a table of text is needed"),
        ("metadata.csv", "file_name,label\n", "split 'train' is empty"),
        ("metadata.csv", 'file_name,label\n0.png,"a\n', "metadata.csv: damaged, or not a table of text"),
        ("metadata.csv", "<!doctype html><html>", "an HTML page"),
        ("metadata.csv", "file_name,file_name\n0.png,a\n", "two columns have one name"),
        ("metadata.jsonl", '{"file_name": "0.png", "label": "a"\n', "line 1"),
        ("metadata.jsonl", "[1, 2]\n", "line 1 is no object"),
        ("metadata.csv", b"file_name,label\n0.png,caf\xe9\n", "UTF-8 is needed|not a table of text in UTF-8"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, name: str, content: Any, said: str) -> None:
    root = images(tmp_path / "set", "train/0.png", "test/1.png")
    write_rows(root / "test" / "metadata.csv", "csv", [{"file_name": "1.png", "label": "a"}])
    (root / "train" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said) as caught:
        read(root, tmp_path / "cache")
    assert name in str(caught.value) or "is empty" in said


def test_a_column_of_splits_divides_a_table(tmp_path: Path) -> None:
    root = images(tmp_path / "set", *(f"{k}.png" for k in range(6)))
    rows = [{"file_name": f"{k}.png", "label": "ab"[k % 2], "split": "Train" if k < 4 else "TEST"} for k in range(6)]
    write_rows(root / "metadata.csv", "csv", rows)
    for path in (root, root / "metadata.csv"):
        found = read(path, tmp_path / "cache")
        assert greys(found.train) == [0, 1, 2, 3] and greys(found.heldout) == [4, 5]


def test_what_is_beside_the_data_and_not_read_is_said(tmp_path: Path) -> None:
    """Half of a class in a format that is not read, or a split that is compressed."""
    root = images(tmp_path / "set", *CLASSES)
    (root / "train/cat/9.heic").write_bytes(b"x")
    write_rows(root / "captions.csv", "csv", [{"name": "0.png", "text": "a"}])
    notes = read(root, tmp_path / "cache").notes
    assert any("not read, being of other kinds: 9.heic" in note for note in notes)
    assert any("not read: captions.csv (data.image_column names" in note for note in notes)
    parquet(tmp_path / "packed/train.parquet", label=["a"])
    (tmp_path / "packed/test.parquet.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"splits: train\); not read, being of other kinds: test.parquet.gz"):
        read(tmp_path / "packed", tmp_path / "cache")


# --- parquet and arrow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        lambda folder: [png(k) for k in range(3)],
        lambda folder: [{"bytes": png(k), "path": f"{k}.png"} for k in range(3)],
        lambda folder: [{"bytes": None, "path": f"{folder.name}/{k}.png"} for k in range(3)],
        lambda folder: [f"{folder.name}/{k}.png" for k in range(3)],
        lambda folder: [str(folder / f"{k}.png") for k in range(3)],
        lambda folder: [[{"bytes": png(k), "path": None}] for k in range(3)],
        lambda folder: [np.full((8, 8, 3), k, np.uint8).tolist() for k in range(3)],
        lambda folder: [np.full((8, 8), k, np.uint8).tolist() for k in range(3)],
        lambda folder: [np.full((8, 8, 3), k / 255).tolist() for k in range(3)],
    ],
    ids=[
        "bytes",
        "struct",
        "struct of paths",
        "paths",
        "absolute paths",
        "lists of one",
        "lists",
        "grey lists",
        "lists of floats",
    ],
)
def test_image_columns_of_parquet(tmp_path: Path, column: Any) -> None:
    outside = images(tmp_path / "set" / "outside", "0.png", "1.png", "2.png")
    table = pyarrow.table({"image": pyarrow.array(column(outside)), "label": ["a", "b", "a"]})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / "set" / f"{split}.parquet")
    assert greys(read(tmp_path / "set", tmp_path / "cache").train) == [0, 1, 2]


def test_image_columns_that_are_refused(tmp_path: Path) -> None:
    one = {"bytes": png(), "path": None}
    for index, (column, said) in enumerate(
        (
            ([[one, one]] * 2, "image 0 of split 'train': a list of 2 images; one image a row is needed"),
            ([one, None], "image 1 of split 'train': nothing in column 'image'; data.missing=drop"),
            (["", ""], "image 0 of split 'train': nothing in column"),
            ([1, 2], "image 0 of split 'train': 1 is no image"),
            (["iVBORw0KGgo" * 500] * 2, "no image 'iVBORw0KGgo"),
            ([png(), b"junk"], r"image 1 of split 'train': no image of a known kind \(4 bytes\)"),
        )
    ):
        path = tmp_path / f"set{index}"
        path.mkdir()
        for split in ("train", "test"):
            table = pyarrow.table({"image": column, "label": ["a", "b"]})
            pyarrow.parquet.write_table(table, path / f"{split}.parquet")
        with pytest.raises(DataError, match=said) as caught:
            read(path, tmp_path / "cache")
        assert len(str(caught.value)) < 400
    twins = pyarrow.Table.from_arrays([pyarrow.array([one]), *[pyarrow.array(["a"])] * 2], ["image", "label", "label"])
    pyarrow.parquet.write_table(twins, path / "train.parquet")
    with pytest.raises(DataError, match="two columns have one name, 'label'"):
        read(path, tmp_path / "cache")


def test_rows_without_image_are_left_out_if_a_key_says_so(tmp_path: Path) -> None:
    table = pyarrow.table({"image": [png(3), None, png(5)], "label": ["a", "b", "b"]})
    for split in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, tmp_path / "set" / f"{split}.parquet")
    found = read(tmp_path / "set", tmp_path / "cache", missing="drop")
    assert greys(found.train) == [3, 5] and found.about["splits"]["train"]["dropped"] == 1


def test_shards_of_every_naming(tmp_path: Path) -> None:
    """The hub's names, folders of splits, and words in names."""
    parquet(tmp_path / "a/data/train-00000-of-00002.parquet", label=["x", "y"])
    parquet(tmp_path / "a/data/train-00001-of-00002.parquet", label=["y"])
    parquet(tmp_path / "a/data/test-00000-of-00001.parquet", label=["x"])
    parquet(tmp_path / "b/plain/train/0000.parquet", label=["x", "y"])
    parquet(tmp_path / "b/plain/train/0001.parquet", label=["y"])
    parquet(tmp_path / "b/plain/test/0000.parquet", label=["x"])
    parquet(tmp_path / "c/mine_train_0.parquet", label=["x", "y"])
    parquet(tmp_path / "c/mine_train_1.parquet", label=["y"])
    parquet(tmp_path / "c/latest_test.parquet", label=["x"])
    parquet(tmp_path / "d/train.parquet/part-0.parquet", label=["x", "y"])
    parquet(tmp_path / "d/train.parquet/part-1.parquet", label=["y"])
    parquet(tmp_path / "d/test.parquet/part-0.parquet", label=["x"])
    parquet(tmp_path / "e/split=train/a.PARQUET", label=["x", "y"])
    parquet(tmp_path / "e/split=train/b.pq", label=["y"])
    parquet(tmp_path / "e/split=test/a.parquet", label=["x"])
    for name in "abcde":
        found = read(tmp_path / name, tmp_path / "cache")
        assert understood(found) == ([("x", 0), ("y", 1), ("y", 0)], [("x", 0)]), name


def test_a_row_in_a_second_shard_is_named_with_its_file(tmp_path: Path) -> None:
    parquet(tmp_path / "set/train-0.parquet", label=[1.0, 2.0])
    parquet(tmp_path / "set/train-1.parquet", label=[1.0, 2.5])
    parquet(tmp_path / "set/test.parquet", label=[1.0])
    with pytest.raises(
        DataError, match=r"row 3 of split 'train' \(train-1.parquet, row 1\), column 'label': label 2.5"
    ):
        read(tmp_path / "set", tmp_path / "cache")


def test_two_sets_in_one_folder_are_chosen_by_subset(tmp_path: Path) -> None:
    labelled(tmp_path / "set/one", ["a", "b"])
    labelled(tmp_path / "set/two", ["c", "d"])
    with pytest.raises(DataError, match="several folders hold the split t[a-z]+: one, two; choose with data.subset"):
        read(tmp_path / "set", tmp_path / "cache")
    assert read(tmp_path / "set", tmp_path / "cache", subset="two").classes == ["c", "d"]
    with pytest.raises(DataError, match=r"data.subset 'three': no such folder .*\(folders: one, two\)"):
        read(tmp_path / "set", tmp_path / "cache", subset="three")


def test_a_saved_data_set_with_files_of_a_cache_beside(tmp_path: Path) -> None:
    """save_to_disk: a dictionary of splits, with `cache-*.arrow` that `map` left there."""
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png(k), "path": None} for k in range(4)], "label": [0, 1, 1, 0]}
    whole = datasets.Dataset.from_dict(rows, features=kinds)
    datasets.DatasetDict(train=whole, validation=whole.select([1, 2])).save_to_disk(tmp_path / "set")
    shutil.copy(next((tmp_path / "set/train").glob("data-*.arrow")), tmp_path / "set/train/cache-0123.arrow")
    found = read(tmp_path / "set", tmp_path / "cache", heldout_split="val")
    assert understood(found) == ([("a", 0), ("b", 1), ("b", 2), ("a", 3)], [("b", 1), ("b", 2)])
    whole.save_to_disk(tmp_path / "one")
    alone = read(tmp_path / "one", tmp_path / "cache", heldout_split="train", heldout_count=2)
    assert len(alone.train) == len(alone.heldout) == 2


def test_a_saved_data_set_that_lost_a_file_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"image": [png(0), png(1)] * 40, "label": [0, 1] * 40})
    datasets.DatasetDict(train=whole, test=whole).save_to_disk(tmp_path / "set")
    file = next((tmp_path / "set/train").glob("*.arrow"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"{file.name}: damaged, or not an arrow file"):
        read(tmp_path / "set", tmp_path / "cache")
    for left in (tmp_path / "set").rglob("*.arrow"):
        left.unlink()
    with pytest.raises(DataError, match=f"state.json: names {file.name}, which is not there|names data-"):
        read(tmp_path / "set", tmp_path / "cache")


# --- archives -------------------------------------------------------------------------------------------------------


def packed(folder: Path, file: Path, kind: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            for path in sorted(folder.rglob("*")):
                opened.write(path, path.relative_to(folder.parent))
            opened.writestr("__MACOSX/set/train/cat/._0.png", b"junk")
    else:
        with tarfile.open(file, f"w:{kind}") as tar:
            tar.add(folder, folder.name)
    return file


@pytest.mark.parametrize(("name", "kind"), [("x.zip", "zip"), ("x.tar", ""), ("x.tar.gz", "gz"), ("x.TGZ", "gz")])
def test_an_archive_of_a_folder(tmp_path: Path, name: str, kind: str) -> None:
    file = packed(images(tmp_path / "set", *CLASSES), tmp_path / "packed" / name, kind)
    assert understood(read(file, tmp_path / "cache")) == EXPECTED
    assert understood(read(tmp_path / "packed", tmp_path / "other")) == EXPECTED
    left = [
        path.name for path in (tmp_path / "cache/data").rglob("*") if "unpacked" in path.parts or path.suffix == ".png"
    ]
    assert left == []


def test_what_lies_beside_an_archive_is_said(tmp_path: Path) -> None:
    packed(images(tmp_path / "made", *CLASSES), tmp_path / "set/all.zip", "zip")
    (tmp_path / "set/logo.png").write_bytes(png())
    found = read(tmp_path / "set", tmp_path / "cache")
    assert understood(found) == EXPECTED and "not read beside the archive files: logo.png" in found.notes


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_writes_nowhere_else(tmp_path: Path, kind: str) -> None:
    """Members with `..` in their names, and links out of the folder."""
    file = tmp_path / f"x.{kind}"
    names = [*CLASSES, "../../../evil.png"]
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            for index, name in enumerate(names):
                opened.writestr(name, png(index))
        assert understood(read(file, tmp_path / "cache")) == EXPECTED
    else:
        with tarfile.open(file, "w") as tar:
            for index, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.size = len(png(index))
                tar.addfile(member, io.BytesIO(png(index)))
        with pytest.raises(DataError, match="x.tar: .*outside the destination"):
            read(file, tmp_path / "cache")
    assert not list(tmp_path.rglob("evil.png")) and not (tmp_path.parent / "evil.png").exists()


@pytest.mark.parametrize("outer", ["zip", "tar"])
@pytest.mark.parametrize("inner", ["zip", "tar"])
def test_an_archive_of_archives_is_refused_by_what_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str, inner: str
) -> None:
    """ImageNet's is a tar of 1,000 tars, 138 GB: all were hashed and unpacked before this was said."""
    made = tmp_path / "made"
    packed(images(tmp_path / "cat", "0.png", "1.png"), made / f"cat.{inner}", "zip" if inner == "zip" else "")
    file = packed(made, tmp_path / f"all.{outer}", "zip" if outer == "zip" else "")

    def never(*unused: Any, **also_unused: Any) -> Any:
        raise AssertionError("hashed or unpacked")

    monkeypatch.setattr(tarfile.TarFile, "extractall", never)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", never)
    monkeypatch.setattr("bench.data.reading.convert.file_digest", never)
    with pytest.raises(DataError, match=rf"all.{outer}: an archive in an archive \(cat.{inner}\); unpack it first"):
        read(file, tmp_path / "cache")


def test_shards_of_webdataset_in_an_archive_are_read(tmp_path: Path) -> None:
    samples = [{"png": png(k), "cls": str(k % 2).encode()} for k in range(4)]
    for split in ("train", "test"):
        shard(tmp_path / f"made/{split}.tar", samples)
    file = packed(tmp_path / "made", tmp_path / "all.zip", "zip")
    found = read(file, tmp_path / "cache", image_column="image", label_column="label")
    assert greys(found.train) == [0, 1, 2, 3]


def test_an_archive_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        own = images(tmp_path / "made" / split, "cat/0.png", "dog/1.png")
        packed(own, tmp_path / f"set/{split}.zip", "zip")
    found = read(tmp_path / "set", tmp_path / "cache")
    assert understood(found) == ([("cat", 0), ("dog", 1)],) * 2


@pytest.mark.parametrize(
    "name",
    ["{}/images.zip", "{}/images.tar.gz", "set.{}.zip", "set.2023.{}.tgz", "{}.v1.zip", "{}/images.{}.zip", "a/{}.TAR"],
)
def test_archives_are_unpacked_apart(tmp_path: Path, name: str) -> None:
    """Names that agree up to their first dot, or lie in two folders, were one folder: files took each other's place."""
    own = [place.replace("/", "/photos/", 1) for place in CLASSES]
    made = images(tmp_path / "made", *own)
    for split in ("train", "test"):
        file = tmp_path / "set" / name.format(split, split)
        packed(made / split / "photos", file, "zip" if name.endswith("zip") else "gz" if "gz" in name else "")
    assert understood(read(tmp_path / "set", tmp_path / "cache")) == EXPECTED


def test_a_split_of_ones_own_names_its_archive(tmp_path: Path) -> None:
    own = [place.replace("/", "/photos/", 1) for place in CLASSES]
    made = images(tmp_path / "made", *own)
    for split, year in (("train", 2023), ("test", 2024)):
        packed(made / split / "photos", tmp_path / f"set/photos.{year}.zip", "zip")
    found = read(tmp_path / "set", tmp_path / "cache", train_split="2023", heldout_split="2024")
    assert understood(found) == EXPECTED


@pytest.mark.parametrize("name", ["{}/rows.zip", "set.{}.zip"])
def test_archives_of_rows_are_unpacked_apart(tmp_path: Path, name: str) -> None:
    for split, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
        parquet(tmp_path / split / "rows/0000.parquet", label=labels)
        packed(tmp_path / split / "rows", tmp_path / "set" / name.format(split), "zip")
    found = read(tmp_path / "set", tmp_path / "cache")
    assert (len(found.train), len(found.heldout)) == (3, 2)


def test_archives_of_one_split_lose_no_image(tmp_path: Path) -> None:
    for year in (2023, 2024):
        own = images(tmp_path / f"{year}/photos", "0.png", "1.png")
        for index in range(2):
            (own / f"{index}.txt").write_text(f"{year}, {index}")
        packed(own, tmp_path / f"set/photos.{year}.zip", "zip")
    found = read(tmp_path / "set", tmp_path / "cache", caption_column="text", heldout_split="train", heldout_count=1)
    captions = [*(found.train.captions or []), *(found.heldout.captions or [])]
    assert sorted(captions) == ["2023, 0", "2023, 1", "2024, 0", "2024, 1"]


@pytest.mark.parametrize(
    "names",
    [
        ("a.train.zip", "b.train.zip"),
        ("a/x.tar", "a/x.tar.gz"),
        ("train.zip", "train/more.zip"),
        ("train.1.zip", "train.2.zip"),
    ],
    ids=lambda names: names[1],
)
def test_archives_of_one_place_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    made = images(tmp_path / "made", "cat/0.png")
    for name in (*names, "test.tar" if "tar" in names[0] else "test.zip"):
        packed(made, tmp_path / "set" / name, "gz" if "gz" in name else "" if "tar" in name else "zip")

    def never(*unused: Any) -> Any:
        raise AssertionError("hashed")

    monkeypatch.setattr("bench.data.reading.convert.file_digest", never)
    with pytest.raises(DataError, match=f"set: {names[0]} and {names[1]} would be unpacked into one folder .*; rename"):
        read(tmp_path / "set", tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "content"), [("x.zip", b"PK\x03\x04junk"), ("x.tar", b"junk" * 300), ("x.tar.gz", b"\x1f\x8bjunk")]
)
def test_a_damaged_archive_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: "):
        read(tmp_path / name, tmp_path / "cache")


def members(file: Path, contents: list[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def shard(file: Path, samples: list[dict[str, bytes]]) -> Path:
    named = [(f"{k:05d}.{ending}", content) for k, sample in enumerate(samples) for ending, content in sample.items()]
    return members(file, named)


def test_shards_of_webdataset(tmp_path: Path) -> None:
    """Members of one sample share a name; images of several endings are one column `image`."""
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 1, 1)).save(jpeg, "JPEG", quality=100)
    rows = [
        {"png": png(0), "cls": b"3\n", "txt": b"a cat", "json": b'{"caption": "one"}'},
        {"jpg": jpeg.getvalue(), "cls": b"5", "txt": "ein Bär".encode(), "json": b'{"caption": "two"}'},
    ]
    shard(tmp_path / "set/train-000.tar", rows)
    shard(tmp_path / "set/train-001.tar", rows[:1])
    shard(tmp_path / "set/test-000.tar", rows)
    by_label = read(tmp_path / "set", tmp_path / "cache")
    assert understood(by_label)[0] == [("3", 0), ("5", 1), ("3", 0)]
    assert read(tmp_path / "set", tmp_path / "cache", label_column="cls").classes == ["3", "5"]
    for column, texts in (
        ("text", ["a cat", "ein Bär"]),
        ("txt", ["a cat", "ein Bär"]),
        ("json.caption", ["one", "two"]),
    ):
        assert read(tmp_path / "set", tmp_path / "cache", caption_column=column).heldout.captions == texts
    with pytest.raises(DataError, match="image 1 of split 'train'.*nothing in column 'png'"):
        read(tmp_path / "set", tmp_path / "cache", image_column="png", label_column="cls")


def test_a_shard_that_lost_samples_is_refused(tmp_path: Path) -> None:
    """Cut between two members, or joined by `cat`: tar readers stop there in silence."""
    rows = [{"png": png(k), "cls": b"1"} for k in range(3)]
    for split in ("train", "test"):
        shard(tmp_path / f"set/{split}.tar", rows)
    file = tmp_path / "set/train.tar"
    whole = file.read_bytes()
    assert len(read(tmp_path / "set", tmp_path / "cache").train) == 3
    member = 512 + -(-len(png(0)) // 512) * 512 + 1024  # an image and its class
    file.write_bytes(whole[: 2 * member])
    with pytest.raises(DataError, match="train.tar: cut off"):
        read(tmp_path / "set", tmp_path / "cache")
    file.write_bytes(whole[: 2 * member + 700])
    with pytest.raises(DataError, match="train.tar: "):
        read(tmp_path / "set", tmp_path / "cache")
    file.write_bytes(whole + whole)
    with pytest.raises(DataError, match="train.tar: more follows its end mark"):
        read(tmp_path / "set", tmp_path / "cache")


def test_members_with_dots_in_their_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"set/{split}.tar", [{"v1.png": png(k), "v1.cls": b"1"} for k in range(2)])
    assert greys(read(tmp_path / "set", tmp_path / "cache").train) == [0, 1]


def test_samples_of_one_name_are_refused(tmp_path: Path) -> None:
    """Shards that are each numbered from 0, joined by `tar -A`: of two samples the first was lost in silence."""
    for split in ("train", "test"):
        shard(tmp_path / f"set/{split}.tar", [{"png": png(k), "cls": b"1"} for k in range(2)])
    twice = [
        (f"a/{k % 2:05d}.{ending}", png(k) if ending != "cls" else b"1") for k in range(4) for ending in ("png", "cls")
    ]
    members(tmp_path / "set/train.tar", twice)
    sentence = "train.tar: member a/00000.png: sample a/00000 has 'png' already; number samples apart"
    with pytest.raises(DataError, match=sentence):
        read(tmp_path / "set", tmp_path / "cache")


def test_several_members_of_one_kind_are_refused(tmp_path: Path) -> None:
    """A sample's name ends at its first dot: `img.0001` and `img.0002` were one row."""
    dotted = [
        (f"img.{k:04d}.{ending}", png(k) if ending == "png" else b"a cat") for k in (1, 2) for ending in ("png", "txt")
    ]
    for split in ("train", "test"):
        members(tmp_path / f"set/{split}.tar", dotted)
    for column, ending in (("image", "png"), ("text", "txt")):
        sentence = (
            rf"train.tar: members img.0001.{ending} and img.0002.{ending} are both {column} of one sample; number"
        )
        rows = read_layout(tmp_path / "set", config(tmp_path / "set")).splits["train"]
        with pytest.raises(DataError, match=sentence):
            list(rows.values(column))
    with pytest.raises(DataError, match="train.tar: members img.0001.txt and img.0002.txt"):
        read(tmp_path / "set", tmp_path / "cache", caption_column="text")


def test_one_of_several_images_of_a_sample_is_chosen_by_its_column(tmp_path: Path) -> None:
    for split in ("train", "test"):
        samples = [{"png": png(k), "cls": b"1"} for k in range(3)]
        shard(tmp_path / f"set/{split}.tar", [*samples[:2], samples[2] | {"mask.png": png(9)}])
    with pytest.raises(DataError, match=r"are both image of one sample; .*data.image_column \(png, mask.png\)"):
        read(tmp_path / "set", tmp_path / "cache")
    assert greys(read(tmp_path / "set", tmp_path / "cache", image_column="png").train) == [0, 1, 2]


@pytest.mark.parametrize(
    "places",
    [
        ("train/cat/0.png", "train/dog/1.jpg", "test/cat/2.jpeg", "test/dog/3.png"),
        ("train/cat/0.png", "train/dog/1.JPEG", "test/cat/2.png", "test/dog/3.png"),
        ("train/cat/i.0.png", "train/dog/i.1.png", "test/cat/i.2.png", "test/dog/i.3.png"),
    ],
    ids=lambda places: places[1],
)
@pytest.mark.parametrize("beside", [None, "README.md"])
def test_a_tar_of_a_folder_is_no_webdataset(tmp_path: Path, places: tuple[str, ...], beside: str | None) -> None:
    """Endings were counted over all its images: of .jpg beside .png, class folders and splits were lost."""
    root = images(tmp_path / "set", *places)
    if beside:
        (root / beside).write_text("of cats and dogs")
    assert understood(read(packed(root, tmp_path / "x.tar", ""), tmp_path / "cache")) == EXPECTED


def test_a_tar_of_a_folder_that_lists_an_image_twice_is_read_as_tar_unpacks_it(tmp_path: Path) -> None:
    """As `tar -r` updates an image: the last of its name is it."""
    contents = [(place, png(k)) for k, place in enumerate((CLASSES[1], *CLASSES[1:], CLASSES[0]))]
    file = members(tmp_path / "x.tar", contents)
    assert understood(read(file, tmp_path / "cache")) == ([("cat", 4), ("dog", 1)], [("cat", 2), ("dog", 3)])


def test_one_whole_sample_makes_a_tar_webdataset(tmp_path: Path) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"set/{split}.tar", [{"png": png(0)}, {"png": png(1), "cls": b"1"}])
    found = read(tmp_path / "set", tmp_path / "cache", missing="drop")
    assert greys(found.train) == [1]


def test_a_data_set_of_the_hub_is_read_by_the_same_rules(tmp_path: Path) -> None:
    """What `datasets` loads, here from a folder in the hub's stead."""
    from bench.data.reading.hub import read_hub

    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png(k), "path": None} for k in range(4)], "label": [0, 1, 1, 0]}
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "set" / f"{split}.parquet")
    layout = read_hub(config(tmp_path / "set"), tmp_path / "hub")
    found = layout.splits["train"]
    assert found.names("label") == ["a", "b"] and list(found.values("label", np.array([1, 3]))) == [1, 0]
    assert [one["bytes"] for one in found.images("image", np.array([0, 2]))] == [png(0), png(2)]
    assert any("data.revision=COMMIT pins it" in note for note in layout.notes)
    with pytest.raises(DataError, match="no file or folder of that name here; as a data set of the hub: "):
        read_hub(config(tmp_path / "absent"), tmp_path / "hub")


# --- splits ---------------------------------------------------------------------------------------------------------


def test_a_missing_split_is_named_with_what_there_is_and_the_way(tmp_path: Path) -> None:
    parquet(tmp_path / "set/train.parquet", label=["a", "b"] * 10)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "set", tmp_path / "cache")
    assert "no split 'test' (splits: train)" in str(caught.value)
    assert "data.heldout_split=train" in str(caught.value) and "holds out 10%" in str(caught.value)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_one_split_is_divided_by_the_seed_without_overlap(tmp_path: Path, form: str) -> None:
    """Train and held-out of one name were the same images: every metric was of the training set."""
    file = parquet(tmp_path / "set/train.parquet", label=["a"] * 60 + ["b"] * 40)
    path = file if form == "file" else file.parent
    found = read(path, tmp_path / "cache", heldout_split="train")
    assert len(found.heldout) == 10 and sorted(greys(found.train) + greys(found.heldout)) == list(range(100))
    assert found.heldout.labels is not None and np.bincount(found.heldout.labels).tolist() == [6, 4]
    other = read(path, tmp_path / "cache", heldout_split="train", seed=1)
    assert greys(other.heldout) != greys(found.heldout)
    more = read(path, tmp_path / "cache", heldout_split="train", heldout_count=30, train_count=20)
    assert len(more.heldout) == 30 and len(more.train) == 20 and not set(greys(more.train)) & set(greys(more.heldout))
    with pytest.raises(DataError, match="data.heldout_count 100 leaves nothing to train on"):
        read(path, tmp_path / "cache", heldout_split="train", heldout_count=100)


def test_files_that_name_no_split_are_no_training_data_beside_those_that_do(tmp_path: Path) -> None:
    """extra.parquet beside train.parquet was trained on as well."""
    path = labelled(tmp_path / "set", ["a", "b"])
    parquet(path / "extra.parquet", label=["a", "b", "b"])
    found = read(path, tmp_path / "cache")
    assert len(found.train) == 2 and "not read, naming no split: extra.parquet" in found.notes


@pytest.mark.parametrize("kind", ["folders", "parquet"])
def test_two_names_of_one_split_are_two_splits(tmp_path: Path, kind: str) -> None:
    """`dev` beside `val`, `eval` beside `test`: one would be added to the other."""
    if kind == "folders":
        path = images(tmp_path / "set", "train/a/0.png", "dev/a/1.png", "val/a/2.png", "test/a/3.png")
    else:
        path = tmp_path / "set"
        for name in ("train", "dev", "val", "test"):
            parquet(path / f"{name}.parquet", label=["a"])
    assert len(read(path, tmp_path / "cache", heldout_split="val").heldout) == 1
    assert len(read(path, tmp_path / "cache", heldout_split="dev").heldout) == 1
    with pytest.raises(DataError, match=r"no split 'validation' \(splits: train, test, dev, val\)"):
        read(path, tmp_path / "cache", heldout_split="validation")


def test_images_that_both_splits_have_are_said(tmp_path: Path) -> None:
    path = labelled(tmp_path / "set", ["a", "b", "a"], ["a", "b"])
    found = read(path, tmp_path / "cache")
    assert "2 of 2 held-out images are in the training set too, pixel for pixel" in found.notes


KINDS = ("parquet", "arrow", "tar", "zip", "tgz", "csv", "jsonl")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes changed, taken out, put in, or its end cut off."""
    found = bytearray(content[: rng.randrange(len(content))] if rng.random() < 0.25 else content)
    for _ in range(rng.randrange(1, 6)):
        start, length = rng.randrange(max(1, len(found))), rng.randrange(1, 60)
        put = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, length))))
        found[start : start + rng.choice((0, 1, length))] = put
    return bytes(found)


def fuzzed(tmp_path: Path, seed: int, count: int) -> Counter[tuple[str, bool]]:
    """Reads damaged files of every kind: how many of each were read (True) or refused."""
    root = images(tmp_path / "set", *CLASSES)
    labelled(tmp_path / "p", ["a", "b"] * 10)
    pyarrow.feather.write_feather(
        pyarrow.table({"image": [png(k) for k in range(9)], "label": ["a"] * 9}), tmp_path / "a"
    )
    whole = {
        "parquet": (tmp_path / "p/train.parquet").read_bytes(),
        "arrow": (tmp_path / "a").read_bytes(),
        "tar": shard(
            tmp_path / "t", [{"png": png(k), "cls": b"1", "json": b'{"a": 1}'} for k in range(9)]
        ).read_bytes(),
        "zip": packed(root, tmp_path / "z", "zip").read_bytes(),
        "tgz": packed(root, tmp_path / "g", "gz").read_bytes(),
        "csv": ("image,label\n" + "set/train/cat/0.png,a\n" * 9).encode(),
        "jsonl": b'{"image": "set/train/cat/0.png", "label": "a"}\n' * 9,
    }
    rng, done = random.Random(seed), Counter[tuple[str, bool]]()
    for _ in range(count):
        kind = rng.choice(sorted(whole))
        file = tmp_path / f"x.{kind}"
        file.write_bytes(mutated(whole[kind], rng))
        try:
            read(file, tmp_path / "cache", heldout_split="train", heldout_count=1)
            done[kind, True] += 1
        except DataError:
            done[kind, False] += 1
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    return done


def test_damaged_files_of_every_kind_give_sentences(tmp_path: Path) -> None:
    done = fuzzed(tmp_path, 0, 400)
    assert {kind for kind, was_read in done if not was_read} == set(KINDS)


@pytest.mark.slow
def test_damaged_files_of_every_kind_give_sentences_for_minutes(tmp_path: Path) -> None:
    done = fuzzed(tmp_path, int(time.time()), 40_000)
    assert min(done[kind, False] for kind in KINDS) > 50


# --- names ----------------------------------------------------------------------------------------------------------


def test_links_are_followed_and_their_content_is_in_the_digest(tmp_path: Path) -> None:
    real = images(tmp_path / "real", *CLASSES)
    root = tmp_path / "set"
    (root / "train").mkdir(parents=True)
    (root / "train/cat").symlink_to(real / "train/cat")
    (root / "train/dog").mkdir()
    (root / "train/dog/1.png").symlink_to(real / "train/dog/1.png")
    (root / "test").symlink_to(real / "test")
    (root / "train/dog/up").symlink_to(root)  # a circle
    before = read(root, tmp_path / "cache")
    assert understood(before) == EXPECTED
    (real / "train/cat/0.png").write_bytes(png(77))
    assert greys(read(root, tmp_path / "cache").train) == [77, 1]
    os.remove(real / "train/dog/1.png")
    with pytest.raises(DataError, match=r"1\.png: a link to .* which is not there"):
        read(root, tmp_path / "cache")


def test_images_outside_the_folder_are_in_the_digest(tmp_path: Path) -> None:
    outside = images(tmp_path / "outside", "0.png", "1.png")
    for split in ("train", "test"):
        write = pyarrow.table({"image": [str(outside / "0.png"), "../outside/1.png"], "label": ["a", "b"]})
        (tmp_path / "set").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(write, tmp_path / "set" / f"{split}.parquet")
    before = read(tmp_path / "set", tmp_path / "cache")
    (outside / "1.png").write_bytes(png(99))
    after = read(tmp_path / "set", tmp_path / "cache")
    assert after.digest != before.digest and greys(after.train) == [0, 99]


def test_a_parquet_replaced_with_its_time_and_size_kept_is_read_again(tmp_path: Path) -> None:
    """`cp -p`, `tar` and `rsync -t` keep the time: the old images were read under the new digest."""
    plain: Any = {"compression": "none", "use_dictionary": False, "write_statistics": False}

    def write(file: Path, grey: int) -> os.stat_result:
        table = pyarrow.table({"image": [bmp(grey), bmp(grey + 1)], "label": ["a", "b"]})
        pyarrow.parquet.write_table(table, file, **plain)
        return file.stat()

    (tmp_path / "set").mkdir()
    write(tmp_path / "set/test.parquet", 0)
    file = tmp_path / "set/train.parquet"
    stamp = write(file, 10)
    before = read(tmp_path / "set", tmp_path / "cache")
    assert write(file, 20).st_size == stamp.st_size
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = read(tmp_path / "set", tmp_path / "cache")
    assert after.digest != before.digest and greys(after.train) == [20, 21]


def bmp(grey: int) -> bytes:
    """An image whose size does not depend on its content."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["org/name.v2", "name.v1.0", "org-a/name_b"])
def test_a_name_of_the_hub_may_have_a_dot(name: str) -> None:
    """It was taken for a file that is missing."""
    assert data.data_digest(config(Path(name)))


@pytest.mark.parametrize(
    "path", ["./absent", "/absent/set", "~/absent-set", "a/b/c", "absent.parquet", "a b", "set.zip"]
)
def test_a_path_that_is_not_there_is_said(path: str) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        data.data_digest(Data(source="huggingface", path=path, label_column="label"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><body>403</body></html>", "an HTML page"),
        (b"", "an empty file"),
        (b"PAR1 cut off", "damaged, or not a parquet file"),
        (b"\0" * 64, "zeros"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image; a parquet file is needed"),
    ],
)
def test_what_is_no_parquet_is_named_for_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = labelled(tmp_path / "set", ["a", "b"])
    (path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=f"train.parquet: .*{said}|train.parquet: {said}"):
        read(path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.h5", b"\x89HDF", "a file must be parquet, arrow, tar, zip, csv"),
        ("x.png", png(), "one image is no data set; name the folder"),
        ("x", b"<html>", "an HTML page"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name, tmp_path / "cache")


def test_a_folder_without_data_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it holds no files"):
        read(tmp_path / "empty", tmp_path / "cache")
    (tmp_path / "empty/model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"it holds 1 files \(.bin\)"):
        read(tmp_path / "empty", tmp_path / "cache")


def test_files_that_are_passed_over_are_said(tmp_path: Path) -> None:
    path = images(labelled(tmp_path / "set", ["a", "b"]), "preview/0.png")
    assert "not read beside the parquet files: 0.png" in read(path, tmp_path / "cache").notes


def test_names_in_any_script_with_blanks_and_brackets(tmp_path: Path) -> None:
    root = images(tmp_path / "мой set [1]", "train/кот 1/[x].png", "train/собака/%20.png", "test/кот 1/é.png")
    assert read(root, tmp_path / "cache").classes == ["кот 1", "собака"]


TYPES = [
    pyarrow.array([0, 1], pyarrow.int8()),
    pyarrow.array([0, 1], pyarrow.uint64()),
    pyarrow.array([0.0, 1.0], pyarrow.float32()),
    pyarrow.array(np.array([0, 1], np.float16)),
    pyarrow.array([1, 2], pyarrow.decimal128(5, 2)),
    pyarrow.array([True, False]),
    pyarrow.array(["a", "b"]),
    pyarrow.array(["a", "b"], pyarrow.large_string()),
    pyarrow.array(["a", "b"], pyarrow.string_view()),
    pyarrow.array(["a", "b"]).dictionary_encode(),
    pyarrow.array([b"a", b"b"]),
    pyarrow.array([b"ab", b"cd"], pyarrow.binary(2)),
    pyarrow.array([b"a", b"b"], pyarrow.large_binary()),
    pyarrow.array([1, 2], pyarrow.date32()),
    pyarrow.array([1, 2], pyarrow.time64("us")),
    pyarrow.array([1, 2], pyarrow.timestamp("s", tz="UTC")),
    pyarrow.array([1, 2], pyarrow.duration("s")),
    pyarrow.array([[1], [2]], pyarrow.list_(pyarrow.int8())),
    pyarrow.array([[1, 2], [2, 3]], pyarrow.list_(pyarrow.int8(), 2)),
    pyarrow.array([["a"], ["b", "c"]], pyarrow.large_list(pyarrow.string())),
    pyarrow.array([[["a"]], [["b"]]]),
    pyarrow.array([{"x": 1}, {"x": 2}]),
    pyarrow.array([{"bytes": "a", "path": 1}, {"bytes": None, "path": 2}]),
    pyarrow.array([[("k", 1)], [("k", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
    pyarrow.nulls(2),
    pyarrow.array([None, None], pyarrow.list_(pyarrow.int8())),
]


@pytest.mark.parametrize("role", ["label_column", "caption_column", "image_column"])
@pytest.mark.parametrize("values", TYPES, ids=lambda values: str(values.type))
def test_a_column_of_any_type_is_read_or_refused(tmp_path: Path, values: pyarrow.Array, role: str) -> None:
    """No type of a column gives a traceback."""
    (tmp_path / "set").mkdir()
    table = pyarrow.table({"image": [png(0), png(1)], "label": ["a", "b"], "odd": values})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / "set" / f"{split}.parquet")
    try:
        found = read(tmp_path / "set", tmp_path / "cache", **{role: "odd"})
    except DataError as error:
        said = str(error)
    else:
        said = ""
        assert len(found.train) == 2
    assert not said or "'odd'" in said or "image " in said


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30),
        min_size=1,
        max_size=3,
    )
)
def test_folders_of_any_name(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever classes are called, but for names that are never data."""
    from bench.data.reading.files import is_junk

    kept = {name for name in names if not is_junk(name) and len(name.encode("utf-8", "surrogateescape")) < 200}
    expected = {" ".join(unicodedata.normalize("NFC", name).split()) for name in kept}
    tmp_path = tmp_path_factory.mktemp("names")
    if not kept or "" in expected:
        return
    root = images(tmp_path / "set", *(f"{split}/{name}/{name}.png" for split in ("train", "test") for name in kept))
    found = read(root, tmp_path / "cache")
    assert set(found.classes or []) == expected and len(found.train) == len(kept)


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, from an old archive."""
    for split in ("train", "test"):
        folder = os.fsencode(tmp_path / "set" / split / "caf") + b"\xe9"
        os.makedirs(folder)
        Path(os.fsdecode(folder), "0.png").write_bytes(png())
    assert read(tmp_path / "set", tmp_path / "cache").classes == ["caf?"]


def test_captions_of_both_splits(tmp_path: Path) -> None:
    found = read(captioned(tmp_path / "set", ["a", "b"], ["c"]), tmp_path / "cache", caption_column="text")
    assert found.train.captions == ["a", "b"] and found.heldout.captions == ["c"]
