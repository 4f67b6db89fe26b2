"""Every limit and choice of ingest, with its default and what it is for."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from devices.errors import ConfigError
from ingest.brokers.settings import BrokerName, BrokerSettings

__all__ = ["IngestSettings", "is_loopback", "parse_address"]

_MIB = 1024 * 1024


def parse_address(text: str) -> tuple[str, int]:
    """Split "HOST:PORT"; an IPv6 address stands in brackets, which are taken off. Who can reach it is not asked here.

    >>> parse_address("0.0.0.0:1883"), parse_address("[::1]:8080")
    (('0.0.0.0', 1883), ('::1', 8080))

    Raises:
        ConfigError: the text has another shape.
    """
    host, _, port = text.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_bare = ":" in inner and inner == host
    if not inner or is_bare or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"not an address: {text!r}", hint='write HOST:PORT, such as "127.0.0.1:1883" or "[::1]:1883"')
    return inner, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address, without brackets, means this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class IngestSettings(BaseModel):
    """Settings of the door, the journal and the projector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: str = Field(
        default="127.0.0.1:1883",
        description="Where sensors connect with MQTT: HOST:PORT, loopback only; empty: nowhere.",
    )
    mqtts: str = Field(default="", description="The same with TLS: HOST:PORT; empty: nowhere.")
    http: str = Field(
        default="", description="Where messages are taken as HTTP requests: HOST:PORT, loopback only; empty: nowhere."
    )
    https: str = Field(default="", description="The same with TLS: HOST:PORT; empty: nowhere.")
    certificate: Path | None = Field(
        default=None, description="Certificate chain of the TLS listeners (PEM), read again when it changes."
    )
    private_key: Path | None = Field(default=None, description="Its private key (PEM).")
    client_ca: Path | None = Field(
        default=None, description="Authorities (PEM) whose client certificates are taken: CN is the device."
    )
    authenticate: bool = Field(
        default=False, description="Devices must show a credential: see qala devices credential issue."
    )
    brokers: dict[BrokerName, BrokerSettings] = Field(
        default={},
        max_length=32,
        description="Existing MQTT brokers whose messages are taken too: one table [ingest.brokers.NAME] each.",
    )
    topic_root: str = Field(default="qala", min_length=1, description="First level of the native format's topics.")
    enrol: Literal["enrol", "reject"] = Field(
        default="enrol",
        description="What happens to an unknown device: 'enrol' lists it as a candidate, 'reject' only rejects it.",
    )

    rate: float = Field(
        default=50.0, gt=0, description="Messages that an authenticated device may send; faster ones wait [1/s]."
    )
    burst: int = Field(default=500, ge=1, description="Messages that it may send at once before they wait.")
    gateway_rate: float = Field(default=5_000.0, gt=0, description="The same for a gateway [1/s].")
    gateway_burst: int = Field(default=50_000, ge=1, description="The same for a gateway.")
    gateway_connections_max: int = Field(
        default=1_000, ge=1, description="Connections that one gateway may have at once; further ones are refused."
    )
    handshakes_max: int = Field(
        default=32, ge=1, description="TLS handshakes at once; further connections wait their turn."
    )
    connections_max: int = Field(
        default=10_000,
        ge=1,
        description="MQTT connections at once, and as many HTTP ones; then who has not said who it is goes first.",
    )
    connect_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="A connection that has sent no CONNECT, or no head of a request, by then is closed [s].",
    )
    topic_max: int = Field(
        default=256, ge=1, le=65535, description="Longest topic; a message on a longer one is refused [bytes]."
    )
    payload_max: int = Field(
        default=64 * 1024,
        ge=1,
        description="Largest payload; a larger one is refused, and the native format takes no more than 64 KiB [bytes].",
    )
    in_flight_max: int = Field(
        default=2048,
        ge=1,
        le=65535,
        description="Unacknowledged messages of one connection; then reading from it stops.",
    )
    queue_max: int = Field(
        default=64 * _MIB,
        ge=_MIB,
        description="What was received and is not in the journal yet, of all connections; then all reading stops [bytes].",
    )
    group_wait_ms: float = Field(
        default=20.0,
        ge=0,
        le=20,
        description="Longest time a message waits for others, to share one sync with them [ms].",
    )
    group_max: int = Field(
        default=20_000, ge=1, description="Most messages in one group commit; further ones go with the next."
    )
    group_bytes_max: int = Field(default=8 * _MIB, ge=1, le=32 * _MIB, description="The same in bytes.")
    refused_per_minute: int = Field(
        default=60,
        ge=0,
        description="Malformed packets recorded for each client address; more are only counted [1/min].",
    )

    segment_max: int = Field(
        default=64 * _MIB, ge=4096, description="Size at which a journal segment is sealed [bytes]."
    )
    keep_free_bytes: int = Field(
        default=2048 * _MIB,
        ge=0,
        description="The journal's oldest sealed segments are deleted while its file system has less free space [bytes].",
    )

    journal_keep_days: float = Field(
        default=0.0,
        ge=0,
        description="Sealed segments older than this are deleted; 0: kept while there is room [days].",
    )
    journal_max: int = Field(
        default=0, ge=0, description="Oldest sealed segments are deleted beyond this size; 0: no such limit [bytes]."
    )

    flush_ms: float = Field(
        default=250.0, ge=0, description="How long the projector holds back to batch new messages [ms]."
    )
    batch_max: int = Field(default=50_000, ge=1, description="Most messages that the projector takes in one batch.")
    readings_max: int = Field(
        default=5_000, ge=1, le=5_000, description="Most readings in one message; the native format allows 5,000."
    )
    future_max_s: int = Field(default=300, ge=0, description="A reading further ahead of its receipt is rejected [s].")
    earliest: dt.date = Field(default=dt.date(2000, 1, 1), description="A reading before this UTC day is rejected.")
    late_after_s: int = Field(
        default=3600,
        ge=1,
        description="A reading received so long after the end of what it describes is counted as late [s].",
    )
    rejected_per_device_max: int = Field(
        default=1_000,
        ge=1,
        description="Rejected rows that are kept of one device; the oldest go first, and are counted.",
    )
    ledger_keep_days: float = Field(default=400.0, gt=0, description="How long the ledger's hours are kept [days].")
    probe_every_s: float = Field(
        default=15.0, ge=0, description="How often a probe message is sent all the way to the store; 0: never [s]."
    )
    rejected_max: int = Field(
        default=100_000, ge=0, description="Rejected rows that are kept of all; the oldest go first, and are counted."
    )

    @field_validator("mqtt", "mqtts", "http", "https")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value
