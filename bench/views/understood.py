"""What was understood of data and prompts, before anything is trained: as values, as text, and as a sheet of images."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.datasets import Dataset, Split
from bench.data.errors import shown
from bench.data.prompts import Prompts
from bench.data.subsets import RULE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

MOST = 20  # classes that are listed
TILE, LINES, GAP = 144, 4, 10  # of the sheet: pixels of an image, lines of text below it, pixels between
Tile = tuple[NDArray[np.uint8], str]  # an image (H, W, 3) and what is written below it


def understood(data: Dataset, prompts: Prompts) -> dict[str, Any]:
    """All that was understood, as plain values for scripts."""
    about = data.about
    splits: dict[str, Any] = {}
    for name, split in data.splits.items():
        own = dict(about.get("splits", {}).get(name, {}))
        own |= {"images": len(split), "prompts": prompts.meta.get("splits", {}).get(name, {})}
        if split.labels is not None and data.classes is not None:
            counts = np.bincount(split.labels, minlength=len(data.classes))
            own["classes"] = dict(zip(data.classes, counts.tolist(), strict=True))
        splits[name] = own
    return {
        "digest": data.digest,
        "rule": about.get("rule", "rendered scenes"),
        "subsets": RULE if not data.rendered else "the first: scene k is a function of (seed, k)",
        "image_size": data.image_size,
        "classes": data.classes,
        "splits": splits,
        "duplicates": about.get("duplicates", {}),
        "prompts": {"kind": prompts.meta["kind"], "digest": prompts.digest, **prompts.meta["arguments"]},
        "notes": [*data.notes, *_imbalance(data), *prompts.notes],
    }


def _imbalance(data: Dataset) -> list[str]:
    if data.classes is None or data.train.labels is None:
        return []
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    absent = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    notes = [f"{len(absent)} classes have no training image: {_some(absent, 5)}"] if absent else []
    least = counts[counts > 0].min()
    if counts.max() >= 5 * least:
        largest, smallest = data.classes[int(counts.argmax())], data.classes[int(np.flatnonzero(counts == least)[0])]
        notes.append(f"classes are unequal: {counts.max():,} training images of {largest}, {least:,} of {smallest}")
    return notes


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def lines(found: dict[str, Any]) -> list[str]:
    """The same in lines of text, without what would move or colour a terminal's other text."""
    return [printable(line) for line in _lines(found)]


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"data {found['digest']}: {found['rule']}, to {found['image_size']} x {found['image_size']} pixels"
    for name, own in found["splits"].items():
        yield f"  {name}: {', '.join(_of_split(own))}"
        yield from (f"    {text}" for text in _of_images(own))
    duplicates = {name: count for name, count in found["duplicates"].items() if count}
    if duplicates:
        yield f"  exact copies: {', '.join(f'{name} {count:,}' for name, count in duplicates.items())}"
    yield f"  every subset: {found['subsets']}"
    if found["classes"]:
        yield from _of_classes(found)
    yield from _of_prompts(found)
    yield from (f"  note: {note}" for note in found["notes"])


def _of_split(own: dict[str, Any]) -> Iterator[str]:
    yield f"{own['images']:,} images"
    if "rows" in own:
        yield f"of {own['rows']:,} rows of split {own['split']!r}"
    for what in ("dropped", "missing, null prompt", "lists of one label", "examined"):
        if own.get(what):
            yield f"{what} {own[what]:,}"


def _of_images(own: dict[str, Any]) -> Iterator[str]:
    if own.get("sizes"):
        more = own["kinds of size"] - len(own["sizes"])
        yield f"sizes: {_counted(own['sizes'])}" + (f" and {more:,} more" if more else "")
    for what in ("conversions", "captions"):
        if own.get(what):
            yield f"{what}: {_counted(own[what])}"


