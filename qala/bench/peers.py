"""The usual way beside ours: mosquitto takes the messages, Telegraf decodes them, InfluxDB keeps them; on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devices.errors import UnavailableError
from qala.bench.processes import end, free_port
from qala.bench.store_influxdb import find_influxd
from qala.bench.store_peer import Server, cached, found, in_path
from qala.process import answers

__all__ = ["BUCKET", "ORG", "TOKEN", "Influx", "Mosquitto", "Process", "Telegraf", "find_mosquitto", "find_telegraf"]

ORG, BUCKET = "bench", "bench"
TOKEN = "bench"  # noqa: S105 - of a server that lives for the bench, on loopback

_READY_S, _STOP_S, _LOOK_S = 30.0, 30.0, 0.02
_MOSQUITTO = """\
per_listener_settings false
listener {port} 127.0.0.1
{tls}
allow_anonymous true
persistence false
max_queued_messages 0
max_queued_bytes 2147483648
max_inflight_messages 0
log_type error
"""
_TLS = """\
listener {port} 127.0.0.1
certfile {certificate}
keyfile {key}
"""
_TELEGRAF = """\
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 1000000
  omit_hostname = true
  logfile = "{log}"
  quiet = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{mqtt}"]
  topics = ["qala/1/+/+/t"]
  topic_tag = ""
  qos = 1
  client_id = "telegraf"
  persistent_session = true
  max_undelivered_messages = 20000
  data_format = "json"
  json_time_key = "t"
  json_time_format = "unix_ms"
  [[inputs.mqtt_consumer.topic_parsing]]
    topic = "qala/1/+/+/t"
    tags = "_/_/_/device/_"
[[outputs.influxdb_v2]]
  urls = ["http://127.0.0.1:{influx}"]
  token = "{token}"
  organization = "{org}"
  bucket = "{bucket}"
"""


def find_mosquitto() -> Path:
    """Return the broker. Raises UnavailableError where there is none."""
    return found("mosquitto", in_path("mosquitto"), "/usr/sbin/mosquitto")


def find_telegraf() -> Path:
    """Return Telegraf. Raises UnavailableError where there is none."""
    return found("telegraf", os.environ.get("QALA_TELEGRAF"), cached("telegraf-1.37.2"), shutil.which("telegraf"))


class Process:
    """A server without HTTP: it is ready when a port of it answers, or at once."""

    def __init__(self, name: str, log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def run(self, command: Sequence[str], port: int | None = None) -> None:
        """Run a command and wait until the port answers. Raises UnavailableError where it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the peers' own commands
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        deadline = time.monotonic() + _READY_S
        while port is not None and not answers(("127.0.0.1", port)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UnavailableError(f"{self._name} did not start", hint=self._log.read_text()[-1500:])
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            end(process, _STOP_S)


class Mosquitto(Process):
    """The broker, with queues that lose nothing while it runs, and nothing on disk."""

    def __init__(self, folder: Path, *, certificate: Path | None = None) -> None:
        """Prepare it; with a certificate (its key beside it, .key) it also listens on `tls_port`."""
        super().__init__("mosquitto", folder / "mosquitto.log")
        self.port, self.tls_port = free_port(), free_port()
        self._config = folder / "mosquitto.conf"
        key = certificate.with_suffix(".key") if certificate else None
        tls = _TLS.format(port=self.tls_port, certificate=certificate, key=key) if certificate else ""
        self._config.write_text(_MOSQUITTO.format(port=self.port, tls=tls))

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def start(self) -> None:
        self.run([str(find_mosquitto()), "-c", str(self._config)], self.port)


class Telegraf(Process):
    """Takes the native messages off a broker: fields `v_<quantity>` of the measurement mqtt_consumer, by the tag `device`."""

    def __init__(self, folder: Path, *, mqtt: int, influx: int) -> None:
        super().__init__("telegraf", folder / "telegraf.out")
        self._config = folder / "telegraf.conf"
        where = {"mqtt": mqtt, "influx": influx, "log": folder / "telegraf.log"}
        self._config.write_text(_TELEGRAF.format(**where, token=TOKEN, org=ORG, bucket=BUCKET))
        self._log_file = folder / "telegraf.log"

    def start(self) -> None:
        self.run([str(find_telegraf()), "--config", str(self._config)])

    def check(self) -> None:
        """Raise UnavailableError where it has ended, or complained."""
        if self._process is None or self._process.poll() is not None:
            raise UnavailableError("telegraf ended", hint=self._log_file.read_text()[-1500:])


class Influx:
    """InfluxDB 2 with one bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "influxdb"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = Server("influxdb", folder)

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        """Start it and make its bucket."""
        at = self._folder
        paths = ["--bolt-path", f"{at}/influxd.bolt", "--sqlite-path", f"{at}/influxd.sqlite"]
        flags = ["--engine-path", f"{at}/engine", "--reporting-disabled", "--log-level", "error"]
        bind = ["--http-bind-address", f"127.0.0.1:{self.port}"]
        self._server.start([str(find_influxd()), *paths, *flags, *bind], "/health")
        names = {"username": "bench", "password": "bench-bench", "org": ORG, "bucket": BUCKET, "token": TOKEN}
        self._server.ask("POST", "/api/v2/setup", json.dumps(names).encode())
        self._server.headers = {"Authorization": f"Token {TOKEN}"}

    def stop(self) -> None:
        self._server.stop()

    def numbers(self, flux: str) -> list[int]:
        """Return the whole numbers in the column `_value` of a Flux query's answer."""
        body = json.dumps({"query": flux, "type": "flux", "dialect": {"annotations": [], "header": True}}).encode()
        answer = self._server.ask("POST", f"/api/v2/query?org={ORG}", body, {"Content-Type": "application/json"})
        lines = [line.split(",") for line in answer.decode().splitlines() if line.strip()]
        if not lines:
            return []
        column = lines[0].index("_value")
        return [int(line[column]) for line in lines[1:]]
