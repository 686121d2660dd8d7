"""A stored image, of any kind, as RGB of eight bits: one rule for each kind, and a count of what was done.

orientation    that of EXIF is applied
transparency   composited over white, whatever colours it hides
16 bit         scaled to 8; of more than one channel by Pillow, which keeps the high byte
32-bit whole   taken as 16 bit, where the numbers lie in 256 to 65,535; else refused
float          0 to 1 becomes 0 to 255; other numbers are refused with their range
other colours  CMYK, YCbCr, LAB, HSV, palettes and grey are converted; colour profiles are not applied
several frames the first
size           the centre square, by Lanczos to the size wanted; smaller images are enlarged
arrays         of whole numbers 0 to 255 or of floats 0 to 1; (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.reading.files import what_it_is

if TYPE_CHECKING:
    from PIL.Image import Image

GROUND = 255  # white
PIXELS = 178_956_970  # more are refused, as Pillow does: a small file can hold any number of them
_UNSAFE = ("EPS",)  # formats that Pillow hands to another program
Uint8 = NDArray[np.uint8]


class Decoded:
    """An image and what was done with it.

    Attributes:
        pixels: uint8 (size, size, 3).
        source: width and height as stored.
        conversions: in words.
    """

    def __init__(self) -> None:
        self.pixels: Uint8 = np.zeros((0, 0, 3), np.uint8)
        self.source = (0, 0)
        self.conversions: list[str] = []


def decode(stored: Any, size: int) -> Decoded:
    """A stored image by the rules above.

    Args:
        stored: bytes, a path, a mapping with `bytes`, an image of Pillow, or an array or nested lists.
        size: pixels a side.

    Raises:
        ValueError, OSError: if it is no image, is cut off, or lies outside what the rules take.
    """
    from PIL import Image, ImageOps

    done = Decoded()
    if isinstance(stored, list) and stored and isinstance(stored[0], dict | bytes):
        if len(stored) > 1:
            raise ValueError(f"a list of {len(stored)} images; one image a row is needed")
        stored = stored[0]
    if isinstance(stored, dict):
        stored = stored.get("bytes")
    if isinstance(stored, bytes | bytearray | memoryview | Path):
        with _opened(stored) as opened:
            done.source = opened.size
            rgb = _rgb(_upright(opened, done.conversions), done.conversions)
    elif isinstance(stored, Image.Image):
        done.source = stored.size
        rgb = _rgb(stored, done.conversions)
    else:
        rgb = _of_array(stored, done.conversions)
        done.source = rgb.size
    _say_of_size(rgb.size, size, done.conversions)
    if rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.LANCZOS)
    done.pixels = np.asarray(rgb)
    return done


def rgb_of(content: bytes) -> Uint8:
    """An image file by the same rules in its own size, uint8 (H, W, 3).

    Raises:
        ValueError, OSError: as `decode`.
    """
    done = Decoded()
    with _opened(content) as opened:
        return np.asarray(_rgb(_upright(opened, done.conversions), done.conversions))


def _say_of_size(found: tuple[int, int], size: int, conversions: list[str]) -> None:
    small, large = sorted(found)
    if small < size:
        conversions.append("enlarged")
    if large > 2 * small:
        conversions.append("more than half cropped away")
    elif large > small:
        conversions.append("cropped to the centre square")


@contextmanager
def _opened(stored: Any) -> Iterator[Image]:
    """The first frame, not yet decoded."""
    import warnings
    from io import BytesIO

    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a library may have set it: half an image would pass for one
    content = stored.read_bytes() if isinstance(stored, Path) else bytes(stored)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(BytesIO(content), formats=_formats())
    except UnidentifiedImageError:
        what = what_it_is(content[:64])
        raise ValueError(f"{what or 'no image of a known kind'} ({len(content):,} bytes)") from None
    with opened:
        if opened.width * opened.height > PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than {PIXELS:,}: not decoded")
        yield opened


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    first = ("JPEG", "PNG", "WEBP")  # each is tried in turn
    return (*first, *(name for name in Image.ID if name not in (*first, *_UNSAFE)))


def _upright(opened: Image, conversions: list[str]) -> Image:
    """The decoded image with the orientation of its EXIF applied."""
    from PIL import ImageOps

    if getattr(opened, "is_animated", False):
        conversions.append("first of several frames")
    before = _orientation(opened, conversions) if opened.format == "TIFF" else 1  # Pillow applies it when it decodes
    deep = _is_deep(opened)
    opened.load()
    own = _orientation(opened, conversions)
    if max(before, own) > 1:
        conversions.append("orientation applied")
    if deep:
        conversions.append("16 bit to 8")
    return ImageOps.exif_transpose(opened) if own > 1 else opened


def _orientation(opened: Image, conversions: list[str]) -> int:
    """What its EXIF says, 1 where that is damaged: a sound image with a broken note is no broken image."""
    from PIL import ExifTags

    try:
        found = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of many types; the block counts as read then, and is empty
        conversions.append("damaged EXIF ignored")
        return 1
    return found if isinstance(found, int) and 2 <= found <= 8 else 1


def _is_deep(opened: Image) -> bool:
    """Whether Pillow reduces it to eight bits itself: RGB of 16 bit."""
    arguments = [tile[3] for tile in getattr(opened, "tile", [])]
    return not opened.mode.startswith("I") and any("16" in str(one) for one in arguments)


def _rgb(image: Image, conversions: list[str]) -> Image:
    """RGB of eight bits, and what was done for it."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _scaled(image, conversions)
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _composited(image.convert("RGBA"), conversions)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        conversions.append(f"{image.mode} to RGB")
    elif image.mode in ("P", "1", "L"):
        conversions.append("palette to RGB" if image.mode == "P" else "grey to RGB")
    return image.convert("RGB")


