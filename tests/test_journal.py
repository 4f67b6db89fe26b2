"""The journal keeps what it acknowledged: through torn writes, failing disks, flipped bits and power cuts."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import ConflictError, UnavailableError, VersionError
from ingest.housekeeping import Housekeeping
from ingest.journal import Frame, Journal, JournalReader, Keep, Published, list_segments, read_published
from ingest.message import Message, MessageType
from ingest.report import DoorReport, ReportFile
from ingest.segments import HEADER_SIZE, Row, frames, segment_path, segments
from ingest.settings import IngestSettings
from tests.disk import Disk
from tests.mqtt_client import listening
from tests.wait import until


def message(number: int, *, size: int = 20) -> Message:
    return Message(
        topic=f"qala/1/demo/d{number % 7}/t", payload=f"{number}:".encode().ljust(size, b"x"), received_us=number
    )


def batch(first: int, count: int, *, size: int = 20) -> list[Message]:
    return [message(number, size=size) for number in range(first, first + count)]


def noise(number: int, size: int) -> Message:
    """Make a message that zstd cannot make smaller."""
    return Message(topic="t", payload=random.Random(number).randbytes(size), received_us=number)


def read_all(folder: Path, *, after: int = 0, limit: int = 1_000_000) -> dict[int, Message]:
    reader = JournalReader(folder)
    found = numbered(reader.read(after, limit=limit))
    reader.close()
    return found


def numbered(frames_read: Sequence[Frame]) -> dict[int, Message]:
    return {frame.first + index: row for frame in frames_read for index, row in enumerate(frame.messages)}


def filled(folder: Path, *groups: int, segment_max: int = 1 << 20) -> Journal:
    journal = Journal.open(folder, segment_max=segment_max)
    for group in groups:
        journal.append(batch(journal.last + 1, group))
    return journal


# --- what goes in comes out -----------------------------------------------------------------------------------------


def test_numbers_rise_by_one_over_frames_segments_and_openings(tmp_path: Path) -> None:
    with_id = ""
    for opening in range(3):
        journal = Journal.open(tmp_path, segment_max=4096)
        with_id = with_id or journal.id
        assert journal.id == with_id
        for group in range(5):
            assert journal.append([noise(group, 1500)] * 2) == opening * 10 + group * 2 + 1
        journal.close()
    assert len(segments(tmp_path)) > 3
    assert list(read_all(tmp_path)) == list(range(1, 31))


def test_every_field_of_a_message_is_kept(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    full = Message("t/ü", b"\0\xff", -5, "c", "p", 2, MessageType.WILL, 1, True, True, {"content_type": "x"})
    short: Row = ("t", b"", 7)
    journal.append([full, short])
    assert list(read_all(tmp_path).values()) == [full, Message("t", b"", 7)]
    journal.close()


def test_appending_nothing_writes_nothing(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    assert journal.append([]) == 1
    assert disk.syncs == 0
    journal.close()


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(1, 30), min_size=1, max_size=12), limit=st.integers(1, 40), data=st.data())
def test_reading_in_steps_gives_the_same_as_reading_at_once(groups: list[int], limit: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = filled(folder, *groups, segment_max=300)
        after = data.draw(st.integers(0, journal.last))
        reader = JournalReader(folder)
        found: dict[int, Message] = {}
        position = after
        while step := reader.read(position, limit=limit):
            got = numbered(step)
            assert 0 < len(got) <= limit
            found |= got
            position = max(got)
        assert found == {number: message(number) for number in range(after + 1, journal.last + 1)}
        assert reader.damaged == 0
        reader.close()
        journal.close()


def test_a_reader_follows_beside_the_writer_and_stops_at_what_is_synced(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "journal")
    assert (reader.id, reader.synced(), reader.first(), reader.read(0, limit=9)) == ("", 0, 1, [])
    journal = Journal.open(tmp_path / "journal", segment_max=2000)
    position = 0
    for _ in range(30):
        journal.append([noise(position, 400)])
        with segment_path(tmp_path / "journal", segments(tmp_path / "journal")[-1]).open("ab") as file:
            file.write(b"")  # the reader's view of a size that does not change
        position = max(numbered(reader.read(position, limit=9)))
        assert position == journal.last == reader.synced()
        assert reader.read(position, limit=9) == []
    assert reader.id == journal.id
    reader.close()
    journal.close()


def test_a_frame_is_not_read_before_its_sync_has_ended(tmp_path: Path) -> None:
    journal = filled(tmp_path, 3)
    journal.close()
    Published(tmp_path / "synced").set(2)
    assert list(read_all(tmp_path)) == [1, 2]


def test_a_frame_larger_than_a_read_comes_whole(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.append([noise(number, 60_000) for number in range(20)])
    journal.append([message(21)])
    assert list(read_all(tmp_path)) == list(range(1, 22))
    journal.close()


def test_two_writers_are_refused(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    script = f"import pathlib; from ingest.journal import Journal; Journal.open(pathlib.Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "another process writes the journal" in done.stderr
    with pytest.raises(ConflictError):
        Journal.open(tmp_path)
    journal.close()
    Journal.open(tmp_path).close()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:8] + struct.pack("<I", 2) + data[12:], id="segment header"),
    ],
)
def test_a_newer_journal_is_refused_with_a_hint(tmp_path: Path, change) -> None:
    filled(tmp_path, 2).close()
    path = segment_path(tmp_path, 1)
    data = bytearray(change(path.read_bytes()))
    data[HEADER_SIZE - 4 : HEADER_SIZE] = struct.pack("<I", _crc(bytes(data[: HEADER_SIZE - 4])))
    path.write_bytes(data)
    for attempt in (lambda: Journal.open(tmp_path), lambda: read_all(tmp_path), lambda: list_segments(tmp_path)):
        with pytest.raises(VersionError, match="newer Qala"):
            attempt()


def _crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_last_frame_cut_at_any_byte_is_cut_away_and_the_rest_kept(tmp_path: Path) -> None:
    filled(tmp_path, 3, 2).close()
    whole = segment_path(tmp_path, 1).read_bytes()
    *_, last = frames(whole)
    for size in range(last.start, len(whole)):
        folder = tmp_path / str(size)
        folder.mkdir()
        segment_path(folder, 1).write_bytes(whole[:size])
        journal = Journal.open(folder)
        assert journal.last == 3
        assert journal.append(batch(4, 1)) == 4
        assert read_all(folder) == {number: message(number) for number in range(1, 5)}
        journal.close()


def test_a_segment_whose_header_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    for size in range(HEADER_SIZE):
        segment_path(tmp_path, 4).write_bytes(segment_path(tmp_path, 1).read_bytes()[:size])
        journal = Journal.open(tmp_path)
        assert journal.last == 3
        journal.close()


@pytest.mark.parametrize("seed", range(4))
def test_each_of_a_thousand_flipped_bits_is_detected_and_costs_one_frame(tmp_path: Path, seed: int) -> None:
    filled(tmp_path, *[2] * 50).close()
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    chance = random.Random(seed)
    for raw in list(frames(whole)) * 5:
        bit = chance.randrange(raw.start * 8, raw.stop * 8)
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        reader = JournalReader(tmp_path)
        found = numbered(reader.read(0, limit=1000))
        lost = {raw.first, raw.first + 1}
        assert found == {number: message(number) for number in range(1, 101) if number not in lost}
        is_last = raw.stop == len(whole)
        assert reader.damaged == (0 if is_last else 2)
        reader.close()


def test_a_damaged_last_frame_keeps_its_numbers_and_is_counted(tmp_path: Path) -> None:
    filled(tmp_path, 2, 2).close()
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    journal = Journal.open(tmp_path)
    assert journal.append(batch(5, 1)) == 5  # 3 and 4 may have been read: their numbers are not given again
    assert path.read_bytes() == data
    reader = JournalReader(tmp_path)
    assert list(numbered(reader.read(0, limit=10))) == [1, 2, 5]
    assert reader.damaged == 2
    assert [segment.damaged for segment in list_segments(tmp_path)] == [2, 0]
    reader.close()
    journal.close()


def test_a_damaged_header_costs_no_message(tmp_path: Path) -> None:
    filled(tmp_path, 2, 2).close()
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    journal = Journal.open(tmp_path)
    journal.append(batch(5, 1))
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 6)}
    journal.close()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_mess_in_a_segment_never_invents_or_changes_a_message(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled(folder, 3, 4, 5).close()
        path = segment_path(folder, 1)
        whole = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(whole)))
        whole[at : at + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=80))
        path.write_bytes(whole)
        before = read_all(folder)
        assert before.items() <= {number: message(number) for number in range(1, 13)}.items()
        journal = Journal.open(folder)
        assert journal.append(batch(journal.last + 1, 2)) >= 13
        journal.close()
        assert before.items() <= read_all(folder).items()


# --- a disk that fails -----------------------------------------------------------------------------------------------


def test_short_writes_are_finished(tmp_path: Path) -> None:
    disk = Disk()
    disk.short = 7
    journal = Journal.open(tmp_path, files=disk)
    journal.append(batch(1, 5))
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 6)}
    journal.close()


@pytest.mark.parametrize("bad_truncates", [pytest.param(0, id="cut back"), pytest.param(1, id="cannot be cut back")])
@pytest.mark.parametrize("room", [0, 1, 30, 60])
def test_a_full_disk_takes_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, room: int, bad_truncates: int
) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    journal.append(batch(1, 2))
    disk.room, disk.bad_truncates = room, bad_truncates
    with pytest.raises(UnavailableError, match="No space left"):
        journal.append(batch(3, 3))
    assert journal.last == 2
    disk.heal()
    assert journal.append(batch(3, 3)) == 3
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 6)}
    for first in segments(tmp_path):
        data = segment_path(tmp_path, first).read_bytes()
        torn = len(data) - HEADER_SIZE - sum(raw.stop - raw.start for raw in frames(data))
        assert torn == (room if bad_truncates and first == 1 else 0)
    journal.close()


def test_a_sync_is_never_tried_again_on_the_same_file(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    journal.append(batch(1, 2))
    disk.bad_syncs = 1
    with pytest.raises(UnavailableError, match="Input/output"):
        journal.append(batch(3, 3))
    assert journal.append(batch(3, 2)) == 3
    assert segments(tmp_path) == [1, 3]
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 5)}
    journal.close()


def test_frames_that_no_sync_is_known_of_move_to_a_new_file_when_the_journal_is_opened(tmp_path: Path) -> None:
    filled(tmp_path, 2, 3).close()
    for published, expected in ((2, [1, 3]), (0, [1, 3])):
        Published(tmp_path / "synced").set(published)
        journal = Journal.open(tmp_path)
        assert (journal.last, segments(tmp_path)) == (5, expected)
        assert journal.bytes == sum(segment.bytes for segment in list_segments(tmp_path))
        journal.close()
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 6)}


def test_what_was_written_before_a_failed_sync_is_not_read_from_the_old_file(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    journal.append(batch(1, 2))
    disk.bad_syncs, disk.bad_truncates = 1, 1
    with pytest.raises(UnavailableError):
        journal.append([noise(1, 9), noise(2, 9)])
    journal.append(batch(3, 5))
    assert read_all(tmp_path) == {number: message(number) for number in range(1, 8)}
    assert [segment.messages for segment in list_segments(tmp_path)] == [2, 5]
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + 40] ^= 1  # nor where the frame before it is damaged
    path.write_bytes(data)
    assert read_all(tmp_path) == {number: message(number) for number in range(3, 8)}
    journal.close()


def test_while_no_sync_succeeds_nothing_is_acknowledged_and_the_door_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    with listening(journal) as live, live.client() as client:
        client.connect()
        client.publish(1)
        assert client.pubacks(1) == [1]
        disk.bad_syncs = 10**6
        client.publish(2, 3)
        until(lambda: live.listener.commit.trouble)
        assert client.hears_nothing(0.3)
        assert "Input/output error" in live.listener.commit.trouble
        assert [record.message for record in caplog.records if "nothing is acknowledged" in record.message]
        disk.heal()
        assert client.pubacks(2) == [2, 3]
        assert live.listener.commit.trouble == ""
    assert [row.payload for row in read_all(tmp_path).values()] == [b"1", b"2", b"3"]
    journal.close()


def test_a_segment_that_cannot_be_made_is_made_later(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, files=disk)
    for fault in ("bad_creates", "bad_syncs"):
        setattr(disk, fault, 1)
        with pytest.raises(UnavailableError):
            journal.append(batch(1, 1))
    disk.room = 10
    with pytest.raises(UnavailableError):
        journal.append(batch(1, 1))
    disk.heal()
    assert journal.append(batch(1, 1)) == 1
    journal.close()


_STEP = st.tuples(
    st.sampled_from(["append", "append", "append", "crash", "cut"]),
    st.integers(1, 5),
    st.sampled_from(["", "", "room", "sync", "sync twice", "sync and truncate", "room and truncate", "create"]),
    st.integers(0, 150),
)


def fail(disk: Disk, fault: str, room: int) -> None:
    disk.room = room if "room" in fault else None
    disk.bad_syncs = 2 if fault == "sync twice" else int("sync" in fault)
    disk.bad_truncates = int("truncate" in fault)
    disk.bad_creates = int(fault == "create")


_FATE = given(steps=st.lists(_STEP, max_size=14), seed=st.integers(0, 2**32))


@settings(max_examples=100, deadline=None)
@_FATE
def test_after_power_cuts_and_failing_disks_every_acknowledged_message_is_there(
    steps: list[tuple[str, int, str, int]], seed: int
) -> None:
    live_through(steps, seed)


@pytest.mark.torture
@settings(max_examples=2000, deadline=None)
@_FATE
def test_after_two_thousand_power_cuts_every_acknowledged_message_is_there(
    steps: list[tuple[str, int, str, int]], seed: int
) -> None:
    live_through([*steps, ("cut", 1, "", 0)], seed)


def live_through(steps: Sequence[tuple[str, int, str, int]], seed: int) -> None:
    """Let a journal live through faults; what was acknowledged must be there, and a number that was read not change."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, disk, serial = Path(name), Disk(), 0
        journal = Journal.open(folder, segment_max=400, files=disk)
        acknowledged: dict[int, Message] = {}
        seen: dict[int, Message] = {}
        for step, count, fault, room in steps:
            if step == "append":
                group, serial = batch(serial, count), serial + count
                fail(disk, fault, room)
                try:
                    first = journal.append(group)
                except UnavailableError:
                    disk.heal()
                    first = journal.append(group) if room % 2 else 0
                if first:
                    acknowledged |= {first + index: row for index, row in enumerate(group)}
                disk.heal()
            else:
                journal.close()
                if step == "cut":
                    disk.cut_power(folder, chance)
                journal = Journal.open(folder, segment_max=400, files=disk)
            found = read_all(folder)
            assert acknowledged.items() <= found.items()
            assert seen.items() <= found.items()
            seen = found
        journal.close()


