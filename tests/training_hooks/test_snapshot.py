"""Snapshots: real files in a folder, made from corrections, read back and checked."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segzero_ml.corrections import Correction, Revision, Verdict
from segzero_ml.errors import DatasetError, InputError
from segzero_ml.images import read_size
from segzero_ml.types import Rle
from tests.training_hooks.snapshot_world import SIZE, Studio, mask, picture
from tests.training_hooks.store_samples import MORNING
from training_hooks.snapshot import (
    Example,
    Reason,
    Side,
    Snapshot,
    SnapshotOptions,
    build_snapshot,
    is_held_out,
)
from training_hooks.store_values import News

OPTIONS = SnapshotOptions()


@pytest.fixture
def studio() -> Studio:
    return Studio()


def build(
    corrections: list[Correction],
    studio: Studio,
    folder: Path,
    options: SnapshotOptions = OPTIONS,
    news: News | None = None,
) -> Snapshot:
    return build_snapshot(corrections, studio.fetch, folder, options, news)


def both(snapshot: Snapshot) -> tuple[Example, ...]:
    return snapshot.train + snapshot.held_out


def reasons(snapshot: Snapshot) -> dict[int, Reason]:
    return {one.annotation: one.reason for one in snapshot.left_out}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_snapshot_holds_every_request_with_its_truth_and_its_image(
    studio: Studio, tmp_path: Path
) -> None:
    two = ("the red star", "the blue ring")
    snapshot = build(
        [
            studio.corrected(1, second=1, requests=two),
            studio.corrected(2, verdict=Verdict.NOTHING_HERE),
            *(studio.corrected(number) for number in range(3, 30)),
        ],
        studio,
        tmp_path,
    )
    found = {(one.annotation, one.request): one for one in both(snapshot)}
    assert len(found) == len(both(snapshot)) == 30
    star, ring = (found[1, request] for request in two)
    assert star.true_masks == (mask(),)
    assert ring.true_masks == found[2, "the red star"].true_masks == ()
    assert (star.task, star.verdict, star.size) == (1, Verdict.EDITED, SIZE)
    assert star.updated_at == "2026-03-01T08:00:01+00:00"
    for one in both(snapshot):
        data = (snapshot.folder / one.image_file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one.image_sha256
        assert read_size(snapshot.folder / one.image_file) == SIZE


def test_images_are_on_one_side_only_and_the_sides_are_about_as_large_as_asked(
    studio: Studio, tmp_path: Path
) -> None:
    snapshot = build([studio.corrected(n) for n in range(1, 201)], studio, tmp_path)
    train, held_out = (
        {one.image_sha256 for one in side} for side in (snapshot.train, snapshot.held_out)
    )
    assert not train & held_out
    assert 25 <= len(held_out) <= 55
    assert len(train) + len(held_out) == 200


def test_what_is_opened_is_what_was_built(studio: Studio, tmp_path: Path) -> None:
    built = build([studio.corrected(n) for n in range(1, 20)], studio, tmp_path)
    assert Snapshot.open(built.folder) == built
    assert built.folder == tmp_path / built.id
    assert len(built.id) == 16


def test_a_snapshot_can_be_copied_by_itself(studio: Studio, tmp_path: Path) -> None:
    built = build([studio.corrected(n) for n in range(1, 10)], studio, tmp_path / "here")
    for name, data in files_of(built.folder).items():
        path = tmp_path / "there" / built.id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert Snapshot.open(tmp_path / "there" / built.id).train == built.train


def test_the_manifest_counts_and_says_up_to_where_it_looked(studio: Studio, tmp_path: Path) -> None:
    corrections = [
        *(studio.corrected(n, second=n, verdict=Verdict.ACCEPTED) for n in range(1, 10)),
        *(studio.corrected(n, second=n) for n in range(10, 60)),
        studio.corrected(60, second=1000, verdict=Verdict.NOTHING_HERE),
    ]
    del studio.files["/data/upload/60.png"]
    since = MORNING + timedelta(seconds=29)
    news = News(since, frozenset(range(30, 61)))
    manifest = build(corrections, studio, tmp_path, news=news).manifest
    sides = (manifest.train, manifest.held_out)
    assert sum(side.examples for side in sides) == 59
    assert sum(side.verdicts["accepted"] for side in sides) == 9
    assert sum(side.verdicts["edited"] for side in sides) == 50
    assert sum(side.origins["older"] for side in sides) == 20
    assert sum(side.origins["new"] for side in sides) == 30
    assert manifest.left_out == {Reason.NO_IMAGE.value: 1}
    assert manifest.watermark == MORNING + timedelta(seconds=1000)
    assert manifest.since == since
    assert manifest.code_version


def test_of_a_task_one_annotation_counts_and_of_an_annotation_the_newest_revision(
    studio: Studio, tmp_path: Path
) -> None:
    older, newer = studio.corrected(1, second=1), studio.corrected(2, second=2, task=1)
    again = replace(
        newer,
        revision=Revision(MORNING + timedelta(seconds=3), "0" * 64),
        corrected=(replace(newer.corrected[0], rle=mask(2)),),
    )
    others = [studio.corrected(n) for n in range(3, 20)]
    snapshot = build([older, again, newer, *others], studio, tmp_path)
    assert [one.true_masks for one in both(snapshot) if one.task == 1] == [(mask(2),)]
    assert reasons(snapshot) == {1: Reason.OTHER_ANNOTATION}


def test_a_correction_whose_image_cannot_be_had_is_left_out_and_said_why(
    studio: Studio, tmp_path: Path
) -> None:
    corrections = [studio.corrected(n, knows_hash=n % 2 == 0) for n in range(1, 30)]
    for name, data in {
        "1": None,
        "2": None,
        "3": b"no picture",
        "4": b"no picture",
        "5": picture(5)[:-30],
        "6": picture(1006),  # another one than was annotated
    }.items():
        key = f"/data/upload/{name}.png"
        studio.files.pop(key) if data is None else studio.files.update({key: data})
    corrections[6] = replace(
        corrections[6],
        size=None,
        predicted=(),
        corrected=(),
        verdict=Verdict.NOTHING_HERE,
        edit_iou=None,
    )
    snapshot = build(corrections, studio, tmp_path)
    no, bad = Reason.NO_IMAGE, Reason.BAD_IMAGE
    assert reasons(snapshot) == {1: no, 2: no, 3: bad, 4: bad, 5: bad, 6: bad}
    assert all(one.detail for one in snapshot.left_out)
    assert next(one.size for one in both(snapshot) if one.annotation == 7) == SIZE


def test_each_correction_is_told_of_once_though_some_are_looked_at_twice(
    studio: Studio, tmp_path: Path
) -> None:
    known, unknown = (
        [studio.corrected(n, knows_hash=knows) for n in numbers]
        for knows, numbers in ((True, range(1, 10)), (False, range(10, 20)))
    )
    told: list[tuple[int, int]] = []
    build_snapshot(
        [*known, *unknown],
        studio.fetch,
        tmp_path,
        OPTIONS,
        None,
        between=lambda done, of: told.append((done, of)),
    )
    assert sorted(set(told)) == [(n, 19) for n in range(1, 20)]
    assert told == sorted(told)


def test_an_image_of_another_size_than_its_masks_is_left_out(
    studio: Studio, tmp_path: Path
) -> None:
    corrections = [studio.corrected(n, knows_hash=False) for n in range(1, 10)]
    small = Image.new("RGB", (6, 4))
    small.save(tmp_path / "small.png")
    studio.files["/data/upload/1.png"] = (tmp_path / "small.png").read_bytes()
    snapshot = build(corrections, studio, tmp_path / "project")
    assert reasons(snapshot) == {1: Reason.BAD_IMAGE}


@pytest.mark.parametrize("side", Side)
def test_a_corrupt_truth_stops_the_making_and_names_its_annotation(
    studio: Studio, tmp_path: Path, side: Side
) -> None:
    corrections = [studio.corrected(n) for n in range(1, 30)]
    sha = OPTIONS.salt, OPTIONS.held_out_share
    which = next(
        n
        for n, one in enumerate(corrections)
        if is_held_out(str(one.image_sha256), *sha) == (side is Side.HELD_OUT)
    )
    for bad in ("xx", "0" * 40, Rle(8, 12, "P3").counts):  # nonsense, too long, empty
        segment = replace(corrections[which].corrected[0], rle=Rle(8, 12, bad))
        broken = [*corrections]
        broken[which] = replace(broken[which], corrected=(segment,))
        with pytest.raises(DatasetError, match=rf"Annotation {which + 1} of task"):
            build(broken, studio, tmp_path)
    assert [one for one in tmp_path.iterdir() if one.name.endswith(".tmp")] == []


def test_a_request_that_no_reasoner_takes_is_left_out_alone(studio: Studio, tmp_path: Path) -> None:
    long = "the star " * 1000
    corrections = [studio.corrected(n) for n in range(2, 12)]
    both_asked = studio.corrected(1, requests=("the red star", long))
    snapshot = build([both_asked, *corrections], studio, tmp_path)
    assert reasons(snapshot) == {1: Reason.BAD_REQUEST}
    assert [one.request for one in both(snapshot) if one.annotation == 1] == ["the red star"]


def test_odd_characters_in_a_request_come_back_as_they_were(studio: Studio, tmp_path: Path) -> None:
    odd = "the\u2028star\x85 of \U0001f525 and \x1e\x7f fire"
    corrections = [studio.corrected(n, requests=(odd,)) for n in range(1, 10)]
    assert {one.request for one in both(build(corrections, studio, tmp_path))} == {odd}


def test_the_same_corrections_make_no_second_snapshot_and_nothing_is_fetched_twice(
    studio: Studio, tmp_path: Path
) -> None:
    corrections = [studio.corrected(n, knows_hash=n % 2 == 0) for n in range(1, 20)]
    first = build(corrections, studio, tmp_path)
    before = files_of(tmp_path)
    assert len(studio.fetched) == 19
    assert build(corrections[::-1], studio, tmp_path) == first
    assert files_of(tmp_path) == before
    asked_again = {name for name in studio.fetched if studio.fetched.count(name) == 2}
    assert asked_again == {f"/data/upload/{n}.png" for n in range(1, 20, 2)}


def test_images_of_earlier_snapshots_outlive_their_source(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 20)]
    first = build(corrections, studio, tmp_path)
    studio.files.clear()
    changed = [
        replace(
            one,
            requests=("a star",),
            predicted=(),
            corrected=(),
            verdict=Verdict.NOTHING_HERE,
            edit_iou=None,
        )
        for one in corrections
    ]
    second = build(changed, studio, tmp_path)
    assert second.id != first.id
    assert len(both(second)) == 19


def test_a_damaged_image_of_the_pool_is_fetched_anew(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 20)]
    build(corrections, studio, tmp_path)
    pool = sorted((tmp_path / "images").iterdir())
    pool[0].unlink()
    pool[0].write_bytes(b"damaged")
    studio.fetched.clear()
    more = [*corrections, studio.corrected(20)]
    assert len(both(build(more, studio, tmp_path))) == 20
    assert len(studio.fetched) == 2


def test_a_damaged_snapshot_is_replaced_by_the_next_build(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 20)]
    first = build(corrections, studio, tmp_path)
    (first.folder / "examples.jsonl").write_bytes(b"")
    with pytest.raises(DatasetError):
        Snapshot.open(first.folder)
    again = build(corrections, studio, tmp_path)
    assert (again.id, again.train) == (first.id, first.train)
    assert Snapshot.open(first.folder) == again


def test_one_changed_bit_anywhere_is_found(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 12)]
    del studio.files["/data/upload/3.png"]
    folder = build(corrections, studio, tmp_path).folder
    chance = random.Random(1)
    for name, data in files_of(folder).items():
        positions = {0, len(data) - 2, *(chance.randrange(len(data)) for _ in range(30))}
        for position in sorted(positions):
            changed = bytearray(data)
            changed[position] ^= 1 << chance.randrange(8)
            (folder / name).unlink()  # it may be a hard link
            (folder / name).write_bytes(changed)
            if name == "left-out.jsonl" and _same_but_detail(data, bytes(changed)):
                continue
            with pytest.raises(DatasetError):
                Snapshot.open(folder)
        (folder / name).write_bytes(data)
    Snapshot.open(folder)


def _same_but_detail(old: bytes, new: bytes) -> bool:
    """The words of a network's failure are no part of the content."""
    try:
        one, other = (json.loads(text) for text in (old, new))
    except ValueError:
        return False
    return {**one, "detail": ""} == {**other, "detail": ""}


