"""InfluxDB gone for a minute under load, and the serving process killed twice: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest

from qala.bench.load import LoadResult, run_load
from qala.store import StoreSettings, open_store
from qala.store.base import READINGS, Selector, Span
from qala.store.rows import numbers
from tests.processes import Qala, native
from tests.servers import Influx, started_influx
from tests.wait import until

DEVICES = 500
RATE = 2_300  # messages a second
BEFORE_S, OUTAGE_S, AFTER_S = 8.0, 60.0, 12.0
MESSAGES = int(RATE * (BEFORE_S + OUTAGE_S + AFTER_S))
START_S = 1_767_225_600  # 2026-01-01T00:00:00Z


def messages() -> Iterator[tuple[str, bytes]]:
    """Yield messages of one reading each; the value of the n-th is n."""
    for n in range(MESSAGES):
        payload = native({"active_power": float(n)}, t=1000 * (START_S + n // DEVICES))
        yield f"qala/1/outage/m{n % DEVICES}/t", payload


class Load(Thread):
    """Publishes at a steady rate and checks that every PUBACK comes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.began = False
        self.result: LoadResult | None = None

    def run(self) -> None:
        self.result = run_load(
            "127.0.0.1", self._port, connections=20, in_flight=500, messages=messages(), rate=RATE, on_ready=self._go
        )

    def _go(self) -> None:
        self.began = True


class Watch:
    """Waits, and notes how many messages a second became durable meanwhile."""

    def __init__(self, qala: Qala) -> None:
        self._qala = qala
        self.rates: list[float] = []

    def wait(self, seconds: float) -> None:
        began, before = time.monotonic(), self._qala.journalled()
        until(lambda: time.monotonic() - began >= seconds, deadline_s=seconds + 5, every_s=0.05)
        self.rates.append((self._qala.journalled() - before) / (time.monotonic() - began))


def url_and_settings(influx: Influx, bucket: str) -> tuple[str, StoreSettings]:
    return influx.url(bucket), StoreSettings.model_validate({"token": influx.token})


def stored(influx: Influx, bucket: str) -> np.ndarray:
    """Return the values stored, as often as they are, rising."""
    store = open_store(*url_and_settings(influx, bucket))
    try:
        rows = pa.Table.from_batches(store.read(Selector(), Span(0, 2**62)), schema=READINGS)
    finally:
        store.close()
    return np.sort(numbers(rows, "value", np.float64))


@pytest.mark.timeout(600)
def test_a_minute_without_influxdb_and_two_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    lines = [f"outage/m{n},electricity_meter" for n in range(DEVICES)]
    devices = tmp_path / "devices.csv"
    devices.write_text("\n".join(["id,kind", *lines]) + "\n")
    with started_influx() as influx:
        bucket = influx.bucket()
        qala = Qala(tmp_path / "data", devices=devices)
        qala.environment |= {"QALA_STORE__URL": influx.url(bucket), "QALA_STORE__TOKEN": influx.token}
        with qala:
            watch, load = Watch(qala), Load(qala.mqtt_port)
            load.start()
            until(lambda: load.began, deadline_s=60)
            watch.wait(BEFORE_S)
            influx.kill()
            watch.wait(OUTAGE_S / 3)
            qala.kill_serve()
            watch.wait(OUTAGE_S / 3)
            qala.kill_serve()
            watch.wait(OUTAGE_S / 3)
            influx.start()
            load.join(120)
            qala.wait_until_caught_up(deadline_s=240)
        assert load.result is not None
        assert load.result.acked == MESSAGES
        assert min(watch.rates) >= 2_000
        assert np.array_equal(stored(influx, bucket), np.arange(MESSAGES, dtype=np.float64))
