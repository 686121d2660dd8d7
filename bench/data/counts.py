"""What became of the prompts of each split: how many were cut, empty or unknown, and what of it a user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

from architectures import Features, Labels, PromptKind
from bench.data.errors import listed

Counts = dict[str, Any]
Lengths = Sequence[int]


def about_words(captions: Sequence[list[str]], vocabulary: Container[str], lengths: Lengths, most: int) -> Counts:
    """What became of a split's captions.

    Args:
        captions: the words of each.
        vocabulary: words that are known.
        lengths: of each, in what the model takes: words, or a frozen encoder's tokens.
        most: of these that are kept.
    """
    unknown = Counter(word for caption in captions for word in caption if word not in vocabulary)
    return {
        "prompts": len(captions),
        "longest": int(max(lengths, default=0)),
        "cut": int(sum(length > most for length in lengths)),
        "empty": sum(not caption for caption in captions),
        "words": sum(map(len, captions)),
        "unknown words": unknown.total(),
        "of unknown words alone": sum(
            bool(caption) and not any(word in vocabulary for word in caption) for caption in captions
        ),
        "unknown": [word for word, _ in unknown.most_common(10)],
    }


def notes(splits: dict[str, dict[str, Any]], kind: PromptKind) -> list[str]:
    """What a user should know, in sentences.

    Args:
        splits: counts of each.
        kind: of the prompts.
    """
    if isinstance(kind, Labels):
        return []
    found = []
    frozen = isinstance(kind, Features)
    unit, where = ("tokens", "known to the encoder") if frozen else ("words", "in the training captions")
    for split, about in splits.items():
        if about["unknown words"]:
            found.append(
                f"{split} captions: {about['unknown words']} of {about['words']} words are not {where}, "
                f"such as {listed(about['unknown'], 5)}"
            )
        if about["of unknown words alone"]:
            found.append(f"{split} captions: {about['of unknown words alone']} have no known word at all")
        if about["cut"]:
            found.append(
                f"{split} captions: {about['cut']} of {about['prompts']} are cut to {kind.length} {unit}, "
                f"prompt.length or the longest of training (the longest of {split} has {about['longest']})"
            )
    return found
