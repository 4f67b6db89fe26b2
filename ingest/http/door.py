"""HTTP ingest as the door opens it: where the settings ask for it, and not even imported where they do not."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ingest.bucket import Buckets
from ingest.commit import GroupCommit
from ingest.gate import Gate
from ingest.settings import IngestSettings

if TYPE_CHECKING:
    from ingest.http.server import HttpIngest
    from ingest.tls import Tls

__all__ = ["HttpCounters", "HttpDoor", "open_http"]

_log = logging.getLogger(__name__)


class HttpCounters(msgspec.Struct):
    """What HTTP ingest has done since the door started."""

    requests: int = 0
    taken: int = 0  # messages
    repeated: int = 0  # requests that were taken before, by their key
    refused: int = 0  # requests that were not taken: their own fault
    refused_lines: int = 0  # of batches
    limited: int = 0  # requests that came too fast
    unavailable: int = 0  # requests that the journal did not take
    turned_away: int = 0  # connections over the limit


class HttpDoor:
    """HTTP ingest on as many addresses as the settings name, perhaps none."""

    def __init__(self, served: HttpIngest | None, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        self._served = served

    @property
    def counters(self) -> HttpCounters:
        return HttpCounters() if self._served is None else self._served.counters

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return 0 if self._served is None else self._served.connections

    async def stop(self, *, within_s: float) -> None:
        """Accept no more, and answer what was taken as soon as it is durable."""
        if self._served is not None:
            await self._served.stop(within_s=within_s)


async def open_http(
    settings: IngestSettings, commit: GroupCommit, gate: Gate, buckets: Buckets, journal: Path, tls: Tls | None = None
) -> HttpDoor:
    """Listen where the settings say. `journal` is the folder that idempotency keys are read back from.

    Raises:
        UnavailableError: an address is taken.
    """
    wanted = [(settings.http, None), (settings.https, tls.context if tls else None)]
    wanted = [(address, context) for address, context in wanted if address]
    if not wanted:
        return HttpDoor(None, ())
    from ingest.http.keys import remembered
    from ingest.http.server import HttpIngest

    keys = await asyncio.to_thread(remembered, journal, time.time_ns() // 1000)
    served = HttpIngest(settings, commit, gate, keys=keys, buckets=buckets)
    addresses = []
    for address, context in wanted:
        host, port = await served.start(address, context)
        addresses.append(f"{host}:{port}")
        _log.info("taking messages over %s on %s:%d", "HTTPS" if context else "HTTP", host, port)
    return HttpDoor(served, tuple(addresses))
