"""Image and request in, masks and note out: a reasoner and a segmenter together."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence

import torch
from PIL import Image

from segzero_ml import answer as answers
from segzero_ml import masks
from segzero_ml.errors import RequestError, SegZeroError
from segzero_ml.geometry import Frame, box_to_px, clip_box, clip_point, point_to_px
from segzero_ml.presets import Preset, get_preset
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.reasoner.protocol import Reasoner, ReasonerOutput
from segzero_ml.segmenter import MaskResult, Prompt, Segmenter
from segzero_ml.types import (
    Answer,
    AnswerObject,
    Box,
    ImageSize,
    Point,
    Prediction,
    ProblemKind,
    Segment,
)

BATCH_SIZE = 8
NOTHING_CUT = "The segmenter found nothing where the reasoner pointed."

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def segment_score(mask_iou: float, confidence: float) -> float:
    """Score of a segment: how well the mask fits times how sure the reasoner is.

    Args:
        mask_iou: The segmenter's estimate of the mask's IoU, in [0, 1].
        confidence: The reasoner's confidence in its answer, in [0, 1].

    Returns:
        In [0, 1].
    """
    return mask_iou * confidence


def prediction_score(segment_scores: Sequence[float], confidence: float) -> float:
    """Score of a prediction: the segments' mean; the reasoner's confidence without any.

    Returns:
        In [0, 1].
    """
    if not segment_scores:
        return confidence
    return sum(segment_scores) / len(segment_scores)


def version_of(preset_name: str, reasoner: str, segmenter: str) -> str:
    """Name a pair of weights, such as `tiny@1f3a5b7c`.

    Args:
        preset_name: The preset.
        reasoner: SHA-256 of the reasoner's weights, or its commit on the hub, or the name
            of a server's model.
        segmenter: The same of the segmenter.

    Returns:
        The preset's name with the first 8 digits of a SHA-256 over both weights, of the hub
        commit, or with the server's model.
    """
    if _SHA256.fullmatch(reasoner):
        digest = hashlib.sha256(f"{reasoner}\n{segmenter}".encode()).hexdigest()
        return f"{preset_name}@{digest[:8]}"
    if _COMMIT.fullmatch(reasoner):
        return f"{preset_name}@{reasoner[:8]}"
    return f"{preset_name}@{reasoner}"


class Pipeline:
    """A reasoner, its segmenter and the preset that joins them.

    Args:
        reasoner: Thinks and points.
        segmenter: Cuts the masks.
        preset: How the reasoner's answers are to be read.
    """

    def __init__(self, reasoner: Reasoner, segmenter: Segmenter, preset: Preset) -> None:
        self.reasoner = reasoner
        self.segmenter = segmenter
        self.preset = preset
        self.model_version = version_of(preset.name, reasoner.version, segmenter.version)

    @classmethod
    def load(
        cls,
        preset: str | Preset,
        device: str | torch.device | None = None,
        *,
        reasoner: Reasoner | None = None,
    ) -> Pipeline:
        """Load a preset.

        Args:
            preset: Its name, or a preset of one's own.
            device: Where the models run; the first GPU, or else the CPU, when not given.
            reasoner: Used instead of the preset's, for one that runs on a server.

        Raises:
            PresetError: There is no preset of that name.
            WeightsError: Weights are missing, refused or damaged.
        """
        chosen = get_preset(preset) if isinstance(preset, str) else preset
        if reasoner is None:
            # Here, so that a pipeline with a remote reasoner never imports transformers.
            from segzero_ml.reasoner.local import LocalReasoner

            reasoner = LocalReasoner.load(chosen, device)
        segmenter = Segmenter.load(chosen.segmenter, device, revision=chosen.segmenter_revision)
        return cls(reasoner, segmenter, chosen)

    def predict(
        self,
        images: Sequence[Image.Image],
        requests: Sequence[str],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> list[Prediction]:
        """Answer one request about each image.

        What goes wrong with one of them (a request out of range, an answer that cannot be
        read) becomes its prediction's `problem` and leaves the others alone.

        Args:
            images: Upright, any mode and size.
            requests: One for each image, as the user wrote it.
            batch_size: How many the reasoner answers at once.

        Returns:
            One prediction for each request, in their order.

        Raises:
            ModelError: The reasoner as a whole did not answer.
        """
        pairs = list(zip(images, requests, strict=True))
        predictions: list[Prediction] = []
        for start in range(0, len(pairs), batch_size):
            predictions += self._predict_batch(pairs[start : start + batch_size])
        return predictions

    def cut(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        """Cut a mask where a person points, without asking the reasoner.

        May be called from any thread, also while the pipeline answers in another one.

        Args:
            image: Upright, any mode and size.
            prompts: In pixels of this image.

        Returns:
            One mask for each prompt, in their order.

        Raises:
            ModelError: There is not enough memory.
        """
        return self.segmenter.segment(image, prompts)

    def _predict_batch(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Prediction]:
        predictions: dict[int, Prediction] = {}
        asked: dict[int, str] = {}
        for index, (image, request) in enumerate(pairs):
            try:
                asked[index] = normalise_request(request)
            except RequestError as error:
                predictions[index] = self._failed(image, request, str(error))
        started = time.perf_counter()
        outputs = self.reasoner.answer([pairs[i][0] for i in asked], list(asked.values()))
        seconds = (time.perf_counter() - started) / max(len(asked), 1)
        for index, output in zip(asked, outputs, strict=True):
            predictions[index] = self._finish(*pairs[index], output, seconds)
        return [predictions[index] for index in range(len(pairs))]

    def _finish(
        self, image: Image.Image, request: str, output: ReasonerOutput, reasoner_seconds: float
    ) -> Prediction:
        """Read one answer and cut its masks."""
        started = time.perf_counter()
        if output.problem is not None:
            return self._failed(image, request, output.problem, reasoner_seconds)
        answer = answers.parse(output.text, output.frame)
        segments: tuple[Segment, ...] = ()
        problem = answer.problem
        kind = None if problem is None else ProblemKind.UNREADABLE
        if problem is None:
            try:
                segments = self._cut(image, answer, output)
            except SegZeroError as error:
                problem, kind = str(error), ProblemKind.FAILED
        if answer.objects and not segments and problem is None:
            problem, kind = NOTHING_CUT, ProblemKind.NOTHING_CUT
        scores = [segment.score for segment in segments]
        return Prediction(
            request=request,
            size=ImageSize(image.width, image.height),
            reasoning=answer.reasoning,
            segments=segments,
            score=0.0 if problem else prediction_score(scores, output.confidence),
            model_version=self.model_version,
            problem=problem,
            problem_kind=kind,
            text=output.text,
            seconds=reasoner_seconds + time.perf_counter() - started,
        )

    def _cut(
        self, image: Image.Image, answer: Answer, output: ReasonerOutput
    ) -> tuple[Segment, ...]:
        size = ImageSize(image.width, image.height)
        # A model that repeats itself has still found one object.
        objects = [object_to_px(item, output.frame, size) for item in dict.fromkeys(answer.objects)]
        prompts = [Prompt(box_px, points_px) for box_px, points_px in objects]
        results = self.segmenter.stream(image, prompts)
        return tuple(
            Segment(
                box_px=box_px,
                points_px=points_px,
                rle=masks.encode(result.mask),
                score=segment_score(result.score, output.confidence),
            )
            for (box_px, points_px), result in zip(objects, results, strict=True)
            if result.mask.any()
        )

    def _failed(
        self, image: Image.Image, request: str, problem: str, seconds: float = 0.0
    ) -> Prediction:
        return Prediction(
            request=request,
            size=ImageSize(image.width, image.height),
            reasoning="",
            segments=(),
            score=0.0,
            model_version=self.model_version,
            problem=problem,
            problem_kind=ProblemKind.FAILED,
            seconds=seconds,
        )


def object_to_px(
    item: AnswerObject, frame: Frame, size: ImageSize
) -> tuple[Box, tuple[Point, ...]]:
    """An object of an answer in pixels of the image, within it.

    Args:
        item: As the reasoner gave it.
        frame: The frame of its coordinates.
        size: The upright original image's.
    """
    box_px = clip_box(box_to_px(item.box, frame, size), size.width, size.height)
    points_px = tuple(
        clip_point(point_to_px(point, frame, size), size.width, size.height)
        for point in item.points
    )
    return box_px, points_px
