"""A real mosquitto for tests: on a free loopback port, in a folder of its own, ended by its process id."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.running import free_port
from tests.wait import until

__all__ = ["Mosquitto", "documented", "need_mosquitto"]

START_S = 15.0
_PAGE = Path(__file__).parents[1] / "docs" / "brokers.md"

OPEN = """
allow_anonymous true
persistence true
max_queued_messages 0
max_inflight_messages 1000
"""


def documented() -> str:
    """Return the configuration that docs/brokers.md advises."""
    [block] = re.findall(r"```conf\n# mosquitto\.conf\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    return str(block)


def need_mosquitto() -> str:
    """Return the broker's binary, or skip; where servers are required, fail."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found
    missing = "mosquitto is missing: install the broker with apt install mosquitto"
    if os.environ.get("QALA_REQUIRE_SERVERS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


class Mosquitto:
    """A broker over one folder. `lines` is its configuration without listener and places, which come from here."""

    def __init__(self, folder: Path, lines: str = OPEN, *, tls: Sequence[str] = ()) -> None:
        self.binary = need_mosquitto()
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.lines = lines
        self.tls = tuple(tls)

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://localhost:{self.port}"

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Mosquitto:
        """Start it over the data that is there, and wait until it listens."""
        config = self.folder / "mosquitto.conf"
        # it gives up root for a user of its own, who could not write here
        places = f"user {getpass.getuser()}\npersistence_location {self.folder}/\nlog_dest stderr\n"
        listener = "\n".join([f"listener {self.port} 127.0.0.1", *self.tls])
        config.write_text(f"{places}{self.lines}\n{listener}\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.is_up, deadline_s=START_S)
        return self

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it without a chance to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end; it writes its sessions and queues."""
        self._end(signal.SIGTERM)

    def restart(self, *, forget: bool = False) -> None:
        """End it and start it again; with `forget`, without what it had stored."""
        self.stop()
        if forget:
            (self.folder / "mosquitto.db").unlink(missing_ok=True)
        self.start()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)
