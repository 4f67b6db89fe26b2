"""A small city behind a real API: a memory store, a state in SQLite, and builders for what tests put into them.

As a program it is a server to develop the page against, with a day of made-up data that goes on:
`.venv/bin/python -m tests.api_city --port 8080` (`--help` for more).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from fastapi import FastAPI
from sqlalchemy import Engine, insert

from analytics.alerts import Condition, NoData, Rule, Severity
from analytics.indicator import Indicator, Inputs, Results
from dashboards.api.app import create_app
from dashboards.api.context import ApiContext
from dashboards.api.server import OverTls, make_server
from dashboards.live import Hub
from dashboards.settings import DashboardsSettings
from devices.device import Device, Placement, Registry, Zone
from devices.errors import Reason
from devices.kinds import kinds
from devices.quantity import QUANTITIES
from devices.reading import Batch, Position, SeriesInfo
from devices.value import Value
from ingest.rejected import Replayed
from qala.state import open_state
from qala.state.episodes import EPISODE, EpisodeRow
from qala.state.registry import admit, import_registry, load_registry
from qala.state.tokens import Scope, issue
from qala.store import Store
from qala.store.memory import MemoryStore
from tests.wait import until

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
NOW = 1_795_348_800 * SECOND  # 2026-11-22T12:00:00Z
WIDTH_S = {"5min": 300, "15min": 900, "1h": 3_600, "1d": 86_400}


def _no_compute(inputs: Inputs) -> Results:
    raise AssertionError("the API computes nothing")


def make_indicator(name: str, domain: str, zone_kind: str, unit: str, *windows: str) -> Indicator:
    return Indicator(
        name=name,
        title=name.replace("_", " ").capitalize(),
        domain=domain,
        unit=unit,
        method=f"method-of-{name}",
        method_version="1",
        zone_kind=zone_kind,
        quantities=("pm2_5",),
        windows=windows,
        compute=_no_compute,
    )


INDICATORS: Mapping[str, Indicator] = {
    indicator.name: indicator
    for indicator in (
        make_indicator("pm2_5_mean", "air", "district", "ug/m3", "15min", "1h"),
        make_indicator("nowcast_aqi", "air", "district", "1", "1h"),
        make_indicator("aqi", "air", "district", "1", "1d"),
        make_indicator("european_aqi", "air", "district", "1", "1h"),
        make_indicator("traffic_flow", "traffic", "road", "veh/h", "5min", "15min", "1h"),
        make_indicator("space_mean_speed", "traffic", "road", "km/h", "5min", "15min", "1h"),
        make_indicator("travel_time_index", "traffic", "road", "1", "5min", "15min", "1h"),
        make_indicator("congestion_level", "traffic", "road", "%", "5min", "15min", "1h"),
        make_indicator("interval_energy", "energy", "feeder", "kWh", "15min", "1h", "1d"),
        make_indicator("feeder_load", "energy", "feeder", "%", "15min"),
        make_indicator("peak_demand", "energy", "feeder", "kW", "1d"),
        make_indicator("load_factor", "energy", "feeder", "1", "1d"),
    )
}

RULES: Mapping[str, Rule] = {
    rule.id: rule
    for rule in (
        Rule(
            id="pm2_5_high",
            title="PM2.5 is high",
            indicator="pm2_5_mean",
            window="1h",
            condition=Condition(35.5, 30.0),
            for_us=HOUR,
            no_data=NoData(3 * HOUR, Severity.INFO),
            severity=Severity.WARNING,
            owner="air",
            runbook="/api/v1/rules/pm2_5_high/runbook",
            runbook_text="# What to do\n",
            max_age_us=24 * HOUR,
            unit="ug/m3",
        ),
    )
}


def make_zone(id_: str, kind: str, **more: Any) -> Zone:
    names = {"en": id_.title(), "ru": id_, "kk": id_}
    return Zone(id_, kind, names, {"type": "Point", "coordinates": [76.9, 43.2]}, **more)


def make_registry() -> Registry:
    """Two districts, a road and a feeder; two stations, a detector and a meter, of which one has no place."""
    return Registry(
        devices=[
            Device("city/air-1", "air_station", name="Station 1"),
            Device("city/air-2", "air_station"),
            Device("city/loop-1", "traffic_detector", interval_s=300),
            Device("grid/meter-1", "electricity_meter", interval_s=900),
        ],
        zones=[
            make_zone("district-a", "district"),
            make_zone("district-b", "district"),
            make_zone("road-1", "road", free_flow_kmh=60.0, length_m=1_200.0, parent="district-a"),
            make_zone("feeder-1", "feeder", rated_kw=2_500.0),
        ],
        placements=[
            Placement("city/air-1", ("district-a",), 43.25, 76.95),
            Placement("city/air-2", ("district-b",), 43.20, 76.85),
            Placement("city/loop-1", ("district-a", "road-1"), 43.24, 76.90),
            Placement("grid/meter-1", ("feeder-1",)),
        ],
    )


def make_value(indicator: str, zone: str, window: str, start_us: int, value: float | None, **more: Any) -> Value:
    """Make a value as the scheduler would, complete unless `more` says otherwise."""
    declared = INDICATORS[indicator]
    stop_us = start_us + WIDTH_S[window] * SECOND
    fields: dict[str, Any] = {
        "indicator": indicator,
        "zone": zone,
        "window": window,
        "start_us": start_us,
        "stop_us": stop_us,
        "value": value,
        "unit": declared.unit,
        "n_good": 12,
        "n_expected": 12,
        "method": declared.method,
        "method_version": declared.method_version,
        "final_us": stop_us + HOUR,
        "status": "incomplete" if value is None else "ok",
        "known_us": stop_us,
    }
    return Value(**{**fields, **more})


def make_episode(id_: str, *, start_us: int = NOW - HOUR, state: str = "firing", **more: Any) -> EpisodeRow:
    fields: dict[str, Any] = {
        "id": id_,
        "rule": "pm2_5_high",
        "zone": "district-a",
        "kind": "value",
        "severity": "warning",
        "state": state,
        "start_us": start_us,
        "end_us": None if state == "firing" else start_us + HOUR,
        "indicator": "pm2_5_mean",
        "window": "1h",
        "value": 61.5,
        "threshold": 35.5,
        "ack_actor": None,
        "ack_comment": None,
        "ack_us": None,
        "updated_us": start_us,
    }
    return EpisodeRow(**{**fields, **more})


def listen(host: str, port: int) -> socket.socket:
    """Listen with the protocol spelled out: asyncio turns off the wait for more to send (Nagle) only then."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(512)
    return listening


