"""The spool under real faults: killed processes, full disks, failing fsyncs, bursts.

The method is that of the Jepsen tests: unique payloads, a fault at a random moment, and then
everything that was acknowledged must be there, in order and once.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segzero_ml.errors import SpoolError, SpoolFullError
from training_hooks.spool import Spool

ROOT = Path(__file__).parents[2]

APPEND = """
import os, sys, threading, time
from training_hooks.spool import Spool

folder, name, drain = sys.argv[1], sys.argv[2], sys.argv[3] == "drain"
spool = Spool(folder, segment_bytes=4000)
os.write(1, b"open\\n")

def append(thread):
    i = 0
    while True:
        payload = f"{name}-{thread}-{i}" + "." * (i * 37 % 400)
        seq = spool.append(payload.encode())
        os.write(1, f"acknowledged {seq} {payload}\\n".encode())
        i += 1

for thread in range(6):
    threading.Thread(target=append, args=(thread,), daemon=True).start()
while not drain:
    time.sleep(1)
while True:
    if spool.wait(1):
        records = spool.read(limit=20)
        for record in records:
            os.write(1, f"drained {record.seq} {record.payload.decode()}\\n".encode())
        spool.acknowledge(records[-1].seq)
"""

Lines = set[tuple[int, str]]


def run_and_kill(folder: Path, name: str, drain: bool, after_s: float) -> tuple[Lines, Lines]:
    """Run the script above, SIGKILL it, and return what it acknowledged and drained."""
    command = [sys.executable, "-c", APPEND, str(folder), name, "drain" if drain else "keep"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        timer = threading.Timer(after_s, process.kill)
        timer.start()
        lines = process.stdout.read().splitlines()  # ends with the process
        timer.join()
    finally:
        process.kill()
        process.communicate()
    said: dict[str, Lines] = {"acknowledged": set(), "drained": set()}
    for line in lines:
        kind, seq, payload = line.split(" ")
        said[kind].add((int(seq), payload))
    return said["acknowledged"], said["drained"]


@pytest.mark.parametrize("drain", [False, True], ids=["appending", "appending and draining"])
def test_what_was_acknowledged_before_sigkill_is_there_in_order_and_once(
    tmp_path: Path, drain: bool
) -> None:
    rng = random.Random(1 + drain)
    acknowledged: Lines = set()
    drained: Lines = set()
    lives = 0
    while lives < 6 or len(acknowledged) < 100:  # a busy machine needs more of them
        said, handled = run_and_kill(tmp_path, f"life{lives}", drain, rng.uniform(0.02, 0.5))
        acknowledged |= said
        drained |= handled
        lives += 1
    with Spool(tmp_path) as spool:  # also: no lock is left behind
        recovered = [(record.seq, record.payload.decode()) for record in spool.pending()]
        assert spool.stats().quarantined == 0
    assert acknowledged <= drained | set(recovered)
    numbers = [seq for seq, _ in recovered]
    assert numbers == sorted(set(numbers))
    by_number = dict(drained | set(recovered))
    assert len(by_number) == len(drained | set(recovered))  # no number for two records
    assert len(set(by_number.values())) == len(by_number)  # no record under two numbers
    for life in range(lives):
        for thread in range(6):
            name = f"life{life}-{thread}-"
            own = [by_number[seq] for seq in sorted(by_number) if by_number[seq].startswith(name)]
            order = [int(payload.rstrip(".").removeprefix(name)) for payload in own]
            assert order == list(range(len(own)))


FILL_A_DISK = """
import json, os, sys, threading
from pathlib import Path
from segzero_ml.errors import SpoolFullError
from training_hooks.spool import Spool

disk, threads = Path(sys.argv[1]), int(sys.argv[2])
ballast = disk / "ballast"
spool = Spool(disk / "spool", segment_bytes=100_000)
kept, refused = [], []

def fill(thread):
    for i in range(10_000):
        payload = f"{thread}-{i}-".encode().ljust(3000, b".")
        try:
            kept.append((spool.append(payload), payload.decode()))
        except SpoolFullError as error:
            refused.append(str(error))
            return

