"""The newest values as the store has them, remembered by the only one who writes values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from devices.value import Value
from qala.store import Store
from qala.store.base import Span, ValueSelector

__all__ = ["NONE", "Key", "Newest", "NewestValues", "key_of"]

VALUES_MAX = 20_000
"""Values that are remembered: about 15 MB."""

Key = tuple[str, str, str, int]


class Newest(NamedTuple):
    """What the store has of a value: its number, the revision, and the newest receipt that it knows."""

    number: Value | None = None
    revision: int = 0
    known_us: int = 0

    def is_same(self, value: Value) -> bool:
        """Tell whether a value is the same number as this one."""
        return self.number == _number(value)


NONE = Newest()


class NewestValues:
    """Asks the store for values that were not looked up or put lately, and remembers which of them were judged as they are.

    Nobody else may put values into the store meanwhile. For one thread at a time.
    """

    def __init__(self, store: Store, *, most: int = VALUES_MAX) -> None:
        self._store = store
        self._most = most
        self._held: dict[Key, Newest] = {}  # the one that was asked for last comes last
        self._judged: set[Key] = set()  # of those held

    def of(self, values: Sequence[Value]) -> Mapping[Key, Newest]:
        """Return what the store has of values, by key; NONE where it has nothing."""
        stored = _stored(self._store, [value for value in values if key_of(value) not in self._held])
        newest = {key: self._held.get(key) or stored.get(key, NONE) for key in map(key_of, values)}
        self._hold(newest)
        return newest

    def put(self, changed: Sequence[Value]) -> None:
        """Put values, each with its revision, into the store; where that fails, it is asked again."""
        if not changed:
            return
        self._forget(key_of(value) for value in changed)
        self._store.put_values(changed)
        self._hold({key_of(value): Newest(_number(value), value.revision, value.known_us) for value in changed})

    def unjudged(self, values: Iterable[Value]) -> list[Value]:
        """Return the values that nobody is known to have judged as they are."""
        return [value for value in values if key_of(value) not in self._judged]

    def judged(self, values: Iterable[Value]) -> None:
        """Note that values were judged as the store has them."""
        self._judged.update(key for key in map(key_of, values) if key in self._held)

    def _hold(self, newest: Mapping[Key, Newest]) -> None:
        for key, one in newest.items():
            self._held.pop(key, None)
            self._held[key] = one
        too_many = max(len(self._held) - self._most, 0)
        self._forget([key for key, _ in zip(self._held, range(too_many), strict=False)])

    def _forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._held.pop(key, None)
            self._judged.discard(key)


def _stored(store: Store, values: Sequence[Value]) -> dict[Key, Newest]:
    """Read the newest of values that the store has."""
    known: dict[Key, Newest] = {}
    for (name, window), some in groupby(sorted(values, key=_job), key=_job):
        group = list(some)
        select = ValueSelector(
            indicators=frozenset({name}),
            windows=frozenset({window}),
            zones=frozenset(value.zone for value in group),
        )
        starts = [value.start_us for value in group]
        rows = store.values(select, Span(min(starts), max(starts) + 1)).to_pylist()
        known.update(map(_read, rows))
    return known


def _job(value: Value) -> tuple[str, str]:
    return value.indicator, value.window


def key_of(value: Value) -> Key:
    """Return what tells a value from others: indicator, zone, window and start."""
    return value.indicator, value.zone, value.window, value.start_us


def _number(value: Value) -> Value:
    """Return a value without what does not make it another number."""
    return msgspec.structs.replace(value, known_us=0, revision=0)


def _read(row: dict[str, object]) -> tuple[Key, Newest]:
    value = msgspec.convert({**row, "detail": msgspec.json.decode(str(row["detail"]))}, Value)
    return key_of(value), Newest(_number(value), value.revision, value.known_us)