def _composited(rgba: Image, conversions: list[str]) -> Image:
    from PIL import Image

    low, _ = rgba.getchannel("A").getextrema()
    if low == 255:
        return rgba.convert("RGB")
    conversions.append("transparency over white")
    ground = Image.new("RGBA", rgba.size, (GROUND, GROUND, GROUND, 255))
    return Image.alpha_composite(ground, rgba).convert("RGB")


def _scaled(image: Image, conversions: list[str]) -> Image:
    """Grey of 16 bit, 32-bit whole numbers or floats, scaled to eight bits."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F":
        grey = _of_floats(values.astype(np.float64))
        conversions.append("float to 8 bit")
    else:
        low, high = int(values.min()), int(values.max())
        if image.mode == "I" and (low < 0 or high > 65535 or 0 < high < 256):
            raise ValueError(f"32-bit whole numbers from {low} to {high}: only those of 16 bit, to 65535, are scaled")
        grey = ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
        conversions.append("16 bit to 8")
    conversions.append("grey to RGB")
    return Image.fromarray(grey).convert("RGB")


def _of_floats(values: NDArray[np.float64]) -> Uint8:
    if not np.isfinite(values).all():
        raise ValueError("floats that are not all finite")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"floats from {values.min():g} to {values.max():g}; 0 to 1 is needed")
    scaled: Uint8 = np.rint(values * 255).astype(np.uint8)
    return scaled


def _of_array(stored: Any, conversions: list[str]) -> Image:
    """An array, or lists in lists, as an image."""
    from PIL import Image

    if isinstance(stored, int | float | bool) or stored is None:
        raise ValueError(f"{stored!r} is no image")
    try:
        values = np.asarray(stored)
    except ValueError:
        raise ValueError("rows of different lengths") from None
    if values.dtype.kind not in "buif":
        raise ValueError(
            f"an array of {values.dtype} is no image"
            + (", or its rows have different lengths" * (values.dtype == object))
        )
    values = _channels_last(values)
    if values.dtype.kind == "f":
        conversions.append("float to 8 bit")
        pixels = _of_floats(values.astype(np.float64))
    else:
        pixels = _of_whole(values)
    if pixels.shape[2] == 4:
        return _composited(Image.fromarray(pixels), conversions)
    if pixels.shape[2] == 1:
        conversions.append("grey to RGB")
        return Image.fromarray(pixels[:, :, 0]).convert("RGB")
    return Image.fromarray(pixels)


def _of_whole(values: NDArray[Any]) -> Uint8:
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"whole numbers from {values.min()} to {values.max()}; 0 to 255 is needed")
    pixels: Uint8 = np.ascontiguousarray(values.astype(np.uint8))
    return pixels


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) of (H, W), (H, W, C) or (C, H, W)."""
    if values.ndim == 2 and values.size:
        return values[:, :, None]
    if values.ndim == 3 and values.size and values.shape[2] in (1, 3, 4):
        return values
    if values.ndim == 3 and values.size and values.shape[0] in (1, 3, 4):
        return values.transpose(1, 2, 0)
    raise ValueError(
        f"an array of shape {values.shape}; (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels is needed"
    )
