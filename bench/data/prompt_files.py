"""The files of cached prompts: ids of slots, labels and words, and a frozen encoder's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.config.schema import Prompt
from bench.data import task_prompts
from bench.data.counts import about_words
from bench.data.datasets import Dataset, Progress, Split
from bench.data.encoders import PromptError, frozen_features
from bench.data.tasks.contract import Task
from bench.data.words import words

UNKNOWN = 1  # the id of a word that training never saw; 0 is padding


# --- of tasks ------------------------------------------------------------------------------------------------------


def _make_slots(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    """The ids of a task's words."""
    task = data.task
    assert task is not None
    arguments = {"vocabulary": task.vocabulary, "length": len(task.slots)}
    for name, split in data.splits.items():
        assert split.words is not None
        ids = task_prompts.slot_ids(task, torch.from_numpy(np.array(split.words)), config.arm)
        np.save(folder / f"{name}.npy", ids.numpy())
        if config.arm == "oracle":
            words = ids.shape[2] if ids.dim() == 3 else 1
            arguments = {"vocabulary": task.layout_words, "length": task.tokens, "words": words}
    return {"kind": "slots", "arguments": arguments, "arm": config.arm}


def _captions_of_task(data: Dataset, config: Prompt, folder: Path) -> dict[str, Any]:
    """Words of every prompt that there is, whatever the prepared images show."""
    task = data.task
    assert task is not None
    rows = [row for split in data.splits.values() for row in np.array(split.words).tolist()]
    known, longest = task_prompts.vocabulary(task, rows)
    if longest > config.length:
        raise PromptError(_too_long(config, task, longest, "words"))
    vocabulary = ["", "?", *known]
    index = {word: number for number, word in enumerate(vocabulary)}
    about = {}
    for name, split in data.splits.items():
        captions = [words(text) for text in split.captions or []]
        ids = ids_of_words(captions, index, longest)
        np.save(folder / f"{name}.npy", np.zeros_like(ids) if config.arm == "blind" else ids)
        about[name] = about_words(captions, index, [len(caption) for caption in captions], longest)
    arguments = {"vocabulary": len(vocabulary), "length": longest, "depth": config.depth}
    return {"kind": "captions", "arguments": arguments, "vocabulary": vocabulary, "splits": about, "arm": config.arm}


# --- labels and captions --------------------------------------------------------------------------------------------


