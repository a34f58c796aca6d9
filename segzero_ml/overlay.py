"""A picture of a prediction: masks, boxes, points and scores on the image, the note below."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from segzero_ml import masks
from segzero_ml.errors import ImageError, MaskError
from segzero_ml.lettering import Font, load_font, wrap
from segzero_ml.types import Box, Point, Prediction, Segment

_Rgb = tuple[int, int, int]

MIN_SIDE = 400
"""An image whose longer side is shorter is enlarged by a whole number to reach it."""

_MIN_WIDTH = 420  # of the picture, so that the note can be read beside a narrow image
_TINT = 0.36

_NIGHT: _Rgb = (22, 24, 29)
_WHITE: _Rgb = (255, 255, 255)
_INK: _Rgb = (16, 18, 22)
_TEXT: _Rgb = (206, 212, 222)
_FAINT: _Rgb = (138, 147, 161)
_AMBER: _Rgb = (255, 184, 77)

_COLOURS: tuple[_Rgb, ...] = (
    (0, 170, 255),
    (255, 64, 129),
    (76, 217, 100),
    (255, 149, 0),
    (175, 82, 222),
    (255, 214, 10),
    (0, 199, 190),
    (255, 69, 58),
    (88, 86, 214),
    (162, 210, 40),
    (172, 122, 82),
    (240, 130, 240),
)


def draw(image: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw a prediction for a person to look at.

    Every segment has a colour of its own for its tinted and outlined mask, its box, its
    points and its label (its number, when there are several, and its score). Below stand
    the request, the reasoning, and what is worth knowing about the prediction. A small
    image is enlarged by a whole number so that this can be read; a large one keeps its size.

    Args:
        image: The upright image that the prediction is about.
        prediction: What to draw.

    Returns:
        A new image of mode RGB, at least as large as `image`.

    Raises:
        ImageError: The image is not of the prediction's size.
        MaskError: A segment's mask is malformed or not of this size.
    """
    if image.size != (prediction.size.width, prediction.size.height):
        raise ImageError(
            f"The prediction is about an image of {prediction.size.width} x "
            f"{prediction.size.height} pixels, not {image.width} x {image.height}."
        )
    scale = max(1, math.ceil(MIN_SIDE / max(image.size)))
    # From some scale on, seeing the pixels helps more than smoothing them.
    resampling = Image.Resampling.BICUBIC if scale < 4 else Image.Resampling.NEAREST
    shown = image.convert("RGB").resize((image.width * scale, image.height * scale), resampling)
    line = max(2, round(min(shown.size) / 250))
    pixels = np.array(shown)
    for number, segment in enumerate(prediction.segments):
        _tint(pixels, segment, colour(number), scale, line)
    shown = Image.fromarray(pixels)
    _annotate(shown, prediction, scale, line)
    return _with_note(shown, prediction)


