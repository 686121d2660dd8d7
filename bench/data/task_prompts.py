"""A task's prompts: ids of its slots, the same as text for a text encoder, and what a user types.

As text a prompt is `task.text(words)`. Its vocabulary is not of a sample: it has every word of every slot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from architectures import nearest
from bench.data.encoders import PromptError
from bench.data.errors import listed
from bench.data.tasks.contract import Slot, Task
from bench.data.words import words as split_words

MOST_BYTES = 2**29  # of a frozen encoder's features of all prompts


class TypedError(PromptError):
    """What was typed is no prompt of this task; `fit` is the share of its slots that are named all the same."""

    fit = 0.0


def slot_ids(task: Task, words: Tensor, arm: str) -> Tensor:
    """Ids of words (B, L): (B, L), all null in the blind arm; the map (B, N), or (B, N, A > 1), in the oracle's."""
    if arm != "oracle":
        ids = task.ids(words)
        return torch.zeros_like(ids) if arm == "blind" else ids
    shown = task.layout(words)
    return shown[..., 0] if shown.shape[2] == 1 else shown


# --- as text ---------------------------------------------------------------------------------------------------------


def line(task: Task, words: Sequence[int]) -> str:
    """A prompt (L,) as text, in one line."""
    return " ".join(task.text(words).split())


def texts(task: Task, words: Tensor) -> list[str]:
    """Prompts (B, L) as text."""
    return [line(task, row) for row in words.tolist()]


def variants(task: Task, words: Sequence[int], most: int | None = None) -> Iterator[list[list[int]]]:
    """For each slot, the prompt (L,) with each word of that slot, `most` of them at most."""
    for place, slot in enumerate(task.slots):
        tried = range(len(slot.words))[:most]
        yield [[*words[:place], word, *words[place + 1 :]] for word in tried]


def vocabulary(task: Task, seen: Sequence[Sequence[int]]) -> tuple[list[str], int]:
    """Every word that a prompt as text may have, and how many words the longest has.

    Args:
        task: whose slots are each tried with all of their words, in the first prompt.
        seen: prompts, for words that only some of them together have.
    """
    own = [split_words(task.text(row)) for row in seen]
    known, longest = {word for text in own for word in text}, len(own[0])
    for rows in variants(task, list(seen[0])):
        made = [split_words(task.text(row)) for row in rows]
        known.update(word for text in made for word in text)
        longest += max(map(len, made)) - len(own[0])
    return sorted(known), max(longest, *map(len, own))


def first_text(task: Task) -> str:
    """The text of one prompt."""
    return line(task, [0] * len(task.slots))


def every(task: Task) -> Iterator[tuple[int, ...]]:
    """Every prompt (L,) in the order of `places`."""
    return itertools.product(*(range(len(slot.words)) for slot in task.slots))


def places(task: Task, words: Tensor) -> Tensor:
    """The place (B,) of prompts (B, L) among all of `every`."""
    sizes = [len(slot.words) for slot in task.slots]
    strides = torch.tensor([math.prod(sizes[k + 1 :]) for k in range(len(sizes))])
    return (words * strides).sum(-1)


def count(task: Task) -> int:
    """How many prompts there are."""
    return math.prod(len(slot.words) for slot in task.slots)


# --- as a user types it ----------------------------------------------------------------------------------------------


def typed(task: Task, text: str) -> list[int]:
    """The words (L,) of a prompt such as `tone=slate, place=row 1 column 2`; a word may be its number from 0.

    Without any `=` the form of the sheets is read: `tone slate, place row 1 column 2`.

    Raises:
        TypedError: for a slot or word that is none, with the choices and the nearest; for one missing or given twice.
    """
    try:
        return _typed(task, text)
    except TypedError as error:
        error.fit = sum(name in text for name in _names(task)) / len(task.slots)
        raise


def _typed(task: Task, text: str) -> list[int]:
    slots = {slot.name: slot for slot in task.slots}
    found: dict[str, int] = {}
    for name, value in _pairs(task, text, slots):
        if name in found:
            raise TypedError(f"prompt {text!r}: {name} is given twice")
        found[name] = _word(text, slots[name], value)
    if missing := [name for name in slots if name not in found]:
        verb = "is" if len(missing) == 1 else "are"
        raise TypedError(f"prompt {text!r}: {listed(missing)} {verb} missing; {_form(task)}")
    return [found[name] for name in slots]


def _pairs(task: Task, text: str, slots: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Slots and what is given for them."""
    known = sorted(slots, key=len, reverse=True)  # `row 12` before `row 1`
    if "=" not in text:
        for part in text.split(","):
            name = next((one for one in known if part.strip().casefold().startswith(f"{one.casefold()} ")), None)
            if name is None:
                raise TypedError(f"prompt {text!r}: {part.strip()!r} names no slot; {_form(task)}")
            yield name, part.strip()[len(name) :].strip()
        return
    before, *rest = text.split("=")
    name, left = _slot_at_end(task, text, before, known)
    if left:
        raise TypedError(f"prompt {text!r}: {left!r} names no slot; {_form(task)}")
    for piece in rest[:-1]:
        after, value = _slot_at_end(task, text, piece, known)
        yield name, value
        name = after
    yield name, rest[-1].strip(" ,;")


def _slot_at_end(task: Task, text: str, piece: str, known: Sequence[str]) -> tuple[str, str]:
    """The slot that a piece before `=` ends with, and what is before it."""
    piece = piece.strip()
    for name in known:
        cut = len(piece) - len(name)
        if piece.casefold().endswith(name.casefold()) and (cut == 0 or piece[cut - 1] in " ,;"):
            return name, piece[:cut].strip(" ,;")
    wrong = piece.rpartition("," if "," in piece else " ")[2].strip()
    raise TypedError(f"prompt {text!r}: no slot {wrong!r} (slots: {listed(_names(task))}){nearest(wrong, known)}")


def _word(text: str, slot: Slot, value: str) -> int:
    """The number of a slot's word."""
    folded, known = " ".join(value.split()).casefold(), [word.casefold() for word in slot.words]
    if folded in known:
        return known.index(folded)
    numbers = any(word.lstrip("-").replace(".", "", 1).isdecimal() for word in known)  # then 2 is a word
    if not numbers and folded.isdecimal() and int(folded) < len(known):
        return int(folded)
    by_number = "" if numbers else f", or its number from 0 to {len(known) - 1}"
    hint = nearest(folded, slot.words)
    raise TypedError(f"prompt {text!r}: {slot.name} {value!r}: choose one of {listed(slot.words, 20)}{by_number}{hint}")


def _names(task: Task) -> list[str]:
    return [slot.name for slot in task.slots]


def _form(task: Task) -> str:
    such = ", ".join(f"{slot.name}={slot.words[0]}" for slot in task.slots)
    return f'a prompt of task {task.name!r} gives a word for each slot, such as "{such}"'
