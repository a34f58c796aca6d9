"""The split and the mix of a snapshot: what holds for all numbers."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.corrections import Correction
from segzero_ml.errors import ConfigError, InputError
from tests.training_hooks.store_samples import PROJECT, correction
from training_hooks.snapshot import SnapshotOptions, is_held_out
from training_hooks.snapshot_manifest import snapshot_id
from training_hooks.snapshot_options import keep_held_out, keep_to_train, mix

hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
counts = st.integers(0, 500)


@st.composite
def any_options(draw: st.DrawFn) -> SnapshotOptions:
    older = draw(st.floats(0, 0.95))
    accepted = draw(st.floats(0, 0.96 - older))
    return SnapshotOptions(older_share=older, accepted_share=accepted, small=draw(counts))


@given(hashes, st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_with_a_greater_share_what_is_held_out_stays_so(
    sha256: str, salt: str, share: float, other: float
) -> None:
    small, great = sorted((share, other))
    assert not is_held_out(sha256, salt, 0)
    assert is_held_out(sha256, salt, 1)
    if is_held_out(sha256, salt, small):
        assert is_held_out(sha256, salt, great)


def test_the_split_of_an_image_is_this_one_for_ever() -> None:
    """Were these to change, images that were trained on would come to be held out."""
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(40)]
    held_out = [n for n, name in enumerate(names) if is_held_out(name, "segzero", 0.2)]
    assert held_out == [11, 28, 33]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_that_is_held_out_is_about_the_one_asked_for(share: float) -> None:
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    found = sum(is_held_out(name, "salt", share) for name in names) / len(names)
    assert found == pytest.approx(share, abs=0.02)


def test_what_is_no_hash_has_no_side() -> None:
    with pytest.raises(InputError):
        is_held_out("picture.png", "segzero", 0.2)


@given(counts, counts, counts, any_options())
def test_the_mix_takes_what_there_is_and_accepted_ones_never_beyond_their_share(
    new: int, older: int, accepted: int, options: SnapshotOptions
) -> None:
    take_older, take_accepted = mix(new, older, accepted, options)
    assert 0 <= take_older <= older
    assert 0 <= take_accepted <= accepted
    whole = new + take_older + take_accepted
    assert take_accepted <= options.accepted_share * whole + 1e-6
    if new + older <= options.small:
        assert take_older == older


@given(counts, counts, counts, any_options())
def test_older_corrections_get_their_share_where_there_are_enough(
    new: int, older: int, accepted: int, options: SnapshotOptions
) -> None:
    take_older, take_accepted = mix(new, older, accepted, options)
    if take_older < older:
        assert take_older >= options.older_share * (new + take_older + take_accepted) - 1e-6


@given(counts, counts, counts, any_options())
def test_more_older_ones_never_crowd_out_new_ones_beyond_a_small_round(
    new: int, older: int, accepted: int, options: SnapshotOptions
) -> None:
    take_older, _ = mix(new, older, accepted, options)
    share = options.older_share / (1 - options.older_share - options.accepted_share)
    assert take_older <= max(options.small - new, share * new + 1)


def test_by_default_half_of_a_large_round_is_new() -> None:
    assert mix(5000, 50_000, 50_000, SnapshotOptions()) == (3000, 2000)
    assert mix(40, 100, 0, SnapshotOptions()) == (100, 0)
    assert mix(0, 100, 100, SnapshotOptions()) == (100, 25)


def test_by_default_a_few_new_corrections_do_not_push_out_the_many_older_ones() -> None:
    # Each round starts at the base: what it is not shown again it does not know.
    assert mix(50, 1000, 0, SnapshotOptions()) == (1000, 0)
    assert mix(50, 5000, 0, SnapshotOptions()) == (1950, 0)


def some(first: int, count: int) -> list[Correction]:
    return [correction(number) for number in range(first, first + count)]


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_draw_hangs_on_the_seed_and_not_on_the_order(chance: Random, seed: int) -> None:
    new, older, accepted = some(1, 10), some(100, 50), some(200, 50)
    options = SnapshotOptions(small=0, seed=seed)
    kept = keep_to_train(new, older, accepted, options)
    for each in (new, older, accepted):
        chance.shuffle(each)
    again = keep_to_train(new, older, accepted, options)
    ids = {one.key.annotation for one in kept}
    assert ids == {one.key.annotation for one in again}
    assert len(ids) == 10 + 6 + 4


def test_another_seed_draws_others() -> None:
    draws = {
        tuple(one.key.annotation for one in keep_to_train(some(1, 10), some(100, 50), [], options))
        for options in (SnapshotOptions(small=0, seed=seed) for seed in range(5))
    }
    assert len(draws) == 5


@given(
    st.lists(hashes, min_size=1, max_size=40, unique=True), st.integers(1, 10), st.integers(1, 39)
)
def test_of_too_many_held_out_ones_the_same_images_stay(
    found: list[str], most: int, before: int
) -> None:
    pairs = [(correction(number), sha256) for number, sha256 in enumerate(found, start=1)]
    options = SnapshotOptions(held_out_most=most)
    earlier = {one.key for one in keep_held_out(pairs[:before], options)}
    kept = {one.key for one in keep_held_out(pairs[::-1], options)}
    assert len(kept) == min(most, len(found))
    assert all(key in earlier for key in kept if key.annotation <= before)


@given(st.lists(hashes, min_size=12, max_size=12, unique=True))
def test_held_out_images_stay_when_people_annotate_them_anew(found: list[str]) -> None:
    options = SnapshotOptions(held_out_most=6)

    def kept(first: int) -> set[str]:
        pairs = [(correction(n), sha256) for n, sha256 in enumerate(found, start=first)]
        ids = {one.key.annotation for one in keep_held_out(pairs, options)}
        return {sha256 for one, sha256 in pairs if one.key.annotation in ids}

    assert kept(1) == kept(100)


def test_each_round_is_judged_by_the_same_corrections_of_an_image() -> None:
    pairs = [(correction(number), "ab" * 32) for number in range(1, 30)]
    kept = {
        tuple(one.key for one in keep_held_out(pairs, SnapshotOptions(held_out_most=3, seed=seed)))
        for seed in range(5)
    }
    assert len(kept) == 1


@given(st.lists(st.text(max_size=5), max_size=10), st.randoms(use_true_random=False))
def test_an_id_hangs_on_the_records_and_not_on_their_order(
    lines: list[str], chance: Random
) -> None:
    known = snapshot_id(lines, PROJECT, SnapshotOptions(), "1")
    shuffled = chance.sample(lines, len(lines))
    assert snapshot_id(shuffled, PROJECT, SnapshotOptions(), "1") == known
    assert snapshot_id([*lines, "one more"], PROJECT, SnapshotOptions(), "1") != known
    assert snapshot_id(lines, PROJECT, SnapshotOptions(), "2") != known


@pytest.mark.parametrize(
    "wrong",
    [
        {"held_out_share": 0.0},
        {"held_out_share": 1.0},
        {"held_out_share": float("nan")},
        {"held_out_most": 0},
        {"older_share": 0.6, "accepted_share": 0.4},
        {"older_share": -0.1},
        {"accepted_share": float("nan")},
        {"small": -1},
        {"salt": "s" * 200},
    ],
)
def test_options_out_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SnapshotOptions(**wrong)  # type: ignore[arg-type]
