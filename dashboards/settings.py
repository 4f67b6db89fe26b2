"""The dashboards' settings: where the API listens, what the page is made of, and the limits of every answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from devices.errors import ConfigError
from ingest.settings import is_loopback, parse_address

__all__ = ["DashboardsSettings"]

_WEB = Path(__file__).parent / "web" / "dist"
_BASEMAP = Path(__file__).parents[1] / "devices" / "rehearsal" / "basemap.geojson"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}")


class DashboardsSettings(BaseModel):
    """Settings of the API, the live events and the page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    city: dict[str, str] = Field(default={}, description="Name of the city by language (en, ru, kk), for the page.")
    http: str = Field(
        default="127.0.0.1:8080",
        description="HOST:PORT of the API and the page without TLS; loopback only; empty: nowhere, where https is set.",
    )
    https: str = Field(default="", description="HOST:PORT of the API and the page with TLS; empty: nowhere.")
    certificate: Path | None = Field(
        default=None,
        description="Certificate chain for https (PEM), read again when it changes; by default that of ingest.",
    )
    private_key: Path | None = Field(default=None, description="Its private key (PEM); by default that of ingest.")
    authenticate: bool = Field(
        default=False,
        description="Ask for a token (qala token issue) also on loopback; beyond it, and where hosts is set, always.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Names, such as qala.example.org, that the API and the page answer for beside this machine's.",
    )
    session_days: float = Field(
        default=30.0, gt=0, le=365, description="A browser shows a token once in this many days [days]."
    )
    page: Path = Field(default=_WEB, description="Folder of the built page.")
    basemap: Path = Field(default=_BASEMAP, description="GeoJSON file drawn under the zones.")
    page_default: int = Field(default=1_000, ge=1, description="Rows of a list where the request names no limit.")
    page_max: int = Field(default=10_000, ge=1, description="Largest limit of a JSON list.")
    export_max: int = Field(
        default=500_000, ge=1, description="Largest limit of a CSV or Arrow answer, and its default."
    )
    overview_points_max: int = Field(default=2_000, ge=1, description="Most points of a series in an overview.")
    overview_series_max: int = Field(default=50, ge=1, description="Most series in an overview.")
    range_max_days: int = Field(default=3_660, ge=1, description="Longest time range of a request [days].")
    body_max: int = Field(default=65_536, ge=1, description="Largest request body [bytes].")
    live_clients_max: int = Field(default=1_000, ge=1, description="Most live streams at once.")
    live_flush_s: float = Field(default=1.0, gt=0, description="Live changes are sent at most this often [s].")
    live_tick_s: float = Field(default=5.0, gt=0, description="A tick is sent this often [s].")
    live_items_max: int = Field(default=2_000, ge=1, description="Most readings, values or alerts in one live event.")
    live_resync_s: float = Field(default=10.0, gt=0, description="Pages are asked to read all again this often [s].")
    late_after: float = Field(default=3.0, gt=0, description="A device is late after this many of its intervals.")
    silent_after: float = Field(default=10.0, gt=0, description="A device is silent after this many of its intervals.")
    behind_s: float = Field(
        default=30.0, gt=0, description="Projector or scheduler this far behind: the system is degraded [s]."
    )

    @field_validator("http", "https")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value

    @field_validator("hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HOST.fullmatch(name):
                raise ConfigError(
                    f"dashboards.hosts holds {name!r}, which is no host name",
                    hint='write names alone, without scheme and port, such as ["qala.example.org"]',
                )
        return tuple(name.lower() for name in value)

    @model_validator(mode="after")
    def _listens(self) -> Self:
        if not self.http and not self.https:
            raise ConfigError("dashboards.http and dashboards.https are both empty", hint="set one to HOST:PORT")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError(
                "dashboards.certificate and dashboards.private_key belong together", hint="name both files, or none"
            )
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host (without brackets) and port of `http`, or of `https` where that is the only one."""
        return parse_address(self.http or self.https)

    @property
    def listening(self) -> list[tuple[str, int]]:
        """Every TCP address that is listened on: host (without brackets) and port."""
        return [parse_address(text) for text in (self.http, self.https) if text]

    def asks_tokens(self, *, insecure: bool) -> bool:
        """Tell whether requests over TCP need a token; those over the socket in the data folder never do.

        >>> DashboardsSettings().asks_tokens(insecure=False), DashboardsSettings(authenticate=True).asks_tokens(insecure=True)
        (False, True)
        >>> beyond = DashboardsSettings(https="0.0.0.0:443")
        >>> beyond.asks_tokens(insecure=False), beyond.asks_tokens(insecure=True)
        (True, False)
        """
        is_beyond = any(not is_loopback(host) for host, _ in self.listening)
        return self.authenticate or bool(self.hosts) or (is_beyond and not insecure)
