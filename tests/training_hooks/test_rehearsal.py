"""What is known already, mixed into a round and held out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from segzero_ml import masks
from segzero_ml.corrections import Verdict
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.errors import ConfigError
from segzero_ml.images import load_image
from segzero_ml.types import ImageSize
from tests.training_hooks.snapshot_world import Studio
from training_hooks.rehearsal import rehearse
from training_hooks.round_options import RoundOptions
from training_hooks.snapshot import SnapshotOptions, build_snapshot
from training_hooks.snapshot_records import Example


def _requests(root: Path, number: int) -> Path:
    lines = []
    for index, sample in enumerate(scene_samples(number, 3)):
        sample.image().save(root / f"{index}.png")
        rles = [masks.encode(mask) for mask in sample.masks]
        true = [{"size": [rle.height, rle.width], "counts": rle.counts} for rle in rles]
        row = {"image": f"{index}.png", "request": sample.request, "masks": true}
        lines.append(json.dumps(row))
    (root / "requests.jsonl").write_text("\n".join(lines))
    return root


def _images(examples: tuple[Example, ...]) -> set[str]:
    return {one.image_sha256 for one in examples}


@pytest.fixture(params=["scenes", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "scenes":
        return "scenes"
    root = tmp_path / "known"
    root.mkdir()
    return str(_requests(root, 30))


def test_what_is_held_out_is_never_learnt_whatever_the_round(source: str, tmp_path: Path) -> None:
    held_out = set()
    for seed in range(3):
        found = rehearse(source, tmp_path / f"round-{seed}", 12, 4, seed)
        held_out.add(frozenset(_images(found.held_out)))
        assert len(found.held_out) == 4
        assert len(found.learnt) == 12
        assert not _images(found.learnt) & _images(found.held_out)
    assert len(held_out) == 1  # the same ones in every round


def test_rounds_learn_from_different_examples_and_a_resumed_one_from_the_same(
    source: str, tmp_path: Path
) -> None:
    first, again, other = (rehearse(source, tmp_path / "round", 8, 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert _images(first.learnt) != _images(other.learnt)


def test_the_images_lie_in_the_round_and_have_their_masks(source: str, tmp_path: Path) -> None:
    found = rehearse(source, tmp_path, 6, 3, 0)
    for one in (*found.learnt, *found.held_out):
        data = (tmp_path / one.image_file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one.image_sha256
        with Image.open(tmp_path / one.image_file) as image:
            assert image.size == (one.size.width, one.size.height)
        for rle in one.true_masks:
            assert masks.decode(rle).any()


def test_nothing_is_learnt_that_the_snapshot_holds_out_nor_held_out_that_it_learns_from(
    tmp_path: Path,
) -> None:
    known = _requests(tmp_path, 30)
    studio = Studio()
    corrections = [studio.corrected(number) for number in range(1, 31)]
    for number, one in enumerate(corrections):
        with Image.open(known / f"{number}.png") as image:
            size, stream = ImageSize(*image.size), BytesIO()
            image.save(stream, "PNG", compress_level=1)  # the same picture in another file
        studio.files[one.image] = stream.getvalue()
        corrections[number] = replace(
            one,
            image_sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
            size=size,
            predicted=(),
            corrected=(),
            verdict=Verdict.NOTHING_HERE,
        )
    made = build_snapshot(
        corrections, studio.fetch, tmp_path / "snapshots", SnapshotOptions(held_out_share=0.5), None
    )

    def pictures(examples: tuple[Example, ...], folder: Path) -> set[bytes]:
        return {load_image(folder / one.image_file).tobytes() for one in examples}

    assert made.held_out
    found = rehearse(str(known), tmp_path / "round", 30, 30, 0, made)
    learnt = pictures(found.learnt, tmp_path / "round")
    held_out = pictures(found.held_out, tmp_path / "round")
    assert learnt
    assert held_out
    assert learnt <= pictures(made.train, made.folder)
    assert held_out <= pictures(made.held_out, made.folder)


def test_a_data_set_that_is_not_there_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"requests\.jsonl"):
        rehearse(str(tmp_path / "nowhere"), tmp_path, 1, 1, 0)


def test_the_share_is_of_all_prompts_of_the_round() -> None:
    assert RoundOptions(rehearsal="scenes", rehearsal_share=0.25).rehearsed(90) == 30
    assert RoundOptions(rehearsal_share=0.25).rehearsed(90) == 0
    with pytest.raises(ConfigError):
        RoundOptions(rehearsal_share=1.0)
