"""The two processes of Qala, each to be killed and started again at will, over a folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.running import free_port
from tests.wait import until

START_S = 60.0


class Qala:
    """The door and the serving process of one data folder, on free ports, without a supervisor over them."""

    def __init__(self, folder: Path, *, devices: Path | None = None, zones: Path | None = None) -> None:
        self.folder = folder
        self.mqtt_port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.door_command = [sys.executable, "-m", "qala", "door"]
        self.serve_command = [sys.executable, "-m", "qala", "serve"]
        self.environment = os.environ | {
            "QALA_DATA": str(folder),
            "QALA_INGEST__MQTT": f"127.0.0.1:{self.mqtt_port}",
            "QALA_DASHBOARDS__HTTP": f"127.0.0.1:{self.http_port}",
            "QALA_ANALYTICS__AMEND_EVERY_S": "0",  # so that who has caught up shows the values that tests look for
            "QALA_INGEST__PROBE_EVERY_S": "0",  # so that the journal has what a test sends, and nothing else
        }
        if devices is not None:
            self.environment["QALA_DEVICES_FILE"] = str(devices)
        if zones is not None:
            self.environment["QALA_ZONES_FILE"] = str(zones)
        self.door: subprocess.Popen[bytes] | None = None
        self.serve: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "log").open("ab")

    def __enter__(self) -> Self:
        try:
            self.start_door()
            self.start_serve()
            until(self.is_up, deadline_s=START_S)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()
        if error is not None:
            print((self.folder / "log").read_text()[-5000:])  # noqa: T201 - pytest shows it beside the failure

    def start_door(self) -> None:
        self.door = subprocess.Popen(self.door_command, env=self.environment, stdout=self._log, stderr=self._log)

    def start_serve(self) -> None:
        self.serve = subprocess.Popen(self.serve_command, env=self.environment, stdout=self._log, stderr=self._log)

    def kill_door(self) -> None:
        """Kill the door without a chance to say goodbye, and start it again."""
        assert self.door is not None
        self.door.kill()
        self.door.wait()
        self.start_door()

    def kill_serve(self) -> None:
        """Kill the serving process without a chance to say goodbye, and start it again."""
        assert self.serve is not None
        self.serve.kill()
        self.serve.wait()
        self.start_serve()

    def stop(self) -> None:
        """Ask both to end, and wait for it."""
        for process in (self.door, self.serve):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.door, self.serve):
            if process is not None:
                process.wait(20)

    def is_up(self) -> bool:
        """Tell whether both answer."""
        try:
            socket.create_connection(("127.0.0.1", self.mqtt_port), timeout=1).close()
            return httpx.get(f"{self.url}/api/v1/health", timeout=2).status_code < 500
        except (OSError, httpx.HTTPError):
            return False

    def get(self, path: str, **query: Any) -> Any:
        """GET from the API; the answer's JSON."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()

    def all(self, path: str, **query: Any) -> list[Any]:
        """GET every page of a list."""
        items: list[Any] = []
        cursor = None
        while True:
            page = self.get(path, **query, **({"cursor": cursor} if cursor else {}))
            items += page["items"]
            cursor = page["next"]
            if cursor is None:
                return items

    def journalled(self) -> int:
        """Return the number of the last durable message."""
        return int.from_bytes((self.folder / "journal" / "synced").read_bytes()[:8], "little", signed=True)

    def caught_up(self) -> bool:
        """Tell whether everything durable is in the store and every window that ended is computed."""
        try:
            parts = self.get("health")["parts"]
        except (AssertionError, httpx.HTTPError):
            return False
        projector, scheduler = parts["projector"], parts["scheduler"]
        applied = bool(projector["applied"] == self.journalled())
        return applied and scheduler["due"] == 0 and scheduler["marks"] == 0

    def wait_until_caught_up(self, deadline_s: float = 120.0) -> None:
        """Wait until everything sent so far is stored and computed, and still is at a second look."""
        until(lambda: self.caught_up() and self._still(), deadline_s=deadline_s, every_s=0.1)

    def _still(self) -> bool:
        time.sleep(0.3)  # longer than a batch takes from the store to its marks
        return self.caught_up()


def native(values: dict[str, float | None], **members: Any) -> bytes:
    """Spell a native payload."""
    return json.dumps({**members, "v": values}).encode()