def test_a_missing_image_and_a_renamed_folder_are_found(studio: Studio, tmp_path: Path) -> None:
    built = build([studio.corrected(n) for n in range(1, 12)], studio, tmp_path)
    renamed = built.folder.rename(tmp_path / ("0" * 16))
    with pytest.raises(DatasetError):
        Snapshot.open(renamed)
    renamed.rename(built.folder)
    (built.folder / built.train[0].image_file).unlink()
    with pytest.raises(DatasetError, match="image"):
        Snapshot.open(built.folder)
    with pytest.raises(DatasetError):
        Snapshot.open(tmp_path / "nowhere")


def test_nothing_to_learn_from_is_said_with_the_reasons(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 5)]
    studio.files.clear()
    with pytest.raises(InputError, match="4 times: its image cannot be fetched") as caught:
        build(corrections, studio, tmp_path)
    assert "/data/upload/1.png" in caught.value.remedy
    with pytest.raises(InputError):
        build([], studio, tmp_path)


def test_corrections_of_two_projects_are_refused(studio: Studio, tmp_path: Path) -> None:
    one, two = studio.corrected(1), studio.corrected(2)
    other = replace(two, key=replace(two.key, project=8))
    with pytest.raises(InputError, match="one project"):
        build([one, other], studio, tmp_path)


