"""Images of every kind that users have: each is converted by its one rule, or refused by name."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from bench.data.reading.images import decode


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(mode: str = "RGB", size: int = 8) -> Image.Image:
    """Left half red, right half blue."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, : size // 2, 0] = 255
    pixels[:, size // 2 :, 2] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_of_exif_is_applied(kind: str) -> None:
    """A phone stores the sensor's image and a note to turn it: without it half of the photographs lie on their side."""
    lying = colours(size=16)
    exif = lying.getexif()
    exif[274] = 6  # turn by 90 degrees clockwise: left becomes top
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    done = decode(stored(lying, kind, exif=exif, **options), 16)
    assert done.pixels[2, 8, 0] > 200 > 60 > done.pixels[13, 8, 0] and done.pixels[13, 8, 2] > 200
    assert done.conversions == ["orientation applied"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_exif_is_no_damaged_image(kind: str) -> None:
    """As raw converters and one image of COCO have it: one in a million ended the preparation."""
    broken = stored(colours(), kind, exif=b"Exif\0\0no TIFF at all", **({"dpi": (72, 72)} if kind == "JPEG" else {}))
    done = decode(broken, 8)
    assert done.pixels[4, 1, 0] > 200 and done.conversions == ["damaged EXIF ignored"]


@pytest.mark.parametrize(("mode", "hidden"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_what_is_transparent_is_white_not_its_hidden_colour(mode: str, hidden: tuple[int, ...], kind: str) -> None:
    """Logos on nothing: the colours that editors leave under full transparency were trained on."""
    done = decode(stored(Image.new(mode, (8, 8), hidden), kind), 8)
    assert (done.pixels == 255).all() and done.conversions == ["transparency over white"]


def test_half_transparent_is_mixed_with_white() -> None:
    done = decode(stored(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG"), 4)
    assert abs(int(done.pixels[0, 0, 0]) - 127) <= 1


def test_alpha_that_hides_nothing_changes_nothing() -> None:
    opaque = colours("RGBA")
    assert (decode(stored(opaque, "PNG"), 8).pixels == np.asarray(colours())).all()
    assert decode(stored(opaque, "PNG"), 8).conversions == []


def test_a_transparent_colour_of_a_palette_of_rgb_and_of_grey() -> None:
    """GIF and PNG name one colour as transparent: it is white as well."""
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for data in (
        stored(palette, "PNG", transparency=1),
        stored(palette, "GIF", transparency=1),
        stored(Image.new("RGB", (4, 4), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
        stored(Image.new("L", (4, 4), 9), "PNG", transparency=9),
    ):
        done = decode(data, 4)
        assert (done.pixels == 255).all() and "transparency over white" in done.conversions


def test_sixteen_bit_is_scaled_not_cut() -> None:
    """16-bit grey was white wherever it is above 255."""
    deep = Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16))
    for kind in ("PNG", "TIFF"):
        done = decode(stored(deep, kind), 2)
        assert done.pixels[:, :, 0].tolist() == [[0, 100], [200, 255]] and "16 bit to 8" in done.conversions


def test_sixteen_bit_of_several_channels_is_counted() -> None:
    """Pillow keeps the high byte of RGB of 16 bit itself; that it did is said."""
    pixel = b"\x00" + bytes([200, 1, 100, 2, 50, 3])  # no filter, then red, green and blue
    header = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    done = decode(a_png(header, pixel), 1)
    assert done.pixels[0, 0].tolist() == [200, 100, 50] and done.conversions == ["16 bit to 8"]


def a_png(header: bytes, pixels: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_whole_numbers_of_32_bit_are_16_bit_or_refused() -> None:
    wide = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert decode(stored(wide, "TIFF"), 1).conversions.count("16 bit to 8") == 1
    for low, high in ((-5, 10), (0, 70000), (0, 200)):
        with pytest.raises(ValueError, match=f"from {low} to {high}"):
            decode(stored(Image.fromarray(np.array([[low, high]], np.int32)), "TIFF"), 1)


def test_floats_from_0_to_1_are_scaled_and_others_refused() -> None:
    """A float TIFF of 0 to 1 was black."""
    done = decode(stored(Image.fromarray(np.array([[0, 0.5], [0.2, 1]], np.float32)), "TIFF"), 2)
    assert done.pixels[:, :, 0].tolist() == [[0, 128], [51, 255]] and "float to 8 bit" in done.conversions
    for values, said in (([[0.0, 255.0]], "from 0 to 255"), ([[-1.0, 1.0]], "from -1 to 1"), ([[0, np.nan]], "finite")):
        with pytest.raises(ValueError, match=said):
            decode(stored(Image.fromarray(np.array(values, np.float32)), "TIFF"), 2)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colours_become_rgb(mode: str) -> None:
    done = decode(stored(colours().convert(mode) if mode != "LAB" else lab(), "TIFF"), 8)
    assert done.pixels[0, 0, 0] > 180 > 90 > done.pixels[0, 0, 2] and f"{mode} to RGB" in done.conversions


def lab() -> Image.Image:
    from PIL import ImageCms

    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return ImageCms.profileToProfile(colours(), *profiles, outputMode="LAB")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_this_is_said(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    done = decode(stored(frames[0], kind, save_all=True, append_images=frames[1:]), 8)
    assert done.pixels[4, 4, 0] > 200 and done.conversions[0] == "first of several frames"


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (3, 1)])
def test_tiny_and_elongated_images(size: tuple[int, int]) -> None:
    done = decode(stored(Image.new("RGB", size, (9, 8, 7)), "PNG"), 16)
    assert (done.pixels == (9, 8, 7)).all() and done.source == size and "enlarged" in done.conversions
    assert ("more than half cropped away" in done.conversions) == (size != (1, 1))


def test_a_plain_image_is_as_it_was() -> None:
    """What needs no conversion keeps its pixels and its Lanczos: numbers of such sets do not change."""
    from PIL import ImageOps

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    done = decode(stored(noise, "PNG"), 16)
    assert (done.pixels == np.asarray(ImageOps.fit(noise, (16, 16), Image.Resampling.LANCZOS))).all()
    assert done.conversions == ["cropped to the centre square"]
    assert (decode(stored(noise.crop((0, 0, 30, 30)), "PNG"), 30).pixels == np.asarray(noise)[:30]).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_file_that_was_cut_off_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a library had Pillow pass half an image for one."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    whole = stored(noise, kind)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(whole[: len(whole) * 2 // 3], 64)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(whole[: len(whole) * 2 // 3], 64)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    return a_png(side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0]), b"\0")


def test_a_bomb_is_not_decoded() -> None:
    with pytest.raises(Exception, match="pixels"):
        decode(bomb(60_000), 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\0" * 100, "zeros"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"just text", "no image of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no image of a known kind"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(data, 8)


@pytest.mark.parametrize(
    "values",
    [
        np.full((5, 5), 7, np.uint8),
        np.full((5, 5, 1), 7, np.uint8),
        np.full((1, 5, 5), 7, np.uint8),
        np.full((5, 5, 3), 7, np.uint8),
        np.full((3, 5, 5), 7, np.uint8),
        np.full((5, 5, 3), 7 / 255, np.float32),
        np.full((5, 5, 3), 7, np.int64).tolist(),
        np.full((5, 5), 7, np.int64).tolist(),
    ],
    ids=lambda values: f"{type(values).__name__} {np.shape(values)}",
)
def test_arrays_and_lists(values: Any) -> None:
    assert (decode(values, 5).pixels == 7).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(784, np.uint8), r"shape \(784,\)"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \(5, 5, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.full((4, 4), 300), "from 300 to 300"),
        (np.full((4, 4), -1), "from -1 to -1"),
        (np.full((4, 4), 255.0), "from 255 to 255"),
        ([[1, 2], [3]], "different lengths"),
        ([["a", "b"]], "no image"),
        (7, "7 is no image"),
        (None, "None is no image"),
    ],
    ids=str,
)
def test_arrays_that_are_no_image(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(values, 4)


MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": [
        "1",
        "L",
        "LA",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "F",
        "I;16",
        "RGBX",
        "La",
        "RGBa",
        "PA",
        "I;16B",
    ],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["1", "L", "P"],
    "BMP": ["1", "L", "P", "RGB"],
    "TGA": ["L", "LA", "P", "RGB", "RGBA"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA"],
    "ICO": ["RGBA"],
}


KINDS = st.sampled_from([(kind, mode) for kind, modes in sorted(MODES.items()) for mode in modes])


@settings(max_examples=60, deadline=None)
@given(KINDS, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_every_mode_of_every_format_is_read_or_refused(written: tuple[str, str], size: tuple[int, int]) -> None:
    """Any mode that Pillow writes, of any size: uint8 RGB of the size wanted, or a sentence."""
    kind, mode = written
    image = Image.new(mode, size)
    try:
        content = stored(image, kind)
    except (OSError, KeyError, ValueError):
        return  # Pillow does not write it
    try:
        done = decode(content, 8)
    except (ValueError, OSError):
        return
    assert done.pixels.shape == (8, 8, 3) and done.pixels.dtype == np.uint8


def test_a_path_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(stored(colours(), "PNG"))
    assert (decode(tmp_path / "x.png", 8).pixels == np.asarray(colours())).all()
