"""Where an append-only file is whole, and what is cut off its end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.errors import StoreError
from training_hooks import aof
from training_hooks.aof import cut_damaged_tail, end_of_last_command


def command(*arguments: bytes) -> bytes:
    parts = [b"$%d\r\n%s\r\n" % (len(each), each) for each in arguments]
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


commands = st.lists(
    st.one_of(
        st.lists(st.binary(max_size=20), min_size=1, max_size=4).map(lambda each: command(*each)),
        st.just(b"#TS:1700000000\r\n"),
    ),
    max_size=8,
)


@given(commands, st.data())
def test_a_file_cut_anywhere_is_whole_up_to_the_last_complete_command(
    given_commands: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(given_commands)
    length = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, given_commands[:count])) for count in range(len(given_commands) + 1)]
    expected = max(end for end in ends if end <= length)
    assert end_of_last_command(io.BytesIO(whole[:length])) == expected


@given(
    commands, st.sampled_from([b"\0" * 4096, b"rubbish", b"*1\r\n$x\r\n", b"*0\r\n", b"\xff\r\n"])
)
def test_what_is_no_command_ends_the_good_part(given_commands: list[bytes], rubbish: bytes) -> None:
    whole = b"".join(given_commands)
    assert end_of_last_command(io.BytesIO(whole + rubbish)) == len(whole)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_through(data: bytes) -> None:
    assert 0 <= end_of_last_command(io.BytesIO(data)) <= len(data)


@pytest.mark.parametrize("line", [b"*99999999999999\r\n", b"*1\r\n$99999999999\r\n", b"*" * 5000])
def test_absurd_lengths_are_refused_at_once(line: bytes) -> None:
    assert end_of_last_command(io.BytesIO(line)) == 0


def data_folder(folder: Path, content: bytes, manifest: str | None = None) -> Path:
    (folder / "appendonlydir").mkdir(parents=True)
    name = "appendonly.aof.2.incr.aof"
    (folder / "appendonlydir" / name).write_bytes(content)
    text = manifest or (
        "file appendonly.aof.2.base.rdb seq 2 type b\n"
        "file appendonly.aof.1.incr.aof seq 1 type i\n"
        f"file {name} seq 2 type i\n"
    )
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text(text)
    return folder / "appendonlydir" / name


def test_a_damaged_tail_is_cut_off_and_set_aside(tmp_path: Path) -> None:
    good = command(b"SET", b"a", b"1")
    file = data_folder(tmp_path, good + b"\0" * 100)
    cut = cut_damaged_tail(tmp_path)
    assert cut is not None
    assert (cut.file, cut.length) == (file, 100)
    assert file.read_bytes() == good
    assert cut.saved.read_bytes() == b"\0" * 100


def test_earlier_tails_are_not_overwritten(tmp_path: Path) -> None:
    file = data_folder(tmp_path, command(b"PING") + b"one")
    first = cut_damaged_tail(tmp_path)
    with file.open("ab") as stream:
        stream.write(b"two")
    second = cut_damaged_tail(tmp_path)
    assert first is not None
    assert second is not None
    assert (first.saved.read_bytes(), second.saved.read_bytes()) == (b"one", b"two")


def test_a_file_without_damage_is_left_alone(tmp_path: Path) -> None:
    file = data_folder(tmp_path, command(b"PING"))
    assert cut_damaged_tail(tmp_path) is None
    assert file.read_bytes() == command(b"PING")


def test_much_damage_is_left_for_people_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aof, "LONGEST_TAIL", 50)
    content = command(b"PING") + b"x" + command(b"SET", b"a", b"1") * 9
    file = data_folder(tmp_path, content)
    assert cut_damaged_tail(tmp_path) is None
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "manifest", ["", "nonsense", "file ../../x seq 1 type i\n", "file x y z\n"]
)
def test_a_manifest_that_names_no_file_here_is_no_reason_to_cut(
    tmp_path: Path, manifest: str
) -> None:
    data_folder(tmp_path, b"rubbish", manifest)
    (tmp_path.parent / "x").write_bytes(b"*rubbish")
    assert cut_damaged_tail(tmp_path) is None
    assert (tmp_path.parent / "x").read_bytes() == b"*rubbish"


def test_a_snapshot_is_never_cut(tmp_path: Path) -> None:
    data_folder(tmp_path, b"REDIS0011" + b"x" * 50)
    assert cut_damaged_tail(tmp_path) is None


def test_the_single_file_of_older_servers_is_mended_too(tmp_path: Path) -> None:
    file = tmp_path / "appendonly.aof"
    file.write_bytes(command(b"PING") + b"\0\0")
    assert cut_damaged_tail(tmp_path) is not None
    assert file.read_bytes() == command(b"PING")


def test_an_empty_folder_needs_no_mending(tmp_path: Path) -> None:
    assert cut_damaged_tail(tmp_path) is None


def test_a_file_that_cannot_be_read_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be mended"):
        cut_damaged_tail(tmp_path)
