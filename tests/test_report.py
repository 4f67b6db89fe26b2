"""What the door says of itself is read whole or not at all, and needs no room on the disk once it was said."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ingest.commit import Durable
from ingest.report import DoorReport, ReportFile, read_report


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    file = ReportFile(tmp_path / "door.json")
    for report in (
        DoorReport(pid=7, last_error="x" * 500, durable=Durable(messages=3)),
        DoorReport(pid=8, address="127.0.0.1:1883"),
    ):
        file.write(report)
        assert read_report(tmp_path) == report
    file.close()


def test_a_report_that_another_door_left_is_replaced(tmp_path: Path) -> None:
    for pid in (1, 2):
        file = ReportFile(tmp_path / "door.json")
        file.write(DoorReport(pid=pid))
        file.close()
    found = read_report(tmp_path)
    assert found is not None
    assert found.pid == 2


def test_a_report_takes_no_more_of_the_disk_than_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / "door.json"
    file = ReportFile(path)
    file.write(DoorReport())
    first = path.stat()
    assert first.st_blocks * 512 >= first.st_size
    for number in range(50):
        file.write(DoorReport(pid=number, last_error="e" * number * 100))
    assert (path.stat().st_size, path.stat().st_blocks) == (first.st_size, first.st_blocks)
    file.close()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(65536), id="reserved"),
        pytest.param(b'{"pid": 1}', id="as an older Qala wrote it"),
        pytest.param(b"00000002 00000000\n{}", id="wrong checksum"),
        pytest.param(b"ffffffff 00000000\n{}", id="cut short"),
        pytest.param(b"\xff\xfe\x00 \n", id="no text"),
    ],
)
def test_what_is_no_report_is_told_from_one(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "door.json").write_bytes(left)
    assert read_report(tmp_path) is None


def test_a_report_of_an_older_door_lacks_fields_and_is_read(tmp_path: Path) -> None:
    import zlib

    body = b'{"pid": 5, "something": 1}'
    (tmp_path / "door.json").write_bytes(f"{len(body):08x} {zlib.crc32(body):08x}\n".encode() + body)
    assert read_report(tmp_path) == DoorReport(pid=5)


def test_a_reader_never_sees_half_of_one_report_and_half_of_another(tmp_path: Path) -> None:
    file = ReportFile(tmp_path / "door.json")
    file.write(DoorReport(pid=0))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.0005):
            number += 1
            file.write(DoorReport(pid=number, last=number, last_error=str(number) * (number % 3000)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            report = read_report(tmp_path)
            assert report is not None
            assert report.last == report.pid
            assert report.last_error == str(report.pid) * (report.pid % 3000)
    finally:
        stop.set()
        writer.join()
        file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["door.json"]
