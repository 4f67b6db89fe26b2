"""VictoriaMetrics as a peer: line protocol in, MetricsQL that gives JSON out. It keeps nothing synced at an acknowledgement."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import csv

from devices.reading import Float64Array
from qala.bench.store_data import HOUR_US, STEP_US, Rows, Shape, series_infos
from qala.bench.store_peer import About, LineEncoder, Server, found, in_path
from qala.store.base import Span

__all__ = ["VictoriaMetrics", "find_victoria"]

_GOOD, _BOTH = "reading_value", '{__name__=~"reading_(value|held)"'


class _Found(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, float] | None = None
    values: list[tuple[float, float]] = []

    def numbers(self) -> list[float]:
        return [number for _, number in ([self.value] if self.value else self.values)]


class _Data(msgspec.Struct):
    result: list[_Found]


class _Answer(msgspec.Struct):
    data: _Data


_decode = msgspec.json.Decoder(_Answer, strict=False).decode  # numbers come as text


def find_victoria() -> Path:
    """Return the server. Raises UnavailableError where there is none."""
    return found("victoria-metrics", os.environ.get("QALA_VICTORIA_METRICS"), in_path("victoria-metrics"))


class VictoriaMetrics:
    """A server. `reading_value` holds good numbers, `reading_held` those of bad readings; times are milliseconds."""

    name = "victoria-metrics"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._binary = find_victoria()
        self._folder = folder
        self._server = Server(self.name, folder)
        self._infos = series_infos(shape.series)
        self._span = Span(shape.start_us, shape.stop_us)
        tags = [f"reading,device={info.device},quantity={info.quantity}" for info in self._infos]
        self._lines = LineEncoder([f"{x} value=" for x in tags], [f"{x} held=" for x in tags], unit_us=1000)

    def about(self) -> About:
        metrics = self._server.ask("GET", "/metrics").decode()
        number = re.search(r'vm_app_version\{.*short_version="v?([\d.]*)', metrics)
        return About(
            name=self.name,
            version=f"VictoriaMetrics {number.group(1) if number and number.group(1) else _package_version()}",
            durability="nothing synced: in memory for seconds",
            interface="line protocol of 10,000 rows a request, MetricsQL, JSON",
            repeats="kept, and left out of answers (dedup.minScrapeInterval=1ms)",
        )

    def start(self) -> None:
        flags = [
            "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
            "-search.disableCache",
            "-search.latencyOffset=0s",
        ]
        places = [f"-storageDataPath={self._folder}/victoria", f"-httpListenAddr=127.0.0.1:{self._server.port}"]
        self._server.start([str(self._binary), *places, *flags], "/health")

    def stop(self) -> None:
        self._server.stop()

    def pid(self) -> int:
        return self._server.pid

    def append(self, rows: Rows) -> None:
        self._server.ask("POST", "/write?precision=ms", self._lines.encode(rows))

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - it has its own
        return False

    def settle(self) -> None:
        """Make it show what it acknowledged, which it does by itself a second later."""
        self._server.ask("GET", "/internal/force_flush")

    def count(self) -> int:
        """Count day by day, which keeps within what it lets a query read."""
        day_us, total = 24 * HOUR_US, 0.0
        for end_us in range(self._span.start_us + day_us, self._span.stop_us + day_us, day_us):
            counted = self._instant(f"sum(count_over_time({_BOTH}}}[1d]))", end_us)
            total += sum(sum(found.numbers()) for found in counted)
        return int(total)

    def latest(self, at_us: int) -> Float64Array:
        return _all(self._instant(f"last_over_time({_GOOD}[2h])", at_us))

    def raw(self, series: int, span: Span) -> Float64Array:
        match = _BOTH + self._of(series)
        columns = "__name__,__timestamp__:unix_ms,__value__"
        start, end = span.start_us / 1e6, (span.stop_us - 1000) / 1e6
        answer = self._get("export/csv", {"match[]": match, "start": start, "end": end, "format": columns})
        if not answer:
            return np.empty(0)
        rows = csv.read_csv(pa.BufferReader(answer), csv.ReadOptions(column_names=["name", "time", "value"]))
        return rows["value"].to_numpy().astype(np.float64)  # type: ignore[no-any-return]

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        one = _GOOD + "{" + self._of(series).removeprefix(",")
        mean = f"avg_over_time({one}[1h])"
        if not p95:
            return _all(self._range(mean, span, HOUR_US))
        p95_ = f'label_set(quantile_over_time(0.95, {one}[1h]), "is", "p95")'
        found = self._range(f"union({mean}, {p95_})", span, HOUR_US)
        return _all([one for one in found if "is" not in one.metric])

    def windows(self, span: Span) -> Float64Array:
        return _all(self._range(f"avg_over_time({_GOOD}[5m])", span, STEP_US))

    def completeness(self, span: Span) -> Float64Array:
        seconds = (span.stop_us - span.start_us) // 1_000_000
        found = self._instant(f"count_over_time({_BOTH}}}[{seconds}s]) keep_metric_names", span.stop_us)
        return _all([one for one in found if one.metric["__name__"] == _GOOD])

    def _of(self, series: int) -> str:
        info = self._infos[series - 1]
        return f',device="{info.device}",quantity="{info.quantity}"}}'

    def _instant(self, query: str, at_us: int) -> list[_Found]:
        return _decode(self._get("query", {"query": query, "time": at_us / 1e6})).data.result

    def _range(self, query: str, span: Span, step_us: int) -> list[_Found]:
        """Ask for windows; it labels them by their end."""
        first, last = (span.start_us + step_us) / 1e6, span.stop_us / 1e6
        asked = {"query": query, "start": first, "end": last, "step": step_us / 1e6}
        return _decode(self._get("query_range", asked)).data.result

    def _get(self, what: str, asked: Mapping[str, object]) -> bytes:
        return self._server.ask("GET", f"/api/v1/{what}?{urlencode(asked)}")


def _package_version() -> str:
    """Return the version of Debian's package, whose server does not know it."""
    asked = ["dpkg-query", "-W", "-f", "${Version}", "victoria-metrics"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "of unknown version"


def _all(found: list[_Found]) -> Float64Array:
    return np.array([number for one in found for number in one.numbers()], np.float64)
