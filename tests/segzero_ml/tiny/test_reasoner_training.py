"""What trains the bundled reasoner computes just what serving computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AttentionInterface, AutoModelForImageTextToText, AutoProcessor

from segzero_ml.answer import AnswerSchema, format_is_strict, parse
from segzero_ml.geometry import Frame
from segzero_ml.presets import get_preset
from segzero_ml.tiny.cache import SceneCache, load_or_draw
from segzero_ml.tiny.reasoner import FRAME, GRID, number_ids
from segzero_ml.tiny.reasoner_data import (
    IGNORED,
    USUAL_LENGTH,
    Batch,
    BatchMaker,
    answer_text,
    to_patches,
    turn_objects,
    word_ids,
)
from segzero_ml.tiny.reasoner_forward import Packing, packed_attention, see
from segzero_ml.tiny.requests import KINDS, make_request
from segzero_ml.tiny.scenes import COLOURS, SHAPES
from segzero_ml.types import ImageSize

GRID_THW = torch.tensor([[1, 2 * GRID, 2 * GRID]])


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(get_preset("tiny").reasoner)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(
        get_preset("tiny").reasoner, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    return load_or_draw(tmp_path_factory.mktemp("scenes"), 12, FRAME, workers=1)


@pytest.fixture(scope="module")
def batch(scenes: SceneCache, processor: Any) -> Batch:
    maker = BatchMaker(scenes, processor.tokenizer, requests=3, seed=1)
    return next(b for b in (maker.make(i, 2) for i in range(50)) if _length(b) == USUAL_LENGTH)


def _length(batch: Batch) -> int:
    return (batch.input_ids.shape[1] - batch.head) // batch.requests


@torch.inference_mode()
def test_sight_in_batches_equals_the_models_own(model: Any, batch: Batch) -> None:
    own = model.model.visual(batch.patches.flatten(0, 1), GRID_THW.repeat(2, 1)).pooler_output
    torch.testing.assert_close(
        see(model.model.visual, batch.patches).flatten(0, 1), own, atol=1e-3, rtol=1e-3
    )


@torch.inference_mode()
def test_packed_requests_get_the_logits_they_get_alone(
    model: Any, processor: Any, batch: Batch
) -> None:
    text = model.model.language_model
    embedded = model.get_input_embeddings()(batch.input_ids)
    is_image = batch.input_ids == model.config.image_token_id
    embedded = embedded.masked_scatter(is_image[..., None], see(model.model.visual, batch.patches))
    AttentionInterface.register("packed", packed_attention)
    before = text.config._attn_implementation
    text.config._attn_implementation = "packed"
    try:
        hidden = text(
            inputs_embeds=embedded,
            position_ids=batch.positions,
            attention_mask={"full_attention": None},
            use_cache=False,
            packing=Packing(batch.head, batch.requests),
        ).last_hidden_state
    finally:
        text.config._attn_implementation = before
    packed = model.lm_head(hidden)[0]
    for k in range(batch.requests):
        start = batch.head + k * _length(batch)
        own = batch.input_ids[0, start : start + _length(batch)]
        own = own[: int((own != processor.tokenizer.pad_token_id).sum())]
        ids = torch.cat([batch.input_ids[0, : batch.head], own])[None]
        alone = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            pixel_values=batch.patches[0],
            image_grid_thw=GRID_THW,
        ).logits[0, batch.head :]
        torch.testing.assert_close(packed[start : start + len(own)], alone, atol=5e-3, rtol=5e-3)


def test_labels_are_the_answers_one_token_early(processor: Any, batch: Batch) -> None:
    for row, labels in zip(batch.input_ids, batch.labels, strict=True):
        places = (labels != IGNORED).nonzero()[:, 0]
        assert torch.equal(labels[places], row[places + 1])
        text = processor.tokenizer.decode(labels[places])
        assert text.count("<think>") == text.count("</answer><|im_end|>") == batch.requests


def test_patches_are_laid_out_as_the_processor_does(processor: Any, scenes: SceneCache) -> None:
    pictures = np.array(scenes.images[:2])
    inputs = processor.image_processor(
        images=[Image.fromarray(p) for p in pictures], return_tensors="pt"
    )
    torch.testing.assert_close(
        to_patches(pictures).flatten(0, 1), inputs["pixel_values"], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_object_lies_where_the_turned_picture_has_it(
    turn: int, scenes: SceneCache
) -> None:
    size = ImageSize(*(int(v) for v in scenes.sizes[0]))
    labels = np.array(scenes.labels[0])
    labels = labels[:, ::-1] if turn & 1 else labels
    labels = labels[::-1] if turn & 2 else labels
    labels = labels.T if turn & 4 else labels
    objects, turned = turn_objects(scenes.objects(0), size, turn)
    for k, o in enumerate(objects):
        rows, columns = np.nonzero(labels == k + 1)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        scale = (FRAME / turned.width, FRAME / turned.height) * 2
        expected = np.array(o.box_px.as_tuple()) * scale
        assert np.abs(np.array(seen) - expected).max() <= 1.5
        x, y = o.point_px.x * scale[0], o.point_px.y * scale[1]
        assert labels[int(y), int(x)] == k + 1


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_strict_and_read_back_as_the_targets(kind: str, scenes: SceneCache) -> None:
    made = 0
    for index in range(len(scenes.counts)):
        objects = scenes.objects(index)
        size = ImageSize(*(int(v) for v in scenes.sizes[index]))
        request = make_request(objects, size, kind, np.random.default_rng(index))
        if request is None:
            continue
        made += 1
        text = answer_text(request, objects, size)
        assert format_is_strict(text, AnswerSchema.VISION_REASONER)
        answer = parse(text, Frame(FRAME, FRAME))
        assert answer.reasoning == request.reasoning
        for found, target in zip(answer.objects, request.targets, strict=True):
            box_px = np.array(objects[target].box_px.as_tuple())
            scale = np.array([FRAME / size.width, FRAME / size.height] * 2)
            assert np.abs(np.array(found.box.as_tuple()) - box_px * scale).max() <= 0.51
    assert made


def test_numbers_and_names_are_single_tokens(processor: Any) -> None:
    assert len(set(number_ids(processor.tokenizer))) == FRAME + 1
    assert len(set(word_ids(processor.tokenizer, (*COLOURS, *SHAPES)))) == 14


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(get_preset("tiny").reasoner).tokenizer
    plain = text.encode("utf-8", "ignore").decode().replace("<|", "")
    ids = tokenizer.encode(plain, add_special_tokens=False)
    assert tokenizer.decode(ids) == plain


def test_the_cache_is_read_back_as_it_was_drawn(scenes: SceneCache, tmp_path: Path) -> None:
    again = load_or_draw(tmp_path, 12, FRAME, workers=1)
    assert np.array_equal(again.images, scenes.images)
    assert again.objects(5) == scenes.objects(5)
