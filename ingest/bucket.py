"""Token buckets: how many messages a principal may send. Pure: the time is given."""

from __future__ import annotations

from ingest.gate import Principal
from ingest.settings import IngestSettings

__all__ = ["Bucket", "Buckets"]

_SLICE_S = 0.05  # who waits gets the tokens of so long at once: fewer, larger steps
_BUCKETS_MAX = 100_000


class Bucket:
    """Tokens that come at `rate` [1/s], up to `burst` of them. A message takes one.

    >>> bucket = Bucket(rate=10, burst=2, now_s=0)
    >>> bucket.room(0), bucket.take(2), bucket.room(0), bucket.wait_s(0), bucket.room(0.15)
    (2, None, 0, 0.1, 1)
    """

    __slots__ = ("_at_s", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: int, now_s: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at_s = now_s

    def room(self, now_s: float) -> int:
        """Return how many messages may be taken now."""
        self._fill(now_s)
        return max(int(self._tokens), 0)

    def take(self, messages: int) -> None:
        """Pay for messages that were taken. More than there was room for is paid later: nothing is forgiven."""
        self._tokens -= messages

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before it is worth looking again [s]; 0 where there is room."""
        self._fill(now_s)
        if self._tokens >= 1:
            return 0.0
        wanted = min(max(self.rate * _SLICE_S, 1.0), self.burst)
        return (wanted - self._tokens) / self.rate

    def _fill(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._tokens = min(self._tokens + (now_s - self._at_s) * self.rate, self.burst)
            self._at_s = now_s

    def is_full(self, now_s: float) -> bool:
        """Tell whether it is as good as new."""
        self._fill(now_s)
        return self._tokens >= self.burst


class Buckets:
    """The bucket of each principal, whatever it connects with and how often. A full one may be forgotten."""

    def __init__(self, settings: IngestSettings, *, most: int = _BUCKETS_MAX) -> None:
        self._settings = settings
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, principal: Principal, now_s: float) -> Bucket | None:
        """Return a principal's bucket; None for nobody in particular and for the owner, who may send as they like."""
        if not principal.name or principal.name.startswith("@"):
            return None
        bucket = self._buckets.get(principal.name)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._forget(now_s)
            bucket = self._buckets[principal.name] = self._new(principal, now_s)
        return bucket

    def _new(self, principal: Principal, now_s: float) -> Bucket:
        settings = self._settings
        if principal.is_device:
            return Bucket(settings.rate, settings.burst, now_s)
        return Bucket(settings.gateway_rate, settings.gateway_burst, now_s)

    def _forget(self, now_s: float) -> None:
        """Drop the full ones; where there are none, the oldest."""
        kept = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full(now_s)}
        if len(kept) >= self._most:
            del kept[next(iter(kept))]
        self._buckets = kept
