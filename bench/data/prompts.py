"""Prompts of a data set as the model takes them: label ids, word ids, or a frozen encoder's cached output.

cache/prompts/<digest>/   meta.json   labels and captions:  train.npy heldout.npy
                                      features:             tokens.npy mask.npy pooled.npy, and train.npy heldout.npy
                                                            with each image's row in them
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from architectures import Captions, FeatureBatch, Features, Labels, PromptKind
from bench.config.schema import Prompt
from bench.data.datasets import Dataset, Progress, Split
from bench.store.files import digest, file_digest, whole_folder, write_json

UNKNOWN = 1  # the id of a word that training never saw; 0 is padding


class PromptError(ValueError):
    """A prompt, or a prompt encoder, that cannot be used; the message names it."""


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

    def rows(self, split: str, indices: np.ndarray) -> Any:
        """Prompts of the images `indices` of a split."""
        return self._lookup(self._array(split)[indices])

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

        Raises:
            PromptError: for a class that is none, with the classes.
        """
        if isinstance(self.kind, Labels):
            return torch.tensor([_class_of(text, self.meta["classes"]) for text in texts]), []
        if isinstance(self.kind, Captions):
            vocabulary = {word: index for index, word in enumerate(self.meta["vocabulary"])}
            unknown = sorted({word for text in texts for word in words(text) if word not in vocabulary})
            return torch.from_numpy(_word_ids(texts, vocabulary, self.kind.length)).long(), unknown
        tokens, mask, pooled = _frozen_features(texts, self.meta["encoder"], self.kind.length, lambda *_: None)
        return FeatureBatch(*(torch.from_numpy(part) for part in (tokens, mask, pooled))), []


def to_device(prompt: Any, device: torch.device) -> Any:
    """A batch of prompts, of whatever kind, on a device."""
    return type(prompt)(*(part.to(device) for part in prompt)) if isinstance(prompt, tuple) else prompt.to(device)


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a caption, in order."""
    return re.findall(r"[a-z0-9]+", text.lower())


def prepare(data: Dataset, config: Prompt, cache: Path, progress: Progress = lambda what, done, total: None) -> Prompts:
    """Makes the cached prompts if they are not there, and opens them.

    Raises:
        PromptError: if the data has no such prompts, or the encoder cannot be loaded.
    """
    kind = resolve_kind(data, config)
    defining: list[Any] = [data.digest, kind, config.length, config.depth]
    if kind == "features":
        assert config.encoder is not None
        defining += [_encoder_digest(config.encoder), config.template if data.classes else ""]
    folder = cache / "prompts" / digest(defining, 16)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "meta.json").exists():
            with whole_folder(folder) as temporary:
                make = {"labels": _make_labels, "captions": _make_captions, "features": _make_features}[kind]
                write_json(temporary / "meta.json", make(data, config, temporary, progress))
    return load(folder)


def resolve_kind(data: Dataset, config: Prompt) -> str:
    """`labels`, `captions` or `features`, for `auto` what the data has.

    Raises:
        PromptError: if the data lacks what is requested.
    """
    kind = config.kind
    if kind == "auto":
        kind = "labels" if data.classes else "captions"
    if kind == "captions" and data.train.captions is None:
        raise PromptError("prompt.kind captions: this data has labels; choose labels, or features with a template")
    if kind == "labels" and data.classes is None:
        raise PromptError("prompt.kind labels: this data has captions; choose captions or features")
    if kind == "features" and not config.encoder:
        raise PromptError("prompt.kind features: name prompt.encoder, a Hugging Face model or a local folder")
    return kind


def load(folder: Path) -> Prompts:
    """Opens cached prompts.

    Raises:
        PromptError: if they are incomplete.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        kinds: dict[str, type] = {"labels": Labels, "captions": Captions, "features": Features}
        return Prompts(kinds[meta["kind"]](**meta["arguments"]), folder, folder.name, meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"cached prompts {folder.name} are damaged ({error}); delete {folder} and run again"
        ) from error


# --- labels and captions --------------------------------------------------------------------------------------------


