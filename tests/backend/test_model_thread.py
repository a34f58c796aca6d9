"""The thread that answers in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from PIL import Image

from backend.model_thread import ModelThread
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.protocol import ReasonerOutput


class Counting:
    """The bundled reasoner, with the sizes of the batches that reach it noted."""

    def __init__(self) -> None:
        self._reasoner = LocalReasoner.load(
            dataclasses.replace(get_preset("tiny"), max_new_tokens=2), "cpu"
        )
        self.version = self._reasoner.version
        self.batches: list[int] = []

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        self.batches.append(len(requests))
        return self._reasoner.answer(images, requests)


def test_a_batch_of_more_than_eight_reaches_the_reasoner_whole() -> None:
    reasoner = Counting()
    pipeline = Pipeline.load("tiny", "cpu", reasoner=reasoner)
    thread = ModelThread(lambda: pipeline, batch_size=12)
    image = Image.new("RGB", (40, 30), "white")
    waiting = [thread.submit(image, "the mug", interactive=False) for _ in range(12)]
    thread.start()
    for answer in waiting:
        answer.result(timeout=120)
    thread.stop(timeout_s=10)
    assert reasoner.batches == [12]
