"""The two buckets of a store: that they exist, and how long the one of the readings keeps them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from devices.errors import ConfigError, QalaError
from qala.store import influx_flux as flux
from qala.store.base import Span, Upkeep
from qala.store.influx_http import EARLIEST_US, RefusedError, Server
from qala.store.settings import StoreSettings

_DAY_S = 86_400
_MARGIN_US = 60_000_000  # readings that expire within it are not worth a refused write
_BOUND = re.compile(r"Retention Policy Lower Bound at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
_log = logging.getLogger(__name__)


class Buckets:
    """What the server says of the buckets, and what it was asked to change.

    Raises ConfigError where the bucket of the readings does not exist, or the other one neither exists nor may be made.
    """

    def __init__(self, server: Server, settings: StoreSettings) -> None:
        self._server = server
        self.readings = server.address.bucket
        self.ledger = f"{self.readings}_qala"
        self._wanted_s = _wanted_s(settings.keep_days)
        self._keep_us: int | None = None
        self._expired = 0
        self._error = ""
        found = server.find_bucket(self.readings)
        if found is None:
            self._check(self.readings)
        else:
            self._keep_us = _keep_us(found)
        if server.find_bucket(self.ledger) is None:
            self._make(found.org_id if found is not None else server.address.org)
        self.set_retention()

    def _check(self, bucket: str) -> None:
        """Raise ConfigError where a bucket cannot be read: a token may read it without seeing it in the list."""
        try:
            self._server.query(f"{flux.source(bucket, Span(0, 1))} |> limit(n: 1)")
        except RefusedError as error:
            raise ConfigError(error.message, hint="correct the organisation in store.url") from None

    def _make(self, org: str) -> None:
        try:
            self._check(self.ledger)
        except ConfigError:
            try:
                self._server.make_bucket(self.ledger, org)
            except QalaError as error:
                raise ConfigError(
                    f"the bucket {self.ledger} is missing and could not be made: {error.message}",
                    hint=f"make it, without retention: influx bucket create --name {self.ledger} --retention 0",
                ) from None

    def set_retention(self) -> None:
        """Let the server keep readings as long as the settings say, where it does not; tell in `upkeep` where it cannot."""
        if not self._wanted_s or self._keep_us == self._wanted_s * 1_000_000:
            return
        try:
            found = self._server.find_bucket(self.readings)
            if found is None:
                raise ConfigError("the token may not see the bucket")
            self._server.keep(found, self._wanted_s)
        except QalaError as error:
            self._error = f"the bucket's retention could not be set to {self._wanted_s} s: {error.message}"
        else:
            self._keep_us, self._error = self._wanted_s * 1_000_000, ""

    def oldest_us(self, now_us: int) -> int:
        """Return the time that readings must not be older than."""
        return EARLIEST_US if self._keep_us is None else now_us - self._keep_us + _MARGIN_US

    def learn(self, refusal: RefusedError, now_us: int) -> bool:
        """Take from a refused write how long the bucket keeps readings; tell whether it is shorter than was known."""
        found = _BOUND.search(refusal.message)
        if found is None:
            return False
        bound_us = int(datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()) * 1_000_000
        shorter = bound_us + 1_000_000 > self.oldest_us(now_us)
        if shorter:
            self._keep_us = now_us - bound_us
        return shorter

    def count_expired(self, readings: int) -> None:
        """Take note of readings that were left out because the bucket would not keep them."""
        if not self._expired:
            _log.warning("readings older than bucket %s keeps are left out; /api/v1/health counts them", self.readings)
        self._expired += readings

    def upkeep(self) -> Sequence[Upkeep]:
        """Say what was left out, and what could not be set."""
        error = self._error
        if self._expired:
            left_out = f"{self._expired} readings came later than the bucket keeps them and were left out"
            error = f"{error}; {left_out}" if error else left_out
        return [Upkeep("retention", self._expired, self._expired, "readings", error)] if error else []


def _wanted_s(keep_days: Mapping[str, float]) -> int:
    """Return how long the bucket shall keep readings [s]; 0: for ever.

    As long as the quantity that is kept longest, and a day more: whoever deletes by quantity notes that before it happens,
    and the server, which notes nothing, must never be first.
    """
    return int((max(keep_days.values()) + 1) * _DAY_S) if "default" in keep_days else 0


def _keep_us(bucket: object) -> int | None:
    rules = getattr(bucket, "retention_rules", None) or ()
    kept = [rule.every_seconds for rule in rules if rule.every_seconds]
    return min(kept) * 1_000_000 if kept else None
