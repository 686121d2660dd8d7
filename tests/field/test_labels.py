"""Labels of every type: mapped to classes with the map kept as names, or refused by path, column, row and value."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_sets import greys, labelled, parquet, png, read

from bench.data.errors import DataError
from bench.data.reading import labels


@pytest.mark.parametrize(
    ("values", "names", "classes"),
    [
        (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        ([3, 900_000, -7], ["-7", "3", "900000"], [1, 2, 0]),
        ([10, 2, 10], ["2", "10"], [1, 0, 1]),
        (["10", "2", "1"], ["1", "2", "10"], [2, 1, 0]),
        ([True, False, True], ["false", "true"], [1, 0, 1]),
        ([1.0, 0.0, 2.0], ["0", "1", "2"], [1, 0, 2]),
        ([["a"], ["b"], ["a"]], ["a", "b"], [0, 1, 0]),
        (["café", "cafe\u0301", " café "], ["café"], [0, 0, 0]),
        (["новый", "猫", "a"], ["a", "новый", "猫"], [1, 2, 0]),
        ([b"a", b"b", b"a"], ["a", "b"], [0, 1, 0]),
        ([decimal.Decimal(5), decimal.Decimal(4), decimal.Decimal(5)], ["4", "5"], [1, 0, 1]),
    ],
    ids=str,
)
def test_values_become_classes_with_their_names(tmp_path: Path, values: list[Any], names: list[str], classes) -> None:
    """Texts were 'invalid literal for int()', ids to 10^6 a table of a million rows."""
    found = read(labelled(tmp_path / "set", values), tmp_path / "cache")
    assert found.classes == names and found.train.labels is not None and found.train.labels.tolist() == classes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, 0.5, 1.0], "row 1 of split 'train', column 'label': label 0.5 is no whole number"),
        ([1.0, float("inf"), 0.0], "row 1 of split 'train', column 'label': label inf"),
        (["a", None, "b"], "row 1 of split 'train', column 'label': nothing (1 such of 3)"),
        ([1, None, None], "row 1 of split 'train', column 'label': nothing (2 such of 3)"),
        ([1.0, float("nan"), 0.0], "row 1 of split 'train', column 'label': nothing"),
        (["a", "  ", "b"], "row 1 of split 'train', column 'label': '  '"),
        ([["a"], ["a", "b"], ["b"]], "row 1 of split 'train', column 'label': 2 labels ['a', 'b']; one label an image"),
        ([["a"], [], ["b"]], "row 1 of split 'train', column 'label': 0 labels"),
        ([{"x": 1}, {"x": 2}, {"x": 3}], "row 0 of split 'train', column 'label': label \"{'x': 1}\" is a dict"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused_by_its_row(tmp_path: Path, values: list[Any], said: str) -> None:
    """0.5 became 0 in silence; None was a TypeError without path or column."""
    path = labelled(tmp_path / "set", values)
    with pytest.raises(DataError) as caught:
        read(path, tmp_path / "cache")
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_missing_labels_are_left_out_if_a_key_says_so(tmp_path: Path) -> None:
    path = labelled(tmp_path / "set", ["a", None, "b", ""], ["a", "b"])
    found = read(path, tmp_path / "cache", missing="drop")
    assert greys(found.train) == [0, 2] and found.about["splits"]["train"]["dropped"] == 2
    assert "train: 2 rows without image, label or caption are left out" in found.notes
    with pytest.raises(DataError, match="data.missing=drop"):
        read(path, tmp_path / "cache", missing="null")  # a label has no null that is written


def test_a_held_out_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    """It would be a class whose embedding is never trained."""
    with pytest.raises(DataError, match="row 2 of split 'test'.* label 'wolf' is not among the training labels"):
        read(labelled(tmp_path / "set", ["cat", "dog"], ["cat", "dog", "wolf"]), tmp_path / "cache")


def test_a_named_class_without_a_training_image_is_said(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "wolf"])})
    for split, values in (("train", [0, 1, 0]), ("test", [0, 2, 1])):
        parquet(tmp_path / "raw.parquet", label=values)
        rows = {"image": read_images(tmp_path / "raw.parquet"), "label": values}
        (tmp_path / "set").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "set" / f"{split}.parquet")
    found = read(tmp_path / "set", tmp_path / "cache")
    assert found.classes == ["cat", "dog", "wolf"] and found.heldout.labels is not None
    assert found.heldout.labels.tolist() == [0, 2, 1]
    assert "held-out labels without a training image: wolf" in found.notes


def read_images(file: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(file)["image"].to_pylist()


def test_the_map_is_of_the_whole_split_whatever_the_count(tmp_path: Path) -> None:
    """A subset must not renumber classes: 7 is the same class with 3 training images and with all."""
    path = labelled(tmp_path / "set", [1, 7, 9] * 10, [7, 7])
    few = read(path, tmp_path / "cache", train_count=2)
    assert few.classes == ["1", "7", "9"] and few.heldout.labels is not None and few.heldout.labels.tolist() == [1, 1]


def test_ids_for_labels_are_said(tmp_path: Path) -> None:
    path = labelled(tmp_path / "set", [k * 1000 for k in range(120)])
    notes = read(path, tmp_path / "cache").notes
    assert any("120 classes for 120 images: is 'label' an id?" in note for note in notes)


def test_scores_of_a_table_of_text_are_refused(tmp_path: Path) -> None:
    """In a csv a fraction is a text, and would be the name of a class."""
    for name in ("train", "test"):
        (tmp_path / f"{name}.png").write_bytes(png())
        (tmp_path / f"{name}.csv").write_text(f"image,label\n{name}.png,1\n{name}.png,0.5\n")
    with pytest.raises(DataError, match="row 1 of split 'train', column 'label': label '0.5' is no whole number"):
        read(tmp_path, tmp_path / "cache")


def test_splits_that_name_classes_differently_are_refused(tmp_path: Path) -> None:
    """Number 0 is a cat in one file and a dog in the other: held-out labels were swapped in silence."""
    datasets = pytest.importorskip("datasets")
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = {"image": [{"bytes": png(), "path": None}] * 2, "label": [0, 1]}
        (tmp_path / "set").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "set" / f"{split}.parquet")
    with pytest.raises(DataError, match="name the classes of column 'label' differently: cat, dog, and dog, cat"):
        read(tmp_path / "set", tmp_path / "cache")


def test_a_split_without_labels_is_named(tmp_path: Path) -> None:
    """Many published test splits have -1 everywhere."""
    with pytest.raises(DataError, match="label -1 is not among .*-1 often marks a split without labels"):
        read(labelled(tmp_path / "set", [0, 1], [-1, -1]), tmp_path / "cache")


def test_names_in_messages_are_short_and_inert(tmp_path: Path) -> None:
    """A class name may be a page long, or hold what a terminal obeys."""
    with pytest.raises(DataError) as caught:
        read(labelled(tmp_path / "set", ["\x1b[31mred", "x" * 5000], ["other"]), tmp_path / "cache")
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 500


def test_dictionary_columns_and_small_types(tmp_path: Path) -> None:
    """Categories of pandas, and unsigned bytes."""
    category = pyarrow.array(["b", "a", "b"]).dictionary_encode()
    for name in ("train", "test"):
        parquet(tmp_path / "set" / f"{name}.parquet", label=category)
    assert read(tmp_path / "set", tmp_path / "cache").classes == ["a", "b"]
    small = labelled(tmp_path / "small", [250, 3], kind=pyarrow.uint8())
    assert read(small, tmp_path / "cache").classes == ["3", "250"]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.binary(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_any_column_is_mapped_or_refused(values: list[Any]) -> None:
    """Whatever a column holds: consecutive classes with names, or a sentence with the row."""

    def place(row: int) -> str:
        return f"row {row}"

    try:
        plain, _ = labels.plain(values, place)
        mapped = labels.fit(plain, None, place)
        ids = mapped.ids(plain, place)
    except DataError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.startswith("row ")
        return
    used = sorted(set(ids.tolist()) - {-1})
    assert used == list(range(len(mapped.names))) and all(isinstance(name, str) for name in mapped.names)
    assert len(set(mapped.names)) == len(mapped.names) and (ids >= 0).sum() == sum(one is not None for one in plain)
    assert ids.dtype == np.int64
