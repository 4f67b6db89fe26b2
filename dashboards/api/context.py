"""What the routes need, given once by the wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request
from sqlalchemy import Engine

from analytics.alerts import Rule
from analytics.indicator import Indicator
from analytics.schedule import Put
from dashboards.health import PartsProvider
from dashboards.items import DeviceItem, device_items
from dashboards.live import Hub
from dashboards.prometheus import Metric
from dashboards.settings import DashboardsSettings
from devices.device import Device, Placement, Registry
from devices.errors import Reason
from devices.kind import Kind
from devices.value import Value
from ingest.rejected import Replayed
from qala.store.base import Store
from qala.store.lake_export import Exported

__all__ = ["ApiContext", "Context", "Operator", "Replayed"]


class Operator(Protocol):
    """What the API may ask of the threads that write. Each method waits until it is done."""

    def replay(self, *, reason: Reason | None, device: str | None) -> Replayed:
        """Decode rejected messages again with today's registry."""

    def admit(self, device: Device, placement: Placement | None) -> Replayed:
        """Take a new device into the registry and replay what it sent. Raises ConflictError where it exists."""

    def put_values(self, values: Sequence[Value]) -> Put:
        """Put values that were computed elsewhere into the store."""

    def export(self, url: str | None, first: int, last: int) -> Exported | None:
        """Export the first of the closed days `[first, last)` that has readings. Raises ConfigError where no lake is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """Everything that routes read from, and the operator that they write through."""

    store: Store
    state: Engine
    registry: Callable[[], Registry]
    kinds: Mapping[str, Kind]
    indicators: Mapping[str, Indicator]
    rules: Mapping[str, Rule]
    settings: DashboardsSettings
    hub: Hub
    operator: Operator
    parts: PartsProvider
    now_us: Callable[[], int]
    version: str
    time_zone: str
    credential_key: Callable[[], bytes]  # makes it where there is none
    asks_tokens: bool = False
    takes_certificates: bool = False  # the door takes certificates of devices
    metrics: Sequence[Callable[[], Iterable[Metric]]] = ()
    on_command: Callable[[], None] = lambda: None  # tells the door to look at the commands

    def devices(self) -> list[DeviceItem]:
        """Describe every device that is not retired, by id."""
        return device_items(self.registry(), self.kinds, self.hub.latest.devices(), self.now_us(), self.settings)


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]
