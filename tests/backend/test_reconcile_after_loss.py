"""Case 7: Redis loses the end of its file. It starts, and a reconcile fills the gap exactly."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from backend.reconcile import reconcile
from tests.backend.many_tasks import PROJECT, SETTINGS, ManyTasks
from tests.training_hooks.store_samples import everything
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

KEY = ProjectKey(SETTINGS.label_studio_name, PROJECT)


def reconciled(studio: ManyTasks, store: CorrectionStore) -> None:
    with studio.client() as client:
        assert reconcile(client, store, PROJECT, SETTINGS).is_complete


@pytest.mark.parametrize("share_lost", [0.1, 0.5, 0.9])
def test_what_redis_lost_is_brought_back_and_nothing_deleted_with_it(
    tmp_path: Path, share_lost: float
) -> None:
    studio = ManyTasks(random.Random(7))
    for _ in range(40):
        studio.annotate(studio.add_task())
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        reconciled(studio, CorrectionStore(client))
        for number in [*studio.annotations][::5]:
            studio.edit(number)
        for number in [*studio.annotations][::7]:
            studio.delete(number)
        reconciled(studio, CorrectionStore(client))
    [file] = (tmp_path / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, int(file.stat().st_size * (1 - share_lost)))

    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        store = CorrectionStore(client)
        corrections, withdrawn = studio.truth()
        assert everything(store, KEY) != corrections
        reconciled(studio, store)
        assert everything(store, KEY) == corrections
        known = set(store.annotation_ids(KEY, store.mark(KEY)))
        assert known == set(corrections) | set(withdrawn)
