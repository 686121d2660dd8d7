"""Renders `scenes`: what every word looks like, and images by the batch. numpy only.

The words of an attribute are the keys of its table below; `bench.data.scenes` makes sentences of them. An image is

    image = backdrop(background, tone) * light(time) * (1 + texture)   # two shades of the tone, mixed by a pattern
    image = image + cover * (colour * glow - image)                    # for each object; cover is antialiased

where `glow` is the same light and texture, weakened, so that an object's colour stays recognisable at night.

Only + - * / sqrt, floor and comparisons touch the numbers, each rounded alike everywhere (IEEE 754), and randomness is
a hash of (seed, position): the same bytes on any machine, in any batch, on any number of threads.

Letters: P images of a batch, I objects of all of them, S the side in pixels; x, y in [0, 1] from the top left corner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 throughout
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

# ---------------------------------------------------------------------------------------------------- randomness

_STEP = np.uint64(0x9E3779B97F4A7C15)


def mix(keys: Keys) -> Keys:
    """SplitMix64's finaliser: a bijection of 64-bit words without visible structure."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def fold(keys: Keys, number: int | Keys) -> Keys:
    """Keys of the streams named by (key, number): as `mix`, for every key of an array."""
    numbers = np.array([number % 2**64], np.uint64) if isinstance(number, int) else number
    return mix(mix(keys + _STEP) ^ (numbers * _STEP + np.uint64(1)))


def uniforms(keys: Keys, count: int) -> Floats:
    """The first `count` numbers in [0, 1) of each key's stream, (P,) -> (P, count)."""
    words = mix(keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP)
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


# ------------------------------------------------------------------------------------------------------- objects
# A shape is a signed distance: negative inside, in units of the object's radius, x to the right and y down.


def _disc(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y) - 1


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(abs(x), abs(y)) - 0.9


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(0.86 * abs(x) - 0.51 * y - 0.52, y - 0.84)


def _ring(x: Floats, y: Floats) -> Floats:
    return abs(np.sqrt(x * x + y * y) - 0.74) - 0.28


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = abs(x), abs(y)
    return np.maximum(np.maximum(x, y) - 1, np.minimum(x, y) - 0.33)


def _diamond(x: Floats, y: Floats) -> Floats:
    return (abs(x) + abs(y) - 1.16) * 0.7071


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "diamond": _diamond,
}
COLOURS = {  # red, green, blue
    "red": (0.84, 0.10, 0.13),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (1.00, 0.92, 0.16),
    "green": (0.10, 0.58, 0.18),
    "blue": (0.12, 0.28, 0.86),
    "purple": (0.56, 0.14, 0.66),
}
SIZES = {"small": 0.085, "medium": 0.115, "large": 0.152}  # radius as a share of the image's side
PLACES = {
    f"{row} {column}".strip() or "centre": ((i + 0.5) / 3, (j + 0.5) / 3)  # x, y of the cell's middle
    for j, row in enumerate(("top", "", "bottom"))
    for i, column in enumerate(("left", "", "right"))
}

# ------------------------------------------------------------------------------------------------ the whole image

TONES = {  # two shades of one mood: the backdrop mixes them
    "neutral": ((0.80, 0.80, 0.80), (0.62, 0.62, 0.62)),
    "warm": ((0.97, 0.76, 0.66), (0.85, 0.55, 0.44)),
    "golden": ((0.93, 0.86, 0.52), (0.77, 0.67, 0.32)),
    "mossy": ((0.70, 0.88, 0.66), (0.49, 0.71, 0.47)),
    "cool": ((0.64, 0.83, 0.96), (0.42, 0.65, 0.82)),
    "violet": ((0.84, 0.74, 0.95), (0.67, 0.54, 0.82)),
}


def _tent(x: Floats) -> Floats:
    """A wave of period 1 between -1 and 1 made of straight lines."""
    return abs((x - np.floor(x)) * 4 - 2) - 1


