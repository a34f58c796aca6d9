"""HTML that escapes by construction: text is text, only `Html` is markup.

The tags and the names of attributes are written in the code; everything else is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_VOID: Final = frozenset({"img", "meta"})
_NOT_SHOWN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that a page may not hold, and halves of characters, which no file may."""


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is ready to be written."""

    text: str


Content = Html | str | Iterable["Html | str"]


def el(tag: str, *children: Content, **attributes: str | float | None) -> Html:
    """One element.

    Args:
        tag: Its name.
        children: Markup as it is, text escaped, or several of them.
        attributes: `class_` is written `class`, `stroke_width` `stroke-width`; None is left
            out.
    """
    opening = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{opening}>")
    return Html(f"<{tag}{opening}>{join(*children).text}</{tag}>")


def join(*children: Content) -> Html:
    """Several pieces, one after the other."""
    parts = []
    for child in children:
        pieces = [child] if isinstance(child, Html | str) else child
        parts += [escaped(one) if isinstance(one, str) else one.text for one in pieces]
    return Html("".join(parts))


def foreign(text: str, longest: int = 600) -> Html:
    """Text that somebody else wrote: cut, and kept from turning its surroundings around."""
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return el("bdi", shown)


def escaped(text: str) -> str:
    """Text as it is written in a page, also between quotes."""
    return html.escape(_NOT_SHOWN.sub("\ufffd", text), quote=True)
