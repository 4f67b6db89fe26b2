"""A rebuild pages nobody: while the store is behind what was judged before, or behind the journal, nothing is judged.

A store that was thrown away, or restored from an older copy, comes back value by value. Half of an episode's values would
withdraw it, the other half raise it again. So judging waits until the store is as far as it had been and everything due is
computed, and then folds all values at once: the episodes are the same as before, and there is nothing to tell. The same
holds for what waits in the journal after an outage: nobody is told of numbers that the next thousand messages correct.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Engine

from analytics.judge import Judge
from devices.reading import Position
from devices.value import Value
from qala.state.judged import Judged, judged, set_judged

__all__ = ["PatientJudge"]

logger = logging.getLogger(__name__)

NOTE_EVERY_US = 10_000_000
BACKLOG = 10_000
"""Messages that wait at the start from which on judging waits for them."""


class PatientJudge:
    """Judges values as they come, except during a rebuild. Runs on the scheduler's thread. `zones` gives those there are."""

    def __init__(self, judge: Judge, engine: Engine, zones: Callable[[], Iterable[str]]) -> None:
        self._judge = judge
        self._engine = engine
        self._zones = zones
        self._known: dict[str, Judged] = {}
        self._noted_us = 0
        self._waits = False

    def begin(self, journal: str, applied: Position | None, waiting: int) -> None:
        """Compare what the store has of a journal with what was judged, once; call it before its values are judged.

        `waiting` messages of the journal are not applied yet. A journal that nobody wrote yet has no id.
        """
        if not journal or journal in self._known:
            return
        known = judged(self._engine, journal)
        number = applied.number if applied else 0
        if (number < known.number or waiting > BACKLOG) and not known.rebuilding:
            known = Judged(max(known.number, number + waiting), rebuilding=True)
            set_judged(self._engine, journal, known)
        if known.rebuilding:
            logger.warning("the store catches up (message %d of %d); alerts wait for it", number, known.number)
        self._known[journal] = known
        self._waits = known.rebuilding

    def is_at_rest(self, journal: str) -> bool:
        """Tell whether a journal was looked at, and no rebuild is under way."""
        return journal in self._known and not self._waits

    def judge(self, values: Sequence[Value], now_us: int) -> None:
        """Judge values, unless a rebuild is under way."""
        if not self._waits:
            self._judge.judge(values, now_us)

    def rest(self, applied: Position | None, now_us: int) -> None:
        """Take note that everything applied is computed: end a rebuild that came far enough, and remember how far it is."""
        if applied is None or applied.journal not in self._known:
            return
        known = self._known[applied.journal]
        if self._waits and applied.number >= known.number:
            self._judge.judge_all(list(self._zones()), now_us)
            self._waits = False
            logger.warning("the store has caught up; alerts are judged again")
            self._note(applied, now_us)
        elif not self._waits and applied.number > known.number and now_us - self._noted_us >= NOTE_EVERY_US:
            self._note(applied, now_us)

    def watch_silence(self, now_us: int) -> None:
        """Look for silent zones, unless a rebuild is under way."""
        if not self._waits:
            self._judge.watch_silence(now_us)

    def _note(self, applied: Position, now_us: int) -> None:
        self._known[applied.journal] = Judged(applied.number)
        self._noted_us = now_us
        set_judged(self._engine, applied.journal, self._known[applied.journal])
