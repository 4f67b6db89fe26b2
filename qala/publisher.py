"""A fleet's side of MQTT: publishes at QoS 1 through paho-mqtt with a bounded window, and knows what was acknowledged."""

from __future__ import annotations

from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devices.errors import UnavailableError

__all__ = ["Login", "Publisher"]

CONNECT_TIMEOUT_S = 10.0


class Login(NamedTuple):
    """What is shown at a door of another machine; with `ca`, the authority of its certificate, over TLS."""

    username: str | None = None
    password: str | None = None
    ca: Path | None = None


class Publisher:
    """One MQTT connection that publishes in order, to a host and port, or to the socket in a data folder, which asks nobody.

    `publish` waits while `in_flight` messages are unacknowledged. A lost connection is made again, and what was not
    acknowledged is sent again. `acknowledged` counts the messages from the first on without a gap, so that a caller can
    resume there.
    """

    def __init__(
        self, host: str | Path, port: int = 1883, *, client_id: str, in_flight: int = 100, login: Login | None = None
    ) -> None:
        self._host, self._port = host, port
        self._in_flight = in_flight
        self._changed = Condition()
        self._published = 0
        self._waiting: dict[int, int] = {}  # packet id -> place in the order
        self._early: set[int] = set()  # packet ids acknowledged before publish() returned
        self._acknowledged_after_gap: set[int] = set()
        self.acknowledged = 0
        self.refused = 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="unix" if isinstance(host, Path) else "tcp",
        )
        self._log_in(login or Login())
        self._client.max_inflight_messages_set(in_flight)
        self._client.max_queued_messages_set(0)
        self._client.reconnect_delay_set(1, 10)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._connected = False
        self._answer = ""

    def _log_in(self, login: Login) -> None:
        if login.username is not None:
            self._client.username_pw_set(login.username, login.password)
        if login.ca is not None:
            try:
                self._client.tls_set(ca_certs=str(login.ca))
            except OSError as error:
                raise UnavailableError(f"cannot use {login.ca}: {error.strerror}", hint="give a PEM file") from None

    def __enter__(self) -> Publisher:
        """Connect. Raises UnavailableError where nobody answers in time."""
        where = str(self._host) if isinstance(self._host, Path) else f"{self._host}:{self._port}"
        try:
            self._client.connect(str(self._host), self._port)
        except OSError as error:
            raise UnavailableError(
                f"no MQTT at {where}: {error}", hint="is `qala run` up, on this data folder?"
            ) from None
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._answer, CONNECT_TIMEOUT_S)
        if not self._connected:
            self._client.loop_stop()
            said = self._answer or "no answer"
            raise UnavailableError(f"MQTT at {where} did not accept us: {said}", hint="see the log of `qala run`")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send one message, waiting for a place in the window. For one thread."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._in_flight)
        # Not under our lock: paho holds one of its own here, and holds it too where it calls `_on_publish`.
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        with self._changed:
            place = self._published
            self._published += 1
            if info.mid in self._early:
                self._early.remove(info.mid)
                self._settle(place)
            else:
                self._waiting[info.mid] = place

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; tell whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._changed:
            if reason.is_failure:
                self._answer = str(reason)
            else:
                self._connected = True
            self._changed.notify_all()

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._changed:
            self.refused += bool(reason.is_failure)
            place = self._waiting.pop(mid, None)
            if place is None:
                self._early.add(mid)
            else:
                self._settle(place)
            self._changed.notify_all()

    def _settle(self, place: int) -> None:
        self._acknowledged_after_gap.add(place)
        while self.acknowledged in self._acknowledged_after_gap:
            self._acknowledged_after_gap.remove(self.acknowledged)
            self.acknowledged += 1
