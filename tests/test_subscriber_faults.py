"""What happens to the messages of a real broker when the door, the broker or a message is at fault."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.errors import Reason
from ingest.brokers.connection import BrokerConnection
from ingest.message import MessageType
from ingest.mqtt.packets import pubacks
from ingest.report import read_report
from qala.bench.load import run_load
from tests.builders import NOW_MS, City
from tests.mosquitto import Mosquitto, documented
from tests.processes import Qala, native
from tests.subscribing import Memory, Subscribing, publish, publish_many, subscribing
from tests.wait import until

TOPIC = "qala/1/demo/d/t"
DEVICES = 50
START_S = 1_767_225_600  # 2026-01-01T00:00:00Z


# --- the door is killed -----------------------------------------------------------------------------------------------


def readings(count: int) -> Iterator[tuple[str, bytes]]:
    for n in range(count):
        yield f"qala/1/kill/m{n % DEVICES}/t", native({"active_power": float(n)}, t=1000 * (START_S + n))


@contextlib.contextmanager
def door_at(broker: Mosquitto, folder: Path, **settings: Any) -> Iterator[Qala]:
    """Run a door that subscribes to a broker; the serving process beside it does not run yet."""
    devices = folder / "devices.csv"
    devices.write_text("\n".join(["id,kind", *(f"kill/m{n},electricity_meter" for n in range(DEVICES))]) + "\n")
    qala = Qala(folder / "data", devices=devices)
    table = {"url": broker.url, "reconnect_first_s": 0.1, **settings}
    qala.environment["QALA_INGEST__BROKERS"] = json.dumps({"city": table})
    try:
        qala.start_door()
        until(lambda: is_subscribed(qala), deadline_s=30)
        yield qala
    finally:
        qala.stop()
        qala._log.close()


def stored(folder: Path) -> list[tuple[int, int]]:
    """Read (n, how often) from the database file itself, past all of our code."""
    with duckdb.connect(str(folder / "readings.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT CAST(value AS BIGINT), count(*) FROM readings GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return [(int(n), int(times)) for n, times in rows]


def is_subscribed(qala: Qala) -> bool:
    report = read_report(qala.folder)
    return report is not None and report.pid == qala.door.pid and any(each.connected for each in report.brokers)


def kill_doors(tmp_path: Path, messages: int, kills: int, rate: float) -> int:
    """Publish through a broker while the door is killed again and again and nothing serves; then serve.

    Returns how many messages the journal holds twice.
    """
    dice = random.Random(4)
    lines = f"allow_anonymous true\n{documented()}"
    with Mosquitto(tmp_path / "m", lines) as broker, door_at(broker, tmp_path) as qala:
        publisher = publishing(broker, messages, rate)
        for moment in sorted(dice.sample(range(messages // 50, messages * 9 // 10), kills)):
            until(lambda moment=moment: qala.journalled() >= moment, deadline_s=120)
            qala.kill_door()
        publisher.join(600)
        assert not publisher.is_alive()
        until(lambda: qala.journalled() >= messages and waits_no_more(qala), deadline_s=120)
        doubled = qala.journalled() - messages
        qala.start_serve()
        until(qala.is_up, deadline_s=60)
        qala.wait_until_caught_up()
        assert qala.get("health")["parts"]["brokers"]["up"]
    assert stored(qala.folder) == [(n, 1) for n in range(messages)]
    return doubled


def publishing(broker: Mosquitto, messages: int, rate: float) -> threading.Thread:
    """Publish readings at a rate [1/s] in a thread; the broker acknowledges every one."""
    load = {"connections": 4, "in_flight": 500, "messages": list(readings(messages)), "rate": rate}
    publisher = threading.Thread(target=run_load, args=("127.0.0.1", broker.port), kwargs=load)
    publisher.start()
    return publisher


def waits_no_more(qala: Qala) -> bool:
    """Tell whether the door took nothing for two reports in a row."""
    before = qala.journalled()
    first = read_report(qala.folder)
    until(lambda: (later := read_report(qala.folder)) is not None and later.reported_us - first.reported_us > 1_500_000)
    return qala.journalled() == before


@pytest.mark.timeout(300)
def test_no_kill_of_the_door_loses_or_doubles_what_the_broker_took(tmp_path: Path) -> None:
    doubled = kill_doors(tmp_path, messages=20_000, kills=5, rate=4000)
    assert doubled > 0  # else no kill hit anything


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_no_kill_of_many_loses_or_doubles_what_the_broker_took(tmp_path: Path) -> None:
    doubled = kill_doors(tmp_path, messages=200_000, kills=30, rate=5000)
    print(f"30 kills, 200000 messages: 0 lost, {doubled} came twice")  # noqa: T201
    assert doubled > 0


def test_a_door_that_is_asked_to_end_takes_nothing_twice(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m") as broker, door_at(broker, tmp_path) as qala:
        publisher = publishing(broker, 10_000, 4000)
        for moment in (1000, 4000):
            until(lambda moment=moment: qala.journalled() >= moment, deadline_s=60)
            qala.door.send_signal(signal.SIGTERM)
            assert qala.door.wait(6) == 0
            qala.start_door()
        publisher.join(60)
        until(lambda: qala.journalled() >= 10_000, deadline_s=60)
        assert waits_no_more(qala)
        assert qala.journalled() == 10_000


# --- the broker is at fault -------------------------------------------------------------------------------------------


class Stepwise(Memory):
    """A journal that takes one group for each permission."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)

    def append(self, messages: Sequence[Any]) -> int:
        assert self.permits.acquire(timeout=60)
        return super().append(messages)


