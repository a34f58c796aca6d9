"""Images are fetched once and kept on disk: bounded, whole, shared, and never stale for long."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.disk_cache import DiskCache
from backend.fetch import ImageFetcher
from backend.image_cache import CachedFetcher, cache_folder
from backend.images import load_task_image
from backend.settings import load_settings
from segzero_ml.errors import FetchError
from segzero_ml.images import ImageLimits

UPLOAD = "/data/upload/7/a.png"
LOCAL = "/data/local-files/?d=a.png"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def size_of(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())


def test_what_was_put_is_found_with_its_age(tmp_path: Path) -> None:
    clock = Clock()
    cache = DiskCache(tmp_path / "c", 10_000, clock)
    assert cache.get("a") is None
    cache.put("a", b"picture")
    clock.now += 5
    found = cache.get("a")
    assert found is not None
    assert (found.data, found.age_s) == (b"picture", 5)
    assert DiskCache(tmp_path / "c", 10_000, clock).get("a") == found


def test_what_was_used_longest_ago_goes_first_and_the_bound_holds(tmp_path: Path) -> None:
    clock = Clock()
    cache = DiskCache(tmp_path, 100_000, clock)
    for number in range(40):
        clock.now += 1
        cache.put(str(number), bytes(5_000))
        cache.get("0")  # always in use
        assert size_of(tmp_path) <= 100_000 * 17 / 16
    assert cache.get("0") is not None
    assert cache.get("1") is None
    assert cache.get("39") is not None


def test_a_file_too_large_for_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1_000)
    cache.put("a", bytes(900))
    assert cache.get("a") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, 10_000)
    cache.put("a", b"picture" * 100)
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    damaged = {"cut": bytes(content[:-9]), "flipped": bytes(content), "emptied": b""}
    path.write_bytes(damaged[damage])
    assert cache.get("a") is None
    cache.put("a", b"picture")
    found = cache.get("a")
    assert found is not None
    assert found.data == b"picture"


def test_what_a_killed_writer_left_is_removed_in_time(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "abc.part").write_bytes(bytes(100))
    os.utime(tmp_path / "abc.part", (clock.now, clock.now))
    DiskCache(tmp_path, 1_000, clock).put("a", b"1")
    assert (tmp_path / "abc.part").exists()
    clock.now += 7200
    DiskCache(tmp_path, 1_000, clock).put("b", b"2")
    assert not (tmp_path / "abc.part").exists()


def test_a_folder_that_cannot_be_written_only_makes_it_slower(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache(tmp_path / "file" / "c", 1_000)
    cache.put("a", b"1")
    assert cache.get("a") is None


def test_processes_that_write_and_read_at_once_never_see_half_a_file(tmp_path: Path) -> None:
    script = (
        "import sys, random; from pathlib import Path\n"
        "from backend.disk_cache import DiskCache\n"
        "cache = DiskCache(Path(sys.argv[1]), 300_000); rng = random.Random(int(sys.argv[2]))\n"
        "for _ in range(400):\n"
        "    key = rng.randrange(8)\n"
        "    if rng.random() < 0.5: cache.put(str(key), bytes([key]) * rng.randrange(1, 60_000))\n"
        "    found = cache.get(str(key))\n"
        "    assert found is None or set(found.data) == {key}, key\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(seed)], stderr=-1)
        for seed in range(3)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
        assert b"damaged" not in said
    assert size_of(tmp_path) <= 300_000 * (1 + 3 / 16)


class Web:
    """Label Studio's files; counts what is asked for."""

    def __init__(self) -> None:
        self.content = b"first"
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200, content=self.content)


def fetch(web: Web, *values: str, fresh_s: float = 100.0, **given: object) -> list[bytes]:
    settings = load_settings(label_studio_url="http://ls:8080", **given)

    async def run() -> list[bytes]:
        plain = ImageFetcher(settings, transport=httpx.MockTransport(web))
        fetcher = CachedFetcher(plain, settings, fresh_s)
        try:
            return [await fetcher.fetch(value, 1) for value in values]
        finally:
            await fetcher.aclose()

    return asyncio.run(run())


def test_an_image_is_fetched_once_also_by_another_process() -> None:
    web = Web()
    assert fetch(web, UPLOAD, UPLOAD, LOCAL, LOCAL) == [b"first"] * 4
    assert web.asked == 2
    assert fetch(web, UPLOAD, LOCAL) == [b"first"] * 2
    assert web.asked == 2


def test_what_may_change_under_its_name_is_asked_for_again() -> None:
    web = Web()
    fetch(web, UPLOAD, LOCAL)
    web.content = b"second"
    assert fetch(web, UPLOAD, LOCAL, fresh_s=0.0) == [b"first", b"second"]


def test_a_file_in_cloud_storage_is_kept_for_its_task_only() -> None:
    web = Web()
    settings = load_settings(label_studio_url="http://ls:8080")

    async def run() -> None:
        plain = ImageFetcher(settings, transport=httpx.MockTransport(web))
        fetcher = CachedFetcher(plain, settings)
        try:
            for task_id, content in ((1, b"of one project"), (2, b"of another")):
                web.content = content
                for _ in range(2):
                    assert await fetcher.fetch("s3://bucket/same.png", task_id) == content
        finally:
            await fetcher.aclose()

    asyncio.run(run())
    assert web.asked == 2


def test_nothing_is_kept_where_that_is_switched_off() -> None:
    web = Web()
    fetch(web, UPLOAD, UPLOAD, image_cache_bytes=0)
    assert web.asked == 2
    assert not cache_folder(load_settings()).exists()


def test_an_image_over_the_limit_is_not_served_from_the_cache() -> None:
    web = Web()
    fetch(web, UPLOAD)
    web.content = b"1"
    assert fetch(web, UPLOAD, max_image_bytes=3) == [b"1"]


def test_a_failure_is_not_kept() -> None:
    web = Web()
    with pytest.raises(FetchError):
        fetch(lambda request: httpx.Response(404), UPLOAD)  # type: ignore[arg-type]
    assert fetch(web, UPLOAD) == [b"first"]


def test_no_address_and_no_signature_is_on_the_disk() -> None:
    fetch(Web(), "/data/local-files/?d=secret-name.png")
    for path in cache_folder(load_settings()).iterdir():
        assert b"secret-name" not in path.read_bytes() + path.name.encode()
        assert path.stat().st_mode & 0o077 == 0


def test_a_kept_image_is_upright_as_its_exif_data_say() -> None:
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif, quality=95)
    web = Web()
    web.content = file.getvalue()
    settings = load_settings(label_studio_url="http://ls:8080")

    async def run() -> list[Image.Image]:
        plain = ImageFetcher(settings, transport=httpx.MockTransport(web))
        fetcher = CachedFetcher(plain, settings)
        limits = ImageLimits(10_000, 10_000)
        try:
            return [await load_task_image(fetcher, UPLOAD, limits) for _ in range(2)]
        finally:
            await fetcher.aclose()

    for image in asyncio.run(run()):
        assert image.size == (20, 40)
        assert np.asarray(image)[:15].min() > 200
        assert np.asarray(image)[25:].max() < 50
    assert web.asked == 1
