"""QuestDB as a peer: its log and deduplication on, line protocol in, SQL that gives CSV out."""

# ruff: noqa: S608 -- numbers and names of the bench's own are put into queries

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from pyarrow import csv

from devices.errors import UnavailableError
from devices.reading import Float64Array
from qala.bench.processes import free_port
from qala.bench.store_data import Rows, Shape, series_infos
from qala.bench.store_peer import About, LineEncoder, Server, cached, found, in_path
from qala.store.base import Span

__all__ = ["QuestDB", "find_questdb"]

_JAR = "questdb-9.3.4.jar"
_JAVA_MIN = 25
_LATEST_LOOKBACK_US = 7_200_000_000
_LOOK_S = 0.005
_SETTLE_S = 600.0
_TABLE = (
    "CREATE TABLE readings (series SYMBOL CAPACITY 16384 INDEX, value DOUBLE, flag BYTE, ts TIMESTAMP)"
    " TIMESTAMP(ts) PARTITION BY DAY WAL DEDUP UPSERT KEYS(ts, series)"
)
_BEHIND = "SELECT count() c FROM wal_tables() WHERE writerTxn <> sequencerTxn"
_IN = "WHERE ts >= {start} AND ts < {stop}"
_OF = " AND series = '{series}'"


def find_questdb() -> tuple[Path, Path]:
    """Return Java and the jar. Raises UnavailableError where one is missing."""
    jar = found("QuestDB's jar", os.environ.get("QALA_QUESTDB_JAR"), cached(_JAR))
    javas = [os.environ.get("QALA_JAVA"), in_path("java"), *map(str, Path("/usr/lib/jvm").glob("*/bin/java"))]
    newest = max(((_java_version(java), java) for java in javas if java and Path(java).is_file()), default=(0, ""))
    if newest[0] < _JAVA_MIN:
        raise UnavailableError(
            f"QuestDB needs Java {_JAVA_MIN}, and there is {newest[0] or 'none'}", hint="set QALA_JAVA"
        )
    return Path(newest[1]), jar


def _java_version(java: str) -> int:
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    number = re.search(r'version "(\d+)', said)
    return int(number.group(1)) if number else 0


class QuestDB:
    """A server with one table."""

    name = "questdb"

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._java, self._jar = find_questdb()
        self._root = folder / "questdb"
        self._server = Server(self.name, folder)
        self._symbols = [f"{info.device}/{info.quantity}" for info in series_infos(shape.series)]
        tags = [f"readings,series={symbol}" for symbol in self._symbols]
        self._lines = LineEncoder(
            [f"{x} flag=1i,value=" for x in tags], [f"{x} flag=4i,value=" for x in tags], unit_us=1
        )

    def about(self) -> About:
        version = re.search(r"QuestDB ([\d.]+)", self._get("exp", "SELECT build()").decode())
        return About(
            name=self.name,
            version=version.group() if version else "QuestDB",
            durability="every request synced (cairo.commit.mode=sync)",
            interface="line protocol of 10,000 rows a request, SQL, CSV",
            quantile="approximate, to three digits",
        )

    def start(self) -> None:
        fresh = not self._root.exists()
        self._root.mkdir(exist_ok=True)
        settings = {
            "QDB_HTTP_NET_BIND_TO": f"127.0.0.1:{self._server.port}",
            "QDB_PG_ENABLED": "false",
            "QDB_LINE_TCP_ENABLED": "false",
            "QDB_HTTP_MIN_NET_BIND_TO": f"127.0.0.1:{free_port()}",
            "QDB_TELEMETRY_ENABLED": "false",
            "QDB_CAIRO_COMMIT_MODE": "sync",
        }
        module = ["-p", str(self._jar), "-m", "io.questdb/io.questdb.ServerMain", "-d", str(self._root)]
        self._server.start([str(self._java), *module], "/ping", settings)
        if fresh:
            self._get("exec", _TABLE)

    def stop(self) -> None:
        self._server.stop()

    def pid(self) -> int:
        return self._server.pid

    def append(self, rows: Rows) -> None:
        self._server.ask("POST", "/write?precision=u", self._lines.encode(rows))

    def tend(self, now_us: int) -> bool:  # noqa: ARG002 - it has its own
        return False

    def settle(self) -> None:
        """Wait until its log has been applied. Raises UnavailableError where that takes too long."""
        deadline = time.monotonic() + _SETTLE_S
        while json.loads(self._get("exec", _BEHIND))["dataset"][0][0]:
            if time.monotonic() > deadline:
                raise UnavailableError("QuestDB does not apply its log", hint="see its log")
            time.sleep(_LOOK_S)

    def count(self) -> int:
        return int(self._numbers("SELECT count() c FROM readings", "c")[0])

    def latest(self, at_us: int) -> Float64Array:
        span = Span(at_us - _LATEST_LOOKBACK_US, at_us)
        return self._numbers(f"SELECT * FROM readings {_in(span)} LATEST ON ts PARTITION BY series", "value")

    def raw(self, series: int, span: Span) -> Float64Array:
        return self._numbers(f"SELECT ts, value, flag FROM readings {_in(span)}{self._of(series)}", "value")

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        asked = ", approx_percentile(value, 0.95, 3) p95" if p95 else ""
        query = (
            f"SELECT ts, avg(value) mean{asked} FROM readings {_in(span)}{self._of(series)} AND flag = 1 SAMPLE BY 1h"
        )
        return self._numbers(query, "mean")

    def windows(self, span: Span) -> Float64Array:
        query = f"SELECT series, ts, avg(value) mean FROM readings {_in(span)} AND flag = 1 SAMPLE BY 5m"
        return self._numbers(query, "mean")

    def completeness(self, span: Span) -> Float64Array:
        counts = "count() n, sum(CASE WHEN flag = 1 THEN 1 ELSE 0 END) good"
        return self._numbers(f"SELECT series, {counts} FROM readings {_in(span)}", "good")

    def _of(self, series: int) -> str:
        return _OF.format(series=self._symbols[series - 1])

    def _numbers(self, query: str, name: str) -> Float64Array:
        found = csv.read_csv(pa.BufferReader(self._get("exp", query)))[name]
        return found.to_numpy().astype(np.float64)  # type: ignore[no-any-return]

    def _get(self, what: str, query: str) -> bytes:
        return self._server.ask("GET", f"/{what}?query={quote(query)}")


def _in(span: Span) -> str:
    return _IN.format(start=span.start_us, stop=span.stop_us)
