"""The store's upkeep in the serving process: lets the engine tend itself, and forgets readings that are kept no longer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from analytics.kept import needed_us
from devices.errors import ConfigError, QalaError
from devices.kinds import kinds
from qala.store import Store, StoreSettings
from qala.store.base import Upkeep
from qala.store.retention import Retention, forget, note, retained

__all__ = ["Counters", "StoreUpkeep", "retention_of"]

_HOUR_S = 3600.0
_PAUSE_S = 5.0  # when nothing waits
_BREATH_S = 0.02  # between two pieces: whoever waits for the store comes first
_LOOK_S = 1.0
_FLOOD = 5_000  # messages a second from which on the upkeep stands back
_FLOOD_S = 60.0  # for so long: a flood that stays needs the upkeep too
_RETRY_S = (1.0, 60.0)
_DAY_US = 86_400_000_000
_log = logging.getLogger(__name__)

Now = Callable[[], int]


class Counters(msgspec.Struct):
    """What was done since the start."""

    pieces: int = 0  # of the engine's own upkeep
    rounds: int = 0  # of forgetting
    failures: int = 0


def retention_of(settings: StoreSettings) -> Retention:
    """Make the retention that the settings describe.

    Raises ConfigError where a name is unknown, or where readings would be gone before the indicators made of them are final.
    """
    from analytics.indicators import indicators

    retention = Retention(settings.keep_days, kinds())
    for quantity, (needed, indicator) in needed_us(indicators(), kinds()).items():
        keep_us = retention.keep_us(quantity)
        if keep_us is not None and keep_us < needed:
            days = -(-needed // _DAY_US)
            raise ConfigError(
                f"store.keep_days keeps {quantity} for {keep_us / _DAY_US:g} days, and {indicator} needs it for longer",
                hint=f"keep it for at least {days} days",
            )
    return retention


class StoreUpkeep:
    """Runs the upkeep on a thread of its own, in small pieces and never while messages pour in.

    `messages` counts those projected so far. Nothing is forgotten before `may_forget` allows it: during a rebuild all
    readings that there are count. `writing` calls something on the thread that writes. `others` says how work beside it stands.
    """

    def __init__(
        self,
        store: Store,
        retention: Retention,
        *,
        messages: Callable[[], int],
        may_forget: Callable[[], bool],
        writing: Callable[[Callable[[], None]], None],
        now_us: Now,
        others: Callable[[], Sequence[Upkeep]] = tuple,
    ) -> None:
        self.counters = Counters()
        self.error = ""
        self.hint = ""
        self._store = store
        self._retention = retention
        self._messages = messages
        self._may_forget = may_forget
        self._writing = writing
        self._now_us = now_us
        self._others = others
        self._retained = retained(store)
        self._known: tuple[int, dict[int, frozenset[str]]] = (0, {})
        self._forgot_at = -math.inf
        self._forgetting = Upkeep("forget", 0, 0, "quantities")

    # ---- what others ask

    def kept_since(self, now_us: int) -> Mapping[str, int]:
        """Return from when on all readings of a quantity are kept [UTC us], for those that are not kept for ever.

        During a rebuild, only what this store has deleted is missing.
        """
        known = self._retained
        if not self._may_forget():
            return known
        classes = self._classes().items()
        wanted = {name: now_us - keep_us for keep_us, names in classes for name in names}
        return {name: max(known.get(name, 0), wanted.get(name, 0)) for name in known.keys() | wanted.keys()}

    def work(self) -> list[Upkeep]:
        """Say how each piece of upkeep stands; nothing of a store that does not answer."""
        forgetting = [self._forgetting] if self._forgetting.total else []
        try:
            return [*self._store.upkeep(), *forgetting, *self._others()]
        except QalaError:
            return forgetting

    def part(self) -> dict[str, Any]:
        """Say for the store's part of the health how its upkeep is doing."""
        work = self.work()
        failed = next((item for item in work if item.error), None)
        told = self.error or (f"{failed.name}: {failed.error}" if failed else "")
        return {
            "upkeep": [msgspec.structs.asdict(item) for item in work],
            "upkeep_error": told or None,
            "hint": (self.hint or "see the log of the server; it tries again by itself") if told else None,
        }

    # ---- the thread

    def run(self, stop: threading.Event) -> None:
        """Tend the store until told to stop. What fails is shown, and tried again after a while."""
        wait_s = _RETRY_S[0]
        while not stop.is_set():
            try:
                more = self.step()
            except Exception as error:  # noqa: BLE001 - whatever it is: readings are written and read without it
                self._fail(error)
                stop.wait(wait_s)
                wait_s = min(wait_s * 2, _RETRY_S[1])
                continue
            self.error, self.hint, wait_s = "", "", _RETRY_S[0]
            self._stand_back(stop, _BREATH_S if more else _PAUSE_S)

    def step(self) -> bool:
        """Do one piece of work; tell whether more waits."""
        if time.monotonic() - self._forgot_at >= _HOUR_S and self._may_forget():
            self.forget(self._now_us())
            self._forgot_at = time.monotonic()
        more = self._store.tend(self._now_us())
        self.counters.pieces += 1
        return more

    def forget(self, now_us: int) -> None:
        """Delete what is older than it is kept: first noted, so that no value is made of the rest."""
        classes = self._classes()
        total, done = sum(map(len, classes.values())), 0
        for keep_us, names in classes.items():
            before_us = now_us - keep_us
            self._forgetting = Upkeep("forget", done, total, "quantities")
            self._note(names, before_us)
            forget(self._store, names, before_us)
            done += len(names)
        self._forgetting = Upkeep("forget", done, total, "quantities")
        self.counters.rounds += 1

    def _classes(self) -> dict[int, frozenset[str]]:
        """Put the store's quantities that are kept equally long together, by how long [us]."""
        catalog = self._store.catalog()
        if len(catalog) != self._known[0]:  # series are never taken away
            quantities = {info.quantity for info in catalog.values()}
            self._known = len(catalog), self._retention.classes(quantities)
        return self._known[1]

    def _note(self, names: frozenset[str], before_us: int) -> None:
        self._writing(lambda: note(self._store, names, before_us))
        self._retained = retained(self._store)

    def _stand_back(self, stop: threading.Event, pause_s: float) -> None:
        """Pause, and for as long as messages pour in, but not for ever."""
        until = time.monotonic() + _FLOOD_S
        before, began = self._messages(), time.monotonic()
        stop.wait(pause_s)
        while self._messages() - before > _FLOOD * max(time.monotonic() - began, _LOOK_S):
            if stop.is_set() or time.monotonic() > until:
                return
            before, began = self._messages(), time.monotonic()
            stop.wait(_LOOK_S)

    def _fail(self, error: Exception) -> None:
        self.counters.failures += 1
        if str(error) != self.error:
            _log.error(
                "the store's upkeep failed, and is tried again: %s", error, exc_info=not isinstance(error, QalaError)
            )
        self.error = error.message if isinstance(error, QalaError) else f"{type(error).__name__}: {error}"
        self.hint = error.hint if isinstance(error, QalaError) else ""
