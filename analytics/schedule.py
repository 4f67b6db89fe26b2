"""The scheduler: from marks of changed readings to due windows, and from due windows to values in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from analytics.due import due_windows, interval_us
from analytics.indicator import Indicator, Results
from analytics.inputs import Loaded, load, reach_us
from analytics.kept import beyond
from analytics.settings import AnalyticsSettings
from devices.device import Registry
from devices.kinds import kinds
from devices.reading import SeriesInfo
from devices.value import Value
from qala.state.dirty import Backlog, DirtyMarks, Due
from qala.store import Store
from qala.store.base import Span, ValueSelector

__all__ = ["Counters", "Put", "Scheduler", "values_of"]

_SECOND_US = 1_000_000


_Key = tuple[str, str, str, int]


class _Newest(NamedTuple):
    """What the store has of a value: its number, the revision, and the newest receipt that it knows."""

    number: Value | None = None
    revision: int = 0
    known_us: int = 0


_NONE = _Newest()


class Counters(msgspec.Struct):
    """What a scheduler has done since it was made."""

    rounds: int = 0
    windows: int = 0
    readings: int = 0
    values: int = 0
    let_go: int = 0  # windows that need readings which are kept no longer


class Put(msgspec.Struct, frozen=True):
    """What became of values that were computed elsewhere. `outdated`: the store's were made of newer readings, and stay."""

    written: int
    same: int
    outdated: int


class Scheduler:
    """Computes the windows that changed readings reach. One thread runs it; `backlog` and `counters` may be read by others.

    `registry` gives the registry as it is now. Once values are in the store, `judge` is called with all that were computed
    and then `on_values` with those that were new or changed. A crash in between computes and judges them again: a judge sees
    every change at least once, a listener may miss one. `kept_since` says from when on the readings of a quantity are all kept
    [UTC us], at a time; windows that need older ones are let go, and keep the values they have.
    """

    def __init__(
        self,
        store: Store,
        dirty: DirtyMarks,
        registry: Callable[[], Registry],
        indicators: Mapping[str, Indicator],
        settings: AnalyticsSettings,
        tz: ZoneInfo,
        *,
        judge: Callable[[Sequence[Value]], object] = lambda _values: None,
        on_values: Callable[[Sequence[Value]], None] = lambda _values: None,
        kept_since: Callable[[int], Mapping[str, int]] = lambda _now_us: {},
    ) -> None:
        self._store = store
        self._dirty = dirty
        self._registry = registry
        self._indicators = indicators
        self._settings = settings
        self._tz = tz
        self._judge = judge
        self._on_values = on_values
        self._kept_since = kept_since
        self._kinds = kinds()
        self.counters = Counters()

    def step(self, now_us: int) -> int:
        """Make one round and return how many windows it looked at: at most `windows_max`, newest first."""
        self.counters.rounds += 1
        self.gather(now_us)
        due = self._dirty.due(now_us, self._settings.windows_max)
        if not due:
            return 0
        registry, catalog = self._registry(), self._store.catalog()
        for chunk in self._chunks(self._kept(due, registry, now_us), registry):
            values = self._compute(chunk, registry, catalog)
            changed = _changed(values, self._newest(values))
            self._store.put_values(changed)
            self._judge(values)
            if changed:
                self._on_values(changed)
            self._dirty.clear(chunk)
            self.counters.windows += len(chunk)
            self.counters.values += len(changed)
        return len(due)

    def backlog(self, now_us: int) -> Backlog:
        """Say how many windows are due, for how long the oldest has waited [s], and how many rows of marks there are."""
        return self._dirty.backlog(now_us)

    def gather(self, now_us: int) -> None:
        """Turn the marks that the store has applied into due windows."""
        for journal in self._dirty.journals():
            applied = self._store.applied(journal)
            if applied is None:
                continue
            taken = self._dirty.take(applied)
            if len(taken):
                found = due_windows(
                    taken, self._store.catalog(), self._registry(), self._kinds, self._indicators, self._tz, now_us
                )
                self._dirty.add_due(found, now_us=now_us, taken=taken)

    def _kept(self, due: Sequence[Due], registry: Registry, now_us: int) -> list[Due]:
        """Return the windows whose readings are all kept; the others are let go."""
        gone = beyond(due, self._kept_since(now_us), self._indicators, registry, self._kinds)
        self._dirty.clear(gone)
        self.counters.let_go += len(gone)
        if not gone:
            return list(due)
        let_go = set(gone)
        return [window for window in due if window not in let_go]

    def _chunks(self, due: Sequence[Due], registry: Registry) -> Iterator[list[Due]]:
        """Put windows together that one read of bounded size serves: zones of one kind, near in time.

        Windows of indicators or zones that exist no longer are let go.
        """
        known: list[Due] = []
        gone: list[Due] = []
        for window in due:
            lives = window.indicator in self._indicators and window.zone in registry.zones
            (known if lives else gone).append(window)
        self._dirty.clear(gone)
        known.sort(key=lambda window: (self._indicators[window.indicator].zone_kind, window.start_us))
        for _, family in groupby(known, key=lambda window: self._indicators[window.indicator].zone_kind):
            yield from self._cut(list(family), registry)

    def _cut(self, family: Sequence[Due], registry: Registry) -> Iterator[list[Due]]:
        """Cut windows sorted by start where a read would become too large, or would bridge a long time for nothing."""
        span_max = self._settings.readings_max / self._rate(family, registry) * _SECOND_US
        gap_max = self._gap_us(family)
        chunk: list[Due] = []
        stop_us = 0
        for window in family:
            if chunk and (window.start_us - chunk[0].start_us > span_max or window.start_us - stop_us > gap_max):
                yield chunk
                chunk, stop_us = [], 0
            chunk.append(window)
            stop_us = max(stop_us, window.stop_us)
        if chunk:
            yield chunk

    def _rate(self, family: Iterable[Due], registry: Registry) -> float:
        """Estimate the readings a second that the windows' zones promise of what their indicators need."""
        zones = {window.zone for window in family}
        quantities = {q for name in {w.indicator for w in family} for q in self._indicators[name].quantities}
        devices = {placement.device for placement in registry.placements if zones.intersection(placement.zones)}
        intervals = (interval_us(registry.devices[device], self._kinds) for device in devices)
        return len(quantities) * sum(_SECOND_US / interval for interval in intervals) or 1.0

    def _gap_us(self, family: Iterable[Due]) -> int:
        """Return how far one window's readings reach [us]: windows farther apart than this share none."""
        needed = [self._indicators[name] for name in {window.indicator for window in family}]
        return max(sum(reach_us(indicator, name, 0)) for indicator in needed for name in indicator.quantities)

    def _compute(self, chunk: Sequence[Due], registry: Registry, catalog: Mapping[int, SeriesInfo]) -> list[Value]:
        loaded = load(self._store, catalog, registry, self._kinds, self._indicators, chunk)
        self.counters.readings += loaded.rows
        return values_of(loaded, self._indicators, chunk)

    def put(self, values: Sequence[Value]) -> Put:
        """Take values that were computed elsewhere of what was known then; judge and tell of those that are another number.

        Not beside `step`: whoever calls both sees to that.
        """
        newest = self._newest(values)
        other = _changed(values, newest)
        changed = [value for value in other if value.known_us >= newest.get(_key(value), _NONE).known_us]
        self._store.put_values(changed)
        if changed:
            self._judge(changed)
            self._on_values(changed)
        return Put(len(changed), len(values) - len(other), len(other) - len(changed))

    def _newest(self, values: Sequence[Value]) -> Mapping[_Key, _Newest]:
        """Return what the store has of values, by key."""
        known: dict[_Key, _Newest] = {}
        for (name, window), some in groupby(values, key=lambda value: (value.indicator, value.window)):
            group = list(some)
            select = ValueSelector(
                indicators=frozenset({name}),
                windows=frozenset({window}),
                zones=frozenset(value.zone for value in group),
            )
            starts = [value.start_us for value in group]
            rows = self._store.values(select, Span(min(starts), max(starts) + 1)).to_pylist()
            known.update((_key(one.number), one) for one in map(_stored, rows) if one.number)
        return known


