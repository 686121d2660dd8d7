"""`scenes`: rendered, captioned images whose every attribute is known. Needs numpy alone, downloads nothing.

A scene is one to three objects (*local* attributes: shape, colour, size, place) in one setting (*global* attributes:
tone, time of day, texture, background). Its caption names every attribute, and `parse` reads it back:

    a small red ring at the top left and a large blue square in the centre; warm tone, night, grainy, plain background

`train` and `heldout` share one distribution but no random numbers. In both, six of the 36 (shape, colour) pairs and six
of the 36 (tone, background) pairs never occur; every scene of `unseen` holds a withheld pair of one kind. Each value
is in exactly one withheld pair, so that withholding makes none of them rarer. An object and a setting hold nearly
the same number of bits (`entropies`), so that local and global prompt adherence can be compared.

Images are rendered by `bench.data.painter`, whose tables also hold the words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log2, perm
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.data import painter
from bench.store.metrics import GLOBAL_ATTRIBUTES, LOCAL_ATTRIBUTES

T = TypeVar("T")
VERSION = 1  # of pixels and captions together: raise it when either changes

_WORDS: dict[str, Iterable[str]] = {
    "shape": painter.SHAPES,
    "colour": painter.COLOURS,
    "size": painter.SIZES,
    "place": painter.PLACES,
    "tone": painter.TONES,
    "time": painter.TIMES,
    "texture": painter.TEXTURES,
    "background": painter.BACKGROUNDS,
}
LOCAL = {name: tuple(_WORDS[name]) for name in LOCAL_ATTRIBUTES}
GLOBAL = {name: tuple(_WORDS[name]) for name in GLOBAL_ATTRIBUTES}
WITHHELD_LOCAL = frozenset(
    {  # (shape, colour)
        ("disc", "green"),
        ("square", "orange"),
        ("triangle", "purple"),
        ("ring", "yellow"),
        ("cross", "red"),
        ("diamond", "blue"),
    }
)
WITHHELD_GLOBAL = frozenset(
    {  # (tone, background)
        ("neutral", "horizon"),
        ("warm", "checkered"),
        ("golden", "rippled"),
        ("mossy", "framed"),
        ("cool", "plain"),
        ("violet", "gradient"),
    }
)
SPLITS = ("train", "heldout", "unseen")
MAX_ITEMS = 3
MIN_SIZE = 16

# ---------------------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Item:
    """One object; each field holds a word of `LOCAL`. An unknown word raises ValueError."""

    shape: str
    colour: str
    size: str
    place: str

    def __post_init__(self) -> None:
        for name, words in LOCAL.items():
            _check_choice(name, getattr(self, name), words)


@dataclass(frozen=True)
class Scene:
    """One to three objects in different places, and their setting, whose fields hold words of `GLOBAL`.

    Raises:
        ValueError: for an unknown word, another number of objects, or two objects in one place.
    """

    items: tuple[Item, ...]
    tone: str
    time: str
    texture: str
    background: str

    def __post_init__(self) -> None:
        for name, words in GLOBAL.items():
            _check_choice(name, getattr(self, name), words)
        if not 1 <= len(self.items) <= MAX_ITEMS:
            raise ValueError(f"a scene has 1 to {MAX_ITEMS} objects, not {len(self.items)}")
        places = [item.place for item in self.items]
        if len(set(places)) < len(places):
            raise ValueError(f"two objects share a place: {', '.join(places)}")


@dataclass(frozen=True)
class Scenes:
    """Images with what is in them: images uint8 (N, S, S, 3), N captions, N scenes."""

    images: NDArray[np.uint8]
    captions: list[str]
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)


def withheld(scene: Scene) -> frozenset[str]:
    """Which kinds of combination withheld from training the scene holds: `local`, `global`, both or none."""
    kinds = set()
    if any((item.shape, item.colour) in WITHHELD_LOCAL for item in scene.items):
        kinds.add("local")
    if (scene.tone, scene.background) in WITHHELD_GLOBAL:
        kinds.add("global")
    return frozenset(kinds)


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: choose from {', '.join(choices)}")


# -------------------------------------------------------------------------------------------------------- captions

_WHERE = {place: f"in the {place}" if place == "centre" else f"at the {place}" for place in LOCAL["place"]}
_ITEM = re.compile(
    r"a (?P<size>{size}) (?P<colour>{colour}) (?P<shape>{shape}) (?:in|at) the (?P<place>{place})".format(
        **{name: "|".join(sorted(words, key=len, reverse=True)) for name, words in LOCAL.items()}
    )
)
_SETTING = re.compile(
    r"(?P<tone>{tone}) tone, (?P<time>{time}), (?P<texture>{texture}), (?P<background>{background}) background".format(
        **{name: "|".join(words) for name, words in GLOBAL.items()}
    )
)


def caption(scene: Scene) -> str:
    """The sentence that names every attribute of the scene, objects in the scene's order."""
    items = [f"a {item.size} {item.colour} {item.shape} {_WHERE[item.place]}" for item in scene.items]
    setting = f"{scene.tone} tone, {scene.time}, {scene.texture}, {scene.background} background"
    return f"{_join(items)}; {setting}"


