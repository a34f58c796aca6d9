"""Acknowledged stays stored: through SIGKILL, a damaged file, and memory that runs out."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from segzero_ml.errors import StoreError
from tests.training_hooks.store_samples import PROJECT, correction, everything, key
from training_hooks.redis_client import connect, wait_until_on_disk
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import Outcome

WRITERS = 3
BURST_S = 1.5


class Burst:
    """Writers of corrections of their own, until the server is gone.

    Args:
        url: The server.
        sure: Count a correction only once it is on disk, not when it is acknowledged.
    """

    def __init__(self, url: str, sure: bool) -> None:
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self._url = url
        self._sure = sure
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(1, WRITERS + 1)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        with connect(self._url, retries=0) as client:
            store = CorrectionStore(client)
            for annotation in range(number, 1_000_000, WRITERS):
                try:
                    self._one(store, annotation)
                    if self._sure and annotation // WRITERS % 50 == 0:
                        assert wait_until_on_disk(client, 4)
                        self._settle(number, annotation)
                except StoreError:
                    return

    def _one(self, store: CorrectionStore, annotation: int) -> None:
        assert store.upsert(correction(annotation)) is Outcome.CREATED
        if annotation % 5 == 0:
            store.delete(key(annotation))
        if not self._sure:
            self._note(annotation)

    def _settle(self, number: int, last: int) -> None:
        for annotation in range(number, last + 1, WRITERS):
            self._note(annotation)

    def _note(self, annotation: int) -> None:
        (self.deleted if annotation % 5 == 0 else self.acknowledged).add(annotation)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize(("fsync", "sure"), [("always", False), ("everysec", True)])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_a_burst(
    tmp_path: Path, fsync: Literal["always", "everysec"], sure: bool
) -> None:
    """With `always` every reply is a promise; with `everysec` that on disk is asked for."""
    with EmbeddedServer(tmp_path, fsync=fsync) as server:
        burst = Burst(server.url, sure)
        time.sleep(BURST_S)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        burst.join()
        # A kill takes a moment while the disk is busy, and what still ends is not started anew.
        assert server.wait(60) == -signal.SIGKILL
        server.start()
        with connect(server.url) as client:
            store = CorrectionStore(client)
            stored = everything(store, limit=1000)
            assert len(burst.acknowledged) > 20
            assert burst.acknowledged <= stored.keys()
            assert not burst.deleted & stored.keys()
            assert store.statistics(PROJECT).corrections == len(stored)
            late = [store.upsert(correction(each)) for each in sorted(burst.deleted)[:50]]
            assert set(late) == {Outcome.DELETED}


def newest_file(folder: Path) -> Path:
    return max((folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


def fill(folder: Path, count: int) -> None:
    with EmbeddedServer(folder) as server, connect(server.url) as client:
        store = CorrectionStore(client)
        for annotation in range(1, count + 1):
            store.upsert(correction(annotation))


@pytest.mark.parametrize("bytes_cut", [1, 7, 300, 1500])
def test_a_file_that_ends_in_the_middle_of_a_write_loses_that_write_alone(
    tmp_path: Path, bytes_cut: int
) -> None:
    fill(tmp_path, 20)
    file = newest_file(tmp_path)
    os.truncate(file, file.stat().st_size - bytes_cut)
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        store = CorrectionStore(client)
        stored = everything(store)
        assert list(range(1, len(stored) + 1)) == list(stored)
        assert 18 <= len(stored) < 20
        assert store.statistics(PROJECT).corrections == len(stored)
        assert store.upsert(correction(20)) is Outcome.CREATED


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"rubbish" * 100, b"*3\r\n$-1\r\n"])
def test_a_file_that_ends_in_rubbish_loses_the_rubbish_alone(
    tmp_path: Path, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a loss of power; Redis by itself refuses to start with such a file."""
    fill(tmp_path, 5)
    file = newest_file(tmp_path)
    with file.open("ab") as stream:
        stream.write(rubbish)
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        assert set(everything(CorrectionStore(client))) == {1, 2, 3, 4, 5}
    assert f"{len(rubbish)} bytes were cut off" in caplog.text
    (saved,) = tmp_path.glob("damaged-*")
    assert saved.read_bytes() == rubbish


def test_a_snapshot_that_is_damaged_is_reported_and_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (snapshot,) = (tmp_path / "appendonlydir").glob("*.base.rdb")
    snapshot.write_bytes(b"REDIS0011 is not what follows")
    before = {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
    with pytest.raises(StoreError, match=r"move .* away and start again"):
        EmbeddedServer(tmp_path).start()
    assert {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()} == before


def test_memory_running_out_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, max_memory=4_000_000) as server, connect(server.url) as client:
        store = CorrectionStore(client)
        acknowledged: set[int] = set()
        with pytest.raises(StoreError, match="no memory left"):
            for annotation in range(1, 100_000):
                assert store.upsert(correction(annotation)) is Outcome.CREATED
                acknowledged.add(annotation)
        with pytest.raises(StoreError, match="no memory left"):
            store.upsert(correction(1, second=5))
        stored = everything(store)
        assert stored.keys() == acknowledged
        assert stored[1] == correction(1)
        assert store.statistics(PROJECT).corrections == len(acknowledged)

        # Deleting still works, and makes room.
        for annotation in sorted(acknowledged)[:500]:
            assert store.delete(key(annotation)) is True
        assert store.upsert(correction(200_000)) is Outcome.CREATED
        assert everything(store).keys() == set(sorted(acknowledged)[500:]) | {200_000}


def test_on_disk_is_only_said_of_a_server_with_a_file(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        client.set("a", "1")
        assert wait_until_on_disk(client, 4) is True
        client.config_set("appendonly", "no")
        assert wait_until_on_disk(client, 4) is False
    with connect(server.url, retries=0) as client, pytest.raises(StoreError, match="not answer"):
        wait_until_on_disk(client, 1)
