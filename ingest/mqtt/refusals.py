"""What was turned down: counted always, recorded in the journal within limits."""

from __future__ import annotations

import msgspec

from devices.errors import Reason
from ingest.mqtt.rows import refused_row
from ingest.mqtt.turns import network
from ingest.segments import Row

__all__ = ["Counters", "Refusals"]

_ADDRESSES_MAX = 10_000
_MINUTE_US = 60_000_000


class Counters(msgspec.Struct):
    """What the listener has turned down since it started."""

    refused: int = 0
    refused_unrecorded: int = 0  # among the refused: those over the limit of records, only counted
    turned_away: int = 0  # connections over the limit
    denied: int = 0  # connections whose credential was not taken
    handshakes_failed: int = 0  # TLS connections that came to nothing


class Refusals:
    """Makes the records of what was refused, so many a minute for each client address."""

    def __init__(self, per_minute: int) -> None:
        self.counters = Counters()
        self._per_minute = per_minute
        self._minute = 0
        self._records: dict[str, int] = {}  # address -> refusals recorded in this minute

    def rows(self, address: str, client: str, principal: str, reason: Reason, detail: str, now_us: int) -> list[Row]:
        """Count a refusal and return its record; none while its address has had too many."""
        self.counters.refused += 1
        if not self.may_record(address, now_us):
            self.counters.refused_unrecorded += 1
            return []
        return [refused_row(reason, detail, now_us, client, principal)]

    def may_record(self, address: str, now_us: int) -> bool:
        """Tell whether an address (of IPv6: a /64) may cause one more record or log line, and take note of it."""
        minute = now_us // _MINUTE_US
        if minute != self._minute:
            self._minute = minute
            self._records.clear()
        address = network(address)
        records = self._records.get(address, 0)
        if records >= self._per_minute or (not records and len(self._records) >= _ADDRESSES_MAX):
            return False
        self._records[address] = records + 1
        return True
