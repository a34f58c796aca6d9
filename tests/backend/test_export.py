"""`segzero export`: from a real store and images over real HTTP to a data set that reads back."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segzero_ml import masks
from segzero_ml.corrections import Correction, LabelledSegment, Verdict
from segzero_ml.datasets.jsonl import read_jsonl
from segzero_ml.datasets.reasonseg import read_reasonseg
from segzero_ml.types import BoolMask, ImageSize
from tests.backend.corrected import NAME, PROJECT, FileServer, Run, World, runner, world
from tests.training_hooks.store_samples import MORNING, correction
from training_hooks.store_values import ProjectKey

SIZE = ImageSize(90, 60)
FORMATS = ("jsonl", "coco", "reasonseg")


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


def picture(seed: int, kind: str = "PNG", size: ImageSize = SIZE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def blob(seed: int) -> BoolMask:
    """A disc with a hole."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE.height, SIZE.width))
    y, x = rng.integers(20, 40), rng.integers(20, 70)
    distance = (rows - y) ** 2 + (columns - x) ** 2
    return np.asarray((distance < 200) & (distance > 30))


def made(
    annotation: int,
    task: int,
    answers: Mapping[str, tuple[int, ...]],
    *,
    file: bytes | None = None,
    second: float = 0,
    **changes: object,
) -> Correction:
    """A correction with true masks by request, of the image `/data/upload/{task}.png`."""
    true = tuple(
        LabelledSegment(masks.encode(blob(seed)), "Star" if seed % 2 else "Ring", request)
        for request, seeds in answers.items()
        for seed in seeds
    )
    return replace(
        correction(annotation, second, task=task, project=PROJECT),
        image_sha256=None if file is None else hashlib.sha256(file).hexdigest(),
        size=SIZE,
        requests=tuple(answers),
        predicted=(),
        corrected=true,
        edit_iou=None,
        verdict=Verdict.DRAWN_BY_HAND if true else Verdict.NOTHING_HERE,
        **changes,  # type: ignore[arg-type]
    )


def fill(here: World, studio: FileServer) -> None:
    """Three tasks: two requests of which one has no answer, a JPEG, and nothing at all."""
    files = {1: picture(1), 2: picture(2, "JPEG"), 3: picture(3)}
    studio.files |= {f"/data/upload/{task}.png": file for task, file in files.items()}
    for one in (
        made(11, 1, {"the red star": (1, 2), "a dog?": ()}, file=files[1], second=1),
        made(12, 2, {"die Ringe": (3,)}, file=files[2], second=2),
        made(13, 3, {"the cross": ()}, second=3),
    ):
        here.store.upsert(one)


