"""The sample type, lazy sequences, and the draw of a part."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzero_ml.datasets import Sample, Samples, checked_folder, checked_request, chosen
from segzero_ml.errors import DatasetError


def _sample(number: int, taken: list[int]) -> Sample:
    taken.append(number)
    return Sample(
        image=lambda: Image.new("RGB", (1, 1)), request="x", masks=(), sample_id=str(number)
    )


def test_samples_are_made_only_when_they_are_taken() -> None:
    taken: list[int] = []
    samples = Samples([partial(_sample, number, taken) for number in range(5)])
    assert len(samples) == 5
    assert taken == []
    assert samples[3].sample_id == "3"
    assert samples[-1].sample_id == "4"
    assert taken == [3, 4]
    assert [sample.sample_id for sample in samples[1:3]] == ["1", "2"]
    assert [sample.sample_id for sample in samples] == ["0", "1", "2", "3", "4"]
    with pytest.raises(IndexError):
        samples[5]


@given(st.integers(0, 200), st.integers(1, 300), st.integers(0, 2**32))
def test_a_draw_is_ordered_without_repetition_and_repeatable(
    count: int, limit: int, seed: int
) -> None:
    drawn = chosen(count, limit, seed)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(count, limit)
    assert all(0 <= index < count for index in drawn)
    assert drawn == chosen(count, limit, seed)


def test_without_a_limit_everything_is_used() -> None:
    assert chosen(4, None, 7) == [0, 1, 2, 3]


def test_seeds_draw_different_samples_from_the_whole_range() -> None:
    draws = [chosen(1000, 10, seed) for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) == 20
    assert max(max(draw) for draw in draws) > 900


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(DatasetError, match="at least 1"):
        chosen(4, limit, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "must be text"), (3, "must be text"), ("  ", "empty"), ("x" * 2001, "2000")],
)
def test_a_request_that_no_reasoner_takes_is_refused(value: object, message: str) -> None:
    with pytest.raises(DatasetError, match=f"here: .*{message}"):
        checked_request(value, "here")


def test_a_request_is_kept_as_it_was_written() -> None:
    assert checked_request(" The Red Cup. ", "here") == " The Red Cup. "


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"There is no folder .*none"):
        checked_folder(tmp_path / "none")
    assert checked_folder(tmp_path) == tmp_path.resolve()
