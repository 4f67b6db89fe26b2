"""InfluxDB 2 as a peer: line protocol in, Flux that its storage answers by itself, CSV out."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from devices.reading import Float64Array
from qala.bench.store_data import Rows, Shape, series_infos
from qala.bench.store_peer import About, LineEncoder, Server, cached, found, in_path
from qala.store.base import Span

__all__ = ["InfluxDB", "find_influxd"]

_BINARY = "influxd-2.7.12"
_LATEST_LOOKBACK_US = 7_200_000_000
_TOKEN = "bench"  # noqa: S105 - of a server that lives for the bench, on loopback
_QUERY = "/api/v2/query?org=bench"
_WRITE = "/api/v2/write?org=bench&bucket=bench&precision=ms"
_FROM = 'from(bucket: "bench") |> range(start: {start}, stop: {stop}) |> filter(fn: (r) => r._measurement == "reading"{only})'
_VALUE = ' and r._field == "value"'
_BOTH = ' and (r._field == "value" or r._field == "held")'
_OUT = ' |> keep(columns: ["_time", "_value", "device", "quantity"]) |> group()'
_FIELDS_OUT = ' |> keep(columns: ["_time", "_value", "_field", "device", "quantity"]) |> group()'
_MEAN = ' |> aggregateWindow(every: {every}, fn: mean, createEmpty: false, timeSrc: "_start")'
_P95 = ' |> window(every: 1h) |> quantile(q: 0.95, method: "exact_mean") |> duplicate(column: "_start", as: "_time")'
_UNION = 'union(tables: [{mean} |> set(key: "is", value: "mean"), {p95} |> set(key: "is", value: "p95")])'


def find_influxd() -> Path:
    """Return the server. Raises UnavailableError where there is none."""
    return found("influxd", os.environ.get("QALA_INFLUXD"), cached(_BINARY), in_path("influxd"))


class InfluxDB:
    """A server with one bucket. `value` holds good numbers, `held` those of bad readings, with their flag beside."""

    name = "influxdb"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._binary = find_influxd()
        self._folder = folder
        self._server = Server(self.name, folder)
        self._infos = series_infos(shape.series)
        tags = [f"reading,device={info.device},quantity={info.quantity}" for info in self._infos]
        self._lines = LineEncoder([f"{x} value=" for x in tags], [f"{x} flag=4i,held=" for x in tags], unit_us=1000)

    def about(self) -> About:
        health = json.loads(self._server.ask("GET", "/health"))
        return About(
            name=self.name,
            version=f"InfluxDB {_version(self._binary, health['version'])}",
            durability="every request synced (its log)",
            interface="line protocol of 10,000 rows a request, Flux, CSV",
            quantile="exact, not by its storage",
        )

    def start(self) -> None:
        at = self._folder
        paths = ["--bolt-path", f"{at}/influxd.bolt", "--sqlite-path", f"{at}/influxd.sqlite"]
        flags = ["--engine-path", f"{at}/engine", "--reporting-disabled", "--log-level", "error"]
        fresh = not (at / "influxd.bolt").exists()
        bind = ["--http-bind-address", f"127.0.0.1:{self._server.port}"]
        self._server.start([str(self._binary), *paths, *flags, *bind], "/health")
        if fresh:
            setup = {"username": "bench", "password": "bench-bench", "org": "bench", "bucket": "bench", "token": _TOKEN}
            self._server.ask("POST", "/api/v2/setup", json.dumps(setup).encode())
        self._server.headers = {"Authorization": f"Token {_TOKEN}"}

    def stop(self) -> None:
        self._server.stop()

    def pid(self) -> int:
        return self._server.pid

    def append(self, rows: Rows) -> None:
        self._server.ask("POST", _WRITE, self._lines.encode(rows))

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - it has its own
        return False

    def settle(self) -> None:
        """Nothing: what is acknowledged can be read."""

    def count(self) -> int:
        query = _FROM.format(start=0, stop="2100-01-01T00:00:00Z", only=_BOTH)
        return int(_numbers(self._ask(query + " |> count() |> group() |> sum()")).sum())

    def latest(self, at_us: int) -> Float64Array:
        return _numbers(self._ask(_query(Span(at_us - _LATEST_LOOKBACK_US, at_us), _VALUE, " |> last()" + _OUT)))

    def raw(self, series: int, span: Span) -> Float64Array:
        return _numbers(self._ask(_query(span, _BOTH + self._of(series), _FIELDS_OUT)))

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        mean = _query(span, _VALUE + self._of(series), _MEAN.format(every="1h") + _OUT)
        if not p95:
            return _numbers(self._ask(mean))
        both = _UNION.format(mean=mean, p95=_query(span, _VALUE + self._of(series), _P95 + _OUT))
        return _numbers(self._ask(both), where="is", equals="mean")

    def windows(self, span: Span) -> Float64Array:
        return _numbers(self._ask(_query(span, _VALUE, _MEAN.format(every="5m") + _OUT)))

    def completeness(self, span: Span) -> Float64Array:
        return _numbers(self._ask(_query(span, _BOTH, " |> count()" + _FIELDS_OUT)), where="_field", equals="value")

    def _of(self, series: int) -> str:
        info = self._infos[series - 1]
        return f' and r.device == "{info.device}" and r.quantity == "{info.quantity}"'

    def _ask(self, query: str) -> bytes:
        dialect = {"annotations": [], "header": True, "delimiter": ","}
        body = json.dumps({"query": query, "type": "flux", "dialect": dialect}).encode()
        return self._server.ask("POST", _QUERY, body, {"Content-Type": "application/json"})


def _query(span: Span, only: str, then: str) -> str:
    return _FROM.format(start=_time(span.start_us), stop=_time(span.stop_us), only=only) + then


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _numbers(answer: bytes, *, where: str = "", equals: str = "") -> Float64Array:
    """Return the numbers of an answer, or of its rows where a column has a text."""
    if not answer.strip():
        return np.empty(0)
    rows = csv.read_csv(pa.BufferReader(answer))
    if where:
        rows = rows.filter(pc.equal(rows[where], equals))
    return rows["_value"].to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _version(binary: Path, told: str) -> str:
    """Return what the server says, or its file name where it was built without a version."""
    return told if told[:1].isdigit() else binary.name.removeprefix("influxd-")
