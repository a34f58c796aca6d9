"""Your own data as `requests.jsonl`, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_ml import masks
from segzero_ml.datasets.jsonl import read_jsonl
from segzero_ml.errors import DatasetError
from segzero_ml.types import BoolMask

WIDTH, HEIGHT = 12, 8


def _mask(seed: int) -> BoolMask:
    return np.asarray(np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.5)


def _line(**changes: object) -> dict[str, Any]:
    line = {
        "image": "pictures/a.png",
        "request": "the cup",
        "masks": [masks.to_json(masks.encode(_mask(1)))],
    }
    return {key: value for key, value in {**line, **changes}.items() if value is not ...}


def _write(root: Path, *lines: object) -> Path:
    (root / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(root / "pictures" / "a.png")
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (root / "requests.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return root


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    two = [masks.to_json(masks.encode(_mask(seed))) for seed in (1, 2)]
    root = _write(
        tmp_path,
        _line(masks=two, kind="plural"),
        "",
        _line(request="der Käse", masks=[]),
    )
    first, second = read_jsonl(root)
    assert (first.request, first.kind, first.sample_id) == ("the cup", "plural", "1")
    np.testing.assert_array_equal(first.masks, [_mask(1), _mask(2)])
    assert first.ignore is None
    assert first.image().getpixel((0, 0)) == (255, 0, 0)
    assert (second.request, second.kind, second.sample_id) == ("der Käse", "", "3")
    assert second.masks == ()


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    root = _write(tmp_path, "\ufeff" + json.dumps(_line()))
    assert len(read_jsonl(root)) == 1


def test_masks_are_in_the_size_of_the_upright_image(tmp_path: Path) -> None:
    root = _write(tmp_path, _line(image="b.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "b.jpg", exif=exif)
    (sample,) = read_jsonl(root)
    assert sample.image().size == (WIDTH, HEIGHT) == sample.masks[0].shape[::-1]


def test_a_part_is_drawn_by_its_seed(tmp_path: Path) -> None:
    root = _write(tmp_path, *(_line(request=f"the cup {n}") for n in range(30)))
    ids = [sample.sample_id for sample in read_jsonl(root, limit=5, seed=1)]
    assert len(ids) == 5
    assert ids == [sample.sample_id for sample in read_jsonl(root, limit=5, seed=1)]
    assert ids != [sample.sample_id for sample in read_jsonl(root, limit=5, seed=2)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("[]", "must be a JSON object"),
        (_line(image=...), "image missing"),
        (_line(request=..., masks=...), "masks, request missing"),
        (_line(mask=[]), "unknown key mask"),
        (_line(image=3), "image must be a path"),
        (_line(image=""), "image must be a path"),
        (_line(image="a\0.png"), "is not a path"),
        (_line(image="\ud800.png"), "is not a path"),
        (_line(image="../a.png"), "is outside of"),
        (_line(image="pictures/../../a.png"), "is outside of"),
        (_line(image="/etc/passwd"), "is outside of"),
        (_line(image="none.png"), "No such file"),
        (_line(image="pictures"), "is not a file"),
        (_line(image="requests.jsonl"), "not an image"),
        (_line(image="x" * 5000), "cannot be read"),
        (_line(request=""), "empty"),
        (_line(request=["the cup"]), "must be text"),
        (_line(kind=3), "kind must be text"),
        (_line(masks=None), "masks must be a list"),
        (_line(masks={"size": [8, 12], "counts": "0"}), "masks must be a list"),
        (_line(masks=[{"size": [8, 12]}]), "A mask must be"),
        (_line(masks=[{"size": [8, 12], "counts": [96]}]), "must be text"),
        (_line(masks=[{"size": [0, 12], "counts": ""}]), "cannot be 12 x 0"),
        (
            _line(masks=[{"size": [WIDTH, HEIGHT], "counts": "0"}]),
            "8 x 12 pixels, its image 12 x 8",
        ),
        (_line(masks=[{"size": [10**9, 10**9], "counts": "0"}]), "its image 12 x 8"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(tmp_path: Path, line: object, message: str) -> None:
    root = _write(tmp_path, _line(), line)
    with pytest.raises(DatasetError, match=r"requests\.jsonl, line 2: ") as caught:
        read_jsonl(root)
    assert message in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    _write(root, _line(image="pictures/link.png"))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "secret.png")
    (root / "pictures" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DatasetError, match=r"line 1: .* is outside of"):
        read_jsonl(root)


def test_damaged_counts_are_named_when_the_sample_is_taken(tmp_path: Path) -> None:
    root = _write(tmp_path, _line(masks=[{"size": [HEIGHT, WIDTH], "counts": "~~"}]))
    samples = read_jsonl(root)
    with pytest.raises(DatasetError, match=r"requests\.jsonl, line 1: .*counts"):
        samples[0]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = _write(tmp_path, _line())
    with (root / "requests.jsonl").open("ab") as file:
        file.write(b'{"image": "\xe4"}\n')
    with pytest.raises(DatasetError, match="line 2: not UTF-8"):
        read_jsonl(root)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"requests\.jsonl cannot be read: No such file"):
        read_jsonl(tmp_path)
    with pytest.raises(DatasetError, match="There is no folder"):
        read_jsonl(tmp_path / "none")
    (tmp_path / "requests.jsonl").write_text("\n \n")
    with pytest.raises(DatasetError, match="has no lines"):
        read_jsonl(tmp_path)
