"""Flags as indicators see them: those stored with the readings and those that their neighbours show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from devices.quality import Limits, context_s, derive_flags, limits_of
from devices.quantity import QUANTITIES
from devices.reading import BoolArray, SeriesInfo, UInt8Array
from qala.store.base import READINGS, Selector, Span, Store

__all__ = ["derived_flags", "read_rows"]

_SECOND_US = 1_000_000
_NEIGHBOURS_MAX = 2_000_000


def read_rows(store: Store, series: Sequence[int], span: Span, limit: int) -> pa.Table:
    """Read at most `limit` rows into one table (READINGS)."""
    if not series or limit <= 0 or span.start_us >= span.stop_us:
        return READINGS.empty_table()
    batches = store.read(Selector(series=frozenset(series)), span, limit=limit)
    return pa.Table.from_batches(list(batches), READINGS)


def derived_flags(store: Store, page: pa.Table, span: Span, infos: Mapping[int, SeriesInfo]) -> UInt8Array:
    """Return the flag of each row of a page, uint8[n], judged among the readings around it.

    The page holds consecutive rows of the span by (series, time), so that only its first series may begin, and only its
    last one end, inside the span: their neighbours and those on either side of the span are read as well.
    """
    limits = {id_: _limits(infos[id_]) for id_ in np.unique(page["series"].to_numpy()).tolist()}
    back_us, ahead_us = (
        max((context_s(one)[side] for one in limits.values()), default=0) * _SECOND_US for side in (0, 1)
    )
    around = [*_before(store, page, span, back_us), *_after(store, page, span, ahead_us)]
    rows = pa.concat_tables([page, *around]) if around else page
    series, time_us = rows["series"].to_numpy(), rows["time_us"].to_numpy()
    value, flag = rows["value"].to_numpy(), rows["flag"].to_numpy().copy()
    order = np.lexsort((time_us, series))
    for checks in set(limits.values()):
        ids = [id_ for id_, one in limits.items() if one == checks]
        mine = order[_among(series[order], ids)]
        flag[mine] = derive_flags(series[mine], time_us[mine], value[mine], flag[mine], checks)
    judged: UInt8Array = flag[: page.num_rows]
    return judged


def _limits(info: SeriesInfo) -> Limits:
    quantity = QUANTITIES.get(info.quantity)
    return limits_of(quantity) if quantity else Limits()


def _among(series: np.ndarray[tuple[int], np.dtype[np.int32]], ids: Sequence[int]) -> BoolArray:
    return np.isin(series, ids)


def _before(store: Store, page: pa.Table, span: Span, back_us: int) -> list[pa.Table]:
    """Read what precedes the page's series, as far back as the checks look."""
    if not back_us or not page.num_rows:
        return []
    ids, times = page["series"].to_numpy(), page["time_us"].to_numpy()
    first = int(ids[0])
    others = [id_ for id_ in np.unique(ids).tolist() if id_ != first]
    return [
        read_rows(store, [first], Span(int(times[0]) - back_us, int(times[0])), _NEIGHBOURS_MAX),
        read_rows(store, others, Span(span.start_us - back_us, span.start_us), _NEIGHBOURS_MAX),
    ]


def _after(store: Store, page: pa.Table, span: Span, ahead_us: int) -> list[pa.Table]:
    """Read what follows the page's series, as far ahead as the checks look."""
    if not ahead_us or not page.num_rows:
        return []
    ids, times = page["series"].to_numpy(), page["time_us"].to_numpy()
    last = int(ids[-1])
    others = [id_ for id_ in np.unique(ids).tolist() if id_ != last]
    return [
        read_rows(store, [last], Span(int(times[-1]) + 1, int(times[-1]) + 1 + ahead_us), _NEIGHBOURS_MAX),
        read_rows(store, others, Span(span.stop_us, span.stop_us + ahead_us), _NEIGHBOURS_MAX),
    ]
