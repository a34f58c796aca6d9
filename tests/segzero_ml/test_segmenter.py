from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from segzero_ml.errors import ModelError, RequestError, WeightsError
from segzero_ml.segmenter import Embedding, EmbeddingCache, Prompt, Segmenter
from segzero_ml.types import Box, Point

Picture = Callable[..., Image.Image]
Config = Callable[..., dict[str, Any]]
Save = Callable[[Path, dict[str, Any]], Path]

BOX = Box(20, 10, 90, 60)


@pytest.fixture
def segmenter(segmenter_dir: Path) -> Segmenter:
    return Segmenter.load(segmenter_dir, "cpu")


@pytest.mark.parametrize(("width", "height"), [(128, 128), (201, 77), (31, 300), (1, 1)])
def test_masks_have_the_size_of_the_original_image(
    segmenter: Segmenter, picture: Picture, width: int, height: int
) -> None:
    prompts = [Prompt(Box(0, 0, width, height)), Prompt(None, (Point(0, 0),))]
    results = segmenter.segment(picture(width, height), prompts)
    assert [r.mask.shape for r in results] == [(height, width)] * 2
    assert all(r.mask.dtype == np.bool_ for r in results)
    assert all(0.0 <= r.score <= 1.0 for r in results)


@pytest.mark.parametrize("image_size", [64, 128, 256])
def test_any_image_size_agrees_with_the_sam2_packages_own_predictor(
    tmp_path: Path, sam2_config: Config, save_sam2: Save, picture: Picture, image_size: int
) -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    segmenter = Segmenter.load(save_sam2(tmp_path, sam2_config(image_size)), "cpu")
    image = picture(image_size, image_size)
    box, point = Box(8, 4, 40, 50), Point(20.5, 30.5)
    with pytest.warns(FutureWarning):  # it compiles its transforms with torch.jit
        reference = SAM2ImagePredictor(segmenter.model)
    reference._bb_feat_sizes = [(image_size // s, image_size // s) for s in (4, 8, 16)]
    reference.set_image(image)
    logits, scores, _ = reference.predict(
        point_coords=np.array([[point.x, point.y]]),
        point_labels=np.array([1]),
        box=np.array(box.as_tuple()),
        multimask_output=False,
        return_logits=True,
    )
    [result] = segmenter.segment(image, [Prompt(box, (point,))])
    assert logits.min() < 0 < logits.max()  # a mask that is all on would agree with anything
    sure = np.abs(logits[0]) > 1e-4
    assert sure.mean() > 0.99
    assert np.array_equal(result.mask[sure], (logits[0] > 0)[sure])
    assert result.score == pytest.approx(float(scores[0]), abs=1e-4)


def test_a_prompts_mask_does_not_depend_on_its_companions(
    segmenter: Segmenter, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segzero_ml.segmenter.PROMPTS_AT_ONCE", 2)
    image = picture(160, 90)
    prompts = [
        Prompt(BOX, (Point(40, 30),)),
        Prompt(None, (Point(40, 30), Point(100, 50)), (True, False)),
        Prompt(BOX),
        *[Prompt(Box(i, i, i + 40, i + 30), (Point(i + 5, i + 6),)) for i in range(4)],
    ]
    together = segmenter.segment(image, prompts)
    alone = [segmenter.segment(image, [prompt])[0] for prompt in prompts]
    assert [r.score for r in together] == pytest.approx([r.score for r in alone], abs=1e-5)
    differing = [np.mean(a.mask != b.mask) for a, b in zip(together, alone, strict=True)]
    assert max(differing) < 0.001


def test_prompts_and_their_labels_change_the_answer(segmenter: Segmenter, picture: Picture) -> None:
    image = picture(160, 90)
    scores = [
        segmenter.segment(image, [prompt])[0].score
        for prompt in (
            Prompt(BOX),
            Prompt(Box(90, 40, 150, 80)),
            Prompt(BOX, (Point(40, 30),)),
            Prompt(BOX, (Point(40, 30),), (False,)),
        )
    ]
    assert len(set(scores)) == len(scores)


def test_no_prompts_give_no_masks(segmenter: Segmenter, picture: Picture) -> None:
    assert segmenter.segment(picture(20, 20), []) == []


def test_a_prompt_with_nothing_in_it_or_labels_missing_is_refused() -> None:
    with pytest.raises(RequestError, match="a box or a point"):
        Prompt(None)
    with pytest.raises(RequestError, match="2 points but 1 labels"):
        Prompt(None, (Point(1, 1), Point(2, 2)), (True,))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_of_image_is_taken(segmenter: Segmenter, picture: Picture, mode: str) -> None:
    [result] = segmenter.segment(picture(40, 30).convert(mode), [Prompt(Box(1, 1, 20, 20))])
    assert result.mask.shape == (30, 40)


def count_embeddings(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    forward = segmenter.model.forward_image

    def counted(batch: torch.Tensor) -> Any:
        calls.append(len(batch))
        return forward(batch)

    monkeypatch.setattr(segmenter.model, "forward_image", counted)
    return calls


def test_an_image_is_embedded_once_however_it_arrives(
    segmenter: Segmenter, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_embeddings(segmenter, monkeypatch)
    image = picture(50, 40)
    segmenter.segment(image, [Prompt(Box(1, 1, 9, 9)), Prompt(Box(2, 2, 30, 30))])
    segmenter.segment(image.copy(), [Prompt(None, (Point(3, 3),))])
    assert len(calls) == 1
    segmenter.segment(picture(50, 40, 1), [Prompt(Box(1, 1, 9, 9))])
    assert len(calls) == 2


def test_too_little_memory_on_a_cpu_is_told_as_such_and_other_errors_are_not(
    segmenter: Segmenter, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter.model, "forward_image", lambda _: torch.empty(1 << 55))
    with pytest.raises(ModelError, match="not enough memory for the segmenter"):
        segmenter.segment(picture(20, 20), [Prompt(BOX)])

    def broken(_: torch.Tensor) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(segmenter.model, "forward_image", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        segmenter.segment(picture(20, 20), [Prompt(BOX)])


def test_the_cache_stays_within_its_bytes_and_drops_the_longest_unused() -> None:
    def embedding() -> Embedding:
        return Embedding(torch.zeros(25), ())  # 100 bytes

    cache = EmbeddingCache(limit_bytes=250)
    cache.put(b"a", embedding())
    cache.put(b"b", embedding())
    assert cache.get(b"a") is not None
    cache.put(b"c", embedding())
    assert cache.nbytes == 200
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    cache.put(b"a", embedding())
    assert cache.nbytes == 200
    cache.put(b"huge", Embedding(torch.zeros(100), ()))
    assert cache.nbytes == 0


def test_a_cache_without_room_still_segments(segmenter_dir: Path, picture: Picture) -> None:
    segmenter = Segmenter.load(segmenter_dir, "cpu", cache_bytes=0)
    assert len(segmenter.segment(picture(30, 30), [Prompt(Box(1, 1, 9, 9))])) == 1


def test_threads_share_a_segmenter(segmenter: Segmenter, picture: Picture) -> None:
    images = [picture(60, 40, seed) for seed in range(4)]
    expected = [segmenter.segment(image, [Prompt(BOX)])[0].score for image in images]
    wrong: list[float] = []

    def work() -> None:
        for _ in range(3):
            for image, score in zip(images, expected, strict=True):
                got = segmenter.segment(image, [Prompt(BOX)])[0].score
                if got != pytest.approx(score, abs=1e-5):
                    wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_directory_without_configuration_or_weights_is_refused(
    tmp_path: Path, segmenter_dir: Path
) -> None:
    with pytest.raises(WeightsError, match="no safetensors"):
        Segmenter.load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").write_bytes((segmenter_dir / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"config\.yaml"):
        Segmenter.load(tmp_path, "cpu")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, segmenter_dir: Path) -> None:
    state = load_file(segmenter_dir / "model.safetensors")
    state["no_mem_embed"][..., 0] = float("nan")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text((segmenter_dir / "config.yaml").read_text())
    with pytest.raises(WeightsError, match="no_mem_embed is not finite"):
        Segmenter.load(tmp_path, "cpu")


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        Segmenter.load("no such thing", "cpu")


def test_embedding_is_made_once_however_many_ask_for_it_at_the_same_time() -> None:
    cache = EmbeddingCache(10_000)
    start = threading.Barrier(8)
    made: list[Embedding] = []

    def make() -> Embedding:
        time.sleep(0.05)
        made.append(Embedding(torch.zeros(10), ()))
        return made[-1]

    def ask() -> Embedding:
        start.wait()
        return cache.get_or_make(b"k", make)

    with ThreadPoolExecutor(8) as pool:
        found = [one.result() for one in [pool.submit(ask) for _ in range(8)]]
    assert len(made) == 1
    assert all(one is made[0] for one in found)


def test_embedding_that_failed_is_tried_again_and_one_over_the_limit_is_not_kept() -> None:
    cache = EmbeddingCache(10)

    def fail() -> Embedding:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.get_or_make(b"k", fail)
    large = cache.get_or_make(b"k", lambda: Embedding(torch.zeros(10), ()))
    assert large.nbytes == 40
    assert cache.nbytes == 0