class City:
    """An API over a memory store, and what a test may put into it and ask of it."""

    def __init__(
        self,
        folder: Path,
        *,
        registry: Registry | None = None,
        now_us: int | None = NOW,
        settings: DashboardsSettings | None = None,
        store: Store | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        self.state: Engine = open_state(f"sqlite:///{folder}/state.sqlite")
        given = registry or make_registry()
        import_registry(self.state, given.devices.values(), given.zones.values(), given.placements, 0)
        self.registry = load_registry(self.state)
        self.settings = settings or DashboardsSettings(page=folder / "page")
        self.parts: dict[str, dict[str, Any]] = {"projector": {"lag_messages": 0, "lag_s": 0.0, "applied": 7}}
        self.time_us = now_us
        self.replayed: list[tuple[Reason | None, str | None]] = []
        self._origin = 0
        self.start()

    def start(self) -> None:
        """Put the parts together over the store and the state as they are."""
        self.hub = Hub(
            store=self.store,
            indicators=INDICATORS,
            rules=RULES,
            settings=self.settings,
            parts=lambda: self.parts,
            now_us=self.now_us,
            version="0.1.0",
        )
        self.context = ApiContext(
            store=self.store,
            state=self.state,
            registry=lambda: self.registry,
            kinds=kinds(),
            indicators=INDICATORS,
            rules=RULES,
            settings=self.settings,
            hub=self.hub,
            operator=self,
            parts=lambda: self.parts,
            now_us=self.now_us,
            version="0.1.0",
            time_zone="Asia/Almaty",
            asks_tokens=self.settings.asks_tokens(insecure=False),
            credential_key=lambda: bytes(32),
        )
        self.app: FastAPI = create_app(self.context)
        self.hub.load()

    def now_us(self) -> int:
        return time.time_ns() // 1_000 if self.time_us is None else self.time_us

    def close(self) -> None:
        self.hub.close()
        self.state.dispose()

    # ---- the operator that the wiring would give

    def replay(self, *, reason: Reason | None, device: str | None) -> Replayed:
        self.replayed.append((reason, device))
        return Replayed(3, 2, 1, 0)

    def admit(self, device: Device, placement: Placement | None) -> Replayed:
        admit(self.state, device, placement, self.now_us())
        self.registry = load_registry(self.state)
        return Replayed(1, 1, 0, 0)

    # ---- what tests put in

    def read(self, key: str, times_us: Sequence[int], values: Sequence[float], *, flag: int = 1) -> int:
        """Store readings of "<fleet>/<device>:<quantity>[.<channel>]" and return the series' id."""
        device, _, name = key.partition(":")
        quantity, _, channel = name.partition(".")
        unit = QUANTITIES[quantity].unit
        series = int(self.store.register([SeriesInfo(device, quantity, channel, 0, unit)])[0])
        self._origin += 1
        count = len(times_us)
        batch = Batch(
            series=np.full(count, series, np.int32),
            time_us=np.array(times_us, np.int64),
            value=np.array(values, np.float64),
            flag=np.where(np.isnan(values), 9, flag).astype(np.uint8),
            revision=np.zeros(count, np.int32),
            origin=np.full(count, self._origin, np.int64),
            received_us=np.array(times_us, np.int64) + SECOND,
        )
        self.store.append(batch, Position("journal", self._origin))
        self.hub.on_applied(batch)
        return series

    def put(self, *values: Value) -> None:
        self.store.put_values(values)
        self.hub.on_values(values)

    def raise_alert(self, *episodes: EpisodeRow) -> None:
        with self.state.begin() as connection:
            connection.execute(insert(EPISODE), [msgspec.structs.asdict(episode) for episode in episodes])
        self.hub.on_episodes(episodes)

    # ---- how tests ask

    def request(self, method: str, path: str, *, client: str = "127.0.0.1", **options: Any) -> httpx.Response:
        """Send one request through the whole application, from an address, without a socket."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(client, 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as asking:
                return await asking.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", f"/api/v1{path}", **options)

    def items(self, path: str, **params: Any) -> list[dict[str, Any]]:
        response = self.get(path, params=params)
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    def walk(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Follow `next` from page to page."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.get(path, params={**params, **({"cursor": cursor} if cursor else {})}).json()
            yield from page["items"]
            cursor = page["next"]

    @contextmanager
    def served(self, port: int = 0, *, over_tls: OverTls | None = None) -> Iterator[str]:
        """Serve on a port of loopback, a free one where none is given, and give the address."""
        with listen("127.0.0.1", port) as listening:
            server = make_server(self.app, self.hub, over_tls=over_tls)
            thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
            thread.start()
            until(lambda: server.started)
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join(10)
                assert not thread.is_alive()


# ---- the server to develop against

_SHAPES: Mapping[str, tuple[float, float]] = {
    "pm2_5_mean": (28, 18),
    "nowcast_aqi": (85, 50),
    "aqi": (85, 40),
    "european_aqi": (3, 2),
    "traffic_flow": (900, 700),
    "space_mean_speed": (42, 18),
    "travel_time_index": (1.4, 0.4),
    "congestion_level": (40, 35),
    "interval_energy": (800, 300),
    "feeder_load": (60, 25),
    "peak_demand": (1_500, 400),
    "load_factor": (0.6, 0.15),
    "pm2_5": (28, 18),
    "pm10": (50, 30),
    "no2": (35, 20),
    "vehicle_count": (60, 45),
    "speed": (42, 18),
    "occupancy": (20, 15),
    "active_power": (40_000, 20_000),
    "energy_import": (100_000, 0),
    "voltage": (230, 4),
}
_MEASURED = {
    "air_station": ("pm2_5", "pm10", "no2"),
    "traffic_detector": ("vehicle_count", "speed", "occupancy"),
    "electricity_meter": ("active_power", "energy_import", "voltage"),
}
_ZONE_KINDS = {"air_station": "district", "traffic_detector": "road", "electricity_meter": "feeder"}


def _shape(name: str, place: str, time_us: int) -> float:
    middle, swing = _SHAPES[name]
    day = 2 * math.pi * (time_us / HOUR / 24 + sum(place.encode()) % 97 / 97)
    wobble = math.sin(time_us / (7 * MINUTE) + sum(place.encode())) * 0.15
    if name == "energy_import":
        return middle + (time_us - NOW) / HOUR * 40
    value = middle + swing * (0.85 * math.sin(day) + wobble)
    return float(round(value)) if name.endswith("aqi") else value


def _demo_registry() -> Registry:
    from qala.declared import read_zones

    zones = read_zones(Path(__file__).parents[1] / "devices" / "rehearsal" / "city.geojson")
    devices, placements = [], []
    for kind, zone_kind in _ZONE_KINDS.items():
        for number, zone in enumerate((z for z in zones if z.kind == zone_kind), 1):
            lon, lat = _middle(zone.geometry)
            for twin in range(2):
                device = Device(f"demo/{kind}-{number:02}{'ab'[twin]}", kind, interval_s=60)
                devices.append(device)
                placements.append(Placement(device.id, (zone.id,), lat + twin * 0.002, lon + twin * 0.003))
    return Registry(devices, zones, placements)


def _middle(geometry: Mapping[str, Any]) -> tuple[float, float]:
    flat = np.array(geometry["coordinates"][0] if geometry["type"] == "Polygon" else geometry["coordinates"])
    lon, lat = flat.reshape(-1, 2).mean(axis=0).tolist()
    return lon, lat


class DemoCity(City):
    """The rehearsal city with made-up readings, values and alerts."""

    def fill(self) -> None:
        now = self.now_us()
        for device in self.registry.devices.values():
            silent_us = 20 * MINUTE if device.id.endswith("7a") else 4 * MINUTE if device.id.endswith("9b") else 0
            stop = (now - silent_us) // MINUTE * MINUTE
            times = [*range(stop - 24 * HOUR, stop, 10 * MINUTE), stop]
            for quantity in _MEASURED[device.kind]:
                self.read(f"{device.id}:{quantity}", times, [_shape(quantity, device.id, t) for t in times])
        for window, width_s in WIDTH_S.items():
            width = width_s * SECOND
            first = now - (48 * HOUR if window != "1d" else 14 * 24 * HOUR)
            for start in range(first // width * width, now - width, width):
                self.compute(window, start)
        zones = [zone.id for zone in self.registry.zones_of_kind("district")]
        self.raise_alert(
            make_episode("demo-1", start_us=now - 3 * HOUR, zone=zones[0]),
            make_episode("demo-2", start_us=now - HOUR, zone=zones[1], severity="critical", value=91.0),
            make_episode("demo-3", start_us=now - 30 * HOUR, zone=zones[2], state="ended"),
        )

    def compute(self, window: str, start_us: int) -> None:
        values = []
        for indicator in INDICATORS.values():
            if window in indicator.windows:
                for number, zone in enumerate(self.registry.zones_of_kind(indicator.zone_kind)):
                    number_of = None if number == 5 else round(_shape(indicator.name, zone.id, start_us), 3)
                    values.append(make_value(indicator.name, zone.id, window, start_us, number_of))
        self.put(*values)

    def go_on(self, stop: threading.Event) -> None:
        """Measure some devices every second, and compute every window that ends."""
        turn = 0
        while not stop.wait(1.0):
            turn += 1
            now = self.now_us() // SECOND * SECOND
            for device in list(self.registry.devices.values())[turn % 60 :: 60]:
                if not device.id.endswith(("7a", "9b")):
                    for quantity in _MEASURED[device.kind]:
                        self.read(f"{device.id}:{quantity}", [now], [_shape(quantity, device.id, now)])
            for window, width_s in WIDTH_S.items():
                if now // SECOND % width_s == 0:
                    self.compute(window, now - width_s * SECOND)
            if turn % 10 == 0:  # a late reading changes the newest window
                self.compute("5min", (now // (300 * SECOND) - 1) * 300 * SECOND + 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a made-up city to develop the page against.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--authenticate", action="store_true", help="ask for a token, and print one of each scope")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = DashboardsSettings(http=f"127.0.0.1:{arguments.port}", authenticate=arguments.authenticate)
        city = DemoCity(Path(folder), registry=_demo_registry(), now_us=None, settings=settings)
        city.fill()
        stop = threading.Event()
        threading.Thread(target=city.go_on, args=(stop,), daemon=True).start()
        with listen(*settings.address) as listening:
            sys.stdout.write(f"http://{settings.http}\n")
            for scope in Scope if arguments.authenticate else ():
                sys.stdout.write(f"{scope}: {issue(city.state, f'{scope}-demo', scope, city.now_us())[1]}\n")
            sys.stdout.flush()
            asyncio.run(make_server(city.app, city.hub).serve(sockets=[listening]))
        stop.set()


if __name__ == "__main__":
    main()