# --- keeping house ---------------------------------------------------------------------------------------------------


def test_oldest_segments_go_while_there_is_too_little_room_but_never_beyond_what_was_applied(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, segment_max=1000, files=disk)
    for number in range(10):
        journal.append([noise(number, 1200)])
    before = journal.bytes
    assert journal.prune(Keep(), upto=10) == 0
    disk.free_bytes = 0
    assert journal.prune(Keep(free_bytes=1), upto=4) > 0
    reader = JournalReader(tmp_path)
    assert reader.first() == 5
    assert list(numbered(reader.read(0, limit=100))) == list(range(5, 11))
    assert reader.damaged == 0
    journal.prune(Keep(free_bytes=1), upto=10**9)
    assert reader.first() == 10  # the newest stays
    assert journal.bytes < before
    assert journal.append([noise(11, 5)]) == 11
    reader.close()
    journal.close()


def aged(folder: Path, *hours: float) -> None:
    """Let the oldest segments have been written so many hours ago."""
    for first, age_h in zip(segments(folder), hours, strict=False):
        written_s = 1_000_000_000 - age_h * 3600
        os.utime(segment_path(folder, first), (written_s, written_s))


@pytest.mark.parametrize(
    ("keep", "upto", "left"),
    [
        pytest.param(Keep(), 9, range(1, 6), id="nothing is asked for"),
        pytest.param(Keep(since_us=(1_000_000_000 - 50 * 3600) * 1_000_000), 9, range(3, 6), id="older than 50 hours"),
        pytest.param(Keep(since_us=(1_000_000_000 - 50 * 3600) * 1_000_000), 1, range(2, 6), id="but not beyond 1"),
        pytest.param(Keep(bytes_max=4000), 9, range(3, 6), id="more than three of them"),
        pytest.param(Keep(bytes_max=4000), 0, range(1, 6), id="nothing was applied"),
        pytest.param(Keep(bytes_max=1), 9, range(5, 6), id="never the newest"),
    ],
)
def test_the_oldest_go_by_age_and_size_but_never_what_was_not_applied(
    tmp_path: Path, keep: Keep, upto: int, left: range
) -> None:
    journal = Journal.open(tmp_path, segment_max=1000)
    for number in range(5):
        journal.append([noise(number, 1200)])
    aged(tmp_path, 70, 60, 40, 30, 0)
    freed = journal.prune(keep, upto)
    assert segments(tmp_path) == list(left)
    assert (freed > 0) == (len(left) < 5)
    assert journal.bytes == sum(segment.bytes for segment in list_segments(tmp_path))
    journal.close()