def colour(number: int) -> tuple[int, int, int]:
    """Colour of segment `number`, counted from 0: red, green, blue in 0..255.

    The first twelve are chosen by hand; later ones are the same, ever darker or lighter.
    """
    lap, place = divmod(number, len(_COLOURS))
    if not lap:
        return _COLOURS[place]
    target = 0 if lap % 2 else 255
    share = 0.35 + 0.3 * (1 - 0.7 ** (lap // 2))
    red, green, blue = (round(c + (target - c) * share) for c in _COLOURS[place])
    return red, green, blue


def _tint(pixels: NDArray[np.uint8], segment: Segment, paint: _Rgb, scale: int, line: int) -> None:
    """Tint a segment's mask in `pixels`, uint8 (height, width, 3), and outline it."""
    mask = masks.decode(segment.rle)
    if (mask.shape[0] * scale, mask.shape[1] * scale) != pixels.shape[:2]:
        raise MaskError(
            f"A mask of {mask.shape[1]} x {mask.shape[0]} pixels does not fit the image."
        )
    box = masks.bounding_box_px(mask)
    if box is None:
        return
    halo = max(1, line // 2)
    x1, y1, x2, y2 = (int(edge) for edge in box.as_tuple())
    enlarged = np.repeat(np.repeat(mask[y1:y2, x1:x2], scale, axis=0), scale, axis=1)
    inside = np.pad(enlarged.astype(np.uint8), halo)
    core = ndimage.minimum_filter(inside, 2 * line + 1, mode="constant")
    around = ndimage.maximum_filter(inside, 2 * halo + 1, mode="constant")

    # The padded window may reach over the image's border: cut both to what is inside.
    top, left = y1 * scale - halo, x1 * scale - halo
    rows = slice(max(0, -top), min(inside.shape[0], pixels.shape[0] - top))
    columns = slice(max(0, -left), min(inside.shape[1], pixels.shape[1] - left))
    window = pixels[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    inside, core, around = (part[rows, columns] for part in (inside, core, around))
    window[core == 1] = np.rint(window[core == 1] * (1 - _TINT) + np.array(paint) * _TINT).astype(
        np.uint8
    )
    window[(inside == 1) & (core == 0)] = paint
    window[(around == 1) & (inside == 0)] = _WHITE


def _annotate(shown: Image.Image, prediction: Prediction, scale: int, line: int) -> None:
    """Draw boxes, points and labels; the labels last, so that nothing crosses them."""
    pen = ImageDraw.Draw(shown)
    font = load_font(min(64, max(14, round(min(shown.size) / 28))))
    for number, segment in enumerate(prediction.segments):
        _draw_box(pen, _scaled(segment.box_px, scale), colour(number), line)
    taken: list[Box] = []
    for number, segment in enumerate(prediction.segments):
        for point in segment.points_px:
            place = Point(point.x * scale, point.y * scale)
            taken.append(_draw_point(pen, place, colour(number), line))
    for number, segment in enumerate(prediction.segments):
        score = f"{segment.score:.2f}"
        text = score if len(prediction.segments) == 1 else f"{number + 1} · {score}"
        box = _scaled(segment.box_px, scale)
        taken.append(_draw_label(pen, text, font, box, colour(number), taken, shown.size))


def _scaled(box_px: Box, scale: int) -> Box:
    return Box(*(edge * scale for edge in box_px.as_tuple()))


def _draw_box(pen: ImageDraw.ImageDraw, box: Box, paint: _Rgb, line: int) -> None:
    x1, y1 = round(box.x1), round(box.y1)
    x2, y2 = max(x1, round(box.x2) - 1), max(y1, round(box.y2) - 1)
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_INK, width=line + 2)
    pen.rectangle((x1, y1, x2, y2), outline=paint, width=line)


def _draw_point(pen: ImageDraw.ImageDraw, point: Point, paint: _Rgb, line: int) -> Box:
    """Draw a point as a ringed dot; returns where it stands."""
    for radius, fill in ((4 * line, _INK), (3.5 * line, _WHITE), (2.5 * line, paint)):
        pen.ellipse(_square(point, radius).as_tuple(), fill=fill)
    return _square(point, 4 * line)


def _square(center: Point, radius: float) -> Box:
    return Box(center.x - radius, center.y - radius, center.x + radius, center.y + radius)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: Font,
    box: Box,
    paint: _Rgb,
    taken: list[Box],
    size: tuple[int, int],
) -> Box:
    """Draw a label at a corner of its box, free of others if one is; returns where it stands."""
    # Whole pixels: the glyphs of a text drawn between two are cut off.
    left, top, right, bottom = (round(edge) for edge in pen.textbbox((0, 0), text, font=font))
    margin = max(3, round((bottom - top) * 0.38))
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    places = [Box(x, y, x + width, y + height) for x, y in _label_corners(box, width, height, size)]
    place = min(places, key=lambda spot: sum(_shared_area(spot, other) for other in taken))
    pen.rounded_rectangle(place.as_tuple(), radius=margin, fill=paint, outline=_INK)
    ink = _INK if sum(w * c for w, c in zip((3, 6, 1), paint, strict=True)) > 1250 else _WHITE
    pen.text((place.x1 + margin - left, place.y1 + margin - top), text, fill=ink, font=font)
    return place


def _label_corners(
    box: Box, width: float, height: float, size: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Top left corners for a label, best first, moved so that it stays in the image."""
    for y in (box.y1 - height, box.y2, box.y1, box.y2 - height):
        for x in (box.x1, box.x2 - width, box.x2):
            yield (
                round(max(0.0, min(x, size[0] - 1 - width))),
                round(max(0.0, min(y, size[1] - 1 - height))),
            )


def _shared_area(a: Box, b: Box) -> float:
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    return max(0.0, width) * max(0.0, height)


def _with_note(shown: Image.Image, prediction: Prediction) -> Image.Image:
    """Put the image on a canvas with the note on a strip below."""
    width = max(shown.width, _MIN_WIDTH)
    size = min(72, max(15, round(width / 44)))
    margin = size
    lines = list(_note(prediction, size, width - 2 * margin))
    strip = 2 * margin + sum(height for _, _, _, height in lines)
    canvas = Image.new("RGB", (width, shown.height + strip), _NIGHT)
    canvas.paste(shown, ((width - shown.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    y = shown.height + margin
    for text, font, paint, height in lines:
        pen.text((margin, y), text, fill=paint, font=font)
        y += height
    return canvas


def _note(prediction: Prediction, size: int, width: int) -> Iterator[tuple[str, Font, _Rgb, int]]:
    """Lines of the note: text, font, colour, and height in pixels."""
    facts = [f"score {prediction.score:.2f}"]
    if len(prediction.segments) > 1:
        facts.append(f"{len(prediction.segments)} segments")
    facts.append(prediction.model_version)
    if prediction.seconds:
        facts.append(f"{prediction.seconds:.2f} s")
    paragraphs: list[tuple[str, int, _Rgb]] = [
        (f"“{prediction.request}”", round(size * 1.2), _WHITE),
        (prediction.reasoning, size, _TEXT),
    ]
    if prediction.problem is not None:
        paragraphs.append((f"No answer: {prediction.problem}", size, _AMBER))
    elif not prediction.segments:
        paragraphs.append(("Nothing in the image matches.", size, _AMBER))
    paragraphs.append((" · ".join(facts), round(size * 0.85), _FAINT))
    for text, font_size, paint in paragraphs:
        font = load_font(font_size)
        wrapped = wrap(text, font, width)
        for number, line in enumerate(wrapped, start=1):
            gap = 0.6 if number == len(wrapped) else 0.0
            yield line, font, paint, round(font_size * (1.35 + gap))
