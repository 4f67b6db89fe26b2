"""Failed attempts to get in: so many for an address, then fewer and fewer are worth an answer."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["Attempts"]

_ADDRESSES_MAX = 10_000


class Attempts:
    """Counts failed attempts by address: `burst` at once, then one every `every_s`. Of the addresses, the last are known."""

    def __init__(self, *, burst: int = 10, every_s: float = 6.0) -> None:
        self._burst = burst
        self._every_s = every_s
        self._until: OrderedDict[str, float] = OrderedDict()  # when all that was used up is there again

    def fail(self, address: str, now_s: float) -> float:
        """Note a failed attempt, and return how long to wait before the next one, 0 within the limit [s].

        >>> attempts = Attempts(burst=2, every_s=5.0)
        >>> [attempts.fail("10.0.0.7", now) for now in (0.0, 0.0, 0.0, 1.0, 20.0)]
        [0.0, 0.0, 5.0, 4.0, 0.0]
        """
        key = _network(address)
        used_s = max(0.0, self._until.pop(key, now_s) - now_s)
        over_s = used_s - (self._burst - 1) * self._every_s
        self._until[key] = now_s + used_s + (0.0 if over_s > 0 else self._every_s)
        if len(self._until) > _ADDRESSES_MAX:
            self._until.popitem(last=False)
        return max(0.0, over_s)


def _network(address: str) -> str:
    """Return an address, or the network that an IPv6 address is in: whoever has one of it has them all.

    >>> _network("10.0.0.7"), _network("2001:db8:1:2:3::4"), _network("")
    ('10.0.0.7', '2001:db8:1:2::', '')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