def test_room_is_low_only_where_deleting_what_may_be_deleted_does_not_help(tmp_path: Path) -> None:
    disk = Disk()
    journal = Journal.open(tmp_path, segment_max=1000, files=disk)
    for number in range(5):
        journal.append([noise(number, 1200)])
    disk.free_bytes = 500
    assert journal.is_low(2000, upto=0)
    assert not journal.is_low(500, upto=0)
    assert not journal.is_low(2000, upto=2)
    journal.close()


def test_nothing_is_deleted_by_a_position_that_no_message_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal.open(tmp_path / "journal", segment_max=1000)
    for number in range(5):
        journal.append([noise(number, 1200)])
    applied = Published(tmp_path / "journal" / "applied")
    keeping = Housekeeping(journal, IngestSettings(journal_max=1, keep_free_bytes=0), tmp_path)
    for garbage in (1 << 60, -5):
        applied.set(garbage)
        for _ in range(4):
            keeping()
        assert len(segments(tmp_path / "journal")) == 5
    assert len([record for record in caplog.records if "which no message has" in record.message]) == 1
    applied.set(3)
    for _ in range(3):
        keeping()
        assert len(segments(tmp_path / "journal")) == 5  # the ledger may not have all of it yet
    keeping()
    assert segments(tmp_path / "journal") == [4, 5]
    applied.close()
    journal.close()


