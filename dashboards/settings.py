"""The dashboards' settings: where the API listens, what the page is made of, and the limits of every answer."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingest.settings import parse_address

__all__ = ["DashboardsSettings"]

_WEB = Path(__file__).parent / "web" / "dist"
_BASEMAP = Path(__file__).parents[1] / "devices" / "rehearsal" / "basemap.geojson"


class DashboardsSettings(BaseModel):
    """Settings of the API, the live events and the page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    city: dict[str, str] = Field(default={}, description="name of the city by language (en, ru, kk), for the page")
    http: str = Field(default="127.0.0.1:8080", description="HOST:PORT of the API and the page; loopback only")
    page: Path = Field(default=_WEB, description="folder of the built page")
    basemap: Path = Field(default=_BASEMAP, description="GeoJSON file drawn under the zones")
    page_default: int = Field(default=1_000, ge=1, description="rows of a list where the request names no limit")
    page_max: int = Field(default=10_000, ge=1, description="largest limit of a JSON list")
    export_max: int = Field(
        default=500_000, ge=1, description="largest limit of a CSV or Arrow answer, and its default"
    )
    overview_points_max: int = Field(default=2_000, ge=1, description="most points of a series in an overview")
    overview_series_max: int = Field(default=50, ge=1, description="most series in an overview")
    range_max_days: int = Field(default=3_660, ge=1, description="longest time range of a request [days]")
    body_max: int = Field(default=65_536, ge=1, description="largest request body [bytes]")
    live_clients_max: int = Field(default=1_000, ge=1, description="most live streams at once")
    live_flush_s: float = Field(default=1.0, gt=0, description="live changes are sent at most this often [s]")
    live_tick_s: float = Field(default=5.0, gt=0, description="a tick is sent this often [s]")
    live_items_max: int = Field(default=2_000, ge=1, description="most readings, values or alerts in one live event")
    live_resync_s: float = Field(default=10.0, gt=0, description="pages are asked to read all again this often [s]")
    late_after: float = Field(default=3.0, gt=0, description="a device is late after this many of its intervals")
    silent_after: float = Field(default=10.0, gt=0, description="a device is silent after this many of its intervals")
    behind_s: float = Field(
        default=30.0, gt=0, description="projector or scheduler this far behind: the system is degraded [s]"
    )

    @field_validator("http")
    @classmethod
    def _address(cls, value: str) -> str:
        parse_address(value)
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Host (without brackets) and port of `http`."""
        return parse_address(self.http)
