"""The town that faults strike: meters whose every message is known beforehand, and what must be left of them afterwards."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import httpx

from ingest.journal import JournalReader
from ingest.message import Message
from tests.faults.fleet import Credential, Order
from tests.processes import Qala, native
from tests.wait import until

__all__ = [
    "Row",
    "assert_ledger_adds_up",
    "assert_nothing_lost",
    "assert_same",
    "assert_stored",
    "credentials",
    "journalled",
    "orders",
    "qala_town",
    "reference",
    "rss_bytes",
    "say",
    "stored",
]

DEVICES = 100
START_S = 1_767_225_600  # 2026-01-01T00:00:00Z
GOOD = 1

LEDGER = ("messages", "duplicates", "readings", "accepted")
_LEDGER_SUMS = f"SELECT {', '.join(f'sum({name})' for name in LEDGER)} FROM ledger WHERE device LIKE 'town/%'"
_REJECTED_SUM = "SELECT coalesce(sum(readings), 0) FROM ledger_rejected WHERE device LIKE 'town/%'"

T = TypeVar("T")
Row = tuple[str, str, int, str, int]
"""Device, quantity, time [us], value (its bits, as hexadecimal), flag."""


def orders(count: int, *, devices: int = DEVICES, fleet: str = "town", first: int = 0) -> list[Order]:
    """Make messages of one reading each, dealt out to the devices in turn; the n-th is of the n-th second."""
    return [_order(n, f"{fleet}/m{n % devices}") for n in range(first, first + count)]


def _order(n: int, device: str) -> Order:
    payload = native({"active_power": _value(n)}, t=1000 * (START_S + n))
    return Order(n, device, f"qala/1/{device}/t", payload)


def _value(n: int) -> float:
    return n / 7  # has bits down to the last one


def reference(sent: list[Order]) -> list[Row]:
    """Compute what the store must hold after these messages."""
    rows = [
        (one.device, "active_power", 1_000_000 * (START_S + one.number), _value(one.number).hex(), GOOD) for one in sent
    ]
    return sorted(rows)


def stored(folder: Path) -> list[Row]:
    """Read what the closed database file holds, past all of our code."""
    query = """
        SELECT device, quantity, time_us, value, flag
        FROM readings JOIN series ON series.id = readings.series WHERE device LIKE 'town/%'
    """
    with duckdb.connect(str(folder / "readings.duckdb"), read_only=True) as connection:
        rows = connection.execute(query).fetchall()
    return sorted((device, quantity, time_us, value.hex(), flag) for device, quantity, time_us, value, flag in rows)


def journalled(folder: Path) -> list[Message]:
    """Read every message of the meters from the journal, in its order."""
    reader = JournalReader(folder / "journal")
    try:
        frames = reader.read(0, limit=10**7)
    finally:
        reader.close()
    return [message for frame in frames for message in frame.messages if message.topic.startswith("qala/1/town/")]


def assert_nothing_lost(qala: Qala, sent: list[Order]) -> int:
    """Make sure that everything sent is in the journal with its payload, and in the store once, to the bit.

    Stops Qala, whose database has one owner. Returns how many messages are in the journal more than once, which the store
    must not show.
    """
    assert_ledger_adds_up(qala, sent)
    found = Counter((message.topic, message.payload) for message in journalled(qala.folder))
    assert_same(set(found), {(one.topic, one.payload) for one in sent})
    assert_stored(stored(qala.folder), sent)
    return found.total() - len(found)


def assert_ledger_adds_up(qala: Qala, sent: list[Order]) -> None:
    """Make sure that every message and reading is counted once, as what it was, in the state and in what the API says of it.

    Of a Qala that is caught up. Stops it.
    """
    journal = journalled(qala.folder)
    rows = until(lambda: _told(qala, len(journal)), deadline_s=30)
    qala.stop()
    with closing(sqlite3.connect(qala.folder / "state.sqlite")) as state:
        counted = dict(zip(LEDGER, state.execute(_LEDGER_SUMS).fetchone(), strict=True))
        [[rejected]] = state.execute(_REJECTED_SUM).fetchall()
    assert {name: sum(row[name] for row in rows) for name in LEDGER} == counted
    assert counted["messages"] == len(journal)
    assert (
        counted["messages"] - counted["duplicates"] == len({(one.topic, one.payload) for one in journal}) == len(sent)
    )
    assert counted["readings"] == counted["accepted"] + rejected == len(sent)


def _told(qala: Qala, messages: int) -> list[Any]:
    """Ask the API for the ledger of the meters; nothing while the newest batch is not in it."""
    rows = [row for row in qala.all("ledger", by="device") if row["device"].startswith("town/")]
    return rows if sum(row["messages"] for row in rows) >= messages else []


def assert_stored(held: list[Row], sent: list[Order]) -> None:
    """Make sure that a store holds what these messages come to: every reading once, to the bit."""
    assert len(held) == len(set(held))
    assert_same(set(held), set(reference(sent)))


def assert_same(found: set[T], expected: set[T]) -> None:
    """Compare large sets, and show a few of what differs."""
    missing, extra = expected - found, found - expected
    assert not missing, f"{len(missing)} are missing, such as {list(missing)[:3]}"
    assert not extra, f"{len(extra)} are too many, such as {list(extra)[:3]}"


def say(fault: str, figures: str) -> None:
    """Print what was measured: `pytest -rP` shows it."""
    print(f"{fault}: {figures}")  # noqa: T201


def rss_bytes(pid: int) -> int:
    """Return the memory that a process has in use."""
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has ended")


def credentials(qala: Qala) -> Credential:
    """Issue a credential to every device, and return what gives a device's own."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(qala.folder / "qala.sock")), timeout=30) as owner:
        answer = owner.post("http://qala/api/v1/credentials/missing", json={})
    assert answer.is_success, answer.text
    tokens = {one["principal"]: one["token"].encode() for one in answer.json()["items"]}
    return lambda device: (device, tokens[device])


@contextmanager
def qala_town(*, devices: int = DEVICES, others: tuple[str, ...] = (), **environment: str) -> Iterator[Qala]:
    """Run Qala with meters in a folder whose path is short: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="town-") as folder:
        lines = [f"{device},electricity_meter" for device in (*(f"town/m{n}" for n in range(devices)), *others)]
        file = Path(folder) / "devices.csv"
        file.write_text("\n".join(["id,kind", *lines]) + "\n")
        qala = Qala(Path(folder) / "data", devices=file)
        qala.environment |= environment
        with qala:
            yield qala