def fill_from_all():
    workers = [threading.Thread(target=fill, args=(thread,)) for thread in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()

def there():
    return [[record.seq, record.payload.decode()] for record in spool.pending()]

ballast.write_bytes(bytes(100_000))
fill_from_all()
report = {"kept": sorted(kept), "there": there(), "refused": list(refused)}
report["full"] = spool.stats().full

# A full disk can be drained: half of it, then the alarm is off and appending works again.
middle = sorted(kept)[len(kept) // 2][0]
spool.acknowledge(middle)
report["full_after_draining"] = spool.stats().full
report["after_draining"] = spool.append(b"after draining")

# Full again; space comes from elsewhere this time.
fill_from_all()
report["full_again"] = spool.stats().full
ballast.unlink()
report["after_space"] = spool.append(b"after space")
report["full_after_space"] = spool.stats().full
last = there()
spool.close()

# And a full disk does not keep the spool from being opened and drained.
ballast.write_bytes(b"")
with ballast.open("r+b") as file:
    try:
        while True: os.write(file.fileno(), bytes(4096))
    except OSError:
        pass
spool = Spool(disk / "spool", segment_bytes=100_000)
report["same_after_reopening"] = there() == last
report["expected"] = sorted([seq, text] for seq, text in kept if seq > middle)
report["last"] = [each for each in last if not each[1].startswith("after")]
for record in list(spool.pending()):
    spool.acknowledge(record.seq)
report["depth"] = spool.stats().depth
report["left"] = [path.name for path in (disk / "spool").glob("*.seg")]
json.dump(report, sys.stdout)
"""


def own_disk(size: str, folder: Path) -> list[str]:
    """A command prefix that mounts a small disk where only the command sees it."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(folder)]
    probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let tests mount a small disk")
    return prefix


@pytest.mark.parametrize("threads", [1, 8])
def test_a_really_full_disk_refuses_loses_nothing_and_recovers(
    tmp_path: Path, threads: int
) -> None:
    result = subprocess.run(
        [*own_disk("600k", tmp_path), sys.executable, "-c", FILL_A_DISK, tmp_path, str(threads)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert len(report["kept"]) > 100
    assert report["there"] == report["kept"]
    assert len(report["refused"]) == threads
    assert all("No space left" in message for message in report["refused"])
    assert report["full"]
    assert not report["full_after_draining"]
    assert report["full_again"]
    assert not report["full_after_space"]
    assert report["after_space"] > report["after_draining"] > report["kept"][-1][0]
    assert report["last"] == report["expected"]
    assert report["same_after_reopening"]
    assert report["depth"] == 0
    assert report["left"] == []


LIMIT_FILE_SIZE = """
import json, resource, sys
from segzero_ml.errors import SpoolFullError
from training_hooks.spool import Spool

spool = Spool(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
spool.append(b"before")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
refused = 0
for _ in range(3):
    try:
        spool.append(b"x" * 20_000)
    except SpoolFullError:
        refused += 1
full = spool.stats().full
small = [spool.append(b"small") for _ in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
spool.append(b"y" * 20_000)
there = [record.payload[:6].decode() for record in spool.pending()]
json.dump({"refused": refused, "full": full, "there": there}, sys.stdout)
"""


def test_a_limit_on_file_size_is_a_full_disk_and_ends_with_the_limit(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMIT_FILE_SIZE, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["refused"] == 3
    assert report["full"]
    assert report["there"] == ["before", "small", "small", "small", "yyyyyy"]
    with Spool(tmp_path) as spool:
        assert len(list(spool.pending())) == 5
        assert spool.stats().quarantined == 0


# A disk that fails cannot be had for a test: here the operating system's call is replaced.


def test_an_append_returns_after_the_file_and_a_new_files_folder_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real_sync = os.fsync

    def sync(fd: int) -> None:
        real_sync(fd)
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", sync)
    with Spool(tmp_path / "new" / "spool") as spool:
        assert {tmp_path, tmp_path / "new", tmp_path / "new" / "spool"} <= set(synced)
        segment = tmp_path / "new" / "spool" / f"{1:020d}.seg"
        synced.clear()
        spool.append(b"x")
        assert set(synced) == {segment, segment.parent}
        synced.clear()
        spool.append(b"y")
        assert synced == [segment]
        synced.clear()
        spool.acknowledge(1)
        assert synced == [segment.parent / "cursor"]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, SpoolError), (errno.ENOSPC, SpoolFullError)]
)
def test_a_failing_fsync_is_never_a_success_and_nothing_is_written_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[SpoolError]
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with Spool(tmp_path) as spool:
        spool.append(b"before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(SpoolError) as failure:
                spool.append(b"failed")
            assert type(failure.value) is kind
            with pytest.raises(SpoolError):
                spool.append(b"failed in a new segment")
        assert spool.stats().refused == 2
        seq = spool.append(b"after")
        assert seq > 2
        assert [record.payload for record in spool.pending()] == [b"before", b"after"]
        contents = [path.read_bytes() for path in sorted(tmp_path.glob("*.seg"))]
        assert [content[32:] for content in contents] == [b"before", b"after"]  # a file each
    with Spool(tmp_path) as spool:
        assert [record.payload for record in spool.pending()] == [b"before", b"after"]
        assert spool.append(b"x") > seq


def test_draining_a_full_disk_frees_it_without_another_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Spool(tmp_path) as spool:
        spool.append(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fail)
            with pytest.raises(SpoolFullError):
                spool.append(b"y")
        spool.acknowledge(1)
        assert list(tmp_path.glob("*.seg")) == []
        assert spool.stats().bytes == 0


def test_closing_lets_the_appends_under_way_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    syncing, go_on = threading.Event(), threading.Event()
    real_sync = os.fsync
    outcomes: list[int | SpoolError] = []

    def sync(fd: int) -> None:
        syncing.set()
        go_on.wait(30)
        real_sync(fd)

    def append() -> None:
        try:
            outcomes.append(spool.append(b"x"))
        except SpoolError as error:
            outcomes.append(error)

    monkeypatch.setattr(os, "fsync", sync)
    threads = [threading.Thread(target=append) for _ in range(3)]
    threads[0].start()
    assert syncing.wait(30)
    threads[1].start()
    threads[2].start()
    time.sleep(0.2)  # they gather
    threads.append(threading.Thread(target=spool.close))
    threads[3].start()
    time.sleep(0.2)  # it waits
    go_on.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(each for each in outcomes if isinstance(each, int)) == [1, 2, 3]
    with Spool(tmp_path) as spool:
        assert [record.seq for record in spool.pending()] == [1, 2, 3]


def test_an_acknowledgement_that_is_not_durable_fails_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Spool(tmp_path) as spool:
        for _ in range(3):
            spool.append(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(SpoolError, match="could not move its cursor"):
                spool.acknowledge(2)
        assert [record.seq for record in spool.pending()] == [1, 2, 3]
        spool.acknowledge(2)
        assert [record.seq for record in spool.pending()] == [3]
    with Spool(tmp_path) as spool:
        assert [record.seq for record in spool.pending()] == [3]


def test_an_interrupted_append_leaves_the_spool_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_fd: int) -> None:
        raise KeyboardInterrupt

    with Spool(tmp_path) as spool:
        spool.append(b"before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                spool.append(b"a long interrupted record" * 20)
        spool.append(b"after")
        assert [record.payload for record in spool.pending()] == [b"before", b"after"]
    with Spool(tmp_path) as spool:
        assert [record.payload for record in spool.pending()] == [b"before", b"after"]
        assert spool.stats().quarantined == 0


def test_of_a_group_that_fits_in_part_the_whole_records_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten threads share one write, and the disk fills up in the middle of it."""
    real_write, real_sync = os.pwrite, os.fsync
    first_is_writing, go_on = threading.Event(), threading.Event()
    room = 4 * (32 + 100) + 50  # four records and a half, after the first

    def sync(fd: int) -> None:
        if not first_is_writing.is_set():
            first_is_writing.set()
            go_on.wait(30)
        real_sync(fd)

    def write(fd: int, data: memoryview, offset: int) -> int:
        if not first_is_writing.is_set():
            return real_write(fd, data, offset)
        left = room - (offset - (32 + 100))
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data[:left], offset)

    outcomes: list[int | SpoolError] = []

    def append(i: int) -> None:
        try:
            outcomes.append(spool.append(b"%d" % i * 100))
        except SpoolError as error:
            outcomes.append(error)

    with Spool(tmp_path) as spool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", write)
            patch.setattr(os, "fsync", sync)
            threads = [threading.Thread(target=append, args=(i,)) for i in range(10)]
            threads[0].start()
            assert first_is_writing.wait(30)
            for thread in threads[1:]:
                thread.start()
            time.sleep(0.3)  # the nine gather
            go_on.set()
            for thread in threads:
                thread.join()
        kept = [each for each in outcomes if isinstance(each, int)]
        assert len(kept) == 5
        assert sum(isinstance(each, SpoolFullError) for each in outcomes) == 5
        assert [record.seq for record in spool.pending()] == sorted(kept)
        assert spool.stats().full
        sizes = [path.stat().st_size for path in tmp_path.glob("*.seg")]
        assert sizes == [5 * (32 + 100)]  # the half record is cut off
    with Spool(tmp_path) as spool:
        assert [record.seq for record in spool.pending()] == sorted(kept)
        assert spool.stats().quarantined == 0


@pytest.mark.slow
def test_a_burst_of_ten_thousand_from_32_threads_loses_nothing(tmp_path: Path) -> None:
    seconds: list[float] = []
    given: dict[int, bytes] = {}
    with Spool(tmp_path) as spool:

        def burst(thread: int) -> None:
            for i in range(thread, 10_000, 32):
                payload = b"%d " % i + b"x" * 600
                start = time.perf_counter()
                seq = spool.append(payload)
                seconds.append(time.perf_counter() - start)
                given[seq] = payload

        threads = [threading.Thread(target=burst, args=(thread,)) for thread in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spool.stats().depth == 10_000
    seconds.sort()
    print(f"append: median {seconds[5000] * 1e3:.1f} ms, p99 {seconds[9900] * 1e3:.1f} ms")
    with Spool(tmp_path) as spool:
        assert {record.seq: record.payload for record in spool.pending()} == given
    assert len(given) == 10_000
