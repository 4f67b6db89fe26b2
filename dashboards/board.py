"""The newest values of every indicator, in memory: what tiles, maps and live pages ask for all the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import msgspec

from analytics.indicator import Indicator
from analytics.window import WIDTHS_US
from devices.value import Value
from qala.store.base import Span, Store, ValueSelector

__all__ = ["KEEP", "Board", "values_of_table"]

KEEP = 48  # newest windows that are kept of each indicator and window width

_Windows = dict[int, dict[str, Value]]  # start_us -> zone -> value


class Board:
    """Values of the newest windows. Threads may write and read at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[tuple[str, str], _Windows] = {}
        self.revision = 0  # rises with every change

    def load(self, store: Store, indicators: Mapping[str, Indicator], now_us: int) -> None:
        """Take over the newest windows from the store."""
        for indicator in indicators.values():
            for window in indicator.windows:
                select = ValueSelector(indicators=frozenset({indicator.name}), windows=frozenset({window}))
                back_us = (KEEP + 2) * WIDTHS_US[window]
                self.put(values_of_table(store.values(select, Span(now_us - back_us, now_us)).to_pylist()))

    def put(self, values: Sequence[Value]) -> None:
        """Take over values; of one zone and window the last given stays."""
        with self._lock:
            for value in values:
                windows = self._held.setdefault((value.indicator, value.window), {})
                windows.setdefault(value.start_us, {})[value.zone] = value
                if len(windows) > KEEP:
                    del windows[min(windows)]
            self.revision += 1

    def windows(self, indicator: str, window: str) -> list[tuple[int, list[Value]]]:
        """Return the values of each window that is held, oldest start first."""
        with self._lock:
            held = self._held.get((indicator, window), {})
            return [(start_us, list(held[start_us].values())) for start_us in sorted(held)]

    def newest(self, indicator: str, window: str) -> list[Value]:
        """Return the newest value of each zone, by zone."""
        newest = {value.zone: value for _, values in self.windows(indicator, window) for value in values}
        return [newest[zone] for zone in sorted(newest)]


def values_of_table(rows: Iterable[dict[str, Any]]) -> list[Value]:
    """Make values of the rows of a store's table."""
    return [Value(**{**row, "detail": msgspec.json.decode(row["detail"])}) for row in rows]