def test_any_other_failure_of_fetching_stops_the_making(tmp_path: Path, studio: Studio) -> None:
    class TokenRefusedError(Exception):
        pass

    def refuse(_: Correction) -> bytes:
        raise TokenRefusedError

    with pytest.raises(TokenRefusedError):
        build_snapshot([studio.corrected(1)], refuse, tmp_path, OPTIONS, None)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_disk_that_takes_nothing_is_a_clear_error(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "project").write_text("a file where a folder should be")
    with pytest.raises(DatasetError, match="cannot be kept"):
        build([studio.corrected(1)], studio, tmp_path / "project")


def test_a_draft_that_was_left_behind_is_removed_when_it_is_old(
    studio: Studio, tmp_path: Path
) -> None:
    old, young = tmp_path / "old.tmp", tmp_path / "young.tmp"
    for one in (old, young):
        (one / "images").mkdir(parents=True)
    long_ago = datetime.now(UTC).timestamp() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    build([studio.corrected(n) for n in range(1, 10)], studio, tmp_path)
    assert not old.exists()
    assert young.exists()


def test_the_split_is_fixed_by_the_first_snapshot(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 60)]
    first = build(corrections, studio, tmp_path)
    other = replace(OPTIONS, held_out_share=0.7, salt="another")
    assert build(corrections, studio, tmp_path, other).id == first.id


