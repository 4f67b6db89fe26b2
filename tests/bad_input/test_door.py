"""A living door under mutated packets, odd payloads and monsters: it lives on, keeps its memory, and loses nothing of others."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.bad_input.packets import mutated, streams
from tests.faults.sizes import Size, tiers
from tests.faults.town import qala_town, rss_bytes, say
from tests.mqtt_client import RawClient
from tests.processes import Qala
from tests.wait import until

GROWTH_MAX = 50 * 1024 * 1024
AT_ONCE = 16


@pytest.fixture(scope="module")
def qala() -> Iterator[Qala]:
    with qala_town(devices=2) as started:
        yield started


class Control(threading.Thread):
    """A device that publishes all the while, one message after another, and must be acknowledged each time."""

    def __init__(self, qala: Qala) -> None:
        super().__init__(daemon=True)
        self.qala, self.acknowledged, self.stopped = qala, 0, threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with RawClient(("127.0.0.1", self.qala.mqtt_port)) as client:
                client.connect("control")
                for number in itertools.count(1):
                    identifier = number % 65_535 + 1
                    client.publish(identifier, topic="qala/1/town/m1/t", payload=b'{"v":{"active_power":%d}}' % number)
                    assert client.pubacks(1) == [identifier]
                    self.acknowledged = number
                    if self.stopped.wait(0.005):
                        return
        except (AssertionError, OSError) as error:
            self.failure = error


@contextlib.contextmanager
def beside_control(qala: Qala) -> Iterator[None]:
    """Make sure that whatever happens meanwhile harms neither a device, nor the process, nor its memory."""
    assert qala.door is not None
    process, before = qala.door, rss_bytes(qala.door.pid)
    control = Control(qala)
    control.start()
    until(lambda: control.acknowledged >= 20)
    yield
    reached = control.acknowledged
    until(lambda: control.acknowledged >= reached + 20 or control.failure)
    control.stopped.set()
    control.join(10)
    assert control.failure is None
    assert process.poll() is None
    grown = rss_bytes(process.pid) - before
    say("memory of the door", f"grew by {grown / 2**20:.1f} MiB")
    assert grown <= GROWTH_MAX


def throw(qala: Qala, data: bytes) -> None:
    """Send bytes on a connection of their own, and hear what the door says to it, for a moment."""
    address = ("127.0.0.1", qala.mqtt_port)
    with socket.create_connection(address, timeout=5) as connection, contextlib.suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        while connection.recv(65_536):
            pass


@tiers("packets")
def test_mutated_packets_harm_nobody(qala: Qala, size: Size) -> None:
    with beside_control(qala), ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda data: throw(qala, data), streams(20_261_122, size.cases)):
            pass


KEYS = st.sampled_from(["active_power", "voltage", "x", "", "\u049b"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("tvwrqundi") | KEYS, inner, max_size=5),
    max_leaves=20,
)
TELEMETRY = st.fixed_dictionaries({"t": JSON, "v": st.dictionaries(KEYS, JSON)})
PAYLOADS = st.binary(max_size=300) | st.builds(msgspec.json.encode, JSON | TELEMETRY)
GENERATED_MAX = 10_000  # more than these are made of them by changing bytes


def payloads_of_any_kind(count: int) -> list[bytes]:
    """Let hypothesis think of payloads, the same each time, and change bytes in them until there are enough."""
    found: list[bytes] = []

    @settings(
        max_examples=min(count, GENERATED_MAX),
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(PAYLOADS)
    def collect(payload: bytes) -> None:
        found.append(payload or b" ")

    collect()
    chance = random.Random(20_261_122)
    return found + [mutated(chance, chance.choice(found)) for _ in range(count - len(found))]


@tiers("payloads")
def test_payloads_of_any_kind_are_all_taken_and_none_stops_the_others(qala: Qala, size: Size) -> None:
    payloads = payloads_of_any_kind(size.cases)
    leaves = itertools.cycle("tsmgtt")
    with beside_control(qala), RawClient(("127.0.0.1", qala.mqtt_port)) as client:
        client.connect("payloads")
        for begin in range(0, len(payloads), 1_000):
            some = payloads[begin : begin + 1_000]
            for number, payload in enumerate(some, 1):
                client.publish(number, topic=f"qala/1/town/m0/{next(leaves)}", payload=payload or b" ")
            assert client.pubacks(len(some)) == list(range(1, len(some) + 1))
        until(lambda: qala.get("health")["parts"]["projector"]["applied"] >= qala.journalled() - 100, deadline_s=60)


MONSTERS = [
    pytest.param(b"[" * 65_000, True, id="65,000 arrays in one another"),
    pytest.param(b'{"v":' * 13_000, True, id="13,000 objects in one another"),
    pytest.param(b'{"v":{"active_power":' + b"9" * 5_000 + b"}}", True, id="an integer of 5,000 digits"),
    pytest.param(b'{"v":{"active_power":' + b"9" * 65_000 + b"}}", True, id="an integer of 65,000 digits"),
    pytest.param(b'{"v":{"active_power":1e400}}', True, id="1e400"),
    pytest.param(b'{"v":{"active_power":NaN}}', True, id="NaN"),
    pytest.param(rb'{"v":{"\ud800":1}}', True, id="a lone surrogate"),
    pytest.param(b" " * 65_536, True, id="64 KiB"),
    pytest.param(b" " * 65_537, False, id="64 KiB and a byte"),
]


@pytest.mark.parametrize(("payload", "is_taken"), MONSTERS)
def test_a_monstrous_payload_is_taken_or_its_connection_closed(qala: Qala, payload: bytes, is_taken: bool) -> None:
    with beside_control(qala), RawClient(("127.0.0.1", qala.mqtt_port)) as client:
        client.connect("monster")
        client.publish(7, topic="qala/1/town/m0/t", payload=payload)
        assert client.packet() == (b"\x40\x02\x00\x07" if is_taken else b"")
    until(lambda: qala.get("health")["parts"]["projector"]["applied"] >= qala.journalled() - 10, deadline_s=30)


def test_many_who_announce_256_mb_and_send_little_take_no_memory(qala: Qala) -> None:
    with beside_control(qala), contextlib.ExitStack() as open_ones:
        for number in range(200):
            client = open_ones.enter_context(RawClient(("127.0.0.1", qala.mqtt_port)))
            client.connect(f"announcer-{number}")
            with contextlib.suppress(OSError):
                client.send(b"\x32\xff\xff\xff\x7f" + b"x" * 60_000)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 0.5)


def test_those_who_send_a_byte_at_a_time_harm_nobody(qala: Qala) -> None:
    chance = random.Random(1)
    with beside_control(qala), RawClient(("127.0.0.1", qala.mqtt_port)) as slow:
        slow.connect("slow")
        for byte in b"\x32" + bytes([23]) + b"\x00\x10qala/1/town/m0/t" + b"\x00\x09" + b"{}1":
            slow.send(bytes([byte]))
            if chance.random() < 0.3:
                time.sleep(0.005)
        assert slow.pubacks(1) == [9]
