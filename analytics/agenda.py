"""What the scheduler remembers of windows: which of them wait in the state already, and when each was computed last. Pure.

It only saves work. After a restart nothing is remembered: windows are noted once more, and amended sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from qala.state.dirty import Due

__all__ = ["Agenda"]

WINDOWS_MAX = 200_000

_Key = tuple[str, str, str, int]


class Agenda:
    """Lets a window be computed at most once in `every_us`, and each be noted once until it is computed. For one thread.

    A window that was not computed lately is due at once, so that a lone late reading shows as soon as it is stored; a trickle
    of them is waited for. At most `most` windows of each sort are remembered.
    """

    def __init__(self, every_us: int, *, most: int = WINDOWS_MAX) -> None:
        self._every_us = every_us
        self._most = most
        self._waits: dict[_Key, int] = {}  # from when on it may be computed, of those that the state has
        self._computed: dict[_Key, int] = {}  # when that was, the longest ago first

    def news(self, found: Iterable[Due], now_us: int, *, at_once: bool = False) -> list[Due]:
        """Return what the state does not have yet, or only for later, with the time from when on it may be computed.

        `at_once` puts nothing off, however lately it was computed.
        """
        self._forget(now_us)
        news = []
        for window in found:
            key = _key(window)
            ready_us = max(window.ready_us or window.stop_us, now_us)
            computed_us = None if at_once else self._computed.get(key)
            if computed_us is not None:  # a clock that was set back puts nothing off for longer
                ready_us = max(ready_us, min(computed_us, now_us) + self._every_us)
            waits_until = self._waits.get(key)
            if waits_until is None or waits_until > ready_us:
                news.append(msgspec.structs.replace(window, ready_us=ready_us))
        return news

    def noted(self, windows: Sequence[Due]) -> None:
        """Remember that the state has windows: call it once they are written."""
        if len(self._waits) + len(windows) > self._most:
            self._waits.clear()
        self._waits.update((_key(window), window.ready_us) for window in windows[: self._most])

    def drop(self, windows: Iterable[Due]) -> None:
        """Forget that windows wait: call it before they are cleared."""
        for window in windows:
            self._waits.pop(_key(window), None)

    def computed(self, windows: Iterable[Due], now_us: int) -> None:
        """Remember when windows were computed."""
        for window in windows:
            self._computed.pop(_key(window), None)
            self._computed[_key(window)] = now_us

    def _forget(self, now_us: int) -> None:
        """Forget what was computed long enough ago, and of the rest what is too much."""
        long_ago: list[_Key] = []
        for key, computed_us in self._computed.items():
            if computed_us + self._every_us > now_us and len(self._computed) - len(long_ago) <= self._most:
                break
            long_ago.append(key)
        for key in long_ago:
            del self._computed[key]


def _key(window: Due) -> _Key:
    return window.indicator, window.zone, window.window, window.start_us