def test_what_the_ledger_has_not_counted_is_kept_however_long_no_server_runs(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", segment_max=1000)
    for number in range(5):
        journal.append([noise(number, 1200)])
    for name, upto in (("applied", 4), ("counted", 2)):
        published = Published(tmp_path / "journal" / name)
        published.set(upto)
        published.close()
    keeping = Housekeeping(journal, IngestSettings(journal_max=1, keep_free_bytes=0), tmp_path)
    for _ in range(10):
        keeping()
    assert segments(tmp_path / "journal") == [3, 4, 5]
    journal.close()


@pytest.mark.parametrize("garbage", [1 << 60, -1, -(2**63), 2**63 - 1, 500_000_000])
@pytest.mark.parametrize("groups", [pytest.param([], id="no segment"), pytest.param([3, 2], id="segments")])
def test_a_published_number_that_cannot_be_right_is_doubted_and_none_is_given_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, groups: list[int], garbage: int
) -> None:
    filled(tmp_path, *groups).close()
    held = sum(groups)
    applied = Published(tmp_path / "applied")
    applied.set(held or 7)
    applied.close()
    Published(tmp_path / "synced").set(garbage)
    journal = Journal.open(tmp_path)
    assert journal.last == (held or 7)
    assert "cannot be right" in caplog.text
    assert journal.append(batch(1, 1)) == (held or 7) + 1
    assert list(read_all(tmp_path))[-1] == (held or 7) + 1
    journal.close()


