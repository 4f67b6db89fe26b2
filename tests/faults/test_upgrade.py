"""Folders that an older Qala left are read, and nothing in them is lost (F24). Those of a newer one are refused elsewhere.

`tests/data/upgrade` is what schema version 1 of the state and the journal of that time look like, written by that Qala.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devices.errors import Reason
from ingest.journal import JournalReader
from ingest.message import Message, MessageType
from qala.state.rejected import list_rejected
from tests.builders import NOW_US, SECOND_US, City, telemetry

LEFT = Path(__file__).parents[1] / "data" / "upgrade"
KEPT = {("air/a1", "pm2_5", NOW_US): 1.5, ("air/a2", "pm2_5", NOW_US + SECOND_US): 2.5}
LAST = ("air/a1", "pm2_5", NOW_US + 2 * SECOND_US)


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    """Open what the older one left. The store is empty, so everything is read again."""
    shutil.copytree(LEFT / "journal", tmp_path / "journal")
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as state:
        state.executescript((LEFT / "state.sql").read_text())
    made = City(tmp_path)
    yield made
    made.close()


def test_an_older_journal_is_read_and_goes_on(city: City) -> None:
    assert city.journal.last == 6

    city.send(telemetry({"pm2_5": 4.5}, t=NOW_US // 1000 + 3000))

    assert city.journal.last == 7
    assert city.readings() == {**KEPT, LAST: 3.5, (*LAST[:2], NOW_US + 3 * SECOND_US): 4.5}


def test_every_field_of_an_older_message_is_there(city: City) -> None:
    reader = JournalReader(city.folder / "journal")
    *_, last = [message for frame in reader.read(0, limit=100) for message in frame.messages]
    reader.close()
    payload = b'{"t":%d,"v":{"pm2_5":3.5}}' % (NOW_US // 1000 + 2000)
    received_us, properties = NOW_US + 2 * SECOND_US, {"content_type": "application/json", "user.a": "b"}
    assert last == Message(
        "qala/1/air/a1/t", payload, received_us, "client", "who", 1, MessageType.WILL, 1, True, True, properties
    )


def test_what_an_older_state_has_is_kept_and_is_not_there_twice_when_it_is_read_again(city: City) -> None:
    before = sorted((row.position, row.reason) for row in list_rejected(city.engine)[0])
    city.project()
    assert sorted((row.position, row.reason) for row in list_rejected(city.engine)[0]) == before
    assert before == [(3, Reason.BAD_JSON), (4, Reason.UNKNOWN_DEVICE)]
