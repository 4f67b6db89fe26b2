"""MQTT packets that are almost right: made by the grammar with one thing wrong, and cut, doubled or flipped in places."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from ingest.mqtt.packets import V5, V311, Connect, Properties, Publish, Will, connect, publish
from ingest.mqtt.wire import Property, varint

__all__ = ["mutated", "session", "streams"]

TOPIC = "qala/1/air/bad/t"
_INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff",
    b"\x00\x00",
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff",
    b"#",
    b"+",
    b"\xed\xa0\x80",
)


def session(chance: random.Random) -> tuple[bytes, list[bytes]]:
    """Make a CONNECT and a few packets after it, all right."""
    version = chance.choice((V311, V5))
    hello = Connect(version, f"bad-{chance.randrange(50)}", chance.random() < 0.8, chance.choice((0, 1, 60, 65_535)))
    if chance.random() < 0.3:
        hello.will = Will(TOPIC, b"gone", chance.randrange(3), chance.random() < 0.5)
    if chance.random() < 0.3:
        hello.username, hello.password = "air/bad", b"secret"
    if version == V5 and chance.random() < 0.5:
        hello.properties = Properties({Property.SESSION_EXPIRY: chance.randrange(2**32), Property.RECEIVE_MAX: 1})
    return connect(hello), [_packet(chance, version) for _ in range(chance.randint(1, 5))]


def _packet(chance: random.Random, version: int) -> bytes:
    return chance.choice(_MAKERS)(chance, version)


def _publish(chance: random.Random, version: int) -> bytes:
    qos = chance.randrange(3)
    packet = Publish(TOPIC, b'{"v":{"pm2_5":1}}', qos, chance.randint(1, 65_535) if qos else 0, chance.random() < 0.2)
    if version == V5 and chance.random() < 0.5:
        packet.properties = Properties({Property.CONTENT_TYPE: "application/json"})
    return publish(version, packet)


def _subscribe(chance: random.Random, version: int) -> bytes:
    wanted = chance.choice((b"qala/1/air/bad/c", b"#", b"+/+", b"$share/g/#", b"a/#/b", b""))
    body = chance.randbytes(2) + (b"\0" if version == V5 else b"") + len(wanted).to_bytes(2, "big") + wanted
    return _framed(0x82, body + bytes([chance.randrange(4)]))


def _unsubscribe(chance: random.Random, version: int) -> bytes:
    return _framed(0xA2, chance.randbytes(2) + (b"\0" if version == V5 else b"") + b"\x00\x01a")


def _short(chance: random.Random, version: int) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ, DISCONNECT, AUTH, and kinds that only a server sends."""
    head = chance.choice((0x40, 0x50, 0x62, 0x70, 0xC0, 0xE0, 0xF0, 0x20, 0x90, 0xB0, 0xD0, 0x00))
    return _framed(head, chance.randbytes(chance.choice((0, 1, 2, 3, 4))))


_MAKERS: list[Callable[[random.Random, int], bytes]] = [_publish, _publish, _subscribe, _unsubscribe, _short]


def _framed(head: int, body: bytes) -> bytes:
    return bytes([head]) + varint(len(body)) + body


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Change bytes in one of the ways in which programs and networks change them."""
    return chance.choice(_WAYS)(chance, data)


def _flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice((*_INTERESTING, chance.randbytes(8))) + data[at:]


def _leave_out(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randint(1, 4) :]


def _overwrite(chance: random.Random, data: bytes) -> bytes:
    at, piece = chance.randrange(len(data)), chance.choice(_INTERESTING)
    return data[:at] + piece + data[at + len(piece) :]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    return data * chance.randint(2, 5)


def _announce_more(chance: random.Random, data: bytes) -> bytes:
    return (
        data[:1]
        + chance.choice((b"\xff\xff\xff\x7f", b"\xff\xff\x7f", b"\xff\x7f", b"\x00", b"\x80\x80\x80\x80\x01"))
        + data[2:]
    )


_WAYS = [_flip, _flip, _flip, _cut, _insert, _leave_out, _overwrite, _repeat, _announce_more]


def streams(seed: int, count: int) -> Iterator[bytes]:
    """Yield what `count` clients send, each a session with one packet or more that is not right; the same for a seed."""
    chance = random.Random(seed)
    for _ in range(count):
        hello, packets = session(chance)
        spoilt = chance.randrange(len(packets) + 1)
        if spoilt == len(packets):
            yield mutated(chance, hello) + b"".join(packets)
        else:
            packets[spoilt] = mutated(chance, packets[spoilt])
            yield hello + b"".join(packets)