def test_a_split_that_cannot_be_read_is_not_made_anew(studio: Studio, tmp_path: Path) -> None:
    corrections = [studio.corrected(n) for n in range(1, 20)]
    build(corrections, studio, tmp_path)
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(DatasetError, match="held out"):
        build(corrections, studio, tmp_path)


@settings(max_examples=20, deadline=None)
@given(
    numbers=st.sets(st.integers(1, 60), min_size=8, max_size=16),
    chance=st.randoms(use_true_random=False),
    known=st.booleans(),
)
def test_the_same_corrections_in_any_order_make_the_same_snapshot(
    numbers: set[int], chance: random.Random, known: bool
) -> None:
    studio = Studio()
    corrections = [studio.corrected(n, second=n, knows_hash=known) for n in sorted(numbers)]
    shuffled = chance.sample(corrections, len(corrections))
    with TemporaryDirectory() as here, TemporaryDirectory() as there:
        one, other = (
            build(found, studio, Path(folder))
            for found, folder in ((corrections, here), (shuffled, there))
        )
    assert (one.id, one.train, one.held_out) == (other.id, other.train, other.held_out)


CHANGES = ("request", "mask", "verdict", "image", "task", "time", "options", "news", "less", "key")


@pytest.mark.parametrize("what", CHANGES)
@settings(max_examples=5, deadline=None)
@given(which=st.integers(0, 7))
def test_anything_that_changes_makes_another_snapshot(what: str, which: int) -> None:
    studio = Studio()
    corrections = [studio.corrected(n, second=n) for n in range(1, 9)]
    options, news = OPTIONS, None
    changed = [*corrections]
    one = corrections[which]
    if what == "request":
        changed[which] = studio.corrected(which + 1, second=which + 1, requests=("the red Star",))
    elif what == "mask":
        changed[which] = studio.corrected(which + 1, second=which + 1, true_masks=(mask(2),))
    elif what == "verdict":
        changed[which] = replace(one, verdict=Verdict.REJECTED)
    elif what == "image":
        changed[which] = studio.corrected(which + 1, second=which + 1, picture_number=99)
    elif what == "task":
        studio.files["/data/upload/77.png"] = studio.files[one.image]
        changed[which] = replace(one, task=77, image="/data/upload/77.png")
    elif what == "time":
        later = one.revision.updated_at + timedelta(microseconds=1)
        changed[which] = replace(one, revision=replace(one.revision, updated_at=later))
    elif what == "options":
        options = replace(OPTIONS, seed=1)
    elif what == "news":
        news = News(MORNING, frozenset(range(which + 2, 9)))
    elif what == "less":
        del changed[which]
    else:
        changed = [replace(one, key=replace(one.key, project=8)) for one in corrections]
    with TemporaryDirectory() as here, TemporaryDirectory() as there:
        Path(there, "x").mkdir()
        first = build(corrections, _copy(corrections), Path(here))
        second = build(changed, studio, Path(there), options, news)
    assert first.id != second.id


