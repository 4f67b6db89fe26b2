"""Single messages among a load, timed from their sending to their PUBACK and to their being stored."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

import msgspec

from devices.errors import UnavailableError
from ingest.mqtt.packets import V311, Connect, Publish, connect, pubacks, publish

__all__ = ["Mark", "send_marks"]

_LOOK_S = 0.003
_PATIENCE_S = 30.0


class Mark(msgspec.Struct):
    """How long one message took from its sending [s]."""

    puback_s: float
    stored_s: float


def send_marks(
    address: tuple[str, int], watch: Callable[[str, int], Callable[[], bool]], count: int, *, within_s: float
) -> list[Mark]:
    """Send messages of one reading of the first air station, at random moments within a time.

    `watch(device, time_ms)` is asked after a message's PUBACK and returns what tells whether that message is stored.
    Raises UnavailableError where one is not acknowledged or not stored.
    """
    dice = random.Random(5)  # noqa: S311 - not for secrets
    marks: list[Mark] = []
    begin = time.perf_counter()
    with socket.create_connection(address, timeout=_PATIENCE_S) as client:
        client.sendall(connect(Connect(V311, "mark")))
        _expect(client, b"\x20\x02\x00\x00")
        for number in range(1, count + 1):
            time.sleep(max(0.0, begin + within_s * (number - dice.random()) / count - time.perf_counter()))
            marks.append(_mark(client, watch, number))
    return marks


def _mark(client: socket.socket, watch: Callable[[str, int], Callable[[], bool]], number: int) -> Mark:
    time_ms = time.time_ns() // 1_000_000 // 1000 * 1000 + number  # no reading of a load has this time
    began = time.perf_counter()
    payload = f'{{"t":{time_ms},"v":{{"temperature":20.5}}}}'.encode()
    client.sendall(publish(V311, Publish("qala/1/bench/d0/t", payload, 1, number)))
    _expect(client, pubacks([number.to_bytes(2, "big")]))
    acknowledged = time.perf_counter()
    is_stored = watch("d0", time_ms)
    while not is_stored():
        if time.perf_counter() - began > _PATIENCE_S:
            raise UnavailableError("a message was acknowledged and is not stored", hint="see the logs of its way")
        time.sleep(_LOOK_S)
    return Mark(acknowledged - began, time.perf_counter() - began)


def _expect(client: socket.socket, answer: bytes) -> None:
    said = b""
    while len(said) < len(answer) and (part := client.recv(len(answer) - len(said))):
        said += part
    if said != answer:
        raise UnavailableError(f"{said!r} came in the place of {answer!r}", hint="see the server's log")
