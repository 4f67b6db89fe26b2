"""One device that floods beside calm ones (F16), and a crowd that comes back all at once (F15)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ingest.mqtt.packets import V311, Connect, Publish, connect, publish
from ingest.settings import IngestSettings
from tests.faults.fleet import Fleet, percentile
from tests.faults.sizes import Size, patience_s, slowness, tiers
from tests.faults.town import assert_nothing_lost, credentials, orders, qala_town, say
from tests.pki import Authority
from tests.processes import native
from tests.running import free_port
from tests.wait import until

FLOODER = "hood/flood"
CALM_RATE = 200  # messages a second, all calm devices
CALM_P99_S, STORM_P99_S = 0.1, 0.5
ALL_BACK_S, CONNACK_P99_S = 10.0, 2.0


@contextlib.contextmanager
def flood(address: tuple[str, int], username: str, password: bytes) -> Iterator[None]:
    """Send at line rate while the block runs, and read the answers."""
    packets = b"".join(
        publish(V311, Publish(f"qala/1/{FLOODER}/t", native({"active_power": 1.0}), 1, n)) for n in range(1, 1_001)
    )
    with socket.create_connection(address, timeout=10) as flooder:
        flooder.sendall(connect(Connect(V311, FLOODER, username=username, password=password)))
        assert flooder.recv(4) == b"\x20\x02\x00\x00"

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    flooder.sendall(packets)

        def read() -> None:
            with contextlib.suppress(OSError):
                while flooder.recv(65_536):
                    pass

        flooder.settimeout(None)
        threads = [threading.Thread(target=work, daemon=True) for work in (send, read)]
        for thread in threads:
            thread.start()
        yield
        flooder.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


@tiers("F16")
def test_a_flooding_device_is_held_to_its_bucket_and_calm_ones_feel_nothing(size: Size) -> None:
    sent = orders(int(CALM_RATE * (size.fault_s + 2)))
    limits = IngestSettings()
    with qala_town(others=(FLOODER,), QALA_INGEST__AUTHENTICATE="true") as qala:
        credential = credentials(qala)
        address = ("127.0.0.1", qala.mqtt_port)
        with Fleet(address, sent, rate=CALM_RATE, credential=credential) as fleet:
            fleet.wait_until_acknowledged(CALM_RATE)
            calm, before, losses = len(fleet.acknowledged), qala.journalled(), fleet.losses
            with flood(address, *credential(FLOODER)):
                began = time.monotonic()
                until(lambda: time.monotonic() - began >= size.fault_s, deadline_s=size.fault_s + 5)
                flooded = qala.journalled() - before - (len(fleet.acknowledged) - calm)
                lasted_s = time.monotonic() - began
            fleet.wait_until_done()
            p99_s = fleet.calm_p99_s(began, began + lasted_s)
            assert fleet.losses == losses
        qala.wait_until_caught_up()
        assert assert_nothing_lost(qala, sent) == 0
    allowed = limits.burst + limits.rate * lasted_s
    say(
        "F16", f"calm p99 {1000 * p99_s:.0f} ms, flooder {flooded} messages of the {allowed:.0f} that its bucket allows"
    )
    assert p99_s <= CALM_P99_S * slowness()
    assert 0.9 * allowed / slowness() <= flooded <= 1.1 * allowed


@tiers("F15")
def test_a_crowd_that_comes_back_over_tls_at_once_is_let_in_soon_and_delays_nobody(size: Size, tmp_path: Path) -> None:
    authority, port = Authority(tmp_path), free_port()
    pair = authority.server()
    tls = {
        "QALA_INGEST__MQTTS": f"127.0.0.1:{port}",
        "QALA_INGEST__CERTIFICATE": str(pair.certificate),
        "QALA_INGEST__PRIVATE_KEY": str(pair.private_key),
        "QALA_INGEST__AUTHENTICATE": "true",
    }
    crowd_orders = [
        one._replace(number=n) for n, one in enumerate(orders(size.cases, devices=size.cases, fleet="crowd"))
    ]
    others = tuple(one.device for one in crowd_orders)
    calm_orders = orders(CALM_RATE * 40)
    with qala_town(others=others, **tls) as qala:
        credential = credentials(qala)
        crowd = Fleet(("127.0.0.1", port), crowd_orders, credential=credential, tls=authority.trust())
        calm = Fleet(("127.0.0.1", qala.mqtt_port), calm_orders, rate=CALM_RATE, credential=credential)
        with crowd, calm:
            crowd.wait_until_done(deadline_s=60)
            calm.wait_until_acknowledged(CALM_RATE)
            crowd.greetings_s.clear()
            began = time.monotonic()
            crowd.drop()
            until(lambda: len(crowd.greetings_s) == size.cases, deadline_s=60)
            took_s = time.monotonic() - began
            greeted_s = percentile(sorted(crowd.greetings_s), 0.99)
            p99_s = calm.calm_p99_s(began, began + took_s)
            calm.wait_until_done(deadline_s=60)
        qala.wait_until_caught_up()
        assert assert_nothing_lost(qala, calm_orders) == 0
    say("F15", f"{size.cases} back after {took_s:.1f} s, CONNACK p99 {greeted_s:.2f} s, calm p99 {1000 * p99_s:.0f} ms")
    assert took_s <= patience_s(ALL_BACK_S)
    assert greeted_s <= patience_s(CONNACK_P99_S)
    assert p99_s <= STORM_P99_S * slowness()
