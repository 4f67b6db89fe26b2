"""How long readings are kept, and what a store remembers of what it forgot.

A store notes up to where the readings of a quantity were deleted as a position of its own beside those of the journals:
copies and backups take it along, and like any position it never goes back. Before readings are deleted it is moved, so
that whoever asks never takes half of them for all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from devices.errors import ConfigError
from devices.kind import Kind
from devices.quantity import QUANTITIES
from devices.reading import Batch, Position
from qala.store.base import Selector, Store

__all__ = ["RETAINED", "Retention", "forget", "note", "retained"]

RETAINED = "retained/"
"""What the name of such a position begins with; the quantity follows."""

_DEFAULT = "default"
_DAY_US = 86_400_000_000


class Retention:
    """How long the readings of each quantity are kept."""

    def __init__(self, keep_days: Mapping[str, float], kinds: Mapping[str, Kind]) -> None:
        """Take days by quantity, by domain of the kinds that report it, and for all others ("default").

        Raises ConfigError on a name that is none of these.
        """
        domains = {kind.domain for kind in kinds.values()}
        _check(keep_days, domains)
        self._keep = keep_days
        self._domains: dict[str, set[str]] = {}
        for kind in kinds.values():
            for quantity in kind.quantities:
                self._domains.setdefault(quantity, set()).add(kind.domain)

    def keep_us(self, quantity: str) -> int | None:
        """Return how long readings of a quantity are kept [us]; None: for ever.

        The quantity's own setting counts before that of a domain, of several domains the longest, then the default. A domain
        that sets nothing leaves the quantity to the others.
        """
        if quantity in self._keep:
            return _us(self._keep[quantity])
        of_domains = [self._keep[domain] for domain in self._domains.get(quantity, ()) if domain in self._keep]
        if of_domains:
            return _us(max(of_domains))
        return _us(self._keep[_DEFAULT]) if _DEFAULT in self._keep else None

    def classes(self, quantities: Iterable[str]) -> dict[int, frozenset[str]]:
        """Put quantities that are kept equally long together, by how long [us]; those kept for ever are left out."""
        found: dict[int, set[str]] = {}
        for quantity in quantities:
            keep_us = self.keep_us(quantity)
            if keep_us is not None:
                found.setdefault(keep_us, set()).add(quantity)
        return {keep_us: frozenset(names) for keep_us, names in sorted(found.items())}


def _check(keep_days: Mapping[str, float], domains: set[str]) -> None:
    known = [_DEFAULT, *sorted(domains), *sorted(QUANTITIES)]
    for name in keep_days:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = (
                f"did you mean {similar[0]!r}?" if similar else f"name a quantity, {', '.join(known[1:5])} or default"
            )
            raise ConfigError(f"store.keep_days names {name!r}, which is no quantity and no domain", hint=hint)


def _us(days: float) -> int:
    return int(days * _DAY_US)


def retained(store: Store) -> dict[str, int]:
    """Return the time before which readings of a quantity were deleted, or may have been [UTC us]."""
    return {
        position.journal.removeprefix(RETAINED): position.number
        for position in store.positions()
        if position.journal.startswith(RETAINED)
    }


def note(store: Store, quantities: Iterable[str], before_us: int) -> None:
    """Note that readings older than a time are about to be deleted. For the thread that writes."""
    for quantity in sorted(quantities):
        store.append(Batch.empty(), Position(RETAINED + quantity, before_us))


def forget(store: Store, quantities: frozenset[str], before_us: int) -> None:
    """Delete the readings of some quantities that are older than a time, once `note` has noted it."""
    store.delete_before(before_us, Selector(quantities=quantities))
