"""Whether a text names a label: in any script, and in the plural where that is plain."""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum
from typing import Final

_UNSPACED: Final = (
    "\u0e00-\u109f"  # Thai, Lao, Tibetan, Burmese
    "\u1780-\u17ff"  # Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u312f\u3190-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\uff66-\uff9f"  # Chinese characters, Yi
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words."""

_HANGUL: Final = "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"
"""Korean puts spaces between words, but hangs particles on them."""

_STARTS: Final = rf"(?<![^\W{_UNSPACED}])"
_ENDS: Final = rf"(?![^\W{_UNSPACED}{_HANGUL}])"
_ENDS_IN_HANGUL: Final = rf"(?![^\W{_UNSPACED}])"

_is_unspaced: Final = re.compile(f"[{_UNSPACED}]").match
_is_hangul: Final = re.compile(f"[{_HANGUL}]").match
_SHORTEST_WITH_PLURAL: Final = 2  # "as" is not the plural of "a"


class Naming(IntEnum):
    """How well a text names something; more is better."""

    NOT = 0
    INFLECTED = 1
    EXACT = 2


def folded(text: str) -> str:
    """A text as it is compared: however its letters are composed, whatever their case."""
    composed = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", composed.casefold())


def naming(name: str, text: str) -> Naming:
    """How a text names something.

    A name must stand there as whole words, where its script parts words by spaces; a Latin one
    may have an English plural ending, a Korean one its particles.

    Args:
        name: As `folded` gives it.
        text: The same.
    """
    if not name:
        return Naming.NOT
    exact, inflected = _patterns(name)
    if re.search(exact, text):
        return Naming.EXACT
    if inflected is not None and re.search(inflected, text):
        return Naming.INFLECTED
    return Naming.NOT


def _patterns(name: str) -> tuple[str, str | None]:
    """What to search for: the name itself, and its other forms if it has any."""
    last = name[-1]
    begun = ("" if _is_unspaced(name[0]) else _STARTS) + re.escape(name)
    if _is_unspaced(last):
        return begun, None
    if _is_hangul(last):
        return begun + _ENDS_IN_HANGUL, begun
    if len(name) < _SHORTEST_WITH_PLURAL or not unicodedata.name(last, "").startswith("LATIN"):
        return begun + _ENDS, None
    stem = begun[:-1] + "(?:y|ie)" if last == "y" else begun + "e?"
    return begun + _ENDS, f"{stem}s{_ENDS}"
