"""Odd, large and damaged images."""

from __future__ import annotations

import os
import struct
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from segzero_ml.errors import ImageError
from segzero_ml.images import FORMATS, ImageLimits, decode_image, file_kind, load_image, read_size
from segzero_ml.types import ImageSize

ORIENTATION = 0x0112

# Stored as it must be for each EXIF orientation to come out as the upright picture.
UNDO = {
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}


def _picture(width: int = 48, height: int = 32) -> Image.Image:
    """Four quarters: red, green, blue, white."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def _saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(_saved(_picture(), kind))
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    for place, colour in {
        (8, 8): (255, 0, 0),
        (40, 8): (0, 255, 0),
        (8, 24): (0, 0, 255),
        (40, 24): (255, 255, 255),
    }.items():
        np.testing.assert_allclose(_pixel(image, *place), colour, atol=8)
    assert read_size(path) == ImageSize(48, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied_once(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = UNDO[orientation](_picture())
    path = tmp_path / "picture"
    path.write_bytes(_saved(stored, kind, exif=exif))
    image = load_image(path)
    assert image.size == (48, 32)
    np.testing.assert_allclose(_pixel(image, 8, 8), (255, 0, 0), atol=8)
    np.testing.assert_allclose(_pixel(image, 40, 8), (0, 255, 0), atol=8)
    assert not image.info
    assert not image.getexif()
    assert read_size(path) == ImageSize(48, 32)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def _with_xmp(kind: str, **options: object) -> bytes:
    """The picture, which its XMP says is to be turned."""
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return _saved(_picture(), "PNG", pnginfo=text, **options)
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = XMP
        return _saved(_picture(), kind, tiffinfo=tags, **options)
    return _saved(_picture(), kind, xmp=XMP, **options)


def _moved_behind_the_pixels(png: bytes, name: bytes) -> bytes:
    start = png.index(name) - 4
    chunk = png[start : start + 12 + struct.unpack(">I", png[start : start + 4])[0]]
    return png.replace(chunk, b"")[:-12] + chunk + png[-12:]  # IEND stays the last


def _turned_by_pillow_alone() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    as_text = PngImagePlugin.PngInfo()
    as_text.add_text(
        "Raw profile type exif", f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}"
    )
    late = _moved_behind_the_pixels(_saved(_picture(), "PNG", exif=exif), b"eXIf")
    return {
        **{f"XMP in {kind}": _with_xmp(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF")},
        "XMP behind the pixels": _moved_behind_the_pixels(_with_xmp("PNG"), b"iTXt"),
        "EXIF behind the pixels": late,
        "EXIF as text": _saved(_picture(), "PNG", pnginfo=as_text),
    }


@pytest.mark.parametrize("where", _turned_by_pillow_alone())
def test_an_orientation_that_browsers_do_not_know_is_ignored(where: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(_turned_by_pillow_alone()[where])
    with Image.open(path) as opened:
        opened.load()
        assert ImageOps.exif_transpose(opened).size == (32, 48)
    image = load_image(path)
    assert image.size == (48, 32)
    np.testing.assert_allclose(_pixel(image, 8, 8), (255, 0, 0), atol=8)
    np.testing.assert_allclose(_pixel(image, 40, 8), (0, 255, 0), atol=8)
    assert read_size(path) == ImageSize(48, 32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied_whatever_the_xmp_says(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    if kind == "TIFF":
        exif[700] = XMP
        data = _saved(_picture(), kind, exif=exif)
    else:
        data = _with_xmp(kind, exif=exif)
    path = tmp_path / "picture"
    path.write_bytes(data)
    image = load_image(path)
    assert image.size == (32, 48)
    np.testing.assert_allclose(_pixel(image, 8, 40), (255, 0, 0), atol=8)
    assert read_size(path) == ImageSize(32, 48)


def test_a_picture_that_any_tool_would_turn_is_not_kept_as_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    assert file_kind(_saved(_picture(), "JPEG")).is_upright
    assert file_kind(_with_xmp("JPEG", exif=exif)).is_upright
    assert not any(file_kind(data).is_upright for data in _turned_by_pillow_alone().values())


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = decode_image(_saved(_picture(), "PNG", exif=exif))
    assert _pixel(image, 8, 8) == (255, 0, 0)


def test_damaged_metadata_leaves_the_picture_as_it_is() -> None:
    data = _saved(_picture(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = decode_image(data)
    assert _pixel(image, 8, 8) == (255, 0, 0)


def test_a_palette_becomes_its_colours() -> None:
    image = decode_image(_saved(_picture().quantize(8)))
    np.testing.assert_allclose(_pixel(image, 40, 8), (0, 255, 0), atol=2)


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    paletted = Image.new("P", (4, 4), 0)
    paletted.putpalette([10, 20, 30, 200, 100, 0])
    paletted.putpixel((3, 3), 1)
    for kind in ("PNG", "GIF"):
        image = decode_image(_saved(paletted, kind, transparency=0))
        assert _pixel(image, 0, 0) == (255, 255, 255)
        assert _pixel(image, 3, 3) == (200, 100, 0)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 127), (128, 128, 128)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
    ],
)
def test_alpha_is_laid_on_white(
    mode: str, value: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    image = decode_image(_saved(Image.new(mode, (3, 2), value)))
    assert _pixel(image, 1, 1) == expected


def test_a_transparent_colour_without_an_alpha_channel_is_laid_on_white() -> None:
    image = decode_image(_saved(Image.new("RGB", (3, 2), (1, 2, 3)), transparency=(1, 2, 3)))
    assert _pixel(image, 1, 1) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    np.testing.assert_allclose(
        _pixel(decode_image(_saved(cyan, kind)), 5, 5), (0, 255, 255), atol=4
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_scale(kind: str) -> None:
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    image = decode_image(_saved(Image.fromarray(deep), kind))
    assert [_pixel(image, x, 0) for x in range(4)] == [(v, v, v) for v in (0, 1, 128, 255)]


def test_big_endian_sixteen_bits_keep_their_scale() -> None:
    deep = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0, 65535))
    image = decode_image(_saved(deep, "TIFF"))
    assert [_pixel(image, x, 0)[0] for x in range(2)] == [0, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_without_a_fixed_scale_is_stretched(dtype: type) -> None:
    grey = Image.fromarray(np.array([[-50, 0, 50]]).astype(dtype))
    image = decode_image(_saved(grey, "TIFF"))
    assert [_pixel(image, x, 0)[0] for x in range(3)] == [0, 128, 255]


def test_floating_point_that_is_not_finite_or_flat_is_still_an_image() -> None:
    values = np.array([[np.nan, np.inf, 0, 10]], dtype=np.float32)
    image = decode_image(_saved(Image.fromarray(values), "TIFF"))
    assert [_pixel(image, x, 0)[0] for x in range(4)] == [0, 0, 0, 255]
    flat = decode_image(_saved(Image.fromarray(np.full((2, 2), 7.0, np.float32)), "TIFF"))
    assert flat.getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_black_and_white_become_rgb(mode: str) -> None:
    image = decode_image(_saved(Image.new(mode, (3, 5), 255)))
    assert (image.mode, image.size) == ("RGB", (3, 5))
    assert _pixel(image, 2, 4) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert _pixel(decode_image(data), 4, 4) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (640, 17)])
def test_any_shape_is_kept(size: tuple[int, int]) -> None:
    assert decode_image(_saved(Image.new("RGB", size))).size == size


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_image_is_refused(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = _saved(Image.fromarray(noise), kind)
    for keep in (len(data) // 2, len(data) // 4, 20):
        with warnings.catch_warnings(), pytest.raises(ImageError):
            warnings.simplefilter("ignore")
            decode_image(data[:keep])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"P6 2 2 255\n" + bytes(12),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_what_is_no_image_of_the_list_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"format that is not supported.*PNG, JPEG"):
        decode_image(data)


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1), st.sampled_from(FORMATS))
def test_damaged_bytes_give_an_image_or_an_image_error(junk: bytes, seed: int, kind: str) -> None:
    data = bytearray(_saved(_picture(16, 12), kind))
    start = seed % len(data)
    data[start : start + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(bytes(data), ImageLimits(max_pixels=10_000))
        except ImageError:
            return
    assert image.mode == "RGB"


def test_too_many_bytes_are_refused_and_the_limit_is_named(tmp_path: Path) -> None:
    data = _saved(_picture())
    decode_image(data, ImageLimits(max_bytes=len(data)))
    with pytest.raises(ImageError, match=f"limit of {len(data) - 1} bytes"):
        decode_image(data, ImageLimits(max_bytes=len(data) - 1))
    path = tmp_path / "big.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"big\.png.*limit of 100 bytes"):
        load_image(path, ImageLimits(max_bytes=100))


def test_too_many_pixels_are_refused_and_the_limit_is_named(tmp_path: Path) -> None:
    data = _saved(_picture())
    decode_image(data, ImageLimits(max_pixels=48 * 32))
    with pytest.raises(ImageError, match=r"48 x 32.*limit of 1,535 pixels"):
        decode_image(data, ImageLimits(max_pixels=1535))
    path = tmp_path / "big.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"big\.png.*limit of 1,535 pixels"):
        read_size(path, ImageLimits(max_pixels=1535))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png cannot be read: No such file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match=r"none\.png cannot be read: No such file"):
        read_size(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.png.*not an image"):
        load_image(tmp_path / "text.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path / "pipe")
