"""Showing a model what was corrected, before the rewards begin."""

from __future__ import annotations

from collections.abc import Iterator

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
from segzero_ml.types import ImageSize
from training_hooks.cold_start import shown, teach, true_answer
from training_hooks.judge import Case
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
def test_what_was_shown_is_answered_after_the_model_s_own_thoughts(
    cases: list[tuple[Case, str]], reasoner: LocalReasoner
) -> None:
    lessons = shown(reasoner, [case for case, _ in cases], [r for _, r in cases], reasoner.preset)
    assert lessons  # it thinks in the right form about some of them

    def right() -> int:
        outputs = reasoner.go_on(
            [one.image() for one in lessons],
            [one.request for one in lessons],
            [one.begun for one in lessons],
        )
        return sum(
            parse(output.text, output.frame) == parse(one.begun + one.target, output.frame)
            for one, output in zip(lessons, outputs, strict=True)
        )

    before = right()
    assert before < len(lessons)
    model = get_peft_model(
        reasoner.model,
        LoraConfig(r=16, target_modules=default_options("tiny").target_modules),
    )
    teach(model, reasoner, lessons, learning_rate=2e-3, epochs=15, seed=0, max_grad_norm=1.0)
    model.eval()
    assert right() > max(before, len(lessons) // 2)