def lost_with_stale_ids(folder: Path) -> int:
    """Restart a broker without its memory while old messages wait for the journal, and crash; return what was lost.

    The broker numbers new messages as it did the old ones. An acknowledgement of an old number over the new
    connection takes a new message from it that is nowhere else.
    """
    sink, later = Stepwise(), Memory()
    waits = {"reconnect_first_s": 0.05, "reconnect_max_s": 0.05}
    with Mosquitto(folder / "m") as broker, subscribing(broker, sink, folder, **waits) as house:
        until(house.is_connected)
        publish_many(broker.port, range(5), topic="qala/1/demo/old/t")
        until(lambda: house.report().waiting == 5)
        old = house.subscriber._connection
        broker.restart(forget=True)
        until(lambda: house.is_connected() and house.subscriber._connection is not old)
        publish_many(broker.port, range(100, 105), topic="qala/1/demo/new/t")
        until(lambda: house.report().waiting == 5)
        sink.permits.release()  # the first group: old messages alone
        until(lambda: sink.messages)
        until(lambda: old.waiting < 5)
        house.crash()
        until(lambda: not house.is_connected())
        died_with = {m.payload for m in sink.messages}
        with subscribing(broker, later, folder) as other:
            until(other.is_connected)
            publish_many(broker.port, [999])
            until(lambda: "999" in later.payloads())
        sink.permits.release(100)
    assert all(int(payload) < 100 for payload in died_with)
    return len({str(n) for n in range(100, 105)} - set(later.payloads()))


@pytest.mark.timeout(120)
def test_a_broker_that_lost_its_sessions_loses_no_message_by_stale_numbers(tmp_path: Path) -> None:
    assert [lost_with_stale_ids(tmp_path / str(run)) for run in range(10)] == [0] * 10


def test_stale_numbers_lose_messages_where_any_connection_acknowledges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[BrokerConnection] = []
    made, acknowledge = BrokerConnection.connection_made, BrokerConnection.acknowledge

    def note(self: BrokerConnection, transport: Any) -> None:
        current.append(self)
        made(self, transport)

    def unfenced(self: BrokerConnection, ids: list[bytes]) -> None:
        acknowledge(self, ids)
        if current[-1] is not self and current[-1]._transport is not None:
            current[-1]._transport.write(pubacks(ids))

    monkeypatch.setattr(BrokerConnection, "connection_made", note)
    monkeypatch.setattr(BrokerConnection, "acknowledge", unfenced)
    assert lost_with_stale_ids(tmp_path) > 0


def test_a_broker_that_restarts_again_and_again_loses_nothing(tmp_path: Path) -> None:
    sink = Memory()
    with Mosquitto(tmp_path / "m") as broker, subscribing(broker, sink, tmp_path) as house:
        for turn in range(5):
            until(house.is_connected)
            publish_many(broker.port, range(turn * 200, turn * 200 + 200))
            broker.restart()
        until(lambda: set(sink.payloads()) >= {str(n) for n in range(1000)})
        assert house.subscriber.attempts >= 5


