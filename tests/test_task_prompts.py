"""Prompts of tasks: as text, as a user types them, and what of either is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ditbench, planned, run_all

from architectures import Captions
from bench.config.schema import Data, Prompt
from bench.data import datasets, prompts, task_prompts
from bench.data.datasets import Dataset
from bench.data.prompts import PromptError
from bench.data.tasks import laws, registry
from bench.data.tasks.contract import LEVELS
from bench.data.tasks.grain import Grain


def prepared(folder: Path, task: str, words: bool = True, **knobs: Any) -> Dataset:
    return datasets.load(
        datasets.prepare(Data(source="task", task=task, words=words, heldout_count=64, knobs=knobs), folder)
    )


# --- as text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", registry.NAMES)
def test_the_law_of_text_holds_and_every_prompt_fits(name: str, level: str) -> None:
    task = registry.make(name, level)
    assert laws.text_says_as_much(task, 256)[0], laws.text_says_as_much(task, 256)
    rows = registry.sample_batch(task, "train", 0, 0, 64)[1].tolist()
    assert task_prompts.vocabulary(task, rows)[1] <= Prompt().length


@pytest.mark.parametrize("name", ["scene", "bind", "labels", "facts", "grain"])
def test_other_words_are_other_ids_of_a_caption(name: str, tmp_path: Path) -> None:
    """The whole vocabulary where it is small, a large sample of it else; no word is unknown, none is cut."""
    data = prepared(tmp_path, name)
    assert data.task is not None
    made = prompts.prepare(data, Prompt(), tmp_path)
    assert isinstance(made.kind, Captions)
    if task_prompts.count(data.task) <= 6000:
        words = torch.tensor(list(task_prompts.every(data.task)))
        assert torch.equal(task_prompts.places(data.task, words), torch.arange(len(words)))
    else:
        words = registry.sample_batch(data.task, "train", 3, 0, 4000)[1].unique(dim=0)
    ids = made.of_words(data.task, words)
    assert len(ids.unique(dim=0)) == len(words)
    assert not (ids == prompts.UNKNOWN).any() and ids[:, -1].any() >= (name != "facts")
    assert torch.equal(ids, made.of_words(data.task, words)), "deterministic"


def test_cached_prompts_are_those_of_sampled_batches(tmp_path: Path) -> None:
    data = prepared(tmp_path, "scene")
    assert data.task is not None and data.unseen is not None
    made = prompts.prepare(data, Prompt(), tmp_path)
    for name, split in data.splits.items():
        own = made.of_words(data.task, torch.from_numpy(np.array(split.words)))
        assert torch.equal(made.rows(name, np.arange(len(split))), own), name
    blind = prompts.prepare(data, Prompt(arm="blind"), tmp_path)
    assert blind.digest != made.digest and not blind.rows("heldout", np.arange(9)).any()
    assert not blind.of_words(data.task, torch.ones(5, 5, dtype=torch.long)).any()
    assert not blind.encode(["tone=ice, pattern=bars, place=0, colour=red, glyph=ring"], data.task)[0].any()


class Silent(Grain):
    """Text that leaves the grain out."""

    def text(self, words: Sequence[int]) -> str:
        return super().text(words).rpartition(",")[0]


class Signs(Grain):
    """Words that differ by signs alone."""

    def text(self, words: Sequence[int]) -> str:
        return super().text([*words[:2], 0]) + "+" * words[2]


class Grammar(Grain):
    """A word that only some slots together have is known from samples."""

    def text(self, words: Sequence[int]) -> str:
        return super().text(words) + (", both" if words[0] == words[1] == 2 else "")


def test_text_that_leaves_a_slot_out_breaks_the_law() -> None:
    for cls in (Silent, Signs):
        holds, observed = laws.text_says_as_much(cls(), 128)
        assert not holds and "are both" in observed
    assert laws.text_says_as_much(Grammar(), 128)[0]
    assert "both" in task_prompts.vocabulary(Grammar(), [[0, 0, 0], [2, 2, 0]])[0]


@pytest.mark.parametrize(
    ("words", "how", "sentence"),
    [
        (False, {"kind": "captions"}, "slots; choose auto or slots, or data.words=true"),
        (True, {"kind": "slots"}, "data.words=true gives prompts as text; choose captions or features"),
        (True, {"kind": "features"}, "name prompt.encoder"),
        (True, {"arm": "oracle"}, "prompt.arm oracle: its map is of slots"),
        (True, {"length": 5}, "prompt.length 5: a prompt of task 'scene' as text has up to 13 words"),
    ],
)
def test_what_contradicts_is_one_sentence(words: bool, how: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=re.escape(sentence)):
        prompts.prepare(prepared(tmp_path, "scene", words), Prompt(**how), tmp_path)


def test_a_matrix_of_prompts_as_text_trains(tmp_path: Path) -> None:
    own = {"source": "task", "task": "grain", "words": True, "heldout_count": 32}
    small = {"extractor": "none", "points": 16, "samples": 16, "reference": 16, "heldout": 16, "curve_every": 1}
    made, store = planned(
        tmp_path,
        data=own,
        axes={"prompt.arm": ["none", "blind"]},
        backbone__name="DiT-XS",
        train__steps=2,
        train__warmup=1,
        train__checkpoint_every=2,
        **{f"evaluate__{key}": value for key, value in small.items()},
    )
    assert [one.status for one in run_all(made, store)] == ["done", "done"]
    results = [store.cell(cell.row.cell).result() for cell in made.cells]
    assert all(one is not None and {"score", "right_template_16"} <= set(one.quality) for one in results)
    assert len({one.quality["excess_error"] for one in results if one is not None}) == 2


# --- as a user types it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "tone=ice, pattern=checks, place=row 2 column 3, colour=blue, glyph=plus",
        "glyph=plus tone=ICE pattern=checks place=row 2  column 3 colour=blue",
        "tone=4 pattern=3 place=5 colour=2 glyph=3",
        "tone = ice; pattern = checks; place = row 2 column 3; colour = blue; glyph = plus;",
        "tone ice, pattern checks, place row 2 column 3, colour blue, glyph plus",
    ],
)
def test_a_prompt_is_typed_in_words_of_slots(text: str) -> None:
    assert task_prompts.typed(registry.make("scene"), text) == [4, 3, 5, 2, 3]


@pytest.mark.parametrize("name", registry.NAMES)
def test_what_is_typed_is_what_is_meant(name: str) -> None:
    task = registry.make(name, "hard")
    for words in registry.sample_batch(task, "heldout", 0, 0, 32)[1].tolist():
        pairs = [(slot.name, slot.words[word]) for slot, word in zip(task.slots, words, strict=True)]
        for form in (", ".join(f"{a}={b}" for a, b in pairs), " ".join(f"{a}={b}" for a, b in reversed(pairs))):
            assert task_prompts.typed(task, form) == words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tnoe=ice, place=1", "no slot 'tnoe' (slots: tone, pattern, place, colour, glyph); did you mean 'tone'?"),
        ("tone=ice patern=bars", "no slot 'patern' (slots: tone, pattern, place, colour, glyph); did you mean 'patt"),
        ("tone=icy, pattern=bars", "tone 'icy': choose one of slate, sand, moss, rose, ice, plum, or its number from"),
        ("tone=6", "tone '6': choose one of slate, sand, moss, rose, ice, plum, or its number from 0 to 5"),
        ("tone=ice, tone=ice", "tone is given twice"),
        ("tone=ice, pattern=bars, place=1", "colour, glyph are missing; a prompt of task 'scene' gives a word for"),
        ("a red ring", "'a red ring' names no slot; a prompt of task 'scene' gives a word for each slot, such as"),
        ("red tone=ice", "'red' names no slot"),
        ("=ice", "no slot ''"),
    ],
)
def test_a_wrong_slot_or_word_is_named_with_the_choices(text: str, sentence: str) -> None:
    with pytest.raises(PromptError, match=re.escape(sentence)):
        task_prompts.typed(registry.make("scene"), text)


def test_numbers_that_are_words_are_no_places() -> None:
    task = registry.make("count")
    assert task_prompts.typed(task, "count=2") == [1]
    with pytest.raises(
        PromptError, match="count '0': choose one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10; did you mean '10'.$"
    ):
        task_prompts.typed(task, "count=0")


@pytest.mark.parametrize("words", [False, True])
def test_prompts_of_slots_reach_the_model_as_in_training(words: bool, tmp_path: Path) -> None:
    """An empty text is the null prompt; in words of slots or as text it is what batches have."""
    data = prepared(tmp_path, "scene", words)
    assert data.task is not None
    made = prompts.prepare(data, Prompt(), tmp_path)
    text = "tone=ice, pattern=checks, place=row 2 column 3, colour=blue, glyph=plus"
    found, unknown = made.encode([text, "", data.task.text([4, 3, 5, 2, 3])], data.task)
    expected = made.of_words(data.task, torch.tensor([[4, 3, 5, 2, 3]]))[0]
    assert torch.equal(found[0], expected) and torch.equal(found[2], expected)
    assert not found[1].any() and not unknown


def test_the_map_of_the_oracle_is_made_of_what_is_typed(tmp_path: Path) -> None:
    data = prepared(tmp_path, "place", words=False)
    assert data.task is not None
    made = prompts.prepare(data, Prompt(arm="oracle"), tmp_path)
    found, _ = made.encode(["place=row 1 column 2", ""], data.task)
    assert found[0].tolist() == [0, found[0, 1].item(), *[0] * 14] and not found[1].any()


def test_a_cell_of_a_task_samples_what_is_typed(tmp_path: Path) -> None:
    """A row by its name, the arm that sees no prompt, and of a matrix over tasks the rows that have such a prompt."""
    made, store = planned(
        tmp_path,
        data={"source": "task", "task": "tone", "heldout_count": 32},
        axes={"data.task": ["tone", "place"], "prompt.arm": ["none", "blind"]},
        backbone__name="DiT-XS/4",
        train__steps=2,
        train__warmup=1,
        train__checkpoint_every=2,
        **{f"evaluate__{key}": 16 for key in ("points", "samples", "reference", "heldout")},
        evaluate__extractor="none",
    )
    assert {one.status for one in run_all(made, store)} == {"done"}
    rows = {(row.name.split("=")[1].split()[0], "blind" in row.name): row.name for row in store.rows("tiny")}
    prompt, few = "place=row 1 column 2", ("--count", "2", "--steps", "1")
    ditbench("sample", f"tiny/{rows['place', False]}", prompt, "place=3", "", *few, cwd=tmp_path, code=0)
    with Image.open(tmp_path / "sample.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] > 3 * 90 and (pixels[:6, :6] == pixels[0, 0]).all(), "a pixel is a crisp square"
    blind = ditbench("sample", f"tiny/{rows['place', True]}", prompt, *few, cwd=tmp_path, code=0)
    assert "of the arm blind" in blind.stderr
    every = ditbench("sample", "tiny", prompt, "--all", *few, "-o", "all.png", cwd=tmp_path, code=0)
    assert "2 rows are of tasks with other prompts: adaln-zero task=tone" in every.stderr
    for words, sentence in (
        (("tiny", "place=row 9", "--all"), "place 'row 9': choose one of row 1 column 1, row 1 column 2"),
        ((f"tiny/{rows['tone', False]}", prompt), "no slot 'place' (slots: red, green, blue)"),
        (("tiny/adaln-zero task=tne", prompt), "has no row 'adaln-zero task=tne'"),
    ):
        said = ditbench("sample", *words, cwd=tmp_path, code=2).stderr
        assert sentence in said.splitlines()[-1] and "Traceback" not in said
