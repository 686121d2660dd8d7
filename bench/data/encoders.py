"""Frozen text encoders: a Hugging Face model, by its name or from a local folder. The only door to `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.errors import short
from bench.store.files import digest, file_digest

Progress = Callable[[str, int, int], None]  # what, done, total


class PromptError(ValueError):
    """A prompt, or a prompt encoder, that cannot be used; the message names it."""


def encoder_digest(encoder: str) -> str:
    """Of a local encoder's files; of one on the hub its name."""
    path = Path(encoder)
    if not path.exists():
        return encoder  # a name on the hub
    return digest([[p.relative_to(path).as_posix(), file_digest(p)] for p in sorted(path.rglob("*")) if p.is_file()])


@torch.inference_mode()
def frozen_features(
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
        raise PromptError(f"prompt.encoder {encoder!r}: {short(error)}") from error
    if model.config.is_encoder_decoder:
        model = model.get_encoder()  # T5
    elif hasattr(model, "text_model"):
        model = model.text_model  # CLIP
    return tokenizer, model.eval()
