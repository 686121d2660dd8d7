"""Frozen text encoders: a Hugging Face model, by its name or from a local folder. The only door to `transformers`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.errors import short
from bench.data.precision import single_precision
from bench.data.prepared import array_file
from bench.data.words import words
from bench.store.files import digest, file_digest

Progress = Callable[[str, int, int], None]  # what, done, total
VERSION = 2  # of how features are computed; whoever changes that raises it, and they are computed again
STORED = torch.float16  # tokens, in the cache and where they are encoded as they are typed


class PromptError(ValueError):
    """A prompt, or a prompt encoder, that cannot be used; the message names it."""


def encoder_digest(encoder: str) -> str:
    """Of a local encoder's files; of one on the hub its name."""
    path = Path(encoder)
    if not path.exists():
        return encoder  # a name on the hub
    return digest([[p.relative_to(path).as_posix(), file_digest(p)] for p in sorted(path.rglob("*")) if p.is_file()])


@dataclass(frozen=True)
class Encoded:
    """What a frozen encoder makes of n texts.

    Attributes:
        tokens: float16 (n, L, K W), of K layers side by side.
        mask: (n, L), true where a token is; nowhere for an empty text, which is the null prompt.
        pooled: float32 (n, P), the encoder's own, or the tokens' mean.
        lengths: (n,) tokens before they are cut, special ones among them.
        unknown: words that the tokenizer does not know.
    """

    tokens: np.ndarray
    mask: np.ndarray
    pooled: np.ndarray
    lengths: np.ndarray
    unknown: set[str]


def frozen_features(
    texts: list[str],
    encoder: str,
    length: int,
    progress: Progress,
    batch: int = 64,
    layers: int = 1,
    file: Path | None = None,
) -> Encoded:
    """Texts through a frozen text encoder, of whose layers the last is kept, or several, evenly spread to the last.

    It runs on a GPU where there is one.

    Args:
        texts: n of them.
        encoder: a name on the hub, or a folder.
        length: tokens that are kept of each.
        progress: called with the texts done.
        batch: texts at once.
        layers: that are kept.
        file: the `.npy` that tokens are written to, batch by batch; None keeps them in memory.

    Raises:
        PromptError: if it cannot be loaded, has fewer layers, or gives a number that float16 does not have.
    """
    try:
        return _features(texts, encoder, length, progress, batch, layers, file)
    finally:
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()  # cells train there next


@torch.inference_mode()
@single_precision()
def _features(
    texts: list[str], encoder: str, length: int, progress: Progress, batch: int, layers: int, file: Path | None
) -> Encoded:
    tokenizer, model = _load_encoder(encoder)
    depth = model.config.get_text_config().num_hidden_layers if layers > 1 else 1
    if layers > depth:
        raise PromptError(f"prompt.layers {layers}: {encoder!r} has {depth}, and that is the most")
    tokens: np.ndarray | None = None
    parts = []
    for start in range(0, len(texts), batch):
        own = texts[start : start + batch]
        ids = tokenizer(own, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        every, pooled = _of_batch(model, ids, depth, layers)
        finite = (every.isfinite().flatten(1).all(1) & pooled.isfinite().all(1)).tolist()
        if not all(finite):
            raise PromptError(
                f"prompt.encoder {encoder!r}: its features of {own[finite.index(False)]!r} are not finite in float16, "
                f"which ends at {torch.finfo(STORED).max:,.0f}; choose another encoder"
            )
        if tokens is None:
            shape = (len(texts), *every.shape[1:])
            tokens = np.empty(shape, np.float16) if file is None else array_file(file, shape, np.float16, "features")
        tokens[start : start + batch] = every.cpu().numpy()
        given = torch.tensor([bool(text.strip()) for text in own])
        whole = np.array([len(one) for one in tokenizer(own, verbose=False)["input_ids"]])
        parts.append((ids["attention_mask"].bool().logical_and(given[:, None]).numpy(), pooled.cpu().numpy(), whole))
        progress("encode prompts", min(start + batch, len(texts)), len(texts))
    assert tokens is not None
    mask, pools, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Encoded(tokens, mask, pools, lengths, _unknown(tokenizer, texts))


def _of_batch(model: Any, ids: Any, depth: int, layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens float16 (B, L, K W) and pooled float32 (B, P), on the model's device."""
    given = {name: ids[name].to(_device()) for name in ("input_ids", "attention_mask")}
    out = model(**given, output_hidden_states=layers > 1)
    last, seen = out.last_hidden_state.float(), given["attention_mask"].unsqueeze(-1).float()
    pooler = getattr(out, "pooler_output", None)
    pooled = pooler.float() if pooler is not None else (last * seen).sum(1) / seen.sum(1).clamp(min=1)
    before = [out.hidden_states[k * depth // layers].float() for k in range(1, layers)]  # 0 is the embedding
    return torch.cat([*before, last], dim=-1).to(STORED), pooled


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _unknown(tokenizer: Any, texts: list[str]) -> set[str]:
    """Words of texts of which the tokenizer knows some part not."""
    every = sorted({word for text in texts for word in words(text)})
    if not every or tokenizer.unk_token_id is None:
        return set()
    ids = tokenizer(every, add_special_tokens=False)["input_ids"]
    return {word for word, own in zip(every, ids, strict=True) if tokenizer.unk_token_id in own}


def _load_encoder(encoder: str) -> tuple[Any, Any]:
    try:
        import transformers
    except ImportError as error:
        raise PromptError("prompt.kind features needs the `text` extra: pip install 'ditbench[text]'") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
        model = transformers.AutoModel.from_pretrained(encoder, dtype=torch.float32)  # else as it was saved
    except (OSError, ValueError) as error:
        raise PromptError(f"prompt.encoder {encoder!r}: {short(error)}") from error
    if model.config.is_encoder_decoder:
        model = model.get_encoder()  # T5
    elif hasattr(model, "text_model"):
        model = model.text_model  # CLIP
    return tokenizer, model.eval().to(_device())
