"""The spool: durable, in order, consumed once acknowledged, bounded, and one process's own."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segzero_ml.errors import ConfigError, SpoolError, SpoolFullError
from training_hooks.spool import Spool, survey

ROOT = Path(__file__).parents[2]
FRAME = 32  # bytes that a record takes beyond its payload


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool") as spool:
        yield spool


def payloads(spool: Spool) -> list[bytes]:
    return [record.payload for record in spool.pending()]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def run_python(code: str, *args: object) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Order, numbers, reading


def test_records_come_back_in_order_with_the_numbers_they_were_given(spool: Spool) -> None:
    given = [(spool.append(b"%d" % i), b"%d" % i) for i in range(20)]
    assert [(record.seq, record.payload) for record in spool.pending()] == given
    assert [seq for seq, _ in given] == list(range(1, 21))


def test_records_survive_a_restart(tmp_path: Path) -> None:
    for i in range(3):
        with Spool(tmp_path) as spool:
            spool.append(b"%d" % i)
    with Spool(tmp_path) as spool:
        assert [(r.seq, r.payload) for r in spool.pending()] == [(1, b"0"), (2, b"1"), (3, b"2")]


def test_reading_starts_after_a_number_and_stops_at_its_limits(spool: Spool) -> None:
    for i in range(10):
        spool.append(b"%d" % i * 100)
    assert [record.seq for record in spool.read(after_seq=4, limit=3)] == [5, 6, 7]
    assert [record.seq for record in spool.read(after_seq=2, limit=1)] == [3]  # going back works
    assert [record.seq for record in spool.read(max_bytes=250)] == [1, 2]
    assert [record.seq for record in spool.read(max_bytes=1)] == [1]
    assert spool.read(limit=0) == []
    assert spool.read(after_seq=10) == []


def test_iterating_sees_records_of_all_segments(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=200) as spool:
        for i in range(300):
            spool.append(b"%d" % i)
        assert payloads(spool) == [b"%d" % i for i in range(300)]
        assert len(segments(tmp_path)) > 40


def test_a_record_longer_than_a_segment_gets_one_to_itself(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=100) as spool:
        for payload in (b"a", b"b" * 5000, b"c"):
            spool.append(payload)
        assert payloads(spool) == [b"a", b"b" * 5000, b"c"]
        assert [path.stat().st_size for path in segments(tmp_path)] == [33, 5032, 33]


# Acknowledging


def test_acknowledged_records_never_come_again(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for i in range(5):
            spool.append(b"%d" % i)
        spool.acknowledge(3)
        assert payloads(spool) == [b"3", b"4"]
        assert spool.read(after_seq=1, limit=1)[0].seq == 4
    with Spool(tmp_path) as spool:
        assert payloads(spool) == [b"3", b"4"]
        assert spool.stats().depth == 2


def test_consumed_segments_are_deleted(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=200) as spool:
        last = [spool.append(b"x" * 50) for _ in range(20)][-1]
        before = len(segments(tmp_path))
        spool.acknowledge(last // 2)
        assert len(segments(tmp_path)) == before / 2
        spool.acknowledge(last)
        assert len(segments(tmp_path)) == 1  # the one being written
    with Spool(tmp_path):
        assert segments(tmp_path) == []


def test_a_number_is_never_given_out_twice_even_when_all_is_consumed(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with Spool(tmp_path) as spool:
            assert spool.append(b"x") == expected
            spool.acknowledge(expected)


def test_acknowledging_less_than_before_does_nothing(spool: Spool) -> None:
    for _ in range(5):
        spool.append(b"x")
    spool.acknowledge(4)
    spool.acknowledge(2)
    assert [record.seq for record in spool.pending()] == [5]


def test_what_was_never_appended_cannot_be_acknowledged(spool: Spool) -> None:
    spool.append(b"x")
    with pytest.raises(SpoolError, match="the last is 1"):
        spool.acknowledge(2)
    assert spool.stats().depth == 1


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_of_the_cursor_costs_at_most_the_last_step(
    tmp_path: Path, slot: int
) -> None:
    with Spool(tmp_path) as spool:
        for _ in range(3):
            spool.append(b"x")
        spool.acknowledge(1)
        spool.acknowledge(2)
    change_byte(tmp_path / "cursor", 4096 * slot + 4)
    with Spool(tmp_path) as spool:
        assert spool.stats().acknowledged_seq in (1, 2)
        assert spool.append(b"y") == 4


def test_a_damaged_cursor_brings_everything_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(tmp_path) as spool:
        for i in range(3):
            spool.append(b"%d" % i)
        spool.acknowledge(2)
    (tmp_path / "cursor").write_bytes(b"nonsense")
    with Spool(tmp_path) as spool:
        assert payloads(spool) == [b"0", b"1", b"2"]
        spool.acknowledge(3)
        assert spool.append(b"3") == 4
    assert "cursor" in caplog.text


# What a crash leaves, and damage


def test_a_tail_torn_at_any_byte_is_cut_off_and_appending_goes_on(tmp_path: Path) -> None:
    with Spool(tmp_path / "whole") as spool:
        spool.append(b"first")
        spool.append(b"second")
    whole = segments(tmp_path / "whole")[0].read_bytes()
    kept = FRAME + len(b"first")
    for cut in range(kept, len(whole)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / f"{1:020d}.seg").write_bytes(whole[:cut])
        with Spool(folder) as spool:
            assert segments(folder)[0].stat().st_size == kept
            assert spool.append(b"third") >= 2
            assert payloads(spool) == [b"first", b"third"]
            assert spool.stats().quarantined == 0


def test_a_damaged_record_is_set_aside_counted_and_told_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(tmp_path) as spool:
        for payload in (b"aaaa", b"bbbb", b"cccc"):
            spool.append(payload)
    change_byte(segments(tmp_path)[0], FRAME + 4 + FRAME + 1)
    damaged = segments(tmp_path)[0].read_bytes()[FRAME + 4 : 2 * (FRAME + 4)]
    with caplog.at_level(logging.WARNING), Spool(tmp_path) as spool:
        assert payloads(spool) == [b"aaaa", b"cccc"]
        assert (spool.stats().depth, spool.stats().quarantined) == (2, 1)
    assert "Damage in the spool" in caplog.text
    (side_file,) = (tmp_path / "quarantine").iterdir()
    assert side_file.read_bytes() == damaged
    caplog.clear()
    with Spool(tmp_path) as spool:  # counted once, told once
        assert spool.stats().quarantined == 1
        spool.acknowledge(3)
    with Spool(tmp_path) as spool:
        assert (spool.stats().depth, spool.stats().quarantined) == (0, 1)
    assert "Damage" not in caplog.text
    assert segments(tmp_path) == []


@pytest.mark.parametrize("at", [1, FRAME + 1], ids=["in the header", "in the payload"])
def test_the_number_of_a_damaged_last_record_is_not_given_out_again(
    tmp_path: Path, at: int
) -> None:
    with Spool(tmp_path) as spool:
        spool.append(b"acknowledged to Label Studio")
    change_byte(segments(tmp_path)[0], at)
    for _ in range(2):  # the damaged segment is gone by the second time
        with Spool(tmp_path) as spool:
            assert payloads(spool) == []
    with Spool(tmp_path) as spool:
        assert spool.append(b"next") > 1


def test_damage_while_the_spool_is_open_is_set_aside_too(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for payload in (b"aaaa", b"bbbb", b"cccc"):
            spool.append(payload)
        change_byte(segments(tmp_path)[0], FRAME + 4 + FRAME + 1)
        assert payloads(spool) == [b"aaaa", b"cccc"]
        assert payloads(spool) == [b"aaaa", b"cccc"]
        assert (spool.stats().depth, spool.stats().quarantined) == (2, 1)
        spool.append(b"dddd")
        spool.acknowledge(3)
        assert payloads(spool) == [b"dddd"]
        assert spool.stats().depth == 1


def test_the_number_of_a_record_lost_while_open_is_not_given_out_again(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=200, segment_bytes=200) as spool:
        spool.append(b"a" * 50)
        spool.append(b"b" * 50)
        change_byte(segments(tmp_path)[0], 2 * FRAME + 60)
        assert payloads(spool) == [b"a" * 50]
        spool.acknowledge(1)
        with pytest.raises(SpoolFullError):
            spool.append(b"c" * 190)
        assert segments(tmp_path) == []
    with Spool(tmp_path) as spool:
        assert spool.append(b"d") > 2


def test_a_segment_cut_short_behind_our_back_does_not_stop_the_rest(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=100) as spool:
        for i in range(6):
            spool.append(b"%d" % i * 40)
        with segments(tmp_path)[1].open("r+b") as file:
            file.truncate(10)
        assert [payload[:1] for payload in payloads(spool)] == [b"0", b"2", b"3", b"4", b"5"]
        spool.acknowledge(6)
        assert spool.stats().depth == 0


def test_damage_that_cannot_be_copied_keeps_the_whole_file(tmp_path: Path) -> None:
    with Spool(tmp_path, segment_bytes=100) as spool:
        for i in range(3):
            spool.append(b"%d" % i * 60)
        damaged = segments(tmp_path)[1]
        change_byte(damaged, FRAME + 1)
        (tmp_path / "quarantine").write_bytes(b"")  # a file where the folder should be
        assert [payload[:1] for payload in payloads(spool)] == [b"0", b"2"]
        (tmp_path / "quarantine").unlink()
        spool.acknowledge(3)
        assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [damaged.name]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.seg").write_bytes(b"mine")
    with Spool(tmp_path) as spool:
        spool.append(b"x")
        spool.acknowledge(1)
    with Spool(tmp_path):
        assert (tmp_path / "notes.seg").read_bytes() == b"mine"


# Limits


def test_a_full_spool_refuses_raises_the_alarm_and_recovers_when_drained(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=1000, segment_bytes=300) as spool:
        kept = []
        with pytest.raises(SpoolFullError, match="may take 1000") as refusal:
            while True:
                kept.append(spool.append(b"x" * 68))
        assert "disk space" in refusal.value.remedy
        assert kept == list(range(1, 11))
        stats = spool.stats()
        assert (stats.full, stats.refused, stats.depth, stats.bytes) == (True, 1, 10, 1000)
        assert [record.seq for record in spool.pending()] == kept
        spool.acknowledge(3)
        assert not spool.stats().full
        seq = spool.append(b"y" * 68)
        assert [record.seq for record in spool.pending()] == [*range(4, 11), seq]


def test_a_consumed_segment_makes_room_even_if_it_is_the_only_one(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=200, segment_bytes=200) as spool:
        for _ in range(20):
            spool.acknowledge(spool.append(b"x" * 150))
        assert spool.append(b"y" * 150) == 21
        assert payloads(spool) == [b"y" * 150]


def test_a_record_that_can_never_fit_is_refused_and_smaller_ones_still_go_in(
    tmp_path: Path,
) -> None:
    with Spool(tmp_path, max_bytes=200, segment_bytes=200) as spool:
        with pytest.raises(SpoolFullError):
            spool.append(b"x" * 200)
        spool.append(b"y")
        assert payloads(spool) == [b"y"]
        assert not spool.stats().full


@pytest.mark.parametrize(("most", "segment"), [(100, 200), (100, 10), (0, 0)])
def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, most: int, segment: int) -> None:
    with pytest.raises(ConfigError):
        Spool(tmp_path, max_bytes=most, segment_bytes=segment)


# One process, many threads


def test_a_second_opening_gets_a_clear_error(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        with pytest.raises(SpoolError, match="open already"):
            Spool(tmp_path)
        spool.append(b"x")
    with Spool(tmp_path) as spool:
        assert payloads(spool) == [b"x"]


OPEN = """
import sys
from segzero_ml.errors import SpoolError
from training_hooks.spool import Spool, survey
try:
    Spool(sys.argv[1])
