"""One client's connection: from the bytes that it sends to rows of the group commit, and the answers back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from ingest.commit import ROW_BYTES, Group
from ingest.message import MessageType, Source
from ingest.packets import (
    PINGRESP,
    V5,
    Ack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    connack,
    disconnect,
    pubacks,
    pubcomp,
    suback,
    unsuback,
)
from ingest.parser import parse, take_publishes
from ingest.wire import Code, PacketError, Properties, Property

if TYPE_CHECKING:
    from ingest.listener import Listener

__all__ = ["Connection", "properties_of"]

_CLOSE_S = 2.0  # how long a client may take to read our last words
_UNREAD_MAX = 64 * 1024  # answers that a client has not read; then reading from it stops [bytes]
_PROBE_AFTER_S = 120  # of silence, TCP asks whether the other end is still there
_TURN_MAX = 1000  # packets, beside plain PUBLISHes, taken from a connection before the others have their turn


class _Hold(IntEnum):
    """Why nothing is read from a connection: bits, which as plain integers cost a tenth of what flags do."""

    IN_FLIGHT = 1  # too many of its messages wait for their commit
    UNREAD = 2  # it does not read its answers
    QUEUE = 4  # all connections together have too much waiting
    TURN = 8  # it sent so many packets at once that the others come first


class Connection(asyncio.Protocol):
    """What the listener knows of one client. `principal` is who it was authenticated as."""

    __slots__ = (
        "_ended", "_group", "_heard", "_held", "_ids", "_in_flight", "_keep_alive_s", "_listener", "_loop", "_rest",
        "_timer", "_transport", "_version", "_will", "address", "client", "principal",
    )  # fmt: skip

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self.client = ""
        self.principal = ""
        self.address = ""
        self._listener = listener
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._version = 0
        self._ended = False
        self._rest = b""  # bytes that were received and not taken yet
        self._held = 0
        self._in_flight = 0
        self._group: Group | None = None  # the group that `_ids` belongs to
        self._ids: list[bytes] = []
        self._will: Will | None = None
        self._keep_alive_s = 0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._listener.admit(self):
            self._ended = True
            self._transport.abort()
            return
        self.address = str(self._transport.get_extra_info("peername")[0])
        self._transport.set_write_buffer_limits(high=_UNREAD_MAX)
        _probe_when_silent(self._transport)
        self._timer = self._loop.call_later(self._listener.settings.connect_timeout_s, self._transport.abort)
        if self._listener.commit.full:
            self.hold()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._read(self._rest + data if self._rest else data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._listener.forget(self)
        if self._will is not None:
            self._listener.record_will(self, self._will)

    def pause_writing(self) -> None:
        self._hold(_Hold.UNREAD)

    def resume_writing(self) -> None:
        self._release(_Hold.UNREAD)

    def hold(self) -> None:
        """Read nothing until `go_on`."""
        self._hold(_Hold.QUEUE)

    def go_on(self) -> None:
        """Read again, unless something else speaks against it."""
        self._release(_Hold.QUEUE)

    def acknowledge(self, ids: list[bytes]) -> None:
        """Send the PUBACKs of messages that are durable now."""
        self._in_flight -= len(ids)
        if self._transport is None or self._ended:
            return
        self._transport.write(pubacks(ids))
        if self._held & _Hold.IN_FLIGHT:
            self._release(_Hold.IN_FLIGHT)

    def end(self, code: Code) -> None:
        """Tell the client why (MQTT 3.1.1 has no words for it) and end the connection."""
        transport = self._transport
        if transport is None or self._ended:
            return
        if self._version == V5:
            transport.write(disconnect(code))
        self._linger(transport)

    def abort(self) -> None:
        """Close at once, whatever the client has not read yet."""
        if self._transport is not None:
            self._transport.abort()

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close, but read on for a moment: a reset by unread bytes would take our last words from the client."""
        self._ended = True
        self._rest = b""
        with contextlib.suppress(OSError):
            transport.write_eof()
        transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_CLOSE_S, transport.abort)

    def _read(self, data: bytes) -> None:
        listener = self._listener
        if self._ended or listener.stopping:
            return
        group = listener.commit.open
        rows, before = group.rows, len(group.rows)
        ids: list[bytes] = []
        now_us = time.time_ns() // 1000
        at, refused = 0, None
        try:
            at = self._take_all(data, now_us, group, ids)
        except PacketError as error:
            refused = error
        if ids:
            self._await(group, ids)
        added = len(rows) - before
        if added:
            group.bytes += len(data) + added * ROW_BYTES
            listener.commit.touch()
        if refused is not None:
            self._refuse(refused, now_us)
        self._rest = data[at:] if at < len(data) and not self._ended else b""

    def _await(self, group: Group, ids: list[bytes]) -> None:
        """Note that these packets are to be acknowledged when the group is durable."""
        self._in_flight += len(ids)
        if self._group is group:
            self._ids += ids
        else:
            self._group, self._ids = group, ids
            group.members.append((self, ids))

    def _take_all(self, data: bytes, now_us: int, group: Group, ids: list[bytes]) -> int:
        """Take the packets of `data` one after another; return where the first one begins that must wait."""
        listener, limits, size, at = self._listener, self._listener.limits, len(data), 0
        most = listener.settings.in_flight_max - self._in_flight
        answers: list[bytes] = []
        taken = 0
        while at < size and not self._ended:
            if self._version:
                at = take_publishes(
                    data,
                    at,
                    self._version,
                    limits,
                    topics=listener.topics,
                    rows=group.rows,
                    ids=ids,
                    room=most - len(ids),
                    tail=(now_us, self.client, self.principal, Source.LISTENER, MessageType.PUBLISH, 1),
                )
            if at == size:
                break
            if len(ids) >= most:
                self._hold(_Hold.IN_FLIGHT)
                break
            parsed = parse(data, at, self._version, limits)
            if parsed is None:
                break
            packet, at = parsed
            self._take(packet, now_us, group, ids, answers)
            taken += 1
            if taken == _TURN_MAX:
                self._hold(_Hold.TURN)
                self._loop.call_soon(self._release, _Hold.TURN)
                break
        if answers and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(answers))
        return at

    def _take(self, packet: Packet, now_us: int, group: Group, ids: list[bytes], answers: list[bytes]) -> None:
        if isinstance(packet, Publish):
            self._publish(packet, now_us, group, ids)
        elif isinstance(packet, Connect):
            self._connect(packet)
        elif isinstance(packet, Disconnect):
            self._disconnect(packet)
        else:
            answers.append(self._answer(packet))

    def _answer(self, packet: Packet) -> bytes:
        match packet:
            case Ping():
                return PINGRESP
            case Subscribe():
                return suback(self._version, packet)
            case Ack():
                return pubcomp(self._version, packet.id) if packet.kind is Kind.PUBREL else b""
            case Unsubscribe():
                return unsuback(self._version, packet)
        return b""

    def _publish(self, packet: Publish, now_us: int, group: Group, ids: list[bytes]) -> None:
        self._listener.know(packet.topic)
        group.rows.append(
            (
                packet.topic,
                packet.payload,
                now_us,
                self.client,
                self.principal,
                Source.LISTENER,
                MessageType.PUBLISH,
                packet.qos,
                packet.retained,
                packet.duplicate,
                properties_of(packet.properties),
            )
        )
        if packet.qos:
            ids.append(packet.id.to_bytes(2, "big"))

    def _connect(self, packet: Connect) -> None:
        self._version = packet.version
        self._will = packet.will
        self.client = packet.client or f"qala-{secrets.token_hex(8)}"
        self._listener.take_over(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if packet.keep_alive_s:
            self._keep_alive_s = packet.keep_alive_s
            self._timer = self._loop.call_later(1.5 * packet.keep_alive_s, self._check_alive)
        if self._transport is not None:
            self._transport.write(connack(packet.version, Code.SUCCESS, self._granted(packet)))

    def _granted(self, packet: Connect) -> Properties:
        """Say what an MQTT 5 client may do here (section 3.2.2.3). No topic aliases: their maximum is absent, so 0."""
        settings = self._listener.settings
        values: dict[int, int | str | bytes] = {
            Property.RECEIVE_MAX: settings.in_flight_max,
            Property.QOS_MAX: 1,
            Property.PACKET_MAX: self._listener.limits.packet_max,
            Property.WILDCARDS: 0,
            Property.SUBSCRIPTION_IDS: 0,
            Property.SHARED: 0,
        }
        if not packet.client:
            values[Property.ASSIGNED_CLIENT_ID] = self.client
        if packet.properties is not None and packet.properties.number(Property.SESSION_EXPIRY):
            values[Property.SESSION_EXPIRY] = 0
        return Properties(values)

    def _disconnect(self, packet: Disconnect) -> None:
        if packet.code == Code.SUCCESS:  # any other asks for the will, or is an error
            self._will = None
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def _refuse(self, error: PacketError, now_us: int) -> None:
        self._listener.refuse(self, error, now_us)
        transport = self._transport
        if transport is None:
            return
        if not self._version:
            if error.version == V5 or error.answer in {Code.UNSUPPORTED_VERSION, Code.BAD_CLIENT_ID}:
                transport.write(connack(error.version, error.answer))
            self._linger(transport)
        else:
            self.end(error.answer)

    def _check_alive(self) -> None:
        limit_s = 1.5 * self._keep_alive_s
        left_s = limit_s - (self._loop.time() - self._heard)
        if self._held or left_s > 0:
            self._timer = self._loop.call_later(limit_s if self._held else left_s, self._check_alive)
        else:
            self.end(Code.KEEP_ALIVE_TIMEOUT)

    def _hold(self, why: _Hold) -> None:
        if not self._held and self._transport is not None and not self._ended:
            self._transport.pause_reading()
        self._held |= why

    def _release(self, why: _Hold) -> None:
        self._held &= ~why
        if self._held or self._ended:
            return
        if self._rest:
            self._read(self._rest)
        self._resume()

    def _resume(self) -> None:
        if not self._held and self._transport is not None:
            self._transport.resume_reading()


def _probe_when_silent(transport: asyncio.Transport) -> None:
    """Let TCP find out that a client without keep-alive is gone."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)


def properties_of(found: Properties | None) -> dict[str, str] | None:
    """Keep what says how to read a payload: content type, and the user properties under "user.<name>"."""
    if found is None or not (found.values or found.user):
        return None
    kept = {f"user.{name}": value for name, value in found.user}
    if content_type := found.text(Property.CONTENT_TYPE):
        kept["content_type"] = content_type
    return kept or None
