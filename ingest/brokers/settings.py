"""Settings of the existing brokers that the door subscribes to: one table `[ingest.brokers.NAME]` each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from devices.errors import ConfigError

__all__ = ["BrokerAddress", "BrokerName", "BrokerSettings"]

_MIB = 1024 * 1024
_DAY_S = 86_400
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_GROUP = re.compile(r"[^/+#$\0]*")

BrokerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""What a broker is called here, in its messages' principal ("broker:NAME") too."""


class BrokerAddress(NamedTuple):
    """Where a broker is."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> BrokerAddress:
        """Split "mqtt://HOST:PORT" or "mqtts://HOST:PORT"; the port may be left out. Raises ConfigError.

        >>> BrokerAddress.of("mqtts://broker.city.example")
        BrokerAddress(host='broker.city.example', port=8883, tls=True)
        """
        hint = 'write "mqtt://HOST:PORT", or "mqtts://HOST:PORT" with TLS; a user name and a password have keys of their own'
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("not an address of a broker", hint=hint) from None
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc or parts.path.strip("/") or parts.query:
            raise ConfigError("not an address of a broker", hint=hint)
        return cls(host, _PORTS[parts.scheme] if port is None else port, parts.scheme == "mqtts")


class BrokerSettings(BaseModel):
    """Where a broker is, what is taken from it, who we are there, and the limits of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description='Where the broker is: "mqtt://HOST:PORT", or "mqtts://HOST:PORT" with TLS.')
    topics: tuple[str, ...] = Field(
        default=("qala/1/#",), min_length=1, max_length=1000, description="Topic filters that are subscribed to."
    )
    client_id: str = Field(
        default="",
        max_length=128,
        description="Client id, the same for ever: the broker keeps our session under it; empty: qala-NAME-JOURNAL.",
    )
    username: str = Field(default="", description="User name; empty: none.")
    password_file: Path | None = Field(
        default=None, description="File that holds the password and nothing else; read at every connect."
    )
    ca: Path | None = Field(
        default=None, description="Authorities (PEM) that may vouch for the broker; without it, those of the system."
    )
    certificate: Path | None = Field(
        default=None, description="Our certificate chain (PEM), where the broker wants one."
    )
    private_key: Path | None = Field(default=None, description="Its private key (PEM).")
    share: str = Field(
        default="", max_length=64, description="Group of a shared subscription ($share); empty: everything comes here."
    )
    session_expiry_s: int = Field(
        default=30 * _DAY_S,
        ge=60,
        le=0xFFFF_FFFF,
        description="How long the broker shall keep messages for us while we are away [s].",
    )
    keep_alive_s: int = Field(default=30, ge=2, le=65_535, description="A broker silent for so long is left [s].")
    receive_max: int = Field(
        default=4096, ge=1, le=65_535, description="Unacknowledged messages that the broker is asked to send at most."
    )
    buffer_max: int = Field(
        default=20_000,
        ge=1,
        description="Messages that wait for the journal; then reading from the broker stops, whatever it sends.",
    )
    buffer_bytes_max: int = Field(
        default=32 * _MIB, ge=_MIB, description="The same in bytes; one read of 256 KiB may go beyond it."
    )
    packet_max: int = Field(
        default=_MIB,
        ge=1024,
        le=16 * _MIB,
        description="Largest packet that the broker may send; it drops larger ones without a word [bytes].",
    )
    reconnect_first_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Longest wait before the first attempt to connect again; doubled each time [s].",
    )
    reconnect_max_s: float = Field(default=60.0, gt=0, le=3600, description="Longest wait between two attempts [s].")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        BrokerAddress.of(value)
        return value

    @field_validator("topics")
    @classmethod
    def _filters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for topic_filter in value:
            _check_filter(topic_filter)
        return tuple(dict.fromkeys(value))

    @field_validator("share")
    @classmethod
    def _group(cls, value: str) -> str:
        if not _GROUP.fullmatch(value):
            raise ConfigError("a share group holds none of / + # $", hint="write a plain word")
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> BrokerSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("a certificate and its private key come together", hint="set both, or neither")
        if not self.address.tls and (self.ca or self.certificate):
            raise ConfigError(
                "ca and certificate are for mqtts:// alone", hint="write mqtts:// in the url, or drop them"
            )
        return self

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress.of(self.url)

    @property
    def filters(self) -> tuple[str, ...]:
        """What is sent in SUBSCRIBE."""
        return tuple(f"$share/{self.share}/{topic}" for topic in self.topics) if self.share else self.topics


def _check_filter(topic_filter: str) -> None:
    """Check a topic filter (MQTT 5, section 4.7.1). Raises ConfigError."""
    levels = topic_filter.split("/")
    is_bad = (
        not topic_filter
        or len(topic_filter.encode()) > 65_535
        or "\0" in topic_filter
        or "#" in levels[:-1]
        or levels[0] == "$share"
        or any(len(level) > 1 and ("#" in level or "+" in level) for level in levels)
    )
    if is_bad:
        raise ConfigError(
            f"not a topic filter: {topic_filter[:64]!r}",
            hint='such as "qala/1/#" or "city/+/air"; a shared subscription is asked for with `share`',
        )