def values_of(loaded: Loaded, indicators: Mapping[str, Indicator], due: Sequence[Due]) -> list[Value]:
    """Compute due windows of what was loaded for them, wherever it was read."""
    by_job = sorted(due, key=_job)
    return [
        value
        for (name, window), some in groupby(by_job, key=_job)
        for value in _of_job(loaded, indicators[name], window, list(some))
    ]


def _of_job(loaded: Loaded, indicator: Indicator, window: str, due: Sequence[Due]) -> list[Value]:
    """Compute an indicator over windows of one width; of the grid of zones and windows, keep what is due."""
    edges = np.array(sorted({(one.start_us, one.stop_us) for one in due}), np.int64)
    results = indicator.compute(loaded.inputs(indicator, edges[:, 0], edges[:, 1]))
    wanted = {(one.zone, one.start_us) for one in due}
    return [
        value for value in _valued(indicator, window, loaded, edges, results) if (value.zone, value.start_us) in wanted
    ]


def _changed(values: Sequence[Value], newest: Mapping[_Key, _Newest]) -> list[Value]:
    """Return the values whose number is not the newest in the store, each with the revision that it becomes there."""
    held = (newest.get(_key(value), _NONE) for value in values)
    return [
        msgspec.structs.replace(value, revision=known.revision + 1)
        for value, known in zip(values, held, strict=True)
        if known.number != _number(value)
    ]


def _job(window: Due) -> tuple[str, str]:
    return window.indicator, window.window


def _valued(
    indicator: Indicator,
    window: str,
    loaded: Loaded,
    edges: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    results: Results,
) -> Iterator[Value]:
    grace_us = indicator.grace_s * _SECOND_US
    columns = zip(
        results.zone.tolist(),
        edges[results.window].tolist(),
        results.value.tolist(),
        results.n_good.tolist(),
        results.n_expected.tolist(),
        results.status,
        results.detail,
        results.known_us.tolist(),
        strict=True,
    )
    for zone, (start_us, stop_us), value, n_good, n_expected, status, detail, known_us in columns:
        yield Value(
            indicator=indicator.name,
            zone=loaded.zones[zone].id,
            window=window,
            start_us=start_us,
            stop_us=stop_us,
            value=value if status == "ok" else None,
            unit=indicator.unit,
            n_good=n_good,
            n_expected=n_expected,
            method=indicator.method,
            method_version=indicator.method_version,
            final_us=stop_us + grace_us,
            status=status,
            detail=dict(detail),
            known_us=known_us,
        )


def _key(value: Value) -> _Key:
    return value.indicator, value.zone, value.window, value.start_us


def _number(value: Value) -> Value:
    """Return a value without what does not make it another number."""
    return msgspec.structs.replace(value, known_us=0, revision=0)


def _stored(row: dict[str, object]) -> _Newest:
    value = msgspec.convert({**row, "detail": msgspec.json.decode(str(row["detail"]))}, Value)
    return _Newest(_number(value), value.revision, value.known_us)
