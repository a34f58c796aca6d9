"""The way of a correction, from the webhook to the store: real processes, a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segzero_ml.corrections import Verdict
from tests.backend.annotated import RING, rle
from tests.backend.intake_world import KEY, World, saved, until
from training_hooks.redis_client import connect
from training_hooks.store import CorrectionStore


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("intake")) as world:
        world.redis.start()
        world.start_worker()
        world.start_backend()
        yield world


def test_a_submit_is_in_the_store_within_seconds(world: World) -> None:
    assert world.post(saved(1)) == 200
    until(lambda: 1 in world.stored(), "the correction is stored", 30)
    with connect(world.redis.url) as client:
        correction = CorrectionStore(client).get(KEY.annotation(1))
    assert correction is not None
    assert correction.verdict is Verdict.DRAWN_BY_HAND
    assert [one.rle for one in correction.corrected] == [rle(RING)]
    assert (correction.task, correction.request) == (1001, "the ring")
