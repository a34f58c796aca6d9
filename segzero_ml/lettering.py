"""Text in pictures: broken into lines, with letters that the font has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MAX_CHARACTERS = 4000
_MAX_LINES = 40

_MISSING = "\uffff"  # drawn as the box that stands for every letter a font lacks


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Break a text into lines that are at most `width` pixels wide.

    White space is collapsed, letters that the font lacks lose their accents, and a word
    that is too long is broken. What is beyond 40 lines or 4000 characters is left out and
    shown as "…".
    """
    words = "".join(_drawable(c, font) for c in text[:_MAX_CHARACTERS]).split()
    if len(text) > _MAX_CHARACTERS:
        words.append("…")
    lines: list[str] = []
    current = ""
    for word in words:
        for piece in _pieces(word, font, width):
            longer = f"{current} {piece}" if current else piece
            if current and font.getlength(longer) > width:
                lines.append(current)
                current = piece
            else:
                current = longer
    lines += [current] if current else []
    return lines if len(lines) <= _MAX_LINES else [*lines[: _MAX_LINES - 1], "…"]


def _pieces(word: str, font: Font, width: float) -> Iterator[str]:
    """Cut a word so that each piece fits, with at least one character each."""
    while word:
        end = len(word)
        while end > 1 and font.getlength(word[:end]) > width:
            end = max(1, min(end - 1, round(end * width / font.getlength(word[:end]))))
        yield word[:end]
        word = word[end:]


@lru_cache(maxsize=4096)
def _drawable(character: str, font: Font) -> str:
    """What to draw for a character: itself, else the plain letter under its accents."""
    if not character.isprintable():
        return " "
    if character.isascii() or _shape(character, font) != _shape(_MISSING, font):
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return plain or character


def _shape(character: str, font: Font) -> bytes:
    return bytes(font.getmask(character))


@lru_cache(maxsize=32)
def load_font(size: int) -> Font:
    """Pillow's own letters, `size` pixels high: no file of the system is needed."""
    return ImageFont.load_default(size)