def test_jsonl_reads_back_with_exactly_the_same_masks_and_images(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    out = tmp_path / "out"
    ran = run("export", "--format", "jsonl", "--out", out, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "out": str(out),
        "format": "jsonl",
        "seen": 3,
        "exported": 3,
        "requests": 4,
        "nothing_here": 2,
        "others": 0,
        "left_out": {},
    }
    samples = read_jsonl(out)
    assert [sample.request for sample in samples] == [
        "the red star",
        "a dog?",
        "die Ringe",
        "the cross",
    ]
    for sample, seeds in zip(samples, ((1, 2), (), (3,), ()), strict=True):
        np.testing.assert_array_equal(sample.masks, [blob(seed) for seed in seeds] or ())
    assert [sample.kind for sample in samples] == [*["drawn_by_hand"] * 3, "nothing_here"]
    assert {path.name: path.read_bytes() for path in (out / "images").iterdir()} == {
        "7-1.png": picture(1),
        "7-2.jpg": picture(2, "JPEG"),
        "7-3.png": picture(3),
    }
    assert not list(tmp_path.glob("*.part"))
    assert studio.tokens == {f"Token {studio.token}"}


def test_reasonseg_reads_back_with_the_joined_masks_to_the_pixel(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    out = tmp_path / "out"
    assert run("export", "--format", "reasonseg", "--out", out).code == 0
    samples = {sample.request: sample for sample in read_reasonseg(out)}
    np.testing.assert_array_equal(samples["the red star"].masks, [blob(1) | blob(2)])
    np.testing.assert_array_equal(samples["die Ringe"].masks, [blob(3)])
    assert samples["a dog?"].masks == samples["the cross"].masks == ()
    for path in out.glob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG"
    assert (out / "7-2-1.jpg").read_bytes() == picture(2, "JPEG")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_loads_in_pycocotools_with_labels_as_categories(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    assert run("export", "--format", "coco", "--out", tmp_path / "out").code == 0
    coco = COCO(str(tmp_path / "out" / "annotations" / "instances.json"))
    names = {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())}
    found = [
        (names[entry["category_id"]], coco.annToMask(entry).astype(bool))
        for entry in coco.loadAnns(coco.getAnnIds())
    ]
    assert [name for name, _ in found] == ["Star", "Ring", "Star"]
    for (_, mask), seed in zip(found, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(mask, blob(seed))
    assert [len(coco.getAnnIds(imgIds=[number])) for number in coco.getImgIds()] == [2, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "reasonseg"])
def test_an_export_can_be_measured(
    here: World, run: Run, studio: FileServer, tmp_path: Path, form: str
) -> None:
    fill(here, studio)
    assert run("export", "--format", form, "--out", tmp_path / "out").code == 0
    ran = run("eval", "--dataset", form, "--root", tmp_path / "out", "--json")
    report = json.loads(ran.out)
    assert report["samples"] == 4
    if form == "jsonl":
        assert {name: row["samples"] for name, row in report["by_kind"].items()} == {
            "drawn_by_hand": 3,
            "nothing_here": 1,
        }


def test_of_several_annotations_of_a_task_one_counts(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    studio.files["/data/upload/1.png"] = picture(1)
    here.store.upsert(made(1, 1, {"the star": (1,)}, second=5))
    here.store.upsert(made(2, 1, {"the star": (2,)}, second=9))
    here.store.upsert(made(3, 1, {"the star": (3,)}, second=1, ground_truth=True))
    here.store.upsert(made(4, 1, {"the star": (4,)}, second=2))
    ran = run("export", "--format", "jsonl", "--out", tmp_path / "out", "--json")
    assert json.loads(ran.out)["others"] == 3
    (sample,) = read_jsonl(tmp_path / "out")
    np.testing.assert_array_equal(sample.masks, [blob(3)])


def test_what_was_not_asked_for_stays_out(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    other = ProjectKey(NAME, 8)
    studio.files["/data/upload/9.png"] = picture(9)
    here.store.upsert(replace(made(99, 9, {"the cup": (5,)}), key=other.annotation(99)))

    def requests(name: str, *options: object) -> list[str]:
        assert run("export", "--format", "jsonl", "--out", tmp_path / name, *options).code == 0
        return [sample.request for sample in read_jsonl(tmp_path / name)]

    assert requests("all")[-1] == "the cup"
    assert requests("eight", "--project", 8) == ["the cup"]
    assert requests("nothing", "--verdict", "nothing_here") == ["the cross"]
    moment = (MORNING + timedelta(seconds=2)).isoformat()
    assert requests("late", "--since", moment) == ["die Ringe", "the cross"]
    assert requests("day", "--since", "2026-03-01", "--project", 7)[0] == "the red star"
    assert run("export", "--format", "jsonl", "--out", tmp_path / "x", "--since", "noon").code == 2


def test_an_older_annotation_does_not_stand_in_for_a_target_that_was_not_asked_for(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    """The task's truth is that nothing is there, whatever somebody drew before."""
    studio.files["/data/upload/1.png"] = picture(1)
    here.store.upsert(made(1, 1, {"the star": (1,)}, second=1))
    here.store.upsert(made(2, 1, {"the star": ()}, second=2))
    ran = run("export", "--format", "jsonl", "--out", tmp_path / "x", "--verdict", "drawn_by_hand")
    assert ran.code == 1
    assert "no correction to export" in ran.err


def test_what_cannot_be_written_is_left_out_with_its_reason(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    studio.files |= {
        "/data/upload/22.png": b"not an image",
        "/data/upload/23.png": picture(23),
        "/data/upload/24.png": picture(24, size=ImageSize(60, 90)),
        "/data/upload/25.png": picture(25),
    }
    star = {"the star": (1,)}
    for one in (
        made(21, 21, star),
        made(22, 22, star),
        made(23, 23, star, file=b"what it was"),
        made(24, 24, star),
        made(25, 25, {"x" * 9000: (1,)}),
        made(26, 26, star, image="inline:sha256:" + "0" * 64),
    ):
        here.store.upsert(one)
    here.store.upsert(made(27, 27, star))
    (row,) = here.client.keys("*:annotation:27")
    here.client.hset(row, "body", b"damaged")
    out = tmp_path / "out"
    ran = run("export", "--format", "jsonl", "--out", out, "--json")
    assert json.loads(ran.out)["left_out"] == {
        "no_image": 2,
        "bad_image": 1,
        "changed_image": 2,
        "bad_request": 1,
        "damaged": 1,
    }
    assert len(read_jsonl(out)) == 4
    lines = [json.loads(line) for line in (out / "left-out.jsonl").read_text().splitlines()]
    assert {line["annotation"] for line in lines} == {21, 22, 23, 24, 25, 26, 27}
    assert "404" in next(line["detail"] for line in lines if line["annotation"] == 21)
    ran = run("export", "--format", "jsonl", "--out", out, "--force")
    assert "Left out: 2, because its image could not be fetched." in ran.out


def test_a_damaged_neighbour_does_not_stop_the_export(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    studio.files["/data/upload/1.png"] = picture(1)
    for annotation in (1, 2):
        here.store.upsert(made(annotation, 1, {"the star": (1,)}, second=annotation))
    (row,) = here.client.keys("*:annotation:2")
    here.client.hset(row, "body", b"damaged")
    ran = run("export", "--format", "jsonl", "--out", tmp_path / "out", "--json")
    assert json.loads(ran.out)["exported"] == 1


@pytest.mark.parametrize("form", FORMATS)
def test_where_all_is_left_out_nothing_is_written(
    here: World, run: Run, studio: FileServer, tmp_path: Path, form: str
) -> None:
    here.store.upsert(made(1, 1, {"the star": (1,)}))
    ran = run("export", "--format", form, "--out", tmp_path / "out")
    assert ran.code == 1
    assert "All corrections were left out" in ran.err
    assert "answered 404" in ran.err
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("form", FORMATS)
def test_redis_going_away_in_the_middle_leaves_nothing_behind(
    here: World, run: Run, studio: FileServer, tmp_path: Path, form: str
) -> None:
    for task in range(1, 61):  # more than a page
        studio.files[f"/data/upload/{task}.png"] = picture(task)
        here.store.upsert(made(task, task, {"the star": (task,)}))
    studio.before = here.server.stop
    ran = run("export", "--format", form, "--out", tmp_path / "out")
    assert studio.asked
    assert ran.code == 1
    assert "What to do:" in ran.err
    assert list(tmp_path.glob("out*")) == []


# The folder -------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_refused_with_and_without_force(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for options in ((), ("--force",)):
        ran = run("export", "--format", "jsonl", "--out", out, *options)
        assert ran.code == 1
        assert "is not empty" in ran.err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert studio.asked == []


def test_an_earlier_export_is_replaced_only_with_force(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    out = tmp_path / "out"
    out.mkdir()
    assert run("export", "--format", "reasonseg", "--out", out).code == 0
    ran = run("export", "--format", "jsonl", "--out", out)
    assert ran.code == 1
    assert "--force" in ran.err
    assert len(read_reasonseg(out)) == 4
    assert run("export", "--format", "jsonl", "--out", out, "--force").code == 0
    assert len(read_jsonl(out)) == 4
    assert not list(out.glob("*.json"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


def test_what_a_killed_export_left_is_cleared_away(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    part = tmp_path / "out.part"
    (part / "images").mkdir(parents=True)
    (part / "images" / "half.png").write_bytes(b"half")
    (part / ".segzero-export").touch()
    assert run("export", "--format", "jsonl", "--out", tmp_path / "out").code == 0
    assert not (tmp_path / "out" / "images" / "half.png").exists()
    assert not part.exists()


def test_a_part_that_is_no_exports_is_left_alone(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "mine").touch()
    ran = run("export", "--format", "jsonl", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "in the way" in ran.err
    assert (tmp_path / "out.part" / "mine").exists()


def test_two_exports_to_one_folder_do_not_mix(
    here: World, run: Run, studio: FileServer, tmp_path: Path
) -> None:
    fill(here, studio)
    part = tmp_path / "out.part"
    part.mkdir()
    marker = os.open(part / ".segzero-export", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(marker, fcntl.LOCK_EX)
        ran = run("export", "--format", "jsonl", "--out", tmp_path / "out")
    finally:
        os.close(marker)
    assert ran.code == 1
    assert "Another export writes" in ran.err
    assert part.exists()


@pytest.mark.parametrize("name", ["file", "link", "missing/out"])
def test_what_is_no_folder_is_refused(
    here: World, run: Run, studio: FileServer, tmp_path: Path, name: str
) -> None:
    fill(here, studio)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    ran = run("export", "--format", "jsonl", "--out", tmp_path / name, "--force")
    assert ran.code == 1
    assert (tmp_path / "file").read_text() == "x"
    assert (tmp_path / "link").is_symlink()
