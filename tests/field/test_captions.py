"""Captions of any script, missing, empty, very long, in lists: what reaches the model is known and said."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_sets import captioned, read

from bench.config.schema import Data, Prompt
from bench.data import datasets, prompts
from bench.data.datasets import Dataset, Split
from bench.data.errors import DataError
from bench.data.prompts import PromptError, Prompts
from bench.data.words import words


def prepared(cache: Path, train: list[str], heldout: list[str] | None = None, **changes: Any) -> Prompts:
    """The prompts of captions."""

    def split(texts: list[str]) -> Split:
        return Split(np.zeros((len(texts), 8, 8, 3), np.uint8), None, texts)

    data = Dataset(repr((train, heldout)), split(train), split(heldout or train), None)
    return prompts.prepare(data, Prompt(**changes), cache)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A small red-ring, 3 don't_go", ["a", "small", "red", "ring", "3", "don", "t", "go"]),
        ("café", ["café"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("красное КОЛЬЦО, ночь", ["красное", "кольцо", "ночь"]),
        ("一只红色的猫", list("一只红色的猫")),
        ("赤いリング2個", ["赤", "い", "リ", "ン", "グ", "2", "個"]),
        ("ﾘﾝｸﾞ", list("リング")),
        ("แมวดำ", ["แ", "ม", "ว", "ด\u0e4d", "\u0e32"]),  # SARA AM is two in NFKC
        ("빨간 고리", ["빨간", "고리"]),
        ("लाल अंगूठी", ["लाल", "अंगूठी"]),
        ("خاتم أحمر", ["خاتم", "أحمر"]),
        ("می\u200cخواهم", ["میخواهم"]),  # noqa: RUF001
        ("טבעת אדומה", ["טבעת", "אדומה"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("a 🐱🐱 and ☀️", ["a", "🐱", "🐱", "and", "☀"]),
        ("\uff12 ﬁne x²", ["2", "fine", "x2"]),
        ("soft\u00adware", ["software"]),
        ("naïve—façade…", ["naïve", "façade"]),
        ("...!?", []),
        ("«»“”、。", []),
        ("", []),
    ],
)
def test_words_of_any_script(text: str, found: list[str]) -> None:
    """Captions were `[a-z0-9]+`: Russian and Chinese had no word at all, `café` became `caf`."""
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in found]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_split_as_it_always_was(text: str) -> None:
    """Numbers of English sets and of scenes do not change."""
    assert words(text) == re.findall(r"[a-z0-9]+", text.lower())


def test_scenes_have_the_prompts_that_they_had(tmp_path: Path) -> None:
    """Ids of rendered scenes by the old rule, written out here."""
    data = datasets.load(
        datasets.prepare(Data(image_size=16, train_count=40, heldout_count=9, unseen_count=3), tmp_path)
    )
    made = prompts.prepare(data, Prompt(), tmp_path)
    old = [re.findall(r"[a-z0-9]+", text.lower()) for text in data.train.captions or []]
    vocabulary = ["", "?", *sorted({word for caption in old for word in caption})]
    assert made.meta["vocabulary"] == vocabulary
    ids = made.rows("train", np.arange(40))
    for row, caption in zip(ids.tolist(), old, strict=True):
        assert [vocabulary[k] for k in row if k] == caption


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_one_form_whatever_is_typed(text: str) -> None:
    """Composed, decomposed and compatible forms of a text, in capitals or not, are the same words."""
    found = words(text)
    assert all(word and not word.isspace() for word in found)
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == found


@pytest.mark.parametrize("texts", [["一只红色的猫", "蓝色的狗"], ["красное кольцо", "синий квадрат"], ["แมวดำ", "หมา"]])
def test_captions_of_one_script_alone(tmp_path: Path, texts: list[str]) -> None:
    """They gave a traceback of a tensor's shape."""
    made = prepared(tmp_path, texts)
    assert made.rows("train", np.array([0, 1])).max() > 1 and not made.notes
    ids, unknown = made.encode([texts[1]])
    assert torch.equal(ids[0], made.rows("train", np.array([1]))[0]) and unknown == []


def test_a_prompt_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    """`ditbench sample X "красное кольцо"` sampled the null prompt."""
    made = prepared(tmp_path, ["a red ring", "a blue square"])
    with pytest.raises(PromptError, match="'красное кольцо': no word of it is known .* such as a, blue, red"):
        made.encode(["красное кольцо"])
    with pytest.raises(PromptError, match=r"'\.\.\.' has no word"):
        made.encode(["a red ring", "..."])
    assert made.encode([""])[0].tolist() == [[0, 0, 0]], "an empty prompt is the null prompt"
    ids, unknown = made.encode(["a green ring"])
    assert unknown == ["green"] and ids.tolist()[0][1] == prompts.UNKNOWN


