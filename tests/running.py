"""A Qala that runs: `qala run` as its own processes, on free ports and an empty data folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.wait import until

START_S = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One `qala run`."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.http, self.mqtt = free_port(), free_port()
        self.log = data / "run.log"
        where = ["--data", str(data), "--http", f"127.0.0.1:{self.http}", "--mqtt", f"127.0.0.1:{self.mqtt}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qala", "run", *where, *flags],
                cwd=Path(__file__).parents[1],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.http}{path}", timeout=10).raise_for_status().json()

    def is_ok(self) -> bool:
        """Tell whether the server answers, and finds that all is well."""
        try:
            return bool(self.get("/api/v1/health")["status"] == "ok")
        except httpx.TransportError:
            return False

    def says(self, words: str) -> bool:
        return words in self.log.read_text()

    def ready(self) -> Running:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.says("Qala is running")

        until(is_ready, deadline_s=START_S)
        return self

    def children(self) -> dict[str, int]:
        """Process ids by command ("door", "serve")."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and "qala" in words:
                found[words[words.index("qala") + 1]] = int(folder.name)
        return found

    def stop(self, number: int = signal.SIGTERM, *, within_s: float = 10.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)


@contextmanager
def running(*flags: str, data: Path | None = None) -> Iterator[Running]:
    """Run Qala until the end of the block. The folder's path is short: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="qala-") as folder:
        qala = Running(data or Path(folder), *flags)
        try:
            yield qala
        finally:
            if qala.process.poll() is None:
                qala.stop()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
