"""The scheduler: from marks of changed readings to due windows, and from due windows to values in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from analytics.agenda import Agenda
from analytics.due import Stays, due_windows, interval_us
from analytics.indicator import Indicator, Results
from analytics.inputs import Loaded, load, reach_us
from analytics.kept import beyond
from analytics.newest import Key, Newest, NewestValues, key_of
from analytics.settings import AnalyticsSettings
from devices.device import Registry
from devices.kinds import kinds
from devices.reading import SeriesInfo
from devices.value import Value
from qala.state.dirty import Backlog, DirtyMarks, Due
from qala.store import Store

__all__ = ["Counters", "Put", "Scheduler", "values_of"]

_SECOND_US = 1_000_000


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

    `registry` gives the registry as it is now. Once values are in the store, `judge` is called with those of the computed that it
    has not judged as they are since the start, and then `on_values` with those that were new or changed. A crash in between
    computes and judges them again: a judge sees every change at least once, a listener may miss one. `kept_since` says from
    when on the readings of a quantity are all kept [UTC us], at a time; windows that need older ones are let go, and keep
    the values they have. Nobody else may put values into the store.
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
        self._newest = NewestValues(store)
        self._stays = Stays()
        self._agenda = Agenda(round(settings.amend_every_s * _SECOND_US))
        self.counters = Counters()

    def step(self, now_us: int, *, at_once: bool = False) -> int:
        """Make one round and return how many windows it looked at: at most `windows_max`, newest first.

        What was computed less than `amend_every_s` ago waits that long, unless all is to be done `at_once`.
        """
        self.counters.rounds += 1
        self.gather(now_us, at_once=at_once)
        due = self._dirty.due(now_us, self._settings.windows_max)
        if not due:
            return 0
        registry, catalog = self._registry(), self._store.catalog()
        for chunk in self._chunks(self._kept(due, registry, now_us), registry):
            values = self._compute(chunk, registry, catalog)
            changed = _changed(values, self._newest.of(values))
            self._newest.put(changed)
            self._judge_once(values)
            if changed:
                self._on_values(changed)
            self._clear(chunk)
            self._agenda.computed(chunk, now_us)
            self.counters.windows += len(chunk)
            self.counters.values += len(changed)
        return len(due)

    def backlog(self, now_us: int) -> Backlog:
        """Say how many windows are due, for how long the oldest has waited [s], and how many rows of marks there are."""
        return self._dirty.backlog(now_us)

    def gather(self, now_us: int, *, at_once: bool = False) -> None:
        """Turn the marks that the store has applied into due windows."""
        for journal in self._dirty.journals():
            applied = self._store.applied(journal)
            if applied is None:
                continue
            taken = self._dirty.take(applied)
            if len(taken):
                found = due_windows(
                    taken,
                    self._store.catalog(),
                    self._registry(),
                    self._kinds,
                    self._indicators,
                    self._tz,
                    now_us,
                    self._stays,
                )
                news = self._agenda.news(found, now_us, at_once=at_once)
                self._dirty.add_due(news, now_us=now_us, taken=taken)
                self._agenda.noted(news)

    def _clear(self, windows: Sequence[Due]) -> None:
        self._agenda.drop(windows)
        self._dirty.clear(windows)

    def _judge_once(self, values: Sequence[Value]) -> None:
        """Have those of the values in the store judged that are not known to have been."""
        unjudged = self._newest.unjudged(values)
        if unjudged:
            self._judge(unjudged)
            self._newest.judged(unjudged)

    def _kept(self, due: Sequence[Due], registry: Registry, now_us: int) -> list[Due]:
        """Return the windows whose readings are all kept; the others are let go."""
        gone = beyond(due, self._kept_since(now_us), self._indicators, registry, self._kinds)
        self._clear(gone)
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
        self._clear(gone)
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
        newest = self._newest.of(values)
        other = _changed(values, newest)
        changed = [value for value in other if value.known_us >= newest[key_of(value)].known_us]
        self._newest.put(changed)
        if changed:
            self._judge_once(changed)
            self._on_values(changed)
        return Put(len(changed), len(values) - len(other), len(other) - len(changed))


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


def _changed(values: Sequence[Value], newest: Mapping[Key, Newest]) -> list[Value]:
    """Return the values whose number is not the newest in the store, each with the revision that it becomes there."""
    held = (newest[key_of(value)] for value in values)
    return [
        msgspec.structs.replace(value, revision=known.revision + 1)
        for value, known in zip(values, held, strict=True)
        if not known.is_same(value)
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
