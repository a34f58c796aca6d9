"""Time and memory of the main path with the bundled preset: `make bench`.

Times depend on the machine, so nothing is asserted of them; what is compared is measured in
one run. Only the answers are checked.
"""

from __future__ import annotations

import resource
import statistics
import time

import numpy as np
import pytest
from PIL import Image

from segzero_ml.datasets import Sample
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.pipeline import Pipeline
from segzero_ml.segmenter import Prompt, Segmenter
from segzero_ml.types import Box

REQUESTS = 32
BATCH = 16
ROUNDS = 10


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("tiny")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(scene_samples(REQUESTS, seed=7))


# First, so that the peak is that of single requests.
def test_one_request(pipeline: Pipeline, samples: list[Sample]) -> None:
    images = [sample.image() for sample in samples[: ROUNDS + 1]]
    requests = [sample.request for sample in samples]
    pipeline.predict(images[:1], requests[:1])  # the first one also warms up
    predictions = [
        pipeline.predict([image], [request])[0]
        for image, request in zip(images[1:], requests[1:], strict=False)
    ]
    median = statistics.median(prediction.seconds for prediction in predictions)
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\none request: median {median:.3f} s; peak memory {mebibytes:.0f} MiB")
    assert all(prediction.text for prediction in predictions)


def test_a_second_prompt_on_the_same_image(pipeline: Pipeline) -> None:
    images = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (512, 512, 3), dtype=np.uint8))
        for seed in range(ROUNDS + 1)
    ]
    segmenter = Segmenter(pipeline.segmenter.model, "fresh")
    box, other = Prompt(Box(40, 40, 300, 300)), Prompt(Box(100, 100, 400, 420))
    segmenter.segment(images.pop(), [box])
    fresh: list[float] = []
    cached: list[float] = []
    for image in images:
        started = time.perf_counter()
        segmenter.segment(image, [box])
        between = time.perf_counter()
        [again] = segmenter.segment(image, [other])
        cached.append(time.perf_counter() - between)
        fresh.append(between - started)
        [unaided] = Segmenter(segmenter.model, "again").segment(image, [other])
        assert np.array_equal(again.mask, unaided.mask)
    first, second = statistics.median(fresh), statistics.median(cached)
    print(
        f"\nsecond prompt on an image: {second:.4f} s against {first:.4f} s, "
        f"{first / second:.1f} times as fast"
    )


def test_requests_in_batches(pipeline: Pipeline, samples: list[Sample]) -> None:
    images = [sample.image() for sample in samples]
    requests = [sample.request for sample in samples]
    # One segmenter each, so that neither finds the other's embeddings.
    model = pipeline.segmenter.model
    together, alone = (
        Pipeline(pipeline.reasoner, Segmenter(model, "bench"), pipeline.preset) for _ in range(2)
    )
    started = time.perf_counter()
    batched = together.predict(images, requests, batch_size=BATCH)
    between = time.perf_counter()
    single = alone.predict(images, requests, batch_size=1)
    ended = time.perf_counter()
    in_batches, one_by_one = between - started, ended - between
    print(
        f"\n{REQUESTS} requests: {in_batches:.2f} s in batches of {BATCH} against "
        f"{one_by_one:.2f} s one by one, {one_by_one / in_batches:.1f} times as fast"
    )
    # Sums in another order may turn a close call, but not many.
    same = sum(a.text == b.text for a, b in zip(batched, single, strict=True))
    assert same >= 0.9 * REQUESTS