except SpoolError as error:
    print(error)
print(survey(sys.argv[1]))
"""


def test_another_process_may_look_but_not_open(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for _ in range(3):
            spool.append(b"x")
        spool.acknowledge(1)
        said = run_python(OPEN, tmp_path)
        assert "open already" in said
        assert "depth=2, bytes=99" in said
        assert payloads(spool) == [b"x", b"x"]


FORK = """
import os, sys
from segzero_ml.errors import SpoolError
from training_hooks.spool import Spool
spool = Spool(sys.argv[1])
spool.append(b"parent")
child = os.fork()
if child == 0:
    for use in (lambda: spool.append(b"child"), spool.read, spool.close):
        try:
            use()
        except SpoolError:
            continue
        os._exit(1)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(list(spool.pending())))
"""


def test_a_forked_child_is_kept_from_using_its_parents_spool(tmp_path: Path) -> None:
    assert run_python(FORK, tmp_path).split() == ["0", "1"]


def test_a_closed_spool_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.close()
    spool.close()
    for use in (lambda: spool.append(b"x"), spool.read, spool.stats, lambda: spool.acknowledge(1)):
        with pytest.raises(SpoolError, match="closed"):
            use()
    assert not spool.wait(10)


def test_closing_waits_for_the_appends_under_way(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept: list[int] = []

    def append_until_closed() -> None:
        while True:
            try:
                kept.append(spool.append(b"x"))
            except SpoolError:
                return

    threads = [threading.Thread(target=append_until_closed) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(kept) < 20:
        spool.wait(0.01)
    spool.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    with Spool(tmp_path) as spool:
        assert [record.seq for record in spool.pending()] == sorted(kept)


def test_waiting_ends_when_something_arrives(spool: Spool) -> None:
    assert not spool.wait(0.01)
    thread = threading.Timer(0.05, spool.append, [b"x"])
    thread.start()
    start = time.monotonic()
    assert spool.wait(60)
    assert time.monotonic() - start < 30
    thread.join()
    spool.acknowledge(1)
    assert not spool.wait(0.01)


def test_appending_and_draining_at_once_loses_and_doubles_nothing(tmp_path: Path) -> None:
    drained: list[bytes] = []
    with Spool(tmp_path, segment_bytes=2000) as spool:

        def append(name: int) -> None:
            for i in range(100):
                spool.append(b"%d %d" % (name, i))

        threads = [threading.Thread(target=append, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        while len(drained) < 400 and spool.wait(30):
            records = spool.read(limit=17)
            drained += [record.payload for record in records]
            spool.acknowledge(records[-1].seq)
        for thread in threads:
            thread.join()
        assert spool.stats().depth == 0
    assert sorted(drained) == sorted(b"%d %d" % (n, i) for n in range(4) for i in range(100))
    for name in range(4):  # what one thread appended stays in its order
        own = [payload for payload in drained if payload.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, i) for i in range(100)]


# Being looked at


def test_the_age_of_the_oldest_pending_record_is_told(tmp_path: Path) -> None:
    now = 1000.0
    with Spool(tmp_path, clock=lambda: now) as spool:
        assert spool.stats().oldest_age_s is None
        spool.append(b"x")
        now = 1060.0
        spool.append(b"y")
        assert spool.stats().oldest_age_s == pytest.approx(60)
        assert survey(tmp_path, clock=lambda: now).oldest_age_s == pytest.approx(60)
        spool.acknowledge(1)
        assert spool.stats().oldest_age_s == pytest.approx(0)
        assert survey(tmp_path, clock=lambda: now).oldest_age_s == pytest.approx(0)
        now = 500.0  # the clock was set back
        assert spool.stats().oldest_age_s == 0


def test_a_survey_of_nothing_is_empty(tmp_path: Path) -> None:
    assert survey(tmp_path / "missing").depth == 0
    assert not (tmp_path / "missing").exists()
    assert survey(tmp_path).depth == 0


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(SpoolError, match="could not be opened"):
        Spool(tmp_path / "spool")


def test_nobody_else_may_read_the_events(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        spool.append(b"x")
    files = [path for path in (tmp_path / "spool").iterdir() if path.name != "lock"]
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


# Everything together, against the simplest model there is: a list


class SpoolAgainstAList(RuleBasedStateMachine):
    """Any order of appends, reads, acknowledgements, restarts and torn ends."""

    def __init__(self) -> None:
        super().__init__()
        self.home = TemporaryDirectory()
        self.folder = Path(self.home.name)
        self.model: list[tuple[int, bytes]] = []
        self.highest = 0
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.folder, max_bytes=2000, segment_bytes=250)

    @rule(payload=st.binary(max_size=120))
    def append(self, payload: bytes) -> None:
        try:
            seq = self.spool.append(payload)
        except SpoolFullError:
            assert self.spool.stats().full
            assert self.spool.stats().bytes + FRAME + len(payload) > 2000
            return
        assert seq > self.highest
        self.highest = seq
        self.model.append((seq, payload))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.model)))
        self.spool.acknowledge(self.model[count - 1][0])
        del self.model[:count]

    @rule(after=st.integers(0, 40), limit=st.integers(1, 5))
    def read(self, after: int, limit: int) -> None:
        expected = [entry for entry in self.model if entry[0] > after][:limit]
        found = self.spool.read(after, limit)
        assert [(record.seq, record.payload) for record in found] == expected

    @rule(tail=st.binary(max_size=31))
    def restart_after_a_torn_write(self, tail: bytes) -> None:
        self.spool.close()
        for path in segments(self.folder)[-1:]:
            path.write_bytes(path.read_bytes() + tail)
        self.spool = self.open()

    @invariant()
    def spool_and_list_agree(self) -> None:
        found = [(record.seq, record.payload) for record in self.spool.pending()]
        assert found == self.model
        assert self.spool.stats().depth == len(self.model)
        assert survey(self.folder).depth == len(self.model)

    def teardown(self) -> None:
        self.spool.close()
        self.home.cleanup()


TestSpoolAgainstAList = SpoolAgainstAList.TestCase
TestSpoolAgainstAList.settings = settings(max_examples=25, stateful_step_count=25)
