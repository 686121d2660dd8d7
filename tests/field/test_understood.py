"""`ditbench data`: whatever was understood is shown before anything is trained, with a sheet of images and prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_sets import captioned, labelled
from PIL import Image
from tiny import matrix_file

from bench.cli.data import data
from bench.data.errors import DataError

HUGGINGFACE = {"data__source": "huggingface", "data__image_size": 8, "data__train_count": None}
HUGGINGFACE |= {"data__heldout_count": None}


def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str, **changes: Any) -> str:
    matrix = matrix_file(tmp_path, **changes)
    data(matrix, list(overrides), root=tmp_path / "runs", sheet=None, as_json=False)
    return capsys.readouterr().out


def test_labels_are_shown_with_their_map_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labelled(tmp_path / "set", [-7] * 2 + [900_000] * 12, [-7, 900_000])
    text = shown(tmp_path, capsys, **HUGGINGFACE, data__path=str(path), data__label_column="label")
    assert "train: 14 images, of 14 rows of split 'train'" in text and "sizes: 8 x 8 (14)" in text
    assert "0: -7, 2, 1" in text and "1: 900000, 12, 1" in text
    assert "classes are unequal: 12 training images of 900000, 2 of -7" in text
    assert "2 of 2 held-out images are in the training set too" in text and "exact copies: " in text
    assert "a sample without replacement" in text and "labels (classes 2)" in text
    sheet = Path(text.partition("sheet: ")[2].partition(" (")[0])
    assert sheet.is_relative_to(tmp_path / "runs") and np.asarray(Image.open(sheet)).std() > 5
    assert "train, a sample" in sheet.with_suffix(".txt").read_text()


def test_captions_are_shown_with_what_is_unknown_cut_and_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captioned(tmp_path / "set", ["one two three", "four", None], ["five [/red] \x1b[31m one", "", "one"])
    keys = {"data__path": str(path), "data__caption_column": "text", "data__missing": "drop", "prompt__length": 2}
    text = shown(tmp_path, capsys, **HUGGINGFACE, **keys)
    assert "dropped 1" in text and "1 are cut (50.0%)" in text and "empty (null prompt) (1)" in text
    assert "such as five" in text and "\x1b" not in text
    assert "captions (vocabulary 6, length 2, depth 2)" in text


def test_many_classes_are_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labelled(tmp_path / "set", [f"class {k:03d}" for k in range(60)])
    text = shown(tmp_path, capsys, **HUGGINGFACE, data__path=str(path), data__label_column="label")
    assert "... 40 more" in text and "16: class 016" in text and "59: class 059" in text and "30: " not in text


def test_scenes_and_axes_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An axis of the data shows each kind; scripts get values."""
    matrix = matrix_file(tmp_path, axes={"data.objects": [1, 2]})
    data(matrix, [], root=tmp_path / "runs", sheet=tmp_path / "s.png", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2 and found[0]["splits"]["train"]["images"] == 96 and found[0]["digest"] != found[1]["digest"]
    assert (tmp_path / "s.png").exists() and (tmp_path / "s-2.png").exists()


def test_nothing_is_trained_and_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(tmp_path, capsys)
    assert not (tmp_path / "runs/cells").exists() and not (tmp_path / "runs/matrices").exists()
    with pytest.raises(DataError, match="no such file or folder"):
        shown(tmp_path, capsys, **HUGGINGFACE, data__path="./absent", data__label_column="label")
