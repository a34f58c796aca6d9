"""Snapshots under kill -9, under one another's feet, and on a disk that is full."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.training_hooks.snapshot_world import Studio
from training_hooks.snapshot import Snapshot, SnapshotOptions, build_snapshot
from training_hooks.snapshot_files import snapshot_folders

ROOT = Path(__file__).parents[2]
OPTIONS = SnapshotOptions()


@pytest.mark.slow
def test_whenever_its_maker_is_killed_a_snapshot_is_whole_or_not_there(tmp_path: Path) -> None:
    chance = random.Random(7)
    announced: set[str] = set()
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.training_hooks.snapshot_world", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as maker:
            out = maker.stdout
            assert out is not None
            announced.add(out.readline().strip())
            time.sleep(chance.uniform(0, 0.3))
            maker.send_signal(signal.SIGKILL)
            # The last line may be cut off; what is said in whole is there.
            announced |= {line.strip() for line in out.read().splitlines()[:-1]}
        assert maker.returncode == -signal.SIGKILL
        found = {folder.name for folder in snapshot_folders(tmp_path)}
        assert announced <= found
        for folder in snapshot_folders(tmp_path):
            assert Snapshot.open(folder).train


def test_several_may_make_the_same_snapshot_at_once(tmp_path: Path) -> None:
    studio = Studio()
    corrections = [studio.corrected(n, second=n, knows_hash=False) for n in range(1, 25)]

    def make(_: int) -> Snapshot:
        return build_snapshot(corrections[::-1], studio.fetch, tmp_path, OPTIONS, None)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(16)))
    assert len({one.id for one in made}) == 1
    assert Snapshot.open(made[0].folder).train == made[0].train
    assert not list(tmp_path.rglob("*.tmp"))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from segzero_ml.errors import DatasetError
from tests.training_hooks.snapshot_world import Studio
from training_hooks.snapshot import SnapshotOptions, build_snapshot
studio = Studio()
corrections = [studio.corrected(n, second=n) for n in range(1, 400)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    build_snapshot(corrections, studio.fetch, Path(sys.argv[1]), SnapshotOptions(), None)
except DatasetError as error:
    print(error)
"""


def test_a_disk_that_takes_a_part_only_leaves_nothing_behind(tmp_path: Path) -> None:
    """Pictures fit; the list of examples, larger than a file may be there, does not."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "cannot be kept" in result.stdout
    assert snapshot_folders(tmp_path) == ()
    assert not list(tmp_path.rglob("*.tmp"))
