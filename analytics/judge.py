"""Judging: folds changed values into episodes, writes what changed with its notices, and watches for silence.

The only place where rules meet the store and the state. Everything it decides, `fold` and `reconcile` decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine

from analytics.alerts import Episode, Point, Rule, fold, look_back_us, no_data_since
from analytics.notices import GIVE_UP_AFTER_US
from analytics.past import points_of
from analytics.reconcile import Change, Known, NoticeKind, episode_id, reconcile
from devices.value import Value
from qala.state.episodes import EpisodeRow, add_notice, episodes, overlapping, put_episode, was_told
from qala.state.outbox import add_deliveries
from qala.store.base import Span, Store

__all__ = ["Judge"]

logger = logging.getLogger(__name__)

FOREVER_US = 2**62
EPISODES_MAX = 100_000


class Judge:
    """Keeps the episodes in the state equal to what the rules say of the values in the store.

    Runs on the scheduler's thread. `judge` may be called again with the same values, as after a crash: then nothing
    changes. `on_episodes` is told of every episode written.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        rules: Mapping[str, Rule],
        *,
        channels: Sequence[str],
        on_episodes: Callable[[Sequence[EpisodeRow]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._rules = rules
        self._channels = list(channels)
        self._on_episodes = on_episodes
        self._last_stop: dict[tuple[str, str], int] = {}  # by (rule, zone): end of the newest window with a number
        self._silent: dict[tuple[str, str], EpisodeRow] = {}

    def start(self, now_us: int) -> None:
        """Learn when each zone last had a value, as far back as silence is worth an episode, and which are silent.

        Episodes of rules that are no more end here, without a word: nobody will judge them again.
        """
        for row in episodes(self._engine, states=["firing"], limit=EPISODES_MAX):
            if row.rule not in self._rules:
                with self._engine.begin() as connection:
                    put_episode(
                        connection, msgspec.structs.replace(row, state="ended", end_us=now_us, updated_us=now_us)
                    )
            elif row.kind == "no_data":
                self._silent[row.rule, row.zone] = row
                self._last_stop[row.rule, row.zone] = row.start_us
        for rule in self._rules.values():
            reach_us = 2 * rule.no_data.after_us + rule.max_age_us
            for zone, points in points_of(self._store, rule, None, Span(now_us - reach_us, now_us)).items():
                self._note_last(rule, zone, points)

    def judge(self, values: Sequence[Value], now_us: int) -> list[EpisodeRow]:
        """Fold again what depends on these values, and return the episodes that changed."""
        written: list[EpisodeRow] = []
        for rule in self._rules.values():
            since: dict[str, int] = {}
            for value in values:
                if value.indicator == rule.indicator and value.window == rule.window:
                    since[value.zone] = min(value.start_us, since.get(value.zone, FOREVER_US))
            if since:
                written += self._fold_zones(rule, since, now_us)
        if written:
            self._on_episodes(written)
        return written

    def judge_all(self, zones: Iterable[str], now_us: int) -> list[EpisodeRow]:
        """Fold every value that the store has of some zones, one zone after the other, and return the episodes that changed."""
        written: list[EpisodeRow] = []
        for rule in self._rules.values():
            for zone in zones:
                points = points_of(self._store, rule, frozenset([zone]), Span(-FOREVER_US, now_us)).get(zone)
                if points:
                    written += self._fold_zones(rule, {zone: points[0].start_us}, now_us)
        if written:
            self._on_episodes(written)
        return written

    def watch_silence(self, now_us: int) -> list[EpisodeRow]:
        """Raise an episode for each zone that has been silent too long, and end those whose zone speaks again."""
        written: list[EpisodeRow] = []
        for key, last_us in self._last_stop.items():
            rule = self._rules[key[0]]
            since_us = no_data_since(rule, last_us, now_us)
            if since_us is not None and key not in self._silent:
                written.append(self._fall_silent(rule, key[1], since_us, now_us))
            elif since_us is None and key in self._silent:
                written.append(self._speak_again(rule, self._silent.pop(key), last_us, now_us))
        if written:
            self._on_episodes(written)
        return written

    def _fold_zones(self, rule: Rule, since: Mapping[str, int], now_us: int) -> list[EpisodeRow]:
        if not since:
            return []
        with self._engine.begin() as connection:
            known = {zone: self._known(connection, rule, zone, start_us) for zone, start_us in since.items()}
            starts = {zone: _fold_from(rule, since[zone], known[zone]) for zone in since}
            points = points_of(self._store, rule, frozenset(since), Span(min(starts.values()), now_us))
            written: list[EpisodeRow] = []
            for zone, start_us in starts.items():
                of_zone = [point for point in points.get(zone, []) if point.start_us >= start_us]
                self._note_last(rule, zone, of_zone)
                folded = fold(rule, of_zone)
                written += [
                    self._write(connection, rule, zone, change, known[zone], now_us)
                    for change in reconcile(known[zone], folded, rule=rule.id, zone=zone)
                ]
        return written

    def _known(self, connection: Connection, rule: Rule, zone: str, changed_us: int) -> list[Known]:
        rows = overlapping(connection, rule.id, zone, "value", changed_us - look_back_us(rule))
        return [Known(row.id, _episode(row)) for row in rows]

    def _note_last(self, rule: Rule, zone: str, points: Iterable[Point]) -> None:
        stops = [point.stop_us for point in points if point.value is not None]
        if stops:
            key = (rule.id, zone)
            self._last_stop[key] = max(*stops, self._last_stop.get(key, 0))

    def _write(
        self, connection: Connection, rule: Rule, zone: str, change: Change, known: Sequence[Known], now_us: int
    ) -> EpisodeRow:
        episode = change.episode or next(k.episode for k in known if k.id == change.id)
        row = put_episode(connection, _row(rule, zone, change, episode, now_us))
        if change.notice is not None:
            self._tell(connection, rule, row, change.notice, change.event_us, now_us)
        return row

    def _fall_silent(self, rule: Rule, zone: str, since_us: int, now_us: int) -> EpisodeRow:
        with self._engine.begin() as connection:
            row = put_episode(connection, _silent_row(rule, zone, since_us, now_us))
            self._tell(connection, rule, row, NoticeKind.RAISED, since_us + rule.no_data.after_us, now_us)
        self._silent[rule.id, zone] = row
        return row

    def _speak_again(self, rule: Rule, silent: EpisodeRow, last_us: int, now_us: int) -> EpisodeRow:
        ended = msgspec.structs.replace(silent, state="ended", end_us=last_us, updated_us=now_us)
        with self._engine.begin() as connection:
            row = put_episode(connection, ended)
            self._tell(connection, rule, row, NoticeKind.RESOLVED, last_us, now_us)
        return row

    def _tell(
        self, connection: Connection, rule: Rule, row: EpisodeRow, kind: NoticeKind, event_us: int, now_us: int
    ) -> None:
        """Write a notice, and queue it for every channel unless it is old news, or about an episode nobody heard of."""
        unheard = kind is not NoticeKind.RAISED and not was_told(connection, row.id)
        suppressed = unheard or now_us - event_us > rule.max_age_us
        body = _body(rule, row, kind)
        key = add_notice(
            connection,
            episode=row.id,
            kind=kind.value,
            time_us=event_us,
            body=body,
            recorded_us=now_us,
            suppressed=suppressed,
        )
        if not suppressed:
            sent = msgspec.json.encode({**body, "key": key}).decode()
            add_deliveries(connection, key, sent, self._channels, now_us=now_us, until_us=now_us + GIVE_UP_AFTER_US)


def _fold_from(rule: Rule, changed_us: int, known: Sequence[Known]) -> int:
    """Return where all was normal: the start of the first episode still going on at the look-back, or the look-back."""
    return min([changed_us - look_back_us(rule), *(k.episode.start_us for k in known)])


def _episode(row: EpisodeRow) -> Episode:
    return Episode(row.start_us, row.fired_us or 0, row.end_us, row.value or 0.0, row.last or 0.0)


def _row(rule: Rule, zone: str, change: Change, episode: Episode, now_us: int) -> EpisodeRow:
    going_on = "firing" if episode.end_us is None else "ended"
    return EpisodeRow(
        id=change.id,
        rule=rule.id,
        zone=zone,
        kind="value",
        severity=rule.severity.value,
        state="withdrawn" if change.episode is None else going_on,
        start_us=episode.start_us,
        end_us=episode.end_us,
        indicator=rule.indicator,
        window=rule.window,
        value=episode.worst,
        threshold=rule.condition.threshold,
        ack_actor=None,
        ack_comment=None,
        ack_us=None,
        updated_us=now_us,
        fired_us=episode.fired_us,
        last=episode.last,
    )


def _silent_row(rule: Rule, zone: str, since_us: int, now_us: int) -> EpisodeRow:
    return EpisodeRow(
        id=episode_id(rule.id, zone, "no_data", since_us),
        rule=rule.id,
        zone=zone,
        kind="no_data",
        severity=rule.no_data.severity.value,
        state="firing",
        start_us=since_us,
        end_us=None,
        indicator=rule.indicator,
        window=rule.window,
        value=None,
        threshold=None,
        ack_actor=None,
        ack_comment=None,
        ack_us=None,
        updated_us=now_us,
        fired_us=now_us,
    )


def _body(rule: Rule, row: EpisodeRow, kind: NoticeKind) -> dict[str, Any]:
    return {
        "kind": kind.value,
        "episode": row.id,
        "rule": rule.id,
        "title": rule.title if row.kind == "value" else f"{rule.title}: no data",
        "zone": row.zone,
        "severity": row.severity,
        "start": _iso(row.start_us),
        "end": None if row.end_us is None else _iso(row.end_us),
        "value": row.value,
        "threshold": row.threshold,
        "unit": rule.unit,
        "owner": rule.owner,
        "runbook": rule.runbook,
    }


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
