"""Two doors share the topics of one broker, and one of them is killed (F19)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.report import read_report
from qala.bench.load import run_load
from tests.faults.sizes import Size, tiers
from tests.faults.town import assert_same
from tests.mosquitto import Mosquitto, documented
from tests.processes import Qala, native
from tests.test_subscriber_faults import stored
from tests.wait import until

START_S = 1_767_225_600
PARTS = ("east", "west")


def readings(part: str, count: int) -> list[tuple[str, bytes]]:
    """Make messages of one reading each, the n-th with the value n."""
    return [
        (f"qala/1/{part}/m{n % 20}/t", native({"active_power": float(n)}, t=1000 * (START_S + n))) for n in range(count)
    ]


@contextmanager
def node(broker: Mosquitto, folder: Path, part: str) -> Iterator[Qala]:
    """Run a Qala that takes one part of the topics."""
    folder.mkdir()
    devices = folder / "devices.csv"
    devices.write_text("\n".join(["id,kind", *(f"{part}/m{n},electricity_meter" for n in range(20))]) + "\n")
    qala = Qala(folder / "data", devices=devices)
    table = {"url": broker.url, "topics": [f"qala/1/{part}/#"], "reconnect_first_s": 0.1}
    qala.environment["QALA_INGEST__BROKERS"] = json.dumps({"city": table})
    with qala:
        until(lambda: is_subscribed(qala), deadline_s=30)
        yield qala


def is_subscribed(qala: Qala) -> bool:
    report = read_report(qala.folder)
    assert qala.door is not None
    return report is not None and report.pid == qala.door.pid and all(each.connected for each in report.brokers)


def publish(broker: Mosquitto, messages: list[tuple[str, bytes]]) -> threading.Thread:
    load = {"connections": 2, "in_flight": 200, "messages": messages, "rate": 1_000}
    thread = threading.Thread(target=run_load, args=("127.0.0.1", broker.port), kwargs=load)
    thread.start()
    return thread


@tiers("F19")
def test_the_part_of_a_door_that_is_down_waits_and_the_other_goes_on(size: Size, tmp_path: Path) -> None:
    count = size.messages // 2
    sent = {part: readings(part, count) for part in PARTS}
    both = [message for pair in zip(*sent.values(), strict=True) for message in pair]
    with (
        Mosquitto(tmp_path / "m", f"allow_anonymous true\n{documented()}") as broker,
        node(broker, tmp_path / "e", "east") as east,
        node(broker, tmp_path / "w", "west") as west,
    ):
        publisher = publish(broker, both)
        until(lambda: west.journalled() > count // 4, deadline_s=60)
        assert west.door is not None
        west.door.kill()
        west.door.wait()
        held = west.journalled()
        until(lambda: west.get("health")["status"] != "ok", deadline_s=30)
        publisher.join(120)
        until(lambda: east.journalled() >= count, deadline_s=60)
        assert west.journalled() == held < count
        assert east.get("health")["parts"]["brokers"]["up"]
        west.start_door()
        until(lambda: west.journalled() >= count, deadline_s=60)
        for one in (east, west):
            one.wait_until_caught_up()
            one.stop()
            assert_same(set(stored(one.folder)), {(n, 1) for n in range(count)})