def _make_labels(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    assert data.classes is not None
    for name, split in data.splits.items():
        np.save(folder / f"{name}.npy", np.asarray(split.labels))
    return {"kind": "labels", "arguments": {"classes": len(data.classes)}, "classes": data.classes}


def _make_captions(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    train = data.train.captions or []
    vocabulary = ["", "?", *sorted({word for caption in train for word in words(caption)})]
    length = min(config.length, max(len(words(caption)) for caption in train))
    index = {word: number for number, word in enumerate(vocabulary)}
    for name, split in data.splits.items():
        np.save(folder / f"{name}.npy", _word_ids(split.captions or [], index, length))
    arguments = {"vocabulary": len(vocabulary), "length": length, "depth": config.depth}
    return {"kind": "captions", "arguments": arguments, "vocabulary": vocabulary}


def _word_ids(texts: list[str], vocabulary: dict[str, int], length: int) -> np.ndarray:
    ids = np.zeros((len(texts), length), dtype=np.int32)
    for row, text in zip(ids, texts, strict=True):
        found = [vocabulary.get(word, UNKNOWN) for word in words(text)[:length]]
        row[: len(found)] = found
    return ids


def _class_of(text: str, classes: list[str]) -> int:
    name = text.strip()
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    raise PromptError(f"class {text!r}: choose one of {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}")


# --- frozen encoders ------------------------------------------------------------------------------------------------


def _make_features(data: Dataset, config: Prompt, folder: Path, progress: Progress) -> dict[str, Any]:
    texts = {name: _texts(data, split, config) for name, split in data.splits.items()}
    unique = sorted({text for split in texts.values() for text in split})
    row = {text: index for index, text in enumerate(unique)}
    for name, split in texts.items():
        np.save(folder / f"{name}.npy", np.array([row[text] for text in split], dtype=np.int64))
    assert config.encoder is not None
    tokens, mask, pooled = _frozen_features(unique, config.encoder, config.length, progress)
    for name, part in (("tokens", tokens.astype(np.float16)), ("mask", mask), ("pooled", pooled)):
        np.save(folder / f"{name}.npy", part)
    arguments = {"width": tokens.shape[2], "pooled_width": pooled.shape[1], "length": tokens.shape[1]}
    return {"kind": "features", "arguments": arguments, "encoder": config.encoder, "unique": len(unique)}


def _texts(data: Dataset, split: Split, config: Prompt) -> list[str]:
    if split.captions is not None:
        return split.captions
    assert data.classes is not None and split.labels is not None
    return [config.template.format(data.classes[label]) for label in split.labels]


def _encoder_digest(encoder: str) -> str:
    path = Path(encoder)
    if not path.exists():
        return encoder  # a name on the hub
    return digest([[p.name, file_digest(p)] for p in sorted(path.rglob("*")) if p.is_file()])


@torch.inference_mode()
def _frozen_features(
    texts: list[str], encoder: str, length: int, progress: Progress, batch: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens (n, L, W), mask (n, L), pooled (n, P) of a frozen text encoder; pooled is its own, or the tokens' mean."""
    tokenizer, model = _load_encoder(encoder)
    parts = []
    for start in range(0, len(texts), batch):
        ids = tokenizer(
            texts[start : start + batch], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        out = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
        tokens, mask = out.last_hidden_state.float(), ids["attention_mask"].bool()
        seen = mask.unsqueeze(-1).float()
        own = getattr(out, "pooler_output", None)
        pooled = own.float() if own is not None else (tokens * seen).sum(1) / seen.sum(1).clamp(min=1)
        parts.append([part.numpy() for part in (tokens, mask, pooled)])
        progress("encode prompts", min(start + batch, len(texts)), len(texts))
    tokens, mask, pooled = (np.concatenate(part) for part in zip(*parts, strict=True))
    return tokens, mask, pooled


def _load_encoder(encoder: str) -> tuple[Any, Any]:
    try:
        import transformers
    except ImportError as error:
        raise PromptError("prompt.kind features needs the `text` extra: pip install 'ditbench[text]'") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
        model = transformers.AutoModel.from_pretrained(encoder)
    except (OSError, ValueError) as error:
        raise PromptError(f"prompt.encoder {encoder!r}: {' '.join(str(error).split())[:200]}") from error
    if model.config.is_encoder_decoder:
        model = model.get_encoder()  # T5
    elif hasattr(model, "text_model"):
        model = model.text_model  # CLIP
    return tokenizer, model.eval()