def test_unknown_and_cut_captions_are_counted_with_examples(tmp_path: Path) -> None:
    made = prepared(tmp_path, ["one two three four", "two"], ["two zebra", "zebra", "one", ""], length=3)
    about = made.meta["splits"]["heldout"]
    assert (about["unknown words"], about["unknown"], about["of unknown words alone"]) == (2, ["zebra"], 1)
    assert about["empty"] == 1 and made.meta["splits"]["train"]["cut"] == 1
    assert any("2 of 4 words are not in the training captions, such as zebra" in note for note in made.notes)
    assert any("1 of 2 are cut to 3 words" in note for note in made.notes)


def test_no_words_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no caption of the training set has a word"):
        prepared(tmp_path, ["", ""])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a", None, "b"], "row 1 of split 'train', column 'text': nothing (1 such of 3)"),
        (["a", "...", "b"], "row 1 of split 'train', column 'text': '...', which has no letter, digit or symbol"),
        ([1, 2, 3], "row 0 of split 'train', column 'text': caption '1' is no text but of type int (is it a label?"),
        ([{"en": "a"}] * 3, "caption \"{'en': 'a'}\" is no text but a mapping"),
        ([[["a"]]] * 3, "is no text but a list in a list"),
        ([["a"], [], ["b"]], "row 1 of split 'train', column 'text': '[]'"),
    ],
    ids=str,
)
def test_what_is_no_caption_is_refused_by_its_row(tmp_path: Path, values: list[Any], said: str) -> None:
    """None became the word "none", lists and mappings their text in Python."""
    path = captioned(tmp_path / "set", values)
    with pytest.raises(DataError) as caught:
        read(path, tmp_path / "cache", caption_column="text")
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_key_passes_missing_captions(tmp_path: Path) -> None:
    path = captioned(tmp_path / "set", ["a cat", None, "none", "!!"])
    kept = read(path, tmp_path / "cache", caption_column="text", missing="null")
    assert kept.train.captions == ["a cat", "", "none", ""]
    assert kept.about["splits"]["train"]["missing, null prompt"] == 2
    dropped = read(path, tmp_path / "cache", caption_column="text", missing="drop")
    assert dropped.train.captions == ["a cat", "none"] and len(dropped.train) == 2


def test_empty_captions_are_the_null_prompt_and_counted(tmp_path: Path) -> None:
    found = read(captioned(tmp_path / "set", ["a cat", "", " \n"]), tmp_path / "cache", caption_column="text")
    assert found.train.captions == ["a cat", "", ""]
    assert found.about["splits"]["train"]["captions"] == {"empty (null prompt)": 2}


def test_of_a_list_one_caption_is_chosen_by_the_seed(tmp_path: Path) -> None:
    """COCO has five captions an image; a list became its text in Python."""
    values = [[f"caption {letter} of {k}" for letter in "abcde"] for k in range(40)]
    path = captioned(tmp_path / "set", values)
    found = read(path, tmp_path / "cache", caption_column="text")
    texts = found.train.captions or []
    assert [text[-2:].strip() for text in texts] == [str(k)[-2:] for k in range(40)]
    assert len({text[8] for text in texts}) == 5, "not always the first"
    assert read(path, tmp_path / "other", caption_column="text").train.captions == texts
    assert read(path, tmp_path / "cache", caption_column="text", seed=1).train.captions != texts


@pytest.mark.parametrize(
    "text", ["two\nlines\r\nand\u2028three\x85four\x0bfive", "nul \0 inside", "x" * 100_000, "a\u202eb", "tab\tin"]
)
def test_odd_texts_stay_one_line_each(tmp_path: Path, text: str) -> None:
    path = captioned(tmp_path / "set", ["first", text, "last"])
    found = read(path, tmp_path / "cache", caption_column="text")
    captions = found.train.captions or []
    assert len(captions) == 3 and captions[0] == "first" and captions[2] == "last"
    assert words(captions[1]) == words(" ".join(text.replace("\0", " ").split()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=[])), min_size=1, max_size=5))
def test_any_texts_come_back_row_by_row(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Whatever is in them, lone surrogates and separators too: written and read, each is its own row."""
    from bench.data.reading import captions

    found = captions.read([*texts, "end"], str, seed=0, split="train").texts
    file = tmp_path_factory.mktemp("captions") / "x.txt"
    datasets.write_captions(file, [text or "" for text in found])
    again = file.read_text(encoding="utf-8").split("\n")
    assert len(again) == len(texts) + 1 and again[-1] == "end"
    assert again == [text or "" for text in found]


def test_a_template_without_a_place_is_refused() -> None:
    """`prompt.template: a photo` gave every class the same prompt."""
    with pytest.raises(ValueError, match="'a photo' has no {}"):
        Prompt(template="a photo")


def test_null_may_be_written_as_yaml_reads_it(tmp_path: Path) -> None:
    """`data.missing: null` is none at all to YAML."""
    from tiny import matrix_file

    from bench.config import load

    for text in ("data.missing=null", "data.missing='null'", 'data.missing="null"'):
        assert load.load(matrix_file(tmp_path), [text]).data.missing == "null"
    assert load.load(matrix_file(tmp_path, data__missing=None)).data.missing == "null"
    with pytest.raises(ValueError, match="data.missing must be one of refuse, drop, null, got 'nul'"):
        load.load(matrix_file(tmp_path), ["data.missing=nul"])
