"""What is known of a split while it is prepared, and what of it a user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data.errors import listed
from bench.data.reading.rows import Rows


@dataclass
class Part:
    """Rows of a split on their way into arrays.

    Attributes:
        name: `train` or `heldout`.
        rows: of the file.
        kept: rows that are used, rising.
        labels: (len(rows),) classes, -1 where missing, or None.
        texts: captions of all rows, or None.
        about: what was understood.
    """

    name: str
    rows: Rows
    kept: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    texts: list[str | None] | None = None
    about: dict[str, Any] = field(default_factory=dict)


def duplicates(seen: dict[str, Counter[bytes]]) -> dict[str, int]:
    """Exact copies after decoding: within each split, and held-out images that training has too."""
    within = {name: sum(counts.values()) - len(counts) for name, counts in seen.items()}
    shared = sum(count for key, count in seen["heldout"].items() if key in seen["train"])
    return within | {"heldout in train": shared}


def notes_of(
    config: Data, parts: Sequence[Part], names: list[str] | None, seen: dict[str, Counter[bytes]]
) -> list[str]:
    """What a user should know of the data, in sentences."""
    notes = []
    shared = duplicates(seen)["heldout in train"]
    if shared:
        notes.append(f"{shared} of {len(parts[1].kept)} held-out images are in the training set too, pixel for pixel")
    for part in parts:
        if part.about.get("dropped"):
            notes.append(f"{part.name}: {part.about['dropped']} rows without image, label or caption are left out")
        enlarged = part.about["conversions"].get("enlarged", 0)
        if enlarged:
            examined = part.about.get("examined")
            images = f"{enlarged} of {examined} images examined" if examined else f"{enlarged} images"
            notes.append(f"{part.name}: {images} are smaller than data.image_size {config.image_size} and enlarged")
    if names is None:
        return notes
    train, heldout = ({int(label) for label in part.labels[part.kept]} for part in parts if part.labels is not None)
    untrained = [names[label] for label in sorted(heldout - train)]
    if untrained:
        notes.append(f"held-out labels without a training image: {listed(untrained)}")
    if len(names) > 100 and len(names) > len(parts[0].kept) / 2:
        notes.append(f"{len(names)} classes for {len(parts[0].kept)} images: is {config.label_column!r} an id?")
    return notes
