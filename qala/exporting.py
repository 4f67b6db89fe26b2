"""The lake beside the store in the serving process: closed days go there by themselves, and whenever the owner asks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from devices.errors import ConfigError
from devices.reading import Batch
from qala.store import Store, StoreSettings
from qala.store.base import Upkeep
from qala.store.lake import Lake
from qala.store.lake_export import Exported, Exporter, closed_days, days_of, export_day, first_kept_day

__all__ = ["Exporting"]

_PAUSE_S = 60.0  # when nothing waits: days close once a day, late readings may wait a minute
_BREATH_S = 0.5  # between two days: whoever waits for the store comes first
_REBUILD_S = 5.0  # while a rebuild goes on
_RETRY_S = 60.0
_log = logging.getLogger(__name__)


class Exporting:
    """Exports on a thread of its own, where `store.lake` names a lake. One export goes on at a time.

    Nothing is exported before `may_export` allows it: during a rebuild the store has half of its days.
    """

    def __init__(
        self, store: Store, settings: StoreSettings, *, may_export: Callable[[], bool], now_us: Callable[[], int]
    ) -> None:
        self._store = store
        self._keep_days = min(settings.keep_days.values(), default=None)
        self._exporter = Exporter(store, Lake(settings.lake), keep_days=self._keep_days) if settings.lake else None
        self._url = settings.lake
        self._may_export = may_export
        self._now_us = now_us
        self._one_at_a_time = threading.Lock()

    @property
    def is_on(self) -> bool:
        return self._exporter is not None

    def on_applied(self, batch: Batch) -> None:
        """Note which days a batch touches."""
        if self._exporter is not None:
            self._exporter.touch(batch.time_us)

    def upkeep(self) -> Sequence[Upkeep]:
        """Say how far the export is."""
        return () if self._exporter is None else (self._exporter.upkeep(),)

    def export(self, url: str | None, first: int, last: int) -> Exported | None:
        """Export the first of the closed days `[first, last)` that has readings, None where none has.

        Raises ConfigError where no lake is named. Days that retention has begun to thin are left as they are;
        of the others the lake's files are read, and written anew where they are damaged.
        """
        lake = Lake(url or self._url or _no_lake())
        now_us = self._now_us()
        first, last = max(first, first_kept_day(now_us, self._keep_days)), min(last, closed_days(now_us))
        with self._one_at_a_time:
            day = next(days_of(self._store, first, last), None)
            found = None if day is None else export_day(self._store, lake, day, verify=True)
            upto = last if day is None else day + 1
            if first < upto:
                lake.cover(first, upto)
        return found

    def run(self, stop: threading.Event) -> None:
        """Keep the lake up to date until told to stop. What fails is shown, and tried again after a while."""
        while not stop.is_set():
            try:
                pause_s = self.step()
            except Exception:  # noqa: BLE001 - whatever it is: readings are written and read without a lake
                _log.exception("the export to the lake failed; it is tried again in %g s", _RETRY_S)
                pause_s = _RETRY_S
            stop.wait(pause_s)

    def step(self) -> float:
        """Export a day that is due, if any, and return how long to wait for the next [s]."""
        if self._exporter is None or not self._may_export():
            return _REBUILD_S
        with self._one_at_a_time:
            return _BREATH_S if self._exporter.step(self._now_us()) else _PAUSE_S


def _no_lake() -> str:
    raise ConfigError("no lake is named", hint="set store.lake in qala.toml, or name one with --to")
