"""The thread that answers in batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from PIL import Image

from backend.model_thread import ModelThread
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.protocol import ReasonerOutput
from tests.backend.serving import Watched


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


def test_a_batch_is_of_one_pipeline_and_nobody_is_overtaken_by_his_own(
    tiny_pipeline: Pipeline,
) -> None:
    first, second = Watched(tiny_pipeline), Watched(tiny_pipeline)
    thread = ModelThread(lambda: tiny_pipeline, batch_size=3)
    image = Image.new("RGB", (40, 30), "white")
    waiting = [
        thread.submit(image, f"star {n}", interactive=False, pipeline=(first, second)[n % 2])
        for n in range(8)
    ]
    thread.start()
    for answer in waiting:
        answer.result(timeout=120)
    thread.stop(timeout_s=10)
    assert first.batches == [["star 0", "star 2", "star 4"], ["star 6"]]
    assert second.batches == [["star 1", "star 3", "star 5"], ["star 7"]]


def test_what_fails_between_two_batches_does_not_end_the_thread(tiny_pipeline: Pipeline) -> None:
    calls: list[int] = []

    def between() -> None:
        calls.append(len(calls))
        raise RuntimeError("something nobody thought of")

    thread = ModelThread(lambda: tiny_pipeline, batch_size=1, between=between, look_s=0.01)
    thread.start()
    image = Image.new("RGB", (40, 30), "white")
    for _ in range(2):
        thread.submit(image, "the star", interactive=True).result(timeout=120)
    until = time.monotonic() + 60
    while len(calls) < 5:  # also while there is nothing to do
        assert time.monotonic() < until
        time.sleep(0.01)
    assert thread.is_ready
    thread.stop(timeout_s=10)