def _step(distance: Floats, sharpness: float) -> Floats:
    """0 to 1 around distance 0, over 1/sharpness."""
    return np.clip(distance * sharpness + 0.5, 0, 1)


# A background is the share of the second shade, (x, y, u, size) -> (P, S, S); u (P, 1, 1) in [0, 1) differs by image.


def _plain(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    return 0.5 * u + 0 * x * y


def _gradient(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    return y * (1.1 + 0.2 * u) + 0 * x


def _horizon(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    return _step(y - 0.5 - 0.2 * u, size) + 0 * x


def _checkered(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    across, down = _step(_tent(2 * x + u), size / 8), _step(_tent(2 * y + u), size / 8)
    return across + down - 2 * across * down


def _framed(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    return _step(np.maximum(abs(x - 0.5), abs(y - 0.5)) - 0.42 + 0.03 * u, size)


def _rippled(x: Floats, y: Floats, u: Floats, size: int) -> Floats:
    radius = np.sqrt((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5))
    return _step(_tent(4.5 * radius + u), size / 16)


BACKGROUNDS: dict[str, Callable[[Floats, Floats, Floats, int], Floats]] = {
    "plain": _plain,
    "gradient": _gradient,
    "horizon": _horizon,
    "checkered": _checkered,
    "framed": _framed,
    "rippled": _rippled,
}

# A texture darkens (-1) or brightens (1) by a share of TEXTURE_DEPTH, (x, y, u, v, keys) -> (P, S, S).
# x and y count waves here: WAVES across the image, fewer where they would be narrower than 4 pixels.

TEXTURE_DEPTH = 0.14
WAVES = 8


def _smooth(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    return 0 * x * y * u


def _grainy(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    size = x.shape[-1]
    noise = uniforms(mix(keys), size * size).reshape(-1, size, size)
    return 3 * noise - 1.5


def _striped(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    return _tent(0.5 * (x + y) + u)


def _lined(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    return _tent(x + u) + 0 * y


def _dotted(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    return np.clip(2 * _tent(x + u) + 2 * _tent(y + v) - 1, -0.4, 1.6)


def _woven(x: Floats, y: Floats, u: Floats, v: Floats, keys: Keys) -> Floats:
    return 1.5 * _tent(0.5 * x + u) * _tent(0.5 * y + v)


TEXTURES: dict[str, Callable[[Floats, Floats, Floats, Floats, Keys], Floats]] = {
    "smooth": _smooth,
    "grainy": _grainy,
    "striped": _striped,
    "lined": _lined,
    "dotted": _dotted,
    "woven": _woven,
}

# An object takes the share GLOW of the light, and shines by itself for the rest.

GLOW = 0.55

# A time of day is how bright it is and whence the light falls, (x, y) -> (1, S, S), and the light's own colour.

TIMES: dict[str, tuple[Callable[[Floats, Floats], Floats], tuple[float, float, float]]] = {
    "morning": (lambda x, y: 1.04 - 0.40 * x - 0.06 * y, (1.00, 0.99, 0.97)),
    "noon": (lambda x, y: 1.00 + 0 * x * y, (1.00, 1.00, 1.00)),
    "dusk": (lambda x, y: 0.36 + 0.42 * x - 0.06 * y, (1.05, 0.97, 0.95)),
    "night": (lambda x, y: 0.42 - 0.50 * ((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5)), (0.90, 0.96, 1.14)),
}

# ------------------------------------------------------------------------------------------------------- painting


@dataclass(frozen=True)
class Batch:
    """Scenes as numbers: each value is its position in its table.

    Attributes:
        tone, time, texture, background: (P,).
        owner: the image each object is in, (I,); shape, colour, size, place: (I,).
        keys: a key for each image's own chance: jitter, phases, grain; (P,).
    """

    tone: Ints
    time: Ints
    texture: Ints
    background: Ints
    owner: Ints
    shape: Ints
    colour: Ints
    size: Ints
    place: Ints
    keys: Keys


def paint(batch: Batch, size: int) -> NDArray[np.uint8]:
    """The batch's images, (P, S, S, 3)."""
    middles = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = middles[None, None, :], middles[None, :, None]
    chance = uniforms(batch.keys, 5)[:, :, None, None]
    light = _light(batch, x, y)
    light *= 0.97 + 0.06 * chance[:, 3, None]  # no two days are alike
    shade = TEXTURE_DEPTH * _texture(batch, x, y, chance[:, 1], chance[:, 2])
    image = _backdrop(batch, x, y, chance[:, 0])  # (P, 3, S, S)
    image *= light * (1 + shade)
    _add_objects(image, batch, x, y, (1 - GLOW + GLOW * light) * (1 + 0.6 * shade))
    image = np.clip(image * np.float32(255) + np.float32(0.5), 0, 255)
    return np.ascontiguousarray(image.astype(np.uint8).transpose(0, 2, 3, 1))


def _backdrop(batch: Batch, x: Floats, y: Floats, u: Floats) -> Floats:
    """The two shades of the tone, mixed by the background's pattern, (P, 3, S, S)."""
    size = x.shape[-1]
    share = np.empty((len(batch.keys), 1, size, size), np.float32)
    for value, pattern in enumerate(BACKGROUNDS.values()):
        chosen = batch.background == value
        share[chosen, 0] = np.clip(pattern(x, y, u[chosen], size), 0, 1)
    shades = np.asarray(list(TONES.values()), np.float32)[batch.tone][..., None, None]  # (P, 2, 3, 1, 1)
    return shades[:, 0] + share * (shades[:, 1] - shades[:, 0])


def _add_objects(image: Floats, batch: Batch, x: Floats, y: Floats, light: Floats) -> None:
    """Lays every object over its image, in place, those of one shape together; `light` is (P, 3, S, S)."""
    size = image.shape[-1]
    order = np.arange(len(batch.owner)) - np.searchsorted(batch.owner, batch.owner)
    chance = uniforms(fold(batch.keys[batch.owner], order.astype(np.uint64)), 4)  # (I, 4)
    radius = np.asarray(list(SIZES.values()), np.float32)[batch.size] * (0.97 + 0.06 * chance[:, 0])
    middle = np.asarray(list(PLACES.values()), np.float32)[batch.place] + 0.024 * (chance[:, 1:3] - np.float32(0.5))
    colour = np.asarray(list(COLOURS.values()), np.float32)[batch.colour] * (0.94 + 0.08 * chance[:, 3:])
    for value, distance in enumerate(SHAPES.values()):
        chosen = batch.shape == value
        r, a, b = (part[chosen, None, None] for part in (radius, middle[:, 0], middle[:, 1]))
        cover = np.clip(0.5 - distance((x - a) / r, (y - b) / r) * r * size, 0, 1)  # (I, S, S)
        for owner, over, ink in zip(batch.owner[chosen], cover, colour[chosen], strict=True):
            image[owner] += over * (ink[:, None, None] * light[owner] - image[owner])


def _texture(batch: Batch, x: Floats, y: Floats, u: Floats, v: Floats) -> Floats:
    """What the texture adds to each pixel's brightness, about -1 to 1, (P, 1, S, S)."""
    shade = np.empty((len(batch.keys), 1, y.shape[1], x.shape[2]), np.float32)
    waves = min(WAVES, shade.shape[-1] / 4)
    x, y = x * waves, y * waves
    for value, pattern in enumerate(TEXTURES.values()):
        chosen = batch.texture == value
        shade[chosen, 0] = pattern(x, y, u[chosen], v[chosen], batch.keys[chosen])
    return shade


def _light(batch: Batch, x: Floats, y: Floats) -> Floats:
    """The light that falls on each pixel, (P, 3, S, S)."""
    lights = [fall(x, y)[:, None] * np.asarray(colour, np.float32)[:, None, None] for fall, colour in TIMES.values()]
    return np.concatenate(lights)[batch.time]
