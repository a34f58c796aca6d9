"""Text in pictures: lines that fit, letters that can be drawn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segzero_ml import lettering


@given(st.text(max_size=120), st.integers(20, 300))
def test_wrapped_lines_fit_and_keep_the_words(text: str, width: int) -> None:
    font = lettering.load_font(15)
    lines = lettering.wrap(text, font, width)
    assert all(line and (font.getlength(line) <= width or len(line) == 1) for line in lines)
    if text.isascii() and text.isprintable():
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_long_text_ends_in_an_ellipsis() -> None:
    font = lettering.load_font(15)
    assert lettering.wrap("word " * 5000, font, 2000)[-1].endswith("…")
    lines = lettering.wrap("word " * 700, font, 60)
    assert len(lines) == 40
    assert lines[-1] == "…"


def test_letters_that_the_font_lacks_lose_their_accents() -> None:
    assert lettering.wrap("Käse à la crème", lettering.load_font(15), 900) == ["Kase a la creme"]