def parse(text: str) -> Scene:
    """The scene whose caption is `text`; case and extra spaces do not matter.

    Raises:
        ValueError: if `text` is not a caption; says which part is not.
    """
    said, mark, how = " ".join(text.lower().split()).partition("; ")
    if not mark:
        raise _not_a_caption(f"{text!r} has no '; ' between the objects and their setting")
    setting = _SETTING.fullmatch(how)
    if setting is None:
        raise _not_a_caption(f"{how!r} is not a setting such as {_EXAMPLE.partition('; ')[2]!r}")
    items = []
    for part in re.split(r", | and ", said):
        found = _ITEM.fullmatch(part)
        if found is None:
            raise _not_a_caption(f"{part!r} is not an object such as {_EXAMPLE.partition(' and ')[0]!r}")
        items.append(Item(**found.groupdict()))
    scene = Scene(tuple(items), **setting.groupdict())
    if caption(scene) != f"{said}; {how}":
        raise _not_a_caption(f"{text!r} should read {caption(scene)!r}")
    return scene


def _not_a_caption(reason: str) -> ValueError:
    return ValueError(f"not a caption of a scene: {reason}")


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_EXAMPLE = caption(
    Scene(
        (Item("ring", "red", "small", "top left"), Item("square", "blue", "large", "centre")),
        tone="warm",
        time="night",
        texture="grainy",
        background="plain",
    )
)

# -------------------------------------------------------------------------------------------------------- sampling
# A scene is read off the numbers of its own random stream, named by (seed, split, index): no scene depends on another.

_PAIRS = {
    ("local", False): [(s, c) for s in LOCAL["shape"] for c in LOCAL["colour"] if (s, c) not in WITHHELD_LOCAL],
    ("local", True): sorted(WITHHELD_LOCAL),
    ("global", False): [(t, b) for t in GLOBAL["tone"] for b in GLOBAL["background"] if (t, b) not in WITHHELD_GLOBAL],
    ("global", True): sorted(WITHHELD_GLOBAL),
}
_NUMBERS = 6 + 3 * MAX_ITEMS


def sample_scene(seed: int, split: str, index: int) -> Scene:
    """The scene number `index` of a split.

    Raises:
        ValueError: for an unknown split or a negative index.
    """
    return next(_sample(seed, split, index, 1))


def image_seed(seed: int, split: str, index: int) -> int:
    """The seed with which `generate` renders the scene of the same three arguments."""
    return int(_streams(seed, split, index, 1, purpose=1)[0])


def _sample(seed: int, split: str, start: int, count: int, most: int = MAX_ITEMS) -> Iterator[Scene]:
    keys = _streams(seed, split, start, count, purpose=0)
    for numbers in painter.uniforms(keys, _NUMBERS).tolist():
        yield _compose(numbers, split == "unseen", most)


def _compose(numbers: list[float], unseen: bool, most: int) -> Scene:
    """The scene of at most `most` objects that `_NUMBERS` numbers in [0, 1) encode.

    An unseen one holds a withheld pair of one kind.
    """
    number, withhold, which, pair, time, texture, *rest = numbers
    count = 1 + int(number * most)
    special = int(which * count) if unseen and withhold < 0.5 else -1
    tone, background = _pick(_PAIRS["global", unseen and withhold >= 0.5], pair)
    free = list(LOCAL["place"])
    items = []
    for position in range(count):
        kind, size, place = rest[3 * position : 3 * position + 3]
        shape, colour = _pick(_PAIRS["local", position == special], kind)
        items.append(Item(shape, colour, _pick(LOCAL["size"], size), free.pop(int(place * len(free)))))
    return Scene(tuple(items), tone, _pick(GLOBAL["time"], time), _pick(GLOBAL["texture"], texture), background)


def _streams(seed: int, split: str, start: int, count: int, purpose: int) -> painter.Keys:
    """The keys of `count` scenes' random streams, (count,)."""
    _check_choice("split", split, SPLITS)
    if start < 0:
        raise ValueError(f"a scene's index is 0 or more, not {start}")
    key = np.zeros(1, np.uint64)
    for number in (seed, SPLITS.index(split), purpose):
        key = painter.fold(key, number)
    return painter.fold(key, np.arange(start, start + count, dtype=np.uint64))


