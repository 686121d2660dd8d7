"""Prompts of a data set as the model takes them: label ids, word ids, or a frozen encoder's cached output.

cache/prompts/<digest>/   meta.json   labels and captions:  train.npy heldout.npy
                                      features:             tokens.npy mask.npy pooled.npy, and train.npy heldout.npy
                                                            with each image's row in them
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from architectures import Captions, FeatureBatch, Features, Labels, PromptKind, Slots
from bench.config.schema import Prompt
from bench.data import prepared
from bench.data.counts import about_words, notes
from bench.data.datasets import Dataset, Progress, Split
from bench.data.encoders import PromptError, encoder_digest, frozen_features
from bench.data.errors import listed
from bench.data.prepared import DamagedError, Warn
from bench.data.tasks.contract import Task
from bench.data.words import VERSION, words
from bench.store.files import digest

__all__ = ["PromptError", "Prompts", "load", "prepare", "resolve_kind", "to_device", "words"]

UNKNOWN = 1  # the id of a word that training never saw; 0 is padding


@dataclass(frozen=True)
class Prompts:
    """Everything about the prompts of a prepared data set.

    Attributes:
        kind: what the model is built with.
        folder: where they are cached.
        digest: of what defines them.
    """

    kind: PromptKind
    folder: Path
    digest: str
    meta: dict[str, Any]
    _arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def notes(self) -> list[str]:
        """What a user should know of them, in sentences."""
        return notes(self.meta.get("splits", {}), self.kind)

    def rows(self, split: str, indices: np.ndarray) -> Any:
        """Prompts of the images `indices` of a split."""
        return self._lookup(self._array(split)[indices])

    def of_words(self, task: Task, words: torch.Tensor) -> torch.Tensor:
        """Prompts of a task's words (B, L): their ids, or what the arm makes of them."""
        return _slot_ids(task, words, self.meta.get("arm", "none"))

    def _lookup(self, stored: np.ndarray) -> Any:
        if isinstance(self.kind, Features):
            tokens, mask, pooled = (self._array(name)[stored] for name in ("tokens", "mask", "pooled"))
            return FeatureBatch(
                torch.from_numpy(tokens).float(), torch.from_numpy(mask), torch.from_numpy(pooled).float()
            )
        return torch.from_numpy(np.ascontiguousarray(stored)).long()

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    def encode(self, texts: list[str]) -> tuple[Any, list[str]]:
        """Prompts from what a user types: class names or numbers, or captions; and the words that were not known.

        An empty text is the null prompt.

        Raises:
            PromptError: for a class that is none, with the classes; for a text of which nothing would reach the model.
        """
        if isinstance(self.kind, Labels):
            return torch.tensor([_class_of(text, self.meta["classes"]) for text in texts]), []
        if isinstance(self.kind, Captions):
            vocabulary = {word: index for index, word in enumerate(self.meta["vocabulary"])}
            for text in texts:
                _refuse_empty(text, vocabulary)
            unknown = sorted({word for text in texts for word in words(text) if word not in vocabulary})
            return torch.from_numpy(_word_ids(texts, vocabulary, self.kind.length)).long(), unknown
        made = frozen_features(texts, self.meta["encoder"], self.kind.length, lambda *_: None)
        for text in texts:
            if words(text) and made.unknown.issuperset(words(text)):
                raise PromptError(f"prompt {text!r}: no word of it is known to {self.meta['encoder']}")
        unknown = sorted(made.unknown)
        return FeatureBatch(*(torch.from_numpy(part) for part in (made.tokens, made.mask, made.pooled))), unknown


def to_device(prompt: Any, device: torch.device) -> Any:
    """A batch of prompts, of whatever kind, on a device."""
    return type(prompt)(*(part.to(device) for part in prompt)) if isinstance(prompt, tuple) else prompt.to(device)


def _nothing(*_: Any) -> None:
    """The default of what is called with news."""


def prepare(
    data: Dataset, config: Prompt, cache: Path, progress: Progress = _nothing, warn: Warn = _nothing
) -> Prompts:
    """Makes the cached prompts if they are not there or damaged, and opens them.

    Raises:
        PromptError: if the data has no such prompts, or the encoder cannot be loaded.
    """
    kind = resolve_kind(data, config)
    defining: list[Any] = [data.digest, kind, config.length, config.depth, VERSION]
    if kind == "features":
        assert config.encoder is not None
        defining += [encoder_digest(config.encoder), config.template if data.classes else ""]
    if kind == "slots":
        defining += [config.arm]
    folder = cache / "prompts" / digest(defining, 16)

    def fill(temporary: Path) -> dict[str, Any]:
        makers = {"slots": _make_slots, "labels": _make_labels, "captions": _make_captions, "features": _make_features}
        return makers[kind](data, config, temporary, progress)

    prepared.make(folder, fill, what="cached prompts", warn=warn)
    return load(folder)


def resolve_kind(data: Dataset, config: Prompt) -> str:
    """`labels`, `captions`, `features` or `slots`, for `auto` what the data has.

    Raises:
        PromptError: if the data lacks what is requested.
    """
    kind = config.kind
    if kind == "auto":
        kind = "slots" if data.task is not None else "labels" if data.classes else "captions"
    if data.task is None and (kind == "slots" or config.arm != "none"):
        what = "kind slots" if kind == "slots" else f"arm {config.arm}"
        raise PromptError(f"prompt.{what} is of tasks alone (data.source=task)")
    if data.task is not None and kind != "slots":
        raise PromptError(f"prompt.kind {kind}: the prompts of a task are slots; choose auto or slots")
    if kind == "captions" and data.train.captions is None:
        raise PromptError("prompt.kind captions: this data has labels; choose labels, or features with a template")
    if kind == "labels" and data.classes is None:
        raise PromptError("prompt.kind labels: this data has captions; choose captions or features")
    if kind == "features" and not config.encoder:
        raise PromptError("prompt.kind features: name prompt.encoder, a Hugging Face model or a local folder")
    return kind


