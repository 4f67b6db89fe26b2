"""The ways from MQTT to a store that are measured side by side: Qala on its two engines, and the usual three servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb

from devices.errors import UnavailableError
from ingest.journal import read_published
from qala.bench.fleet import ZONES_FILE, devices_csv
from qala.bench.peers import BUCKET, ORG, TOKEN, Influx, Mosquitto, Telegraf, find_mosquitto, find_telegraf
from qala.bench.processes import Started, cpu_of, start_qala
from qala.bench.store_influxdb import find_influxd

__all__ = ["SYSTEMS", "System", "check_present"]

_PATIENCE_S = 300.0
_LOOK_S = 0.02
_REST_S = 2.5  # longer than a flush of Telegraf's
_RESTING_S = 0.1  # CPU time within that: less is nothing to do
_EVERYTHING = f'from(bucket: "{BUCKET}") |> range(start: 0, stop: 2100-01-01T00:00:00Z)'
_SUM = " |> count() |> group() |> sum()"


class System(Protocol):
    """One way, running. `commands` are the process ids that count."""

    mqtt: tuple[str, int]
    commands: Mapping[str, int]

    def wait(self, sent: int) -> float:
        """Return when so many messages in all are stored (perf_counter). Raises UnavailableError where they never are."""

    def watch(self, device: str, time_ms: int) -> Callable[[], bool]:
        """Return what tells whether an acknowledged message is stored, by its device ("d1") and time [ms]."""

    def stored(self) -> int:
        """Count the readings stored, each (series, time) once. The last that is asked: it may end the system."""


class _Qala:
    """Qala on either engine: the store's position says what is stored."""

    def __init__(self, started: Started, more: Mapping[str, int], stored: Callable[[], int]) -> None:
        self.mqtt = started.mqtt
        self.commands: Mapping[str, int] = {**started.commands, **more}
        self.stored = stored
        self._journal = started.data / "journal"

    def wait(self, sent: int) -> float:
        deadline = time.perf_counter() + _PATIENCE_S
        while self._applied() < max(sent, self._synced()):  # the probe's messages are numbered with those sent
            _check(deadline)
            time.sleep(_LOOK_S)
        return time.perf_counter()

    def watch(self, device: str, time_ms: int) -> Callable[[], bool]:  # noqa: ARG002 - all are stored in their order
        last = self._synced()
        return lambda: self._applied() >= last

    def _synced(self) -> int:
        return read_published(self._journal / "synced") or 0

    def _applied(self) -> int:
        return read_published(self._journal / "applied") or 0


@contextmanager
def _qala_on_duckdb(folder: Path, devices: int) -> Iterator[System]:
    with ExitStack() as running:
        qala = running.enter_context(start_qala(folder, devices=devices_csv(devices), zones=ZONES_FILE))

        def stored() -> int:
            running.close()  # one process at a time opens the file
            return _rows(qala.data / "readings.duckdb")

        yield _Qala(qala, {}, stored)


@contextmanager
def _qala_on_influxdb(folder: Path, devices: int) -> Iterator[System]:
    with _server(Influx(folder)) as influx:
        url = f"influxdb://127.0.0.1:{influx.port}/{ORG}/{BUCKET}"
        settings = {"QALA_STORE__URL": url, "QALA_STORE__TOKEN": TOKEN}
        with start_qala(folder, devices=devices_csv(devices), zones=ZONES_FILE, settings=settings) as qala:
            only = ' |> filter(fn: (r) => r._field == "value" or r._field == "held")'
            yield _Qala(qala, {"influxd": influx.pid}, lambda: sum(influx.numbers(_EVERYTHING + only + _SUM)))


class _Usual:
    """mosquitto, Telegraf and InfluxDB. Nobody says what is stored, so the processes are watched until they rest."""

    def __init__(self, broker: Mosquitto, telegraf: Telegraf, influx: Influx) -> None:
        self.mqtt = broker.address
        self.commands: Mapping[str, int] = {"mosquitto": broker.pid, "telegraf": telegraf.pid, "influxd": influx.pid}
        self._telegraf = telegraf
        self._influx = influx

    def wait(self, sent: int) -> float:  # noqa: ARG002 - to count would be work for the server
        deadline = time.perf_counter() + _PATIENCE_S
        busy, used_s = time.perf_counter(), cpu_of(self.commands).whole_s
        while time.perf_counter() - busy < _REST_S:
            _check(deadline)
            self._telegraf.check()
            time.sleep(_LOOK_S)
            now_s = cpu_of(self.commands).whole_s
            if now_s - used_s > _RESTING_S:
                busy, used_s = time.perf_counter(), now_s
        return busy

    def watch(self, device: str, time_ms: int) -> Callable[[], bool]:
        span = f"range(start: time(v: {time_ms}000000), stop: time(v: {time_ms + 1}000000))"
        flux = f'from(bucket: "{BUCKET}") |> {span} |> filter(fn: (r) => r.device == "{device}")' + _SUM
        return lambda: sum(self._influx.numbers(flux)) > 0

    def stored(self) -> int:
        return sum(self._influx.numbers(_EVERYTHING + _SUM))


@contextmanager
def _usual(folder: Path, devices: int) -> Iterator[System]:  # noqa: ARG001 - it takes whatever device sends
    with ExitStack() as running:
        influx = running.enter_context(_server(Influx(folder)))
        broker = running.enter_context(_server(Mosquitto(folder)))
        telegraf = running.enter_context(_server(Telegraf(folder, mqtt=broker.port, influx=influx.port)))
        system = _Usual(broker, telegraf, influx)
        system.wait(0)  # it subscribes
        yield system


SYSTEMS: Mapping[str, Callable[[Path, int], AbstractContextManager[System]]] = {
    "qala": _qala_on_duckdb,
    "qala+influxdb": _qala_on_influxdb,
    "mosquitto+telegraf+influxdb": _usual,
}
"""By name: runs a way in an empty folder, for so many devices of the load, until the end of the block."""


_NEEDS: Mapping[str, Sequence[Callable[[], Path]]] = {
    "qala": [],
    "qala+influxdb": [find_influxd],
    "mosquitto+telegraf+influxdb": [find_mosquitto, find_telegraf, find_influxd],
}


def check_present(name: str) -> None:
    """Raise UnavailableError where a server of a way is not installed."""
    for find in _NEEDS[name]:
        find()


class _Startable(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


_Server = TypeVar("_Server", bound=_Startable)


@contextmanager
def _server(server: _Server) -> Iterator[_Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _rows(file: Path) -> int:
    with duckdb.connect(str(file), read_only=True) as connection:
        [(rows,)] = connection.execute("SELECT count(DISTINCT (series, time_us)) FROM readings").fetchall()
    return int(rows)


def _check(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise UnavailableError(
            f"not everything was stored within {_PATIENCE_S:g} s", hint="look at its processes' logs"
        )