def _pick(values: Sequence[T], number: float) -> T:
    return values[int(number * len(values))]


# -------------------------------------------------------------------------------------------------------- images

_CHUNK_PIXELS = 2**16  # a chunk's planes fit the processor's cache; the images do not depend on it


def render(scene: Scene, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """The scene's image, (size, size, 3); `seed` decides what the caption leaves open: jitter, phases, grain.

    Raises:
        ValueError: if `size` is below `MIN_SIZE`.
    """
    _check_size(size)
    return painter.paint(_batch([scene], np.array([seed % 2**64], np.uint64)), size)[0]


def generate(
    count: int,
    size: int,
    *,
    seed: int,
    split: str,
    start: int = 0,
    most: int = MAX_ITEMS,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scenes:
    """Scenes `start` to `start + count - 1` of a split, the same whatever `workers` (threads; by default one a core).

    Args:
        count: of scenes.
        size: of an image, in pixels a side.
        seed: of the data; each scene is a function of (seed, split, index) alone.
        split: its name.
        start: index of the first scene.
        most: objects in a scene, 1 to 3.
        workers: threads; None is one a core.
        progress: called from this thread with the number of images done so far.

    Raises:
        ValueError: for a negative `count` or `start`, a `size` below `MIN_SIZE`, an unknown split, no workers, or
            another number of objects.
    """
    _check_size(size)
    if not 1 <= most <= MAX_ITEMS:
        raise ValueError(f"a scene has 1 to {MAX_ITEMS} objects, not {most}")
    if count < 0:
        raise ValueError(f"the number of images is 0 or more, not {count}")
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"the number of workers is 1 or more, not {workers}")
    keys = _streams(seed, split, start, count, purpose=1)
    images = np.empty((count, size, size, 3), np.uint8)
    scenes: list[Scene] = []
    chunk = max(1, _CHUNK_PIXELS // size**2)

    def work(first: int) -> list[Scene]:
        chosen = slice(first, min(first + chunk, count))
        found = list(_sample(seed, split, start + first, chosen.stop - first, most))
        images[chosen] = painter.paint(_batch(found, keys[chosen]), size)
        return found

    with ThreadPoolExecutor(workers) as pool:  # numpy lets go of the interpreter's lock while it computes
        for found in pool.map(work, range(0, count, chunk)):
            scenes += found
            if progress is not None:
                progress(len(scenes))
    return Scenes(images, [caption(scene) for scene in scenes], scenes)


def _batch(scenes: list[Scene], keys: painter.Keys) -> painter.Batch:
    """The scenes as the painter takes them: each word as its position in its table."""
    items = [item for scene in scenes for item in scene.items]
    return painter.Batch(
        **{name: _positions(name, scenes) for name in GLOBAL},
        **{name: _positions(name, items) for name in LOCAL},
        owner=np.repeat(np.arange(len(scenes)), [len(scene.items) for scene in scenes]),
        keys=keys,
    )


def _positions(name: str, things: Sequence[Scene | Item]) -> painter.Ints:
    position = _POSITION[name]
    return np.array([position[getattr(thing, name)] for thing in things], np.int64)


_POSITION = {name: {word: i for i, word in enumerate(words)} for name, words in (LOCAL | GLOBAL).items()}


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise ValueError(f"an image's side is {MIN_SIZE} pixels or more, not {size}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --------------------------------------------------------------------------------------------------------- entropy


def entropies() -> dict[str, float]:
    """Bits of every attribute in `train` and `heldout`, exact from the sampling distribution.

    `local` is one object, `global` the setting: a little less than the sum of their attributes, for the withheld pairs.
    `scene_local` is all objects of a scene together, in the order of their caption, with their number.
    """
    bits = {name: log2(len(words)) for name, words in (LOCAL | GLOBAL).items()}  # all values equally likely
    pair = log2(len(_PAIRS["local", False]))
    counts = range(1, MAX_ITEMS + 1)
    placed = sum(log2(perm(len(LOCAL["place"]), count)) for count in counts) / MAX_ITEMS
    bits["local"] = pair + bits["size"] + bits["place"]
    bits["global"] = log2(len(_PAIRS["global", False])) + bits["time"] + bits["texture"]
    bits["scene_local"] = log2(MAX_ITEMS) + sum(counts) / MAX_ITEMS * (pair + bits["size"]) + placed
    return bits