def _counted(counts: dict[str, int]) -> str:
    """The largest first."""
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _of_classes(found: dict[str, Any]) -> Iterator[str]:
    names = found["classes"]
    counts = {split: own["classes"] for split, own in found["splits"].items()}
    yield f"  {len(names):,} classes, by number: name, images of {', '.join(counts)}"
    rows = range(len(names)) if len(names) <= MOST else [*range(MOST - 3), *range(len(names) - 3, len(names))]
    before = -1
    for index in rows:
        if index != before + 1:
            yield f"    ... {index - before - 1:,} more"
        before = index
        yield f"    {index}: {shown(names[index])}, {', '.join(f'{own[names[index]]:,}' for own in counts.values())}"


def _of_prompts(found: dict[str, Any]) -> Iterator[str]:
    own = dict(found["prompts"])
    kind, digest = own.pop("kind"), own.pop("digest")
    yield f"prompts {digest}: {kind} ({', '.join(f'{name} {value:,}' for name, value in own.items())})"
    for name, split in found["splits"].items():
        about = split["prompts"]
        if about:
            share = about["cut"] / max(1, about["prompts"])
            unknown = f", such as {_some(about['unknown'], 5)}" if about["unknown"] else ""
            yield (
                f"  {name}: the longest has {about['longest']:,} words, {about['cut']:,} are cut ({share:.1%}), "
                f"{about['empty']:,} are empty; {about['unknown words']:,} of {about['words']:,} words unknown{unknown}"
            )


# --- the sheet ------------------------------------------------------------------------------------------------------


def tiles(data: Dataset, count: int = 12, seed: int = 0) -> list[tuple[str, list[Tile]]]:
    """Rows of the sheet: a sample of each split with its prompts, and an image of each conversion."""
    rows = []
    for name, split in data.splits.items():
        if not len(split.images):  # of latents
            continue
        chosen = data.subset(name, count, seed)
        rows.append((f"{name}, a sample", [(split.images[k], _prompt(data, split, int(k))) for k in chosen]))
    for name in data.splits:
        own = data.about.get("splits", {}).get(name, {})
        found = {what: int(index) for what, index in own.get("examples", {}).items()}
        converted = [(data.splits[name].images[index], what) for what, index in found.items()]
        if converted:
            rows.append((f"{name}, one of each conversion", converted))
    return rows


def _prompt(data: Dataset, split: Split, row: int) -> str:
    if split.captions is not None:
        return split.captions[row] or "(empty: the null prompt)"
    assert data.classes is not None and split.labels is not None
    return data.classes[int(split.labels[row])]


def sheet(rows: list[tuple[str, list[Tile]]], columns: int = 6) -> Image:
    """The sheet: headings, and below each its images with what is written of them."""
    from PIL import Image, ImageDraw

    small, large = _font(13), _font(17)
    width = columns * (TILE + GAP) + GAP
    height = sum(30 + -(-len(own) // columns) * _height() for _, own in rows) + GAP
    page = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.ImageDraw(page), GAP
    for heading, own in rows:
        pen.text((GAP, top), printable(heading), fill="black", font=large)
        top += 30
        for index, (pixels, text) in enumerate(own):
            x, y = GAP + index % columns * (TILE + GAP), top + index // columns * _height()
            how = Image.Resampling.NEAREST if pixels.shape[0] <= TILE else Image.Resampling.BOX
            page.paste(Image.fromarray(np.asarray(pixels)).resize((TILE, TILE), how), (x, y))
            pen.multiline_text((x, y + TILE + 3), _wrapped(text), fill="black", font=small, spacing=2)
        top += -(-len(own) // columns) * _height()
    return page


def _height() -> int:
    return TILE + LINES * 17 + GAP


def _wrapped(text: str) -> str:
    wrapped = textwrap.wrap(printable(text), 20, max_lines=LINES, placeholder=" ...")
    return "\n".join(wrapped)


def printable(text: str) -> str:
    """Without what would move or turn other text."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _font(size: int) -> FreeTypeFont | ImageFont:
    """DejaVu, which knows most alphabets, where matplotlib is installed; else Pillow's own, which knows Latin."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)
