"""Real servers for tests: each on a free loopback port, in a folder of its own, ended by its process id.

A test that needs one skips with the reason where it is missing, and fails instead when QALA_REQUIRE_SERVERS=1.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import free_port
from tests.wait import until

INFLUXD_VERSION = "2.7.12"
START_S = 60.0


def find_influxd() -> Path | None:
    """Return the InfluxDB server's binary: the one that QALA_INFLUXD names, the one built into the cache, or that of PATH."""
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = [
        os.environ.get("QALA_INFLUXD"),
        cache_folder / "qala" / f"influxd-{INFLUXD_VERSION}",
        shutil.which("influxd"),
    ]
    return next((Path(path) for path in named if path and os.access(path, os.X_OK)), None)


def need_influxd() -> Path:
    """Return the binary, or skip; where servers are required, fail."""
    found = find_influxd()
    if found is not None:
        return found
    missing = "influxd is missing: build it with scripts/build-influxd, or name it in QALA_INFLUXD"
    if os.environ.get("QALA_REQUIRE_SERVERS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


class Influx:
    """An InfluxDB 2 server that can be killed and started again over the same files, on the same port."""

    org = "city"
    token = "a-token-of-the-tests"
    _buckets = itertools.count(1)

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Influx:
        """Start it and wait until it answers; the first time it is set up with org, bucket and token."""
        files = {"bolt-path": "influxd.bolt", "engine-path": "engine", "sqlite-path": "influxd.sqlite"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binary,
                    *(word for name, file in files.items() for word in (f"--{name}", self.folder / file)),
                    *("--http-bind-address", self.address, "--reporting-disabled", "--log-level", "error"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self.is_up, deadline_s=START_S)
        if self.call("GET", "setup")["allowed"]:
            who = {"username": "tests", "password": "tests-password", "org": self.org, "bucket": "first"}
            self.call("POST", "setup", json={**who, "token": self.token})
        return self

    def is_up(self) -> bool:
        """Tell whether it answers. Fails where the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
        with suppress(httpx.TransportError):
            return httpx.get(f"http://{self.address}/health", timeout=2).status_code == 200
        return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order, where it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def call(self, method: str, path: str, **rest: Any) -> Any:
        """Ask its API as the owner of everything; the answer's JSON."""
        headers = {"Authorization": f"Token {self.token}"}
        answer = httpx.request(method, f"http://{self.address}/api/v2/{path}", headers=headers, timeout=30, **rest)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def text(self, path: str, body: str) -> str:
        """Ask a Flux query as any client does; the answer's CSV."""
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/vnd.flux"}
        url = f"http://{self.address}/api/v2/{path}"
        answer = httpx.post(url, params={"org": self.org}, headers=headers, content=body.encode(), timeout=30)
        assert answer.is_success, answer.text
        return answer.text

    def bucket(self, *, name: str = "", keep_s: int = 0) -> str:
        """Make a bucket that no other test has; return its name."""
        name = name or f"bucket{next(self._buckets)}"
        rules = [{"type": "expire", "everySeconds": keep_s}] if keep_s else []
        self.call("POST", "buckets", json={"orgID": self.org_id(), "name": name, "retentionRules": rules})
        return name

    def drop(self, *buckets: str) -> None:
        """Delete buckets."""
        for name in buckets:
            self.call("DELETE", f"buckets/{self.bucket_id(name)}")

    def bucket_id(self, name: str) -> str:
        [found] = self.call("GET", "buckets", params={"name": name})["buckets"]
        return str(found["id"])

    def org_id(self) -> str:
        return str(self.call("GET", "orgs", params={"org": self.org})["orgs"][0]["id"])

    def limited_token(self, *buckets: str) -> str:
        """Make a token that may read and write the points of some buckets, and nothing else."""
        org = self.org_id()
        allowed = [
            {"action": action, "resource": {"type": "buckets", "orgID": org, "id": id_}}
            for id_ in map(self.bucket_id, buckets)
            for action in ("read", "write")
        ]
        made = self.call("POST", "authorizations", json={"orgID": org, "permissions": allowed})
        return str(made["token"])

    def url(self, bucket: str) -> str:
        return f"influxdb://{self.address}/{self.org}/{bucket}"


@contextmanager
def started_influx() -> Iterator[Influx]:
    """Start a server of one's own, to be killed at will."""
    binary = need_influxd()
    with tempfile.TemporaryDirectory(prefix="influx-") as folder:
        server = Influx(binary, Path(folder))
        try:
            yield server.start()
        finally:
            server.stop()
