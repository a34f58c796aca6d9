"""Data sets that are written and read back: the same pictures, requests and masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from pycocotools.coco import COCO

from segzero_ml import masks
from segzero_ml.datasets.jsonl import read_jsonl
from segzero_ml.datasets.pictures import Picture, prepare
from segzero_ml.datasets.reasonseg import read_reasonseg
from segzero_ml.datasets.write_coco import CocoWriter
from segzero_ml.datasets.write_jsonl import JsonlWriter
from segzero_ml.datasets.write_reasonseg import ReasonSegWriter
from segzero_ml.datasets.writing import Item, TrueAnswer, TrueSegment, Writer
from segzero_ml.errors import DatasetError, ImageError, MaskError
from segzero_ml.images import ImageLimits, decode_image
from segzero_ml.types import BoolMask, Rle

WIDTH, HEIGHT = 40, 30
WRITERS: tuple[Callable[[Path], Writer], ...] = (JsonlWriter, CocoWriter, ReasonSegWriter)


def file(kind: str = "PNG", seed: int = 0, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def blob(seed: int) -> BoolMask:
    """Two discs and a hole."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((HEIGHT, WIDTH))
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for inside in (True, True, False):
        y, x = rng.integers(5, HEIGHT - 5), rng.integers(5, WIDTH - 5)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < rng.integers(3, 60)] = inside
    mask[0, 0] = True
    return mask


def segments(*seeds: int, label: str = "Cup") -> tuple[TrueSegment, ...]:
    return tuple(TrueSegment(masks.encode(blob(seed)), label) for seed in seeds)


def item(name: str = "7-1", *answers: TrueAnswer, picture: Picture | None = None) -> Item:
    return Item(
        name,
        picture or prepare(file("JPEG")),
        answers or (TrueAnswer("the cup", segments(1)),),
        "edited",
    )


TWO = (
    TrueAnswer("die Tasse, “links”", segments(1, 2)),
    TrueAnswer("Is there a dog?", ()),
    TrueAnswer("the plate", segments(3, label="")),
)


def test_jsonl_comes_back_as_it_was_written(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path)
    png = prepare(file("PNG", seed=1))
    assert writer.add(item("7-1", *TWO))
    assert writer.add(item("7-2", picture=png))
    writer.close()
    samples = read_jsonl(tmp_path)
    assert [sample.request for sample in samples] == [
        *(answer.request for answer in TWO),
        "the cup",
    ]
    for sample, seeds in zip(samples, ((1, 2), (), (3,), (1,)), strict=True):
        np.testing.assert_array_equal(sample.masks, [blob(seed) for seed in seeds] or ())
        assert sample.kind == "edited"
    assert samples[3].image().tobytes() == decode_image(png.data).tobytes()


def test_reasonseg_comes_back_with_the_union_of_each_requests_masks(tmp_path: Path) -> None:
    writer = ReasonSegWriter(tmp_path)
    assert writer.add(item("7-1", *TWO))
    writer.close()
    both, none, one = read_reasonseg(tmp_path)
    assert [sample.request for sample in (both, none, one)] == [answer.request for answer in TWO]
    np.testing.assert_array_equal(both.masks, [blob(1) | blob(2)])
    assert (none.masks, none.kind, both.kind) == ((), "sentence", "phrase")
    np.testing.assert_array_equal(one.masks, [blob(3)])
    assert all(sample.ignore is None for sample in (both, none, one))
    assert both.image().size == (WIDTH, HEIGHT)


