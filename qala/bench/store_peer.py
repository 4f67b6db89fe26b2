"""What the store's bench asks of every peer, and how a peer's server is found, started, spoken to and ended."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from devices.errors import UnavailableError
from devices.reading import Float64Array
from qala.bench.processes import end, free_port
from qala.bench.store_data import Rows
from qala.store.base import Span
from qala.store.rows import column

__all__ = ["About", "LineEncoder", "Peer", "Server", "cached", "disk_bytes", "found", "in_path", "memory_mib"]

_READY_S, _STOP_S, _ANSWER_S = 120.0, 120.0, 600.0
_LOOK_S = 0.02
_PROC = Path("/proc")


class About(msgspec.Struct, frozen=True):
    """What a peer is, in words for the table."""

    name: str
    version: str
    durability: str  # what an acknowledgement promises
    interface: str  # how it was written and read
    repeats: str = "each (series, time) once"  # what it makes of readings that come twice
    quantile: str = "exact"


class Peer(Protocol):
    """A store of its own in an empty folder.

    Answers are numbers only, but each peer reads times and series as well: nobody answers less than a chart needs. Order does
    not matter. NaN stands where a window holds no number.
    """

    def about(self) -> About:
        """Say what it is. Asked while it runs."""

    def start(self) -> None:
        """Open it, with what is in it."""

    def stop(self) -> None:
        """Close it."""

    def pid(self) -> int:
        """Return the process whose memory counts."""

    def append(self, rows: Rows) -> None:
        """Return when the peer has acknowledged the rows."""

    def tend(self, now_us: int) -> bool:
        """Do a piece of upkeep that the peer leaves to its owner; tell whether more waits."""

    def settle(self) -> None:
        """Return when everything acknowledged can be read."""

    def count(self) -> int:
        """Count all readings."""

    def latest(self, at_us: int) -> Float64Array:
        """Return the newest number of every series in the two hours up to a time."""

    def raw(self, series: int, span: Span) -> Float64Array:
        """Return every reading of a series."""

    def hourly(self, series: int, span: Span, *, p95: bool) -> Float64Array:
        """Return the mean, and with it the p95, of a series by hour; the means are given back."""

    def windows(self, span: Span) -> Float64Array:
        """Return the mean of every series by five minutes."""

    def completeness(self, span: Span) -> Float64Array:
        """Return how many readings every series has, and how many of them are good; the good ones are given back."""


class LineEncoder:
    """Readings as line protocol, column by column: `<prefix of the series and flag><value><space><time>`."""

    def __init__(self, good: Sequence[str], bad: Sequence[str], *, unit_us: int) -> None:
        self._prefixes = pa.array([*good, *bad], pa.string())
        self._series = len(good)
        self._unit_us = unit_us

    def encode(self, rows: Rows) -> bytes:
        """Return one line for each row."""
        which = column(rows.series.astype("int64") - 1 + self._series * (rows.flag != 1), pa.int64())
        value = pc.cast(column(rows.value, pa.float64()), pa.string())
        time_ = pc.cast(column(rows.time_us // self._unit_us, pa.int64()), pa.string())
        lines = pc.binary_join_element_wise(self._prefixes.take(which), value, " ", time_, "\n", "")
        return bytes(lines.buffers()[2])


class Server:
    """A peer's server: a process of its own on a free loopback port, and one kept connection to it a thread."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.headers: dict[str, str] = {}
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._connections = threading.local()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self, command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None) -> None:
        """Run a command and return when the path `ready` answers. Raises UnavailableError where it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the peers' own commands
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | dict(environment or {})
            )
        deadline = time.monotonic() + _READY_S
        while not self._answers(ready):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UnavailableError(f"{self.name} did not start", hint=self._log.read_text(errors="replace")[-1500:])
            time.sleep(_LOOK_S)

    def _answers(self, path: str) -> bool:
        try:
            self.ask("GET", path)
        except UnavailableError:
            return False
        return True

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Return what the server answers. Raises UnavailableError where it refuses."""
        connection = self._connection()
        try:
            connection.request(method, path, body, self.headers | dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connections = threading.local()
            raise UnavailableError(f"{self.name} does not answer: {error}") from None
        if response.status >= 300:
            raise UnavailableError(f"{self.name}: {response.status} {answer[:500].decode(errors='replace')}")
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._connections, "one", None)
        if found is None:
            found = self._connections.one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        return found

    def stop(self) -> None:
        """Ask the process to end, and make it where it does not."""
        process, self._process = self._process, None
        self._connections = threading.local()
        if process is not None:
            end(process, _STOP_S)


def found(what: str, *candidates: Path | str | None) -> Path:
    """Return the first file that exists. Raises UnavailableError, with the reason to skip, where there is none."""
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise UnavailableError(f"{what} was not found", hint="docs/benchmarks.md says how to get it")


def cached(name: str) -> Path:
    """Return where a file that was fetched or built for tests and benches lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qala" / name


def in_path(command: str) -> str | None:
    return shutil.which(command)


def memory_mib(pid: int) -> tuple[float, float]:
    """Return what a process has in memory now, and the most it ever had [MiB]."""
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    kib = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name[:2] == "Vm"
    }
    return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on disk; holes of files are not counted."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
