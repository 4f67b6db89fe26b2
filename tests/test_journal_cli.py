"""The journal's commands: they show what is there, beside a running door and on a copy, and change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.inspection import line_of, since, verify
from ingest.journal import Journal
from ingest.message import Message, MessageType
from ingest.segments import HEADER_SIZE, frames, segment_path, segments
from tests.test_http_ingest import NDJSON, serving

HOUR_US = 3600 * 1_000_000
BEGIN_US = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z


def message(number: int) -> Message:
    return Message(
        topic=f"qala/1/demo/d{number % 3}/t",
        payload=json.dumps({"n": number}).encode(),
        received_us=BEGIN_US + number * HOUR_US,
        client=f"c{number % 2}",
    )


def filled(data: Path, count: int = 30, *, of: int = 3) -> Journal:
    """Write a journal of `count` messages, `of` in a frame, in several files."""
    journal = Journal.open(data / "journal", segment_max=400)
    for first in range(1, count + 1, of):
        journal.append([message(number) for number in range(first, first + of)])
    return journal


def qala(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
    return subprocess.run(
        [sys.executable, "-m", "qala", "journal", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        timeout=60,
        check=False,
    )


def rows(data: Path, *arguments: str) -> Any:
    done = qala(data, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def test_no_command_changes_a_byte_beside_the_door_that_writes(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    before = files(tmp_path / "journal")
    assert len(rows(tmp_path, "ls")) == len(segments(tmp_path / "journal"))
    assert len(rows(tmp_path, "tail", "-n", "5")) == 5
    assert all(row["ok"] for row in rows(tmp_path, "verify"))
    assert rows(tmp_path, "export", str(tmp_path / "all.ndjson"))[0]["messages"] == 30
    assert files(tmp_path / "journal") == before
    journal.close()


def test_the_listing_says_which_file_is_open_sealed_or_damaged(tmp_path: Path) -> None:
    filled(tmp_path).close()
    folder = tmp_path / "journal"
    flip(segment_path(folder, segments(folder)[1]), HEADER_SIZE + 50)
    states = [row["state"] for row in rows(tmp_path, "ls")]
    assert states == ["sealed", "damaged", *["sealed"] * (len(states) - 3), "open"]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        pytest.param(["-n", "3"], [28, 29, 30], id="newest"),
        pytest.param(["-n", "3", "--device", "demo/d1"], [22, 25, 28], id="of a device"),
        pytest.param(["-n", "2", "--topic", "qala/+/demo/d0/#"], [27, 30], id="on a topic"),
        pytest.param(["--topic", "elsewhere/#"], [], id="of nobody"),
        pytest.param(["-n", "1000"], list(range(1, 31)), id="all there are"),
    ],
)
def test_the_tail_is_the_newest_that_is_wanted(tmp_path: Path, arguments: list[str], numbers: list[int]) -> None:
    filled(tmp_path).close()
    found = rows(tmp_path, "tail", *arguments)
    assert [row["number"] for row in found] == numbers
    assert all(json.loads(row["payload"]) == {"n": row["number"]} for row in found)


def test_the_tail_follows_what_comes(tmp_path: Path) -> None:
    journal = filled(tmp_path, 3)
    command = [sys.executable, "-m", "qala", "journal", "tail", "-f", "-n", "1", "--json", "--data", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["number"] == 3
        journal.append([message(4), message(5)])
        assert [json.loads(process.stdout.readline())["number"] for _ in range(2)] == [4, 5]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        journal.close()


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        pytest.param([], range(1, 31), id="all"),
        pytest.param(["--from", "7", "--to", "9"], range(7, 10), id="by number"),
        pytest.param(["--since", "2026-11-18T16:06:40Z", "--until", "2026-11-18T23:06:40+05:00"], [5, 6], id="by time"),
        pytest.param(["--since", "2030-01-01"], [], id="nothing so late"),
    ],
)
def test_an_export_holds_what_was_asked_for(tmp_path: Path, arguments: list[str], numbers: Any) -> None:
    filled(tmp_path).close()
    file = tmp_path / "out.ndjson"
    assert rows(tmp_path, "export", str(file), *arguments)[0]["messages"] == len(numbers)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(numbers)
    assert [json.loads(line["payload"])["n"] for line in lines] == list(numbers)
    assert qala(tmp_path, "export", str(file)).returncode == 1  # nothing is written over


def test_an_export_is_taken_again_by_a_batch_byte_for_byte(tmp_path: Path) -> None:
    sent = [
        Message("a/b", b'{"v": 1.50}', 1, properties={"content_type": "application/json"}),
        Message("a/c", b"\0\xff", 2),
        Message("a/d", "текст \u2028".encode(), 3),
        Message("a/e", b"", 4),
    ]
    body = b"\n".join(line_of(number, message) for number, message in enumerate(sent, start=1))
    with serving(tmp_path / "journal") as live, live.client() as client:
        told = client.post("/ingest/1/batch", content=body, headers=NDJSON).json()
        assert (told["taken"], told["refused"]) == (4, 0)
        taken = [(message.topic, message.payload, message.properties) for message in live.journalled()]
        assert taken == [(message.topic, message.payload, message.properties) for message in sent]


def test_a_time_is_found_without_reading_what_is_before(tmp_path: Path) -> None:
    filled(tmp_path).close()
    folder = tmp_path / "journal"
    assert [since(folder, BEGIN_US + n * HOUR_US) for n in (-5, 1, 14, 30, 31)] == [1, 1, 14, 30, 31]
    assert since(tmp_path / "none", 0) == 1


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_whole_journal_is_verified(tmp_path: Path) -> None:
    filled(tmp_path).close()
    done = qala(tmp_path, "verify")
    assert done.returncode == 0
    assert "30 messages are whole, 0 cannot be read" in done.stderr


def test_damage_is_named_by_its_numbers_and_is_an_exit_code(tmp_path: Path) -> None:
    filled(tmp_path).close()
    folder = tmp_path / "journal"
    second = segments(folder)[1]
    path = segment_path(folder, second)
    raw = next(frames(path.read_bytes()))
    flip(path, raw.stop - 1)
    done = qala(tmp_path, "verify", "--json")
    assert done.returncode == 1
    assert [row["damaged"] for row in json.loads(done.stdout) if not row["ok"]] == [[f"{second}-{second + 2}"]]
    assert "27 messages are whole, 3 cannot be read" in done.stderr


def test_a_file_that_is_missing_between_others_is_damage(tmp_path: Path) -> None:
    filled(tmp_path).close()
    folder = tmp_path / "journal"
    first, second, third = segments(folder)[:3]
    segment_path(folder, second).unlink()
    assert [checked.damaged for checked in verify(folder) if not checked.is_good] == [[(second, third - 1)]]
    assert next(verify(folder)).first == first


def test_a_damaged_header_is_said_and_costs_nothing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    flip(segment_path(tmp_path / "journal", 1), 9)
    first = next(verify(tmp_path / "journal"))
    assert (first.header, first.damaged, first.is_good) == (False, [], False)


def test_what_a_killed_door_had_begun_to_write_is_no_damage(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = segment_path(tmp_path / "journal", segments(tmp_path / "journal")[-1])
    with path.open("ab") as file:
        file.write(path.read_bytes()[HEADER_SIZE : HEADER_SIZE + 40])
    last = list(verify(tmp_path / "journal"))[-1]
    assert (last.stray, last.is_good) == (40, True)


def test_messages_that_are_no_publish_are_shown_as_what_they_are(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal")
    journal.append([Message("", b"", 1, type=MessageType.REFUSED, properties={"reason": "bad_topic", "detail": "x"})])
    journal.close()
    assert [row["type"] for row in rows(tmp_path, "tail")] == ["refused"]


def test_where_no_journal_is_the_command_says_so(tmp_path: Path) -> None:
    done = qala(tmp_path, "tail")
    assert done.returncode == 1
    assert "no journal is in" in done.stderr
    assert not (tmp_path / "journal").exists()