# pycocotools' own array, which does not know numpy's newer ways.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_loads_in_pycocotools_with_the_same_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = CocoWriter(tmp_path, "made in a test")
    assert writer.add(item("7-1", *TWO))
    assert writer.add(item("7-2", TrueAnswer("the dog")))
    writer.close()
    assert {path.name for path in (tmp_path / "annotations").iterdir()} == {"instances.json"}
    coco = COCO(str(tmp_path / "annotations" / "instances.json"))
    capsys.readouterr()
    assert coco.getImgIds() == [1, 2]
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["Cup", "object"]
    found = coco.loadAnns(coco.getAnnIds(imgIds=[1], iscrowd=False))
    assert len(found) == 3
    assert coco.getAnnIds(imgIds=[2]) == []
    for entry, seed in zip(found, (1, 2, 3), strict=True):
        mask = coco.annToMask(entry).astype(bool)
        np.testing.assert_array_equal(mask, blob(seed))
        assert entry["area"] == mask.sum()
        x, y, width, height = entry["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        assert mask[y].any()
        assert mask[:, x + width - 1].any()
    assert coco.loadImgs([1])[0]["requests"] == [answer.request for answer in TWO]
    assert found[2]["request"] == "the plate"
    assert (tmp_path / "images" / coco.loadImgs([2])[0]["file_name"]).is_file()


def test_coco_without_any_item_is_still_a_file_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CocoWriter(tmp_path).close()
    assert COCO(str(tmp_path / "annotations" / "instances.json")).getImgIds() == []
    capsys.readouterr()


@pytest.mark.parametrize("make", WRITERS)
def test_a_second_item_of_one_name_changes_nothing(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    writer = make(tmp_path)
    assert writer.add(item()) is True
    assert writer.add(item("7-1", *TWO)) is False
    writer.close()
    assert "plate" not in "".join(
        path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json*")
    )


@pytest.mark.parametrize("make", WRITERS)
@pytest.mark.parametrize("rle", [Rle(HEIGHT, WIDTH + 1, "0"), Rle(HEIGHT, WIDTH, "~~")])
def test_an_item_with_a_wrong_mask_leaves_no_trace(
    tmp_path: Path, make: Callable[[Path], Writer], rle: Rle
) -> None:
    writer = make(tmp_path)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    with pytest.raises(MaskError):
        writer.add(item("7-1", TWO[0], TrueAnswer("bad", (TrueSegment(rle),))))
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before
    writer.close()


def test_a_mask_too_ragged_for_polygons_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).random((200, 200)) < 0.5
    stream = BytesIO()
    Image.new("RGB", (200, 200)).save(stream, "JPEG")
    answer = TrueAnswer("noise", (TrueSegment(masks.encode(noise)),))
    with pytest.raises(DatasetError, match="pieces"):
        ReasonSegWriter(tmp_path).add(item("7-1", answer, picture=prepare(stream.getvalue())))
    assert list(tmp_path.iterdir()) == []


@hypothesis_settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=40).filter(str.strip),
            st.lists(st.integers(0, 99), max_size=3),
            st.text(max_size=10),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_requests_and_labels_are_one_line_each(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, list[int], str]]
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    writer = JsonlWriter(folder)
    answers = [TrueAnswer(text, segments(*seeds, label=label)) for text, seeds, label in asked]
    writer.add(item("7-1", *answers))
    writer.close()
    lines = (folder / "requests.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["request"] for line in lines] == [text for text, *_ in asked]


# Pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("BMP", ".bmp")]
)
def test_a_common_upright_file_is_kept_byte_for_byte(kind: str, suffix: str) -> None:
    data = file(kind)
    picture = prepare(data)
    assert picture.data == data
    assert picture.suffix == suffix
    assert (picture.size.width, picture.size.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_other_formats_become_png_without_loss(kind: str) -> None:
    data = file(kind)
    picture = prepare(data)
    assert picture.suffix == ".png"
    assert decode_image(picture.data).tobytes() == decode_image(data).tobytes()


def test_a_turned_photograph_is_written_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = file("JPEG", exif=exif)
    for as_jpeg in (False, True):
        picture = prepare(data, as_jpeg=as_jpeg)
        assert (picture.size.width, picture.size.height) == (HEIGHT, WIDTH)
        with Image.open(BytesIO(picture.data)) as plain:
            assert plain.size == (HEIGHT, WIDTH)
            assert not plain.getexif()
            assert plain.format == ("JPEG" if as_jpeg else "PNG")


def test_where_only_jpeg_will_do_others_are_compressed_and_jpeg_is_kept() -> None:
    assert prepare(file("JPEG"), as_jpeg=True).data == file("JPEG")
    picture = prepare(file("PNG"), as_jpeg=True)
    assert picture.suffix == ".jpg"
    with Image.open(BytesIO(picture.data)) as plain:
        assert plain.format == "JPEG"


@pytest.mark.parametrize("data", [b"", b"not an image", file("PNG")[:-40]])
def test_what_is_damaged_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        prepare(data)


def test_what_is_over_a_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="limit"):
        prepare(file("PNG"), ImageLimits(max_pixels=100))
