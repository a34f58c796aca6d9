"""A picture of a correction: what was predicted, what is true, and where they differ.

The colours are two that the colour-blind tell apart as well, blue for the prediction and
orange for the truth; where one of them stands alone it is striped, each in its own direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from segzero_ml import masks
from segzero_ml.corrections import Correction, LabelledSegment
from segzero_ml.errors import ImageError
from segzero_ml.lettering import Font, load_font, wrap
from segzero_ml.types import BoolMask, ImageSize, Rle

_Rgb = tuple[int, int, int]

BLUE: _Rgb = (86, 180, 233)
"""What was predicted, and what of it is too much. From the palette of Okabe and Ito."""
ORANGE: _Rgb = (230, 159, 0)
"""What is true, and what of it was missed."""
WHITE: _Rgb = (255, 255, 255)
"""Where both agree."""

LONGEST_SIDE = 560
"""Of a panel, in pixels: larger images are made smaller."""
SHORTEST_SIDE = 320
"""Of a panel's longer side: smaller images are enlarged by a whole number."""

_NIGHT: _Rgb = (22, 24, 29)
_PLAIN: _Rgb = (96, 99, 104)
_TEXT: _Rgb = (206, 212, 222)
_FAINT: _Rgb = (150, 158, 170)
_AMBER: _Rgb = (255, 184, 77)
_TINT = 0.45
_GAP = 16
_STRIPE = 8
_NO_SIZE = ImageSize(320, 240)

_KINDS: tuple[tuple[str, _Rgb, int], ...] = (
    ("agreed", WHITE, 0),
    ("missed", ORANGE, 1),
    ("too much", BLUE, -1),
)
"""Parts of the difference: name, colour, and which way its stripes go."""


class _Paragraph(NamedTuple):
    text: str
    size: int
    paint: _Rgb


def draw(correction: Correction, image: Image.Image | None = None, remark: str = "") -> Image.Image:
    """Draw a correction for a person to look at.

    Three panels: the prediction, the truth, and the difference (agreement white, missed parts
    in orange stripes, surplus in blue stripes), each with its numbers; above them which
    annotation it is, its verdict and IoU, and what was asked; below the note as shown and as
    edited.

    Args:
        correction: What to draw.
        image: Its upright image; None draws on a plain ground.
        remark: Something to say about the image, such as why there is none.

    Returns:
        A new image of mode RGB.

    Raises:
        ImageError: The image is not of the correction's size.
        MaskError: A mask is malformed.
    """
    size = correction.size or (ImageSize(*image.size) if image is not None else _NO_SIZE)
    if image is not None and image.size != (size.width, size.height):
        raise ImageError(
            f"The correction is about an image of {size.width} x {size.height} pixels, not "
            f"{image.width} x {image.height}."
        )
    shown = _panel_size(size)
    ground = _ground(image, shown)
    predicted, true = (
        _union(segments, size) for segments in (correction.predicted, correction.corrected)
    )
    panels = (
        (_tinted(ground, correction.predicted, BLUE), _counted("Predicted", correction.predicted)),
        (
            _tinted(ground, correction.corrected, ORANGE),
            _counted("Corrected", correction.corrected),
        ),
        (_difference(ground, predicted, true), "Difference"),
    )
    picture = _row(panels, _legends(predicted, true))
    return _framed(picture, list(_above(correction, remark)), list(_below(correction)))


def difference(image: Image.Image, predicted: Sequence[Rle], true: Sequence[Rle]) -> Image.Image:
    """Draw only where masks agree and differ, on the image in dark grey.

    Args:
        image: The upright image.
        predicted: What a model cut, in the image's size.
        true: What is right, in the image's size.

    Returns:
        A new image of mode RGB: agreement white, missed parts in orange stripes, surplus in
        blue stripes.

    Raises:
        MaskError: A mask is malformed or not of the image's size.
    """
    size = ImageSize(*image.size)
    found, right = (masks.union(map(masks.decode, rles), size) for rles in (predicted, true))
    return _difference(_ground(image, _panel_size(size)), found, right)


