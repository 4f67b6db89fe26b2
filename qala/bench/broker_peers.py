"""Two other subscribers to measure ours by, each in a process of its own: one that only counts, and one on paho."""

from __future__ import annotations

import multiprocessing
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.errors import UnavailableError
from ingest.brokers.session import Phase, Plan, Session
from ingest.journal import Journal
from ingest.message import Message, Source
from ingest.mqtt.packets import Limits
from ingest.segments import Row

__all__ = ["Peer", "running"]

_READY_S = 30.0
_READ = 256 * 1024
_GROUP_MAX = 20_000
_IN_FLIGHT = 4096
_FILTER = "qala/1/#"


class Peer(msgspec.Struct):
    """A subscriber that is subscribed."""

    pid: int
    counted: Any  # Synchronized[int]

    def taken(self) -> int:
        """Count the messages that it acknowledged."""
        return int(self.counted.value)


@contextmanager
def running(kind: str, port: int, folder: Path) -> Iterator[Peer]:
    """Run "null" or "paho" against a broker on this machine. Raises UnavailableError where it does not subscribe."""
    context = multiprocessing.get_context("spawn")
    counted, ready = context.Value("q", 0), context.Event()
    process = context.Process(target=_RUN[kind], args=(port, folder, counted, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(_READY_S):
            raise UnavailableError(f"the subscriber {kind} did not subscribe", hint="what it said stands above")
        yield Peer(process.pid or 0, counted)
    finally:
        process.terminate()
        process.join()


def _only_count(port: int, _folder: Path, counted: Synchronized[int], ready: Event) -> None:
    """Acknowledge everything at once and keep nothing: what the broker can give at most."""
    session = Session(Plan("null", "null", [_FILTER], receive_max=_IN_FLIGHT), Limits())
    rest = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            connection.sendall(b"".join(session.out))
            session.out.clear()
            rows: list[Row] = []
            ids: list[bytes] = []
            data = rest + connection.recv(_READ)
            rest = data[session.take(data, 0, rows, ids, _READ) :]
            if ids:
                connection.sendall(session.acknowledge(ids))
                counted.value += len(ids)
            if session.phase is Phase.READY:
                ready.set()


def _paho(port: int, folder: Path, counted: Synchronized[int], ready: Event) -> None:
    """Do with paho what the door does: write groups to a journal, and acknowledge each after its sync."""
    waiting: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "paho", protocol=mqtt.MQTTv5, manual_ack=True)
    client.on_message = lambda _client, _data, message: waiting.put(message)
    client.on_subscribe = lambda *_: ready.set()
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = _IN_FLIGHT
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.subscribe(_FILTER, 1)
    writer = threading.Thread(target=_write, args=(client, waiting, Journal.open(folder), counted), daemon=True)
    writer.start()
    client.loop_forever()


def _write(
    client: mqtt.Client, waiting: queue.SimpleQueue[mqtt.MQTTMessage], journal: Journal, counted: Synchronized[int]
) -> None:
    while True:
        group = [waiting.get()]
        while len(group) < _GROUP_MAX and not waiting.empty():
            group.append(waiting.get())
        journal.append([_message(each) for each in group])
        for each in group:
            client.ack(each.mid, each.qos)
        counted.value += len(group)


def _message(found: mqtt.MQTTMessage) -> Message:
    received_us = int(found.timestamp * 1e6)
    return Message(found.topic, bytes(found.payload), received_us, "", "broker:paho", Source.SUBSCRIBER, qos=found.qos)


_RUN = {"null": _only_count, "paho": _paho}