class Publisher:
    """A client that publishes numbers and comes back; `acknowledged` are those that the broker took."""

    def __init__(self, port: int, messages: int) -> None:
        self.messages = messages
        self.acknowledged: set[int] = set()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="publisher", clean_session=False)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(0.05, 0.05)  # sooner than the door
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        for n in range(self.messages):
            until(lambda n=n: n - len(self.acknowledged) < 1000, deadline_s=60, every_s=0.001)
            self._client.publish(TOPIC, str(n).encode(), qos=1)

    def _on_publish(self, _client: object, _data: object, packet_id: int, *_: object) -> None:
        self.acknowledged.add(packet_id - 1)  # paho counts its packet ids from 1

    def is_done(self) -> bool:
        return len(self.acknowledged) == self.messages

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def keeps_up(house: Subscribing, sink: Memory, publisher: Publisher) -> bool:
    """Tell whether next to nothing waits in the broker's memory."""
    newest = int(sink.messages[-1].payload) if sink.messages else 0
    return house.is_connected() and newest > len(publisher.acknowledged) - 200


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "session_on_disk",
    [pytest.param(True, id="with our session on disk"), pytest.param(False, id="before its first save")],
)
def test_what_a_killed_broker_loses_is_told_and_what_comes_later_flows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], session_on_disk: bool
) -> None:
    sink, waits = Memory(), {"reconnect_first_s": 1.0, "reconnect_max_s": 60.0}
    lines = f"allow_anonymous true\n{documented()}"
    with Mosquitto(tmp_path / "m", lines) as broker, subscribing(broker, sink, tmp_path, **waits) as house:
        until(house.is_connected)
        if session_on_disk:
            broker.restart()
        publisher = Publisher(broker.port, 15_000)
        for moment in (4_000, 8_000, 12_000):
            until(lambda moment=moment: len(publisher.acknowledged) >= moment, deadline_s=60)
            until(lambda: keeps_up(house, sink, publisher), deadline_s=60)
            broker.kill()
            broker.start()
        until(publisher.is_done, deadline_s=60)
        publisher.close()
        until(house.is_connected, deadline_s=60)
        publish(broker.port, TOPIC, b"afterwards")
        until(lambda: sink.messages[-1].payload == b"afterwards")
        arrived = {int(m.payload) for m in sink.messages[:-1]}
    lost = len(publisher.acknowledged - arrived)
    when = "our session on disk" if session_on_disk else "nothing saved yet"
    with capsys.disabled():
        print(f"\n3 kills of a broker with {when}, 15000 messages: {lost} were lost that it had acknowledged")  # noqa: T201
    assert arrived <= set(range(15_000))


# --- messages are at fault --------------------------------------------------------------------------------------------


def test_poison_at_the_head_of_a_session_is_recorded_once_and_all_behind_it_flows(tmp_path: Path) -> None:
    sink = Memory()
    with Mosquitto(tmp_path / "m") as broker:
        with subscribing(broker, Memory(), tmp_path) as house:
            until(house.is_connected)
        publish(broker.port, f"qala/1/demo/{'x' * 300}", b"poison")
        publish(broker.port, TOPIC, bytes(70_000))
        publish_many(broker.port, range(10_000))
        with subscribing(broker, sink, tmp_path) as house:
            until(lambda: len(sink.messages) == 10_002)
            assert house.subscriber.attempts == 1
            assert house.report().refused == 2
        refused = [m for m in sink.messages if m.type == MessageType.REFUSED]
        assert [m.properties["reason"] for m in refused] == [Reason.BAD_TOPIC, Reason.TOO_LARGE]
        assert {m.principal for m in refused} == {"broker:city"}
        assert [m.payload.decode() for m in sink.messages[2:]] == [str(n) for n in range(10_000)]
        with subscribing(broker, sink, tmp_path) as house:
            until(house.is_connected)
            publish(broker.port, TOPIC, b"afterwards")
            until(lambda: sink.messages[-1].payload == b"afterwards")
        assert len(sink.messages) == 10_003


@pytest.mark.timeout(120)
def test_retained_messages_come_once_are_marked_and_make_no_reading_twice(tmp_path: Path) -> None:
    count = 10_000
    names = [f"retained/d{n}" for n in range(count)]
    city = City(tmp_path / "city", devices=names)
    with Mosquitto(tmp_path / "m") as broker:
        live = Memory()
        with subscribing(broker, live, tmp_path) as house:
            until(house.is_connected)
            retain_many(broker.port, [(f"qala/1/{each}/t", native({"pm2_5": 1.0}, t=NOW_MS)) for each in names])
            until(lambda: len(live.messages) == count, deadline_s=30)
        city.send(*live.messages)
        before = city.readings()
        assert len(before) == count
        again = Memory()
        with subscribing(broker, again, tmp_path) as house:  # the session is there: nothing is replayed
            until(house.is_connected)
            publish(broker.port, TOPIC, b"{}")
            until(lambda: len(again.messages) == 1)
        anew = Memory()
        with subscribing(broker, anew, tmp_path, client_id="a-session-that-was-lost"):
            until(lambda: len(anew.messages) == count, deadline_s=30)
            assert all(m.retained for m in anew.messages)
        city.send(*anew.messages)
        assert city.readings() == before
    city.close()


def retain_many(port: int, messages: list[tuple[str, bytes]]) -> None:
    """Publish retained messages."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(500)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in messages:
        last = client.publish(topic, payload, 1, retain=True)
    last.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def test_a_retained_message_without_a_time_is_rejected_and_a_live_one_is_not(tmp_path: Path) -> None:
    city = City(tmp_path / "city")
    with Mosquitto(tmp_path / "m") as broker:
        sink = Memory()
        publish(broker.port, "qala/1/air/a1/t", native({"pm2_5": 1.0}), retain=True)
        with subscribing(broker, sink, tmp_path) as house:
            until(house.is_connected)
            publish(broker.port, "qala/1/air/a2/t", native({"pm2_5": 2.0}), retain=True)
            until(lambda: len(sink.messages) == 2)
        city.send(*sink.messages)
        assert {device for device, _, _ in city.readings()} == {"air/a2"}
        assert city.projector.counters.rejected[Reason.BAD_TIME] == 1
    city.close()
