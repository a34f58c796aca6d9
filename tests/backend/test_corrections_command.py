"""`segzero corrections`: listing and drawing, on a real Redis, images over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segzero_ml import masks
from segzero_ml.corrections import Correction, LabelledSegment, Verdict
from segzero_ml.types import ImageSize
from tests.backend.corrected import NAME, PROJECT, FileServer, Run, World, runner, world
from tests.training_hooks.store_samples import correction
from training_hooks.store_values import ProjectKey

OTHER = ProjectKey(NAME, 8)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer.running() as server:
        server.use(monkeypatch)
        yield server


def picture(width: int = 90, height: int = 60) -> bytes:
    pixels = np.random.default_rng(1).integers(90, 160, (height, width, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def drawn(file: bytes, **changes: object) -> Correction:
    """A correction whose masks differ, of the image `/data/upload/1.png`."""
    mask = np.zeros((60, 90), dtype=bool)
    mask[10:40, 10:50] = True
    predicted, true = (
        (LabelledSegment(masks.encode(np.roll(mask, shift, 1)), "Star", "the red star"),)
        for shift in (0, 12)
    )
    base = correction(12, task=5, content="Only the star.", project=PROJECT)
    return replace(
        base,
        image="/data/upload/1.png",
        image_sha256=hashlib.sha256(file).hexdigest(),
        size=ImageSize(90, 60),
        predicted=predicted,
        corrected=true,
        note_shown="The star is red.",
        **changes,  # type: ignore[arg-type]
    )


def test_corrections_are_listed_newest_first_over_all_projects(here: World, run: Run) -> None:
    for number in range(1, 8):
        project = OTHER if number % 2 else PROJECT
        here.store.upsert(correction(number, number, task=number, project=project))
    listed = [json.loads(line) for line in run("corrections", "list", "--json").out.splitlines()]
    assert [one["annotation"] for one in listed] == [7, 6, 5, 4, 3, 2, 1]
    assert listed[0]["project"] == 8
    assert listed[0]["requests"] == ["the red star"]
    assert "counts" not in json.dumps(listed)
    ran = run("corrections", "list", "--limit", 2)
    assert [int(one) for one in re.findall(r" (\d+)  edited ", ran.out)] == [7, 6]
    assert "newest 2" in ran.err
    ran = run("corrections", "list", "--project", 7, "--json")
    assert [json.loads(line)["annotation"] for line in ran.out.splitlines()] == [6, 4, 2]


def test_corrections_can_be_listed_by_verdict(here: World, run: Run) -> None:
    for number, verdict in enumerate(Verdict, start=1):
        here.store.upsert(correction(number, number, verdict=verdict, project=PROJECT))
    ran = run("corrections", "list", "--verdict", "nothing_here", "--json")
    (line,) = ran.out.splitlines()
    assert json.loads(line)["verdict"] == "nothing_here"
    assert run("corrections", "list", "--verdict", "wonderful").code == 2


def test_a_list_of_nothing_says_so(here: World, run: Run) -> None:
    ran = run("corrections", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "There are none" in ran.err
    assert run("corrections", "list", "--json").out == ""


def test_more_than_a_page_is_listed_to_the_end(here: World, run: Run) -> None:
    for number in range(1, 131):
        here.store.upsert(correction(number, number, task=number, project=PROJECT))
    ran = run("corrections", "list", "--limit", 0, "--json")
    assert [json.loads(line)["annotation"] for line in ran.out.splitlines()] == [*range(130, 0, -1)]
    assert len(run("corrections", "list").out.splitlines()) == 51


def test_what_annotators_type_cannot_steer_the_terminal(here: World, run: Run) -> None:
    nasty = "the\x1b[2J\nred [bold]star[/bold]"
    mean = replace(
        correction(1, project=PROJECT), requests=(nasty,), predicted=(), corrected=(),
        verdict=Verdict.NOTHING_HERE, note_shown=nasty,
    )  # fmt: skip
    here.store.upsert(mean)
    for arguments in (("list",), ("show", "1")):
        out = run("corrections", *arguments).out
        assert "\x1b" not in out
        assert "the [2J red" in out
        assert "[bold]" in out


def test_one_correction_is_shown_with_its_notes(here: World, run: Run) -> None:
    here.store.upsert(drawn(b""))
    ran = run("corrections", "show", 12)
    assert ran.code == 0
    assert "Annotation 12 of task 5, project 7: edited, IoU 0.50" in ran.out
    assert "The star is red." in ran.out
    assert "Only the star." in ran.out
    whole = json.loads(run("corrections", "show", 12, "--json").out)
    assert Correction.from_json(whole) == drawn(b"")


@pytest.mark.parametrize("options", [("99",), ("12", "--project", "8")])
def test_an_unknown_annotation_has_no_correction_to_show(
    here: World, run: Run, options: tuple[str, ...]
) -> None:
    here.store.upsert(drawn(b""))
    ran = run("corrections", "show", *options)
    assert ran.code == 1
    assert f"no correction of annotation {options[0]}" in ran.err


def test_a_picture_of_a_correction_is_drawn_on_its_image(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    studio.files["/data/upload/1.png"] = picture()
    here.store.upsert(drawn(picture()))
    ran = run("corrections", "show", 12, "--save", tmp_path / "out.png")
    assert (ran.code, ran.err) == (0, "")
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image)
    assert studio.tokens == {f"Token {studio.token}"}
    assert pixels.shape[1] > 900
    # The image's own pixels are there: each of it as a square of four by four.
    with Image.open(BytesIO(picture())) as source:
        corner = np.asarray(source)[55, 85]
    assert (pixels == corner).all(axis=2).sum() >= 2 * 16


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (None, "404"),
        (b"not an image", "changed"),
        (picture(91, 60), "changed"),
    ],
)
def test_without_the_image_the_picture_has_a_plain_ground_and_says_why(
    here: World, run: Run, studio: FileServer, tmp_path: Path, file: bytes | None, says: str
) -> None:
    if file is not None:
        studio.files["/data/upload/1.png"] = file
    here.store.upsert(drawn(picture()))
    ran = run("corrections", "show", 12, "--save", tmp_path / "out.png")
    assert ran.code == 0
    assert says in ran.err
    with Image.open(tmp_path / "out.png") as image:
        assert image.width > 900


def test_an_image_of_another_size_is_not_drawn_upon_where_its_hash_is_not_known(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    studio.files["/data/upload/1.png"] = picture(91, 60)
    here.store.upsert(replace(drawn(picture()), image_sha256=None))
    ran = run("corrections", "show", 12, "--save", tmp_path / "out.png")
    assert "another size" in ran.err


def test_a_correction_of_an_image_within_its_task_is_drawn_without_it(
    here: World, run: Run, tmp_path: Path
) -> None:
    here.store.upsert(replace(drawn(picture()), image="inline:sha256:" + "0" * 64))
    ran = run("corrections", "show", 12, "--save", tmp_path / "out.png")
    assert ran.code == 0
    assert "part of its task" in ran.err


@pytest.mark.parametrize("name", ["out.jpg", "missing/out.png"])
def test_a_picture_that_cannot_be_written_is_refused_at_once(
    here: World, run: Run, tmp_path: Path, name: str
) -> None:
    here.store.upsert(drawn(b""))
    assert run("corrections", "show", 12, "--save", tmp_path / name).code == 1
    assert list(tmp_path.rglob("out*")) == []


def test_without_redis_the_error_says_what_to_do(here: World, run: Run) -> None:
    here.server.stop()
    ran = run("corrections", "list")
    assert (ran.code, ran.out) == (1, "")
    assert "What to do:" in ran.err


@pytest.mark.parametrize("name", ["list", "show"])
def test_both_ways_explain_themselves(run: Run, name: str) -> None:
    ran = run("corrections", name, "--help")
    assert ran.code == 0
    assert "--project" in ran.out
    assert name in run("corrections", "--help").out
