"""Prompts of a data set as the model takes them: label ids, word ids, or a frozen encoder's cached output.

cache/prompts/<digest>/   meta.json   labels and captions:  train.npy heldout.npy
                                      features:             tokens.npy mask.npy pooled.npy, and train.npy heldout.npy
                                                            with each image's row in them

Of a task, ids of its slots; with `data.words` captions or features of what `task.text` says, of every prompt there is.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from architectures import Captions, FeatureBatch, Features, Labels, PromptKind, Slots
from bench.config.schema import Prompt
from bench.data import prepared, prompt_files, task_prompts
from bench.data.counts import notes
from bench.data.datasets import Dataset, Progress
from bench.data.encoders import VERSION as ENCODED
from bench.data.encoders import PromptError, encoder_digest, frozen_features
from bench.data.errors import listed
from bench.data.prepared import DamagedError, Warn
from bench.data.prompt_files import UNKNOWN
from bench.data.tasks.contract import Task
from bench.data.words import VERSION, words
from bench.store.files import digest

__all__ = ["UNKNOWN", "PromptError", "Prompts", "load", "prepare", "resolve_kind", "to_device", "words"]


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

    def of_words(self, task: Task, words: torch.Tensor) -> Any:
        """Prompts of a task's words (B, L): ids, their text's ids or features, or what the arm makes of them."""
        arm = self.meta.get("arm", "none")
        if isinstance(self.kind, Slots):
            return task_prompts.slot_ids(task, words, arm)
        if arm == "blind":
            return self.kind.null(len(words))
        if isinstance(self.kind, Features):
            return self._lookup(task_prompts.places(task, words).numpy())
        ids = prompt_files.word_ids(task_prompts.texts(task, words), self._vocabulary, self.kind.length)  # type: ignore[union-attr]
        return torch.from_numpy(ids).long()

    @functools.cached_property
    def _vocabulary(self) -> dict[str, int]:
        """Of captions, the id of each word."""
        return {word: index for index, word in enumerate(self.meta["vocabulary"])}

    def _lookup(self, stored: np.ndarray) -> Any:
        if isinstance(self.kind, Features):
            tokens, mask, pooled = (self._array(name)[stored] for name in ("tokens", "mask", "pooled"))
            return FeatureBatch(torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(pooled).float())
        return torch.from_numpy(np.ascontiguousarray(stored)).long()

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    def encode(self, texts: list[str], task: Task | None = None) -> tuple[Any, list[str]]:
        """Prompts from what a user types: class names or numbers, or captions; and the words that were not known.

        Of a task a word for each slot, `tone=slate, place=row 1 column 2`. An empty text is the null prompt.

        Raises:
            PromptError: for a class, slot or word that is none, with the choices; for a text of which nothing would
                reach the model.
        """
        prompt, unknown = self._encode(texts, task)
        if self.meta.get("arm") == "blind":
            prompt = self.kind.drop(prompt, torch.ones(len(texts), dtype=torch.bool))
        return prompt, unknown

    def _encode(self, texts: list[str], task: Task | None) -> tuple[Any, list[str]]:
        if isinstance(self.kind, Slots):
            assert task is not None
            return self._of_slots(task, texts), []
        if task is not None:
            texts = [task.text(task_prompts.typed(task, text)) if "=" in text else text for text in texts]
        if isinstance(self.kind, Labels):
            return torch.tensor([_class_of(text, self.meta["classes"]) for text in texts]), []
        if isinstance(self.kind, Captions):
            vocabulary = self._vocabulary
            for text in texts:
                _refuse_empty(text, vocabulary)
            unknown = sorted({word for text in texts for word in words(text) if word not in vocabulary})
            return torch.from_numpy(prompt_files.word_ids(texts, vocabulary, self.kind.length)).long(), unknown
        texts = [self._described(text) for text in texts]
        size, layers = self.kind.length, self.kind.layers
        made = frozen_features(texts, self.meta["encoder"], size, lambda *_: None, layers=layers)
        for text in texts:
            if words(text) and made.unknown.issuperset(words(text)):
                raise PromptError(f"prompt {text!r}: no word of it is known to {self.meta['encoder']}")
        unknown = sorted(made.unknown)
        tokens, mask, pooled = (torch.from_numpy(part) for part in (made.tokens, made.mask, made.pooled))
        return FeatureBatch(tokens, mask, pooled), unknown

    def _described(self, text: str) -> str:
        """The text that features of a class are of, where one is named or its number is; any other as it is."""
        classes: list[str] = self.meta["classes"]
        named = _class_named(text, classes)
        return text if named is None else self.meta["template"].replace("{}", classes[named])

    def _of_slots(self, task: Task, texts: list[str]) -> torch.Tensor:
        none = [0] * len(task.slots)
        words = torch.tensor([task_prompts.typed(task, text) if text.strip() else none for text in texts])
        empty = torch.tensor([not text.strip() for text in texts])
        return self.kind.drop(self.of_words(task, words), empty)  # type: ignore[return-value]


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
    defining: list[Any] = [data.key, kind, config.length, config.depth, VERSION]
    if kind == "features":
        assert config.encoder is not None
        defining += [encoder_digest(config.encoder), [config.template, data.classes] if data.classes else ""]
        defining += [ENCODED, *([config.layers] if config.layers > 1 else [])]
    if data.task is not None:
        defining += [config.arm]
    folder = cache / "prompts" / digest(defining, 16)

    def fill(temporary: Path) -> dict[str, Any]:
        return prompt_files.MAKERS[kind](data, config, temporary, progress)

    prepared.make(folder, fill, what="cached prompts", warn=warn)
    return load(folder)


def resolve_kind(data: Dataset, config: Prompt) -> str:
    """`labels`, `captions`, `features` or `slots`, for `auto` what the data has.

    Raises:
        PromptError: if the data lacks what is requested.
    """
    kind = config.kind
    if kind == "auto":
        kind = "labels" if data.classes else "captions"
        if data.task is not None:
            kind = "captions" if data.in_words else "slots"
    if data.task is None and (kind == "slots" or config.arm != "none"):
        what = "kind slots" if kind == "slots" else f"arm {config.arm}"
        raise PromptError(f"prompt.{what} is of tasks alone (data.source=task)")
    if data.task is not None:
        _check_kind_of_task(kind, config.arm, data.in_words)
    if kind == "captions" and data.train.captions is None:
        raise PromptError("prompt.kind captions: this data has labels; choose labels, or features with a template")
    if kind == "labels" and data.classes is None:
        raise PromptError("prompt.kind labels: this data has captions; choose captions or features")
    if kind == "features" and not config.encoder:
        raise PromptError("prompt.kind features: name prompt.encoder, a Hugging Face model or a local folder")
    return kind


def _check_kind_of_task(kind: str, arm: str, in_words: bool) -> None:
    if not in_words and kind != "slots":
        raise PromptError(
            f"prompt.kind {kind}: the prompts of a task are slots; choose auto or slots, or data.words=true, "
            "which gives them as text to captions and features"
        )
    if in_words and kind not in ("captions", "features"):
        raise PromptError(f"prompt.kind {kind}: data.words=true gives prompts as text; choose captions or features")
    if in_words and arm == "oracle":
        raise PromptError("prompt.arm oracle: its map is of slots, and data.words=true gives text; choose false")


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


# --- what a user types ---------------------------------------------------------------------------------------------


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
    named = _class_named(text, classes)
    if named is None:
        choices = f"{', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"
        raise PromptError(f"class {text!r}: choose one of {choices}")
    return named


def _class_named(text: str, classes: list[str]) -> int | None:
    """The class whose name a text is, or else whose number."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if name in classes:
        return classes.index(name)
    numbers = all(one.lstrip("-").isdecimal() for one in classes)  # 2 is then a name, never the third class
    if name.isdecimal() and int(name) < len(classes) and not numbers:
        return int(name)
    return None
