"""Showing a model what was corrected, before the rewards begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from segzero_ml import masks
from segzero_ml.answer import parse
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.presets import get_preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import frame_of, size_seen
from segzero_ml.rewards import Truth
from segzero_ml.segmenter import Segmenter
from segzero_ml.types import ImageSize
from training_hooks.cold_start import shown, teach, true_answer
from training_hooks.judge import Case, Judge
from training_hooks.round_options import default_options


@pytest.fixture(scope="module")
def cases() -> list[tuple[Case, str]]:
    made = []
    kind = get_preset("tiny").frame
    for sample in scene_samples(7, 91, "shifted"):
        image = sample.image()
        size = ImageSize(image.width, image.height)
        truth = Truth(size, tuple(masks.encode(mask) for mask in sample.masks))
        made.append(
            (Case(sample.image, truth, frame_of(kind, size_seen(kind, size))), sample.request)
        )
    return made


@pytest.fixture
def reasoner() -> Iterator[LocalReasoner]:
    torch.manual_seed(0)
    yield LocalReasoner.load(get_preset("tiny"))


def test_the_true_answer_boxes_each_mask_with_a_point_inside(cases: list[tuple[Case, str]]) -> None:
    for case, _ in cases:
        answer = true_answer(case, "because")
        assert len(answer.objects) == len(case.truth.rles)
        for one in answer.objects:
            point = one.points[0]
            assert one.box.x1 <= point.x <= one.box.x2
            assert one.box.y1 <= point.y <= one.box.y2


@pytest.mark.slow
def test_the_best_of_its_own_answers_is_what_the_model_then_says(
    cases: list[tuple[Case, str]], reasoner: LocalReasoner
) -> None:
    options = replace(
        default_options("tiny"), cold_start=10, cold_start_rate=1e-3, max_grad_norm=1.0
    )
    judge = Judge(Segmenter.load(reasoner.preset.segmenter, "cpu"), reasoner.preset)
    given, requests = [case for case, _ in cases], [request for _, request in cases]
    lessons = shown(reasoner, judge, given, requests, [False] * len(given), options)
    torch.manual_seed(1)
    known = shown(reasoner, judge, given, requests, [True] * len(given), options)
    assert not any(one.begun for one in known)  # what was known is shown where it is known
    assert len(lessons) == len(cases)
    assert any(not one.begun for one in lessons)  # it gets some of them right now and then
    for one, case in zip(lessons, given, strict=True):
        # Its own thoughts where they were right, none where not; and the truth in any case.
        text = one.begun + one.target
        assert judge.judge([text], case)[0].mask > 0.7
        assert one.begun in ("", "<think></think><answer>")
        assert bool(parse(text, case.frame).reasoning) is not bool(one.begun)
    lessons = [one for one in lessons if not one.begun]

    def said() -> int:
        images = [one.image() for one in lessons]
        outputs = reasoner.answer(images, [one.request for one in lessons])
        return sum(
            parse(output.text, output.frame) == parse(one.target, output.frame)
            for one, output in zip(lessons, outputs, strict=True)
        )

    before = said()
    modules = default_options("tiny").target_modules
    model = get_peft_model(reasoner.model, LoraConfig(r=16, target_modules=modules))
    teach(model, reasoner, lessons, options)
    model.eval()
    assert said() > max(before, len(lessons) // 2)