def _panel_size(size: ImageSize) -> tuple[int, int]:
    longer = max(size.width, size.height)
    if longer > LONGEST_SIDE:
        factor = LONGEST_SIDE / longer
        return max(1, round(size.width * factor)), max(1, round(size.height * factor))
    scale = max(1, math.ceil(SHORTEST_SIDE / longer))
    return size.width * scale, size.height * scale


def _ground(image: Image.Image | None, shown: tuple[int, int]) -> Image.Image:
    if image is None:
        return Image.new("RGB", shown, _PLAIN)
    shrinks = shown[0] < image.width
    way = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    return image.convert("RGB").resize(shown, way)


def _union(segments: Sequence[LabelledSegment], size: ImageSize) -> BoolMask:
    return masks.union((masks.decode(segment.rle) for segment in segments), size)


def _scaled(mask: BoolMask, shown: tuple[int, int]) -> BoolMask:
    """A mask at a panel's size: where at least half of a pixel is inside."""
    small = Image.fromarray(mask.astype(np.uint8) * 255)
    way = Image.Resampling.BOX if shown[0] < small.width else Image.Resampling.NEAREST
    return np.asarray(small.resize(shown, way)) >= 128


def _tinted(ground: Image.Image, segments: Sequence[LabelledSegment], paint: _Rgb) -> Image.Image:
    """Each segment tinted and outlined, so that neighbours can be told apart."""
    pixels = np.array(ground)
    for segment in segments:
        mask = _scaled(masks.decode(segment.rle), ground.size)
        inner = ndimage.minimum_filter(mask, 5, mode="constant")
        outer = ndimage.maximum_filter(mask, 3, mode="constant")
        _mix(pixels, inner, paint, _TINT)
        _mix(pixels, mask & ~inner, paint, 1.0)
        _mix(pixels, outer & ~mask, WHITE, 1.0)
    return Image.fromarray(pixels)


def _difference(ground: Image.Image, predicted: BoolMask, true: BoolMask) -> Image.Image:
    """Agreement and both kinds of difference, on a dark and colourless ground."""
    grey = np.asarray(ground.convert("L"), dtype=np.float64) * 0.45
    pixels = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    parts = (true & predicted, true & ~predicted, predicted & ~true)
    for part, (_, paint, way) in zip(parts, _KINDS, strict=True):
        _paint(pixels, _scaled(part, ground.size), paint, way)
    return Image.fromarray(pixels)


def _paint(pixels: NDArray[np.uint8], mask: BoolMask, paint: _Rgb, way: int) -> None:
    """Fill a mask: evenly, or with stripes that rise (1) or fall (-1)."""
    if not way:
        _mix(pixels, mask, paint, 0.5)
        return
    rows, columns = np.indices(mask.shape)
    stripes = (columns + way * rows) % _STRIPE < _STRIPE // 2
    _mix(pixels, mask & stripes, paint, 1.0)
    _mix(pixels, mask & ~stripes, paint, 0.45)


def _mix(pixels: NDArray[np.uint8], mask: BoolMask, paint: _Rgb, share: float) -> None:
    mixed = pixels[mask] * (1 - share) + np.array(paint) * share
    pixels[mask] = np.rint(mixed).astype(np.uint8)


def _counted(what: str, segments: Sequence[LabelledSegment]) -> str:
    number = len(segments)
    objects = "nothing" if not number else f"{number} object{'' if number == 1 else 's'}"
    labels = ", ".join(sorted({segment.label for segment in segments if segment.label}))
    return f"{what}: {objects}" + (f" ({labels})" if labels else "")


def _legends(predicted: BoolMask, true: BoolMask) -> list[str]:
    """What the colours of the difference mean, in pixels and as a share of both together."""
    parts = (true & predicted, true & ~predicted, predicted & ~true)
    counts = [int(np.count_nonzero(part)) for part in parts]
    joined = sum(counts)
    return [
        f"{name} {number:,} px" + (f" ({number / joined:.0%})" if joined else "")
        for (name, *_), number in zip(_KINDS, counts, strict=True)
    ]


