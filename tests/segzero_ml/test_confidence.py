"""How sure a reasoner is of its answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.reasoner.confidence import confidence_of

chances = st.floats(0.001, 1.0).map(math.log)
tokens = st.lists(st.tuples(st.sampled_from(["a", " ring", ",", "12", " 7"]), chances))


def logs(*written: tuple[str, float]) -> list[tuple[str, float]]:
    return [(text, math.log(chance)) for text, chance in written]


def test_the_three_least_sure_words_and_the_mean_of_the_numbers_count() -> None:
    written = logs(("a", 1.0), ("b", 0.5), ("c", 0.25), ("d", 0.5), ("12", 0.2), ("7", 0.8))
    numbers = math.sqrt(0.2 * 0.8)
    assert confidence_of(written) == pytest.approx((0.5 * 0.25 * 0.5 * numbers) ** 0.25)


def test_one_unsure_word_among_hundreds_is_noticed() -> None:
    sure = [("word", math.log(0.999))] * 300
    assert confidence_of([*sure, ("no", math.log(0.5))]) < 0.85  # type: ignore[operator]


def test_an_unsure_coordinate_weighs_less_than_an_unsure_word() -> None:
    sure = logs(*[("word", 0.99)] * 9)
    word, number = ([*sure, *logs((text, 0.2))] for text in ("no", "57"))
    assert confidence_of(word) == pytest.approx((0.99 * 0.99 * 0.2) ** (1 / 3))
    assert confidence_of(number) == pytest.approx((0.99**3 * 0.2) ** 0.25)


def test_without_tokens_nothing_is_known() -> None:
    assert confidence_of([]) is None


def test_an_impossible_token_leaves_no_confidence() -> None:
    assert confidence_of([("a", -math.inf), ("b", 0.0)]) == 0


@given(tokens)
def test_confidence_is_a_probability(written: list[tuple[str, float]]) -> None:
    sure = confidence_of(written)
    assert sure is None if not written else 0 <= (sure or 0.0) <= 1
