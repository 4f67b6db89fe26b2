"""The probe: now and then a message of our own goes the whole way, so that its time is known before people complain.

It comes in through the owner's socket like any client's message, waits for its PUBACK and hangs up; nothing stays open or
runs between two of them. The projector tells how long each took to the store.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ingest.histogram import Histogram
from ingest.message import PROBE_TOPIC
from ingest.mqtt.packets import V311, Connect, Publish, connect, publish

__all__ = ["Probe"]

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0
_CONNACK, _PUBACK = b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"
_DISCONNECT = b"\xe0\x00"
_WAITING_MAX = 1_000
_S = 1e6


class Probe:
    """Sends a probe every `every_s` through the MQTT socket at `path`. Where no door listens there, it quietly waits.

    `stored` returns how many probes came to the store so far.
    """

    def __init__(
        self,
        path: Path,
        every_s: float,
        *,
        stored: Callable[[], int],
        now_us: Callable[[], int],
        answer_s: float = _ANSWER_S,
    ) -> None:
        self.puback = Histogram()
        self.sent = 0
        self.failed = 0
        self._path = path
        self._every_s = every_s
        self._answer_s = answer_s
        self._stored = stored
        self._now_us = now_us
        self._seen = 0  # how many had come to the store at the last look
        self._waiting: deque[int] = deque(maxlen=_WAITING_MAX)  # when those were sent that have not [UTC us]

    def run(self, stop: threading.Event) -> None:
        """Send probes until told to stop."""
        self._seen = self._stored()
        while not stop.wait(self._every_s):
            self.send()

    def send(self) -> bool:
        """Send one; return whether it was acknowledged."""
        self.late_s()
        began, sent_us = time.perf_counter(), self._now_us()
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(self._answer_s)
            try:
                door.connect(str(self._path))
            except OSError:
                return False  # there is no door: health says so for itself
            self.sent += 1
            self._waiting.append(sent_us)
            try:
                acknowledged = _converse(door, sent_us)
            except OSError as error:
                _log.debug("a probe was not acknowledged: %s", error)
                acknowledged = False
        if not acknowledged:
            self.failed += 1
            return False
        self.puback.observe(time.perf_counter() - began)
        return True

    def late_s(self) -> float:
        """Tell how long the oldest probe that is not in the store has been on its way; 0 where none is [s]."""
        stored = self._stored()
        for _ in range(min(max(stored - self._seen, 0), len(self._waiting))):
            self._waiting.popleft()
        self._seen = stored
        return max(self._now_us() - self._waiting[0], 0) / _S if self._waiting else 0.0


def _converse(door: socket.socket, sent_us: int) -> bool:
    """Connect, publish at QoS 1, and return whether that was acknowledged. Raises OSError."""
    hello = connect(Connect(V311, "qala-probe", keep_alive_s=60))
    door.sendall(hello + publish(V311, Publish(PROBE_TOPIC, str(sent_us).encode(), qos=1, id=1)))
    answered = _exactly(door, len(_CONNACK)) == _CONNACK and _exactly(door, len(_PUBACK)) == _PUBACK
    door.sendall(_DISCONNECT)
    return answered


def _exactly(door: socket.socket, size: int) -> bytes:
    """Read so many bytes, fewer where the other end hangs up."""
    data = b""
    while len(data) < size and (more := door.recv(size - len(data))):
        data += more
    return data