def load(folder: Path) -> Prompts:
    """Opens cached prompts, every file of which is compared with its digest.

    Raises:
        PromptError: if they are damaged; the way out is to run again, which makes them again.
    """
    try:
        meta = prepared.read(folder)
        kinds: dict[str, type] = {"slots": Slots, "labels": Labels, "captions": Captions, "features": Features}
        return Prompts(kinds[meta["kind"]](**meta["arguments"]), folder, folder.name, meta)
    except (DamagedError, OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"cached prompts {folder.name} are damaged ({error}); `ditbench run` makes them again, "
            f"or delete {folder} and run again"
        ) from error


# --- slots ---------------------------------------------------------------------------------------------------------


def _make_slots(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    """The ids of a task's words."""
    task = data.task
    assert task is not None
    arguments = {"vocabulary": task.vocabulary, "length": len(task.slots)}
    for name, split in data.splits.items():
        assert split.words is not None
        ids = _slot_ids(task, torch.from_numpy(np.array(split.words)), config.arm)
        np.save(folder / f"{name}.npy", ids.numpy())
        if config.arm == "oracle":
            words = ids.shape[2] if ids.dim() == 3 else 1
            arguments = {"vocabulary": task.layout_words, "length": task.tokens, "words": words}
    return {"kind": "slots", "arguments": arguments, "arm": config.arm}


def _slot_ids(task: Task, words: torch.Tensor, arm: str) -> torch.Tensor:
    """Ids of words (B, L): (B, L), all null in the blind arm; the map (B, N), or (B, N, A > 1), in the oracle's."""
    if arm != "oracle":
        ids = task.ids(words)
        return torch.zeros_like(ids) if arm == "blind" else ids
    shown = task.layout(words)
    return shown[..., 0] if shown.shape[2] == 1 else shown


# --- labels and captions --------------------------------------------------------------------------------------------


def _make_labels(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    assert data.classes is not None
    for name, split in data.splits.items():
        np.save(folder / f"{name}.npy", np.asarray(split.labels))
    return {"kind": "labels", "arguments": {"classes": len(data.classes)}, "classes": data.classes}


def _make_captions(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
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
        np.save(folder / f"{name}.npy", _ids_of_words(captions, index, length))
        about[name] = about_words(captions, index, [len(caption) for caption in captions], length)
    arguments = {"vocabulary": len(vocabulary), "length": length, "depth": config.depth}
    return {"kind": "captions", "arguments": arguments, "vocabulary": vocabulary, "splits": about}


def _word_ids(texts: list[str], vocabulary: dict[str, int], length: int) -> np.ndarray:
    return _ids_of_words([words(text) for text in texts], vocabulary, length)


def _ids_of_words(captions: Sequence[list[str]], vocabulary: dict[str, int], length: int) -> np.ndarray:
    ids = np.zeros((len(captions), length), dtype=np.int32)
    for row, caption in zip(ids, captions, strict=True):
        found = [vocabulary.get(word, UNKNOWN) for word in caption[:length]]
        row[: len(found)] = found
    return ids


def _refuse_empty(text: str, vocabulary: dict[str, int]) -> None:
    """Refuses a text that would generate without its prompt."""
    if text.strip() and not words(text):
        raise PromptError(f"prompt {text!r} has no word, number or symbol; an empty prompt is the null prompt")
    if text.strip() and not any(word in vocabulary for word in words(text)):
        raise PromptError(
            f"prompt {text!r}: no word of it is known to this cell, which was trained on such as "
            f"{listed(list(vocabulary)[2:], 12)}"
        )


def _class_of(text: str, classes: list[str]) -> int:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if name in classes:
        return classes.index(name)
    numbers = all(one.lstrip("-").isdecimal() for one in classes)  # 2 is then a name, never the third class
    if name.isdecimal() and int(name) < len(classes) and not numbers:
        return int(name)
    raise PromptError(f"class {text!r}: choose one of {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}")


# --- features --------------------------------------------------------------------------------------------------------


def _make_features(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    texts = {name: _texts(data, split, config) for name, split in data.splits.items()}
    unique = sorted({text for split in texts.values() for text in split})
    row = {text: index for index, text in enumerate(unique)}
    for name, split in texts.items():
        np.save(folder / f"{name}.npy", np.array([row[text] for text in split], dtype=np.int64))
    assert config.encoder is not None
    made = frozen_features(unique, config.encoder, config.length, progress)
    for name, part in (("tokens", made.tokens.astype(np.float16)), ("mask", made.mask), ("pooled", made.pooled)):
        np.save(folder / f"{name}.npy", part)
    arguments = {
        "width": made.tokens.shape[2],
        "pooled_width": made.pooled.shape[1],
        "length": made.tokens.shape[1],
    }
    about = {}
    for name, split in texts.items():
        own = [words(text) for text in split]
        known = {word for caption in own for word in caption} - made.unknown
        about[name] = about_words(own, known, [int(made.lengths[row[text]]) for text in split], config.length)
    return {
        "kind": "features",
        "arguments": arguments,
        "encoder": config.encoder,
        "unique": len(unique),
        "splits": about,
    }


def _texts(data: Dataset, split: Split, config: Prompt) -> list[str]:
    if split.captions is not None:
        return split.captions
    assert data.classes is not None and split.labels is not None
    return [config.template.replace("{}", data.classes[label]) for label in split.labels]
