"""A subscriber in a thread of its own, over a sink of the test's, and ways to publish to its broker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from ingest.brokers.settings import BrokerSettings
from ingest.brokers.subscriber import Subscriber
from ingest.commit import CommitLimits, GroupCommit, Sink
from ingest.message import Message
from ingest.mqtt.packets import Limits
from qala.bench.load import run_load
from tests.mosquitto import Mosquitto

__all__ = ["Memory", "Subscribing", "publish", "publish_many", "subscribing"]


class Memory:
    """A journal that keeps messages in memory, and waits while `gate` is cleared."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.gate = threading.Event()
        self.gate.set()

    def append(self, messages: Sequence[Any]) -> int:
        assert self.gate.wait(60)
        first = len(self.messages) + 1
        self.messages += [each if isinstance(each, Message) else Message(*each) for each in messages]
        return first

    def payloads(self) -> list[str]:
        return [message.payload.decode() for message in self.messages]


class Subscribing:
    """A subscriber that runs."""

    def __init__(self, subscriber: Subscriber, commit: GroupCommit, loop: asyncio.AbstractEventLoop) -> None:
        self.subscriber = subscriber
        self.commit = commit
        self._loop = loop

    def is_connected(self) -> bool:
        return self.subscriber.connected

    def report(self) -> Any:
        return self.subscriber.report()

    def crash(self) -> None:
        """Cut the connection as a killed process would, without another attempt."""

        def cut() -> None:
            self.subscriber._stopping = True
            connection = self.subscriber._connection
            if connection is not None and connection._transport is not None:
                connection._transport.abort()

        self._loop.call_soon_threadsafe(cut)


@contextlib.contextmanager
def subscribing(
    broker: Mosquitto | str,
    sink: Sink,
    folder: Path,
    *,
    name: str = "city",
    limits: Limits | None = None,
    **settings: Any,
) -> Iterator[Subscribing]:
    """Subscribe to a broker while the block runs."""
    url = broker if isinstance(broker, str) else broker.url
    chosen = BrokerSettings(**({"url": url, "reconnect_first_s": 0.2, "reconnect_max_s": 0.5} | settings))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Subscribing:
        commit = GroupCommit(sink, CommitLimits())
        subscriber = Subscriber(
            name, chosen, commit, limits=limits or Limits(), journal="j1", memory=folder / f"{name}.json"
        )
        subscriber.start()
        return Subscribing(subscriber, commit, loop)

    async def stop(made: Subscribing) -> None:
        made.subscriber.stop_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await made.commit.drain()
        await made.subscriber.stop()
        made.commit.close()

    try:
        made = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield made
        finally:
            asyncio.run_coroutine_threadsafe(stop(made), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def publish_many(port: int, numbers: Iterable[int], *, topic: str = "qala/1/demo/d/t", connections: int = 1) -> None:
    """Publish each number with QoS 1 and wait for every PUBACK."""
    messages = [(topic, str(number).encode()) for number in numbers]
    run_load("127.0.0.1", port, connections=connections, in_flight=500, messages=messages)


def publish(
    port: int,
    topic: str,
    payload: bytes,
    *,
    qos: int = 1,
    retain: bool = False,
    properties: Properties | None = None,
    login: tuple[str, str] | None = None,
) -> None:
    """Publish one message with MQTT 5 and wait until the broker has it."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    if login is not None:
        client.username_pw_set(*login)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, qos, retain, properties).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