def test_without_segments_the_published_number_goes_on(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    Published(tmp_path / "synced").set(5_000_000_000)
    journal = Journal.open(tmp_path)
    assert journal.append(batch(1, 1)) == 5_000_000_001
    journal.close()


def test_a_journal_that_is_gone_is_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = filled(tmp_path / "journal", 3)
    report = ReportFile(tmp_path / "door.json")
    report.write(DoorReport(journal=journal.id, last=3))
    assert Housekeeping(journal, IngestSettings(), tmp_path).lost == 0
    journal.close()
    shutil.rmtree(tmp_path / "journal")
    journal = Journal.open(tmp_path / "journal")
    assert Housekeeping(journal, IngestSettings(), tmp_path).lost == 3
    assert "with 3 messages, is gone" in caplog.text
    journal.close()
    report.close()


def test_a_published_number_takes_its_room_when_it_is_made(tmp_path: Path) -> None:
    number = Published(tmp_path / "n")
    assert (tmp_path / "n").stat().st_blocks > 0
    watcher = Published(tmp_path / "n", read_only=True)
    number.set(5)
    assert watcher.get() == 5
    with pytest.raises(TypeError):
        watcher.set(6)
    watcher.close()
    number.close()


def test_a_listing_tells_what_each_segment_holds(tmp_path: Path) -> None:
    journal = filled(tmp_path, 2, 3, segment_max=100)
    first, second = list_segments(tmp_path)
    assert (first.first, first.last, first.messages, first.begin_us, first.end_us) == (1, 2, 2, 1, 2)
    assert (second.first, second.last, second.messages, second.begin_us, second.end_us) == (3, 5, 3, 3, 5)
    assert first.bytes == segment_path(tmp_path, 1).stat().st_size
    assert journal.bytes == first.bytes + second.bytes
    journal.close()


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    assert list_segments(tmp_path / "none") == []


def test_a_published_number_is_read_by_others_and_outlives_its_writer(tmp_path: Path) -> None:
    assert read_published(tmp_path / "n") is None
    number = Published(tmp_path / "n")
    number.set(-(2**62))
    assert read_published(tmp_path / "n") == -(2**62)
    number.close()
    assert Published(tmp_path / "n").get() == -(2**62)
