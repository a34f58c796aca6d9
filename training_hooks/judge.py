"""Judges rollouts: reads the answers, has SAM 2 cut what they point at, and scores the masks.

The same parsing and the same segmenter as in serving, so that what is rewarded is what
annotators will see. An image is embedded once, and all rollouts of a prompt are decoded
together; equal prompts are cut once, answers that cannot be read not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from segzero_ml import masks
from segzero_ml.answer import parse
from segzero_ml.geometry import Frame
from segzero_ml.pipeline import object_to_px
from segzero_ml.presets import Preset
from segzero_ml.rewards import RewardParts, RewardWeights, Rollout, Truth, score
from segzero_ml.segmenter import MaskResult, Prompt
from segzero_ml.types import Answer, AnswerObject, ImageSize, Rle


class Cuts(Protocol):
    """What cuts masks: a `Segmenter`, which keeps the embeddings of the last images."""

    def segment(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        """One mask for each prompt."""
        ...


@dataclass(frozen=True)
class Case:
    """What rollouts of one prompt are judged by.

    Args:
        image: Gives the upright image.
        truth: The corrected masks.
        frame: The frame in which the reasoner answers about this image.
    """

    image: Callable[[], Image.Image]
    truth: Truth
    frame: Frame


class Judge:
    """Scores rollouts against the truth of their cases.

    Args:
        segmenter: Cuts the masks.
        preset: The form that answers must have.
        weights: How the parts of the reward count.
        longest_words: Words that an answer may have before its length costs.
    """

    def __init__(
        self,
        segmenter: Cuts,
        preset: Preset,
        weights: RewardWeights | None = None,
        longest_words: int = 256,
    ) -> None:
        self._segmenter = segmenter
        self._preset = preset
        self._weights = weights or RewardWeights()
        self._longest_words = longest_words

    def judge(self, texts: Sequence[str], case: Case) -> list[RewardParts]:
        """Score rollouts of one prompt.

        Args:
            texts: What the reasoner wrote.
            case: What they are judged by.

        Returns:
            One score for each text, in their order.

        Raises:
            ModelError: The segmenter has not enough memory.
        """
        size = case.truth.size
        answers = [answer_px(text, case.frame, size) for text in texts]
        cut = self._cut(case, [one for answer in answers for one in answer.objects])
        return [
            score(
                Rollout(text, answer, tuple(cut[prompt_of(one)] for one in answer.objects)),
                case.truth,
                self._preset.schema,
                self._weights,
                self._longest_words,
            )
            for text, answer in zip(texts, answers, strict=True)
        ]

    def _cut(self, case: Case, objects: Sequence[AnswerObject]) -> Mapping[Prompt, Rle | None]:
        # In a fixed order, so that the same rollouts are scored the same.
        prompts = list(dict.fromkeys(prompt_of(one) for one in objects))
        if not prompts or not case.truth.rles:  # whatever is answered to nothing earns nothing
            return dict.fromkeys(prompts)
        found = self._segmenter.segment(case.image(), prompts)
        return {
            prompt: masks.encode(one.mask) if one.mask.any() else None
            for prompt, one in zip(prompts, found, strict=True)
        }


def prompt_of(found: AnswerObject) -> Prompt:
    """What the segmenter is told of an answered object: as in serving, box and points."""
    return Prompt(found.box, found.points)


def answer_px(text: str, frame: Frame, size: ImageSize) -> Answer:
    """Read an answer; boxes and points in pixels of the original image, inside of it."""
    answer = parse(text, frame)
    objects = tuple(AnswerObject(*object_to_px(one, frame, size)) for one in answer.objects)
    return Answer(answer.reasoning, objects, answer.problem)