def _make_labels(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    assert data.classes is not None
    for name, split in data.splits.items():
        np.save(folder / f"{name}.npy", np.asarray(split.labels))
    return {"kind": "labels", "arguments": {"classes": len(data.classes)}, "classes": data.classes}


def _make_captions(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    if data.task is not None:
        return _captions_of_task(data, config, folder)
    split_into_words = {name: [words(text) for text in split.captions or []] for name, split in data.splits.items()}
    train = split_into_words["train"]
    vocabulary = ["", "?", *sorted({word for caption in train for word in caption})]
    longest = max(map(len, train), default=0)
    if not longest:
        raise PromptError("no caption of the training set has a word: there is nothing to condition on")
    length = min(config.length, longest)
    index = {word: number for number, word in enumerate(vocabulary)}
    about = {}
    for name, captions in split_into_words.items():
        np.save(folder / f"{name}.npy", ids_of_words(captions, index, length))
        about[name] = about_words(captions, index, [len(caption) for caption in captions], length)
    arguments = {"vocabulary": len(vocabulary), "length": length, "depth": config.depth}
    return {"kind": "captions", "arguments": arguments, "vocabulary": vocabulary, "splits": about}


def word_ids(texts: list[str], vocabulary: dict[str, int], length: int) -> np.ndarray:
    """Ids (n, length) of texts."""
    return ids_of_words([words(text) for text in texts], vocabulary, length)


def ids_of_words(captions: Sequence[list[str]], vocabulary: dict[str, int], length: int) -> np.ndarray:
    """Ids (n, length) of texts that are split into words."""
    ids = np.zeros((len(captions), length), dtype=np.int32)
    for row, caption in zip(ids, captions, strict=True):
        found = [vocabulary.get(word, UNKNOWN) for word in caption[:length]]
        row[: len(found)] = found
    return ids


# --- features --------------------------------------------------------------------------------------------------------


def _make_features(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    unique, rows = _of_task(data, config) if data.task is not None else _of_images(data, config)
    for name, row in rows.items():
        np.save(folder / f"{name}.npy", row)
    assert config.encoder is not None
    file = folder / "tokens.npy"
    made = frozen_features(unique, config.encoder, config.length, progress, layers=config.layers, file=file)
    if data.task is not None and (longest := int(made.lengths.max())) > config.length:
        raise PromptError(_too_long(config, data.task, longest, "tokens"))
    for name, part in (("mask", made.mask), ("pooled", made.pooled)):
        np.save(folder / f"{name}.npy", part)
    arguments = {
        "width": made.tokens.shape[2] // config.layers,
        "pooled_width": made.pooled.shape[1],
        "length": made.tokens.shape[1],
        "layers": config.layers,
    }
    about = {}
    for name, row in rows.items():
        own = [words(unique[k]) for k in row]
        known = {word for caption in own for word in caption} - made.unknown
        about[name] = about_words(own, known, [int(made.lengths[k]) for k in row], config.length)
    return {
        "kind": "features",
        "arguments": arguments,
        "encoder": config.encoder,
        "classes": data.classes or [],
        "template": config.template,
        "unique": len(unique),
        "splits": about,
        "arm": config.arm,
    }


Rows = dict[str, NDArray[np.int64]]  # of each split, the place of each prompt among all that are encoded


def _of_images(data: Dataset, config: Prompt) -> tuple[list[str], Rows]:
    texts = {name: _texts(data, split, config) for name, split in data.splits.items()}
    unique = sorted({text for split in texts.values() for text in split})
    row = {text: index for index, text in enumerate(unique)}
    return unique, {name: np.array([row[text] for text in split], dtype=np.int64) for name, split in texts.items()}


def _of_task(data: Dataset, config: Prompt) -> tuple[list[str], Rows]:
    """Every prompt that there is, as batches are sampled as they are needed; of the blind arm the null prompt alone."""
    task = data.task
    assert task is not None and config.encoder is not None
    if config.arm == "blind":
        return [""], {name: np.zeros(len(split), dtype=np.int64) for name, split in data.splits.items()}
    one, count = task_prompts.first_text(task), task_prompts.count(task)
    first = frozen_features([one], config.encoder, config.length, lambda *_: None, layers=config.layers)
    width = first.tokens.shape[2]
    if (needed := 2 * count * config.length * width) > task_prompts.MOST_BYTES:
        raise PromptError(
            f"prompt.kind features: the features of the {count:,} prompts of task {task.name!r} need "
            f"{needed / 2**30:.1f} GiB and may take {task_prompts.MOST_BYTES / 2**30:g}; lower a knob or "
            "prompt.length, take a smaller encoder, or choose captions"
        )
    rows = {name: task_prompts.places(task, torch.from_numpy(np.array(s.words))) for name, s in data.splits.items()}
    return [task_prompts.line(task, row) for row in task_prompts.every(task)], {n: r.numpy() for n, r in rows.items()}


def _too_long(config: Prompt, task: Task, longest: int, unit: str) -> str:
    return (
        f"prompt.length {config.length}: a prompt of task {task.name!r} as text has up to {longest} {unit}, and none "
        f"is cut; set prompt.length={longest}"
    )


def _texts(data: Dataset, split: Split, config: Prompt) -> list[str]:
    if split.captions is not None:
        return split.captions
    assert data.classes is not None and split.labels is not None
    return [config.template.replace("{}", data.classes[label]) for label in split.labels]


MAKERS: dict[str, Callable[[Dataset, Prompt, Path, Progress], dict[str, Any]]] = {
    "slots": _make_slots,
    "labels": _make_labels,
    "captions": _make_captions,
    "features": _make_features,
}
