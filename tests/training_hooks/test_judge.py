"""The judge: rollouts scored by real masks of the bundled segmenter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from segzero_ml import masks
from segzero_ml.answer import AnswerSchema, render
from segzero_ml.datasets.scenes import scene_sample
from segzero_ml.geometry import Frame, box_from_px, point_from_px
from segzero_ml.presets import get_preset
from segzero_ml.rewards import Truth
from segzero_ml.segmenter import MaskResult, Prompt, Segmenter
from segzero_ml.types import Answer, AnswerObject, BoolMask, Box, ImageSize
from training_hooks.judge import Case, Judge

PRESET = get_preset("tiny")
FRAME = Frame(160, 160)


class Counted:
    """The real segmenter; notes how many prompts each image was cut with."""

    def __init__(self) -> None:
        self.prompts: list[int] = []
        self._segmenter = Segmenter.load(PRESET.segmenter, "cpu")

    def segment(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        self.prompts.append(len(prompts))
        return self._segmenter.segment(image, prompts)


@pytest.fixture(scope="module")
def segmenter() -> Counted:
    return Counted()


def scene(number: int) -> tuple[Case, tuple[BoolMask, ...]]:
    sample = scene_sample(number)
    image = sample.image()
    size = ImageSize(image.width, image.height)
    truth = Truth(size, tuple(masks.encode(mask) for mask in sample.masks))
    return Case(lambda: image, truth, FRAME), sample.masks


def answer_for(case: Case, *found: BoolMask) -> str:
    objects = []
    for mask in found:
        box, point = masks.bounding_box_px(mask), masks.inner_point_px(mask)
        assert box is not None
        assert point is not None
        size = case.truth.size
        objects.append(
            AnswerObject(box_from_px(box, FRAME, size), (point_from_px(point, FRAME, size),))
        )
    text = Answer("It fits what was asked for.", tuple(objects))
    return render(text, AnswerSchema.VISION_REASONER)


SINGLE = 7_000_000  # an attribute: exactly one object
ABSENT = 7_000_005 + (5 - 7_000_005 % 7) % 7


def test_the_true_box_and_point_earn_nearly_everything(segmenter: Counted) -> None:
    case, true = scene(SINGLE)
    [parts] = Judge(segmenter, PRESET).judge([answer_for(case, *true)], case)
    assert parts.mask > 0.8
    assert parts.total > 0.85


def test_rollouts_of_a_prompt_are_cut_together_and_equal_ones_once(segmenter: Counted) -> None:
    case, true = scene(SINGLE)
    right = answer_for(case, *true)
    elsewhere = right.replace("fits", "suits")
    before = len(segmenter.prompts)
    texts = [right, elsewhere, "no answer at all", right]
    parts = Judge(segmenter, PRESET).judge(texts, case)
    assert segmenter.prompts[before:] == [1]
    assert parts[0].mask == parts[1].mask == parts[3].mask > 0
    assert parts[2].total == 0


def test_where_nothing_is_nothing_is_cut(segmenter: Counted) -> None:
    case, true = scene(ABSENT)
    assert true == ()
    some = Box(10, 10, 60, 60)
    boxed = render(Answer("There.", (AnswerObject(some),)), AnswerSchema.VISION_REASONER)
    before = len(segmenter.prompts)
    nothing, something = Judge(segmenter, PRESET).judge([answer_for(case), boxed], case)
    assert segmenter.prompts[before:] == []
    assert nothing.total == pytest.approx(1)
    assert something.mask == 0


def test_a_box_beyond_the_image_is_cut_at_its_edge(segmenter: Counted) -> None:
    case, true = scene(SINGLE)
    text = answer_for(case, *true)
    wide = text.replace('"bbox_2d":[', '"bbox_2d":[-500,-500,9999,9999],"old":[')
    [parts] = Judge(segmenter, PRESET).judge([wide], case)
    assert 0 <= parts.box < 0.5