def _row(panels: Sequence[tuple[Image.Image, str]], legends: Sequence[str]) -> Image.Image:
    """The panels beside each other, their titles above, the legend below the last one."""
    width, height = panels[0][0].size
    font = load_font(15)
    column = max(width, 260)
    line = 22
    row = Image.new("RGB", (3 * column + 2 * _GAP, 2 * line + height + line * len(legends)), _NIGHT)
    pen = ImageDraw.Draw(row)
    for place, (panel, title) in enumerate(panels):
        left = place * (column + _GAP)
        pen.text((left, 0), _cut(title, font, column), fill=_TEXT, font=font)
        row.paste(panel, (left, line + 4))
    left = 2 * (column + _GAP)
    for number, (text, (_, paint, way)) in enumerate(zip(legends, _KINDS, strict=True)):
        y = line + 4 + height + 8 + number * line
        swatch = np.zeros((16, 16, 3), dtype=np.uint8)
        _paint(swatch, np.ones((16, 16), dtype=np.bool_), paint, way)
        row.paste(Image.fromarray(swatch), (left, y + 1))
        pen.text((left + 22, y), _cut(text, font, column - 22), fill=_TEXT, font=font)
    return row


def _cut(text: str, font: Font, width: int) -> str:
    """The first line that a text fills; "…" at its end stands for the rest."""
    lines = wrap(text, font, width)
    if len(lines) < 2:
        return lines[0] if lines else ""
    return wrap(lines[0], font, width - round(font.getlength("…")))[0] + "…"


def _above(correction: Correction, remark: str) -> Iterator[_Paragraph]:
    iou = "" if correction.edit_iou is None else f" · IoU {correction.edit_iou:.2f}"
    verdict = correction.verdict.value.replace("_", " ")
    yield _Paragraph(f"Annotation {correction.key.annotation} · {verdict}{iou}", 24, WHITE)
    yield _Paragraph(" ".join(f"“{request}”" for request in correction.requests), 18, WHITE)
    facts = [f"project {correction.key.project}", f"task {correction.task}"]
    if correction.model_version is not None:
        facts.append(correction.model_version)
    if correction.annotator is not None:
        facts.append(f"user {correction.annotator}")
    if correction.lead_time_s is not None:
        facts.append(f"{correction.lead_time_s:.1f} s")
    facts.append(f"{correction.revision.updated_at:%Y-%m-%d %H:%M}")
    yield _Paragraph(" · ".join(facts), 14, _FAINT)
    if remark:
        yield _Paragraph(remark, 15, _AMBER)


def _below(correction: Correction) -> Iterator[_Paragraph]:
    shown, edited = correction.note_shown, correction.note_edited
    yield _Paragraph("Note as shown", 14, BLUE if shown else _FAINT)
    yield _Paragraph(shown or "There was none.", 16, _TEXT if shown else _FAINT)
    yield _Paragraph("Note as edited", 14, ORANGE if edited else _FAINT)
    if edited == shown and shown:
        yield _Paragraph("It was left as it was.", 16, _FAINT)
    else:
        yield _Paragraph(edited or "There is none.", 16, _TEXT if edited else _FAINT)


def _framed(
    picture: Image.Image, above: Sequence[_Paragraph], below: Sequence[_Paragraph]
) -> Image.Image:
    """The panels between two blocks of text."""
    texts = [list(_lines(block, picture.width)) for block in (above, below)]
    heights = [sum(height for *_, height in block) for block in texts]
    canvas = Image.new(
        "RGB", (picture.width + 2 * _GAP, picture.height + sum(heights) + 4 * _GAP), _NIGHT
    )
    pen = ImageDraw.Draw(canvas)
    canvas.paste(picture, (_GAP, heights[0] + 2 * _GAP))
    for block, top in zip(texts, (_GAP, heights[0] + picture.height + 3 * _GAP), strict=True):
        y = top
        for text, font, paint, height in block:
            pen.text((_GAP, y), text, fill=paint, font=font)
            y += height
    return canvas


def _lines(paragraphs: Sequence[_Paragraph], width: int) -> Iterator[tuple[str, Font, _Rgb, int]]:
    for text, size, paint in paragraphs:
        font = load_font(size)
        wrapped = wrap(text, font, width)
        for number, line in enumerate(wrapped, start=1):
            yield line, font, paint, round(size * (1.7 if number == len(wrapped) else 1.3))