def _copy(corrections: list[Correction]) -> Studio:
    return Studio({one.image: picture(one.key.annotation) for one in corrections})


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sets(st.integers(1, 40), min_size=1, max_size=12),  # what comes new
            st.floats(0.05, 0.95),  # the share that is set at the time
            st.integers(0, 9),  # the seed
        ),
        min_size=1,
        max_size=4,
    )
)
def test_an_image_never_changes_sides_whatever_is_added(
    steps: list[tuple[set[int], float, int]],
) -> None:
    studio = Studio()
    seen: dict[str, Side] = {}
    corrections: list[Correction] = []
    with TemporaryDirectory() as folder:
        for numbers, share, seed in steps:
            ids = {one.key.annotation for one in corrections}
            corrections += [studio.corrected(n, second=n) for n in numbers - ids]
            # The same image in another task, with another request.
            twin = 100 + len(corrections)
            corrections.append(
                studio.corrected(twin, picture_number=min(numbers), requests=("the ring",))
            )
            options = SnapshotOptions(held_out_share=share, seed=seed, small=5)
            try:
                snapshot = build(corrections, studio, Path(folder), options)
            except InputError:  # all images are held out so far
                continue
            for side, examples in (
                (Side.TRAIN, snapshot.train),
                (Side.HELD_OUT, snapshot.held_out),
            ):
                for one in examples:
                    assert seen.setdefault(one.image_sha256, side) is side
