"""What lies in the bucket beside the readings, which forgets nothing: series, positions, and values with all revisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
import pyarrow as pa

from devices.reading import Position, SeriesInfo
from devices.value import Value
from qala.store import influx_flux as flux
from qala.store import influx_lines as lines
from qala.store.base import VALUES, Span, ValueSelector
from qala.store.influx_http import EARLIEST_US, LATEST_US, Server
from qala.store.influx_rows import tables, times
from qala.store.rows import array, value_row

_EVER = Span(EARLIEST_US, LATEST_US)
_KNOWN_US = VALUES.get_field_index("known_us")

Row = tuple[Any, ...]
_key = itemgetter(0, 1, 2, 3)  # indicator, zone, window, start
_order = itemgetter(0, 1, 2, 3, -1)  # and revision


class Ledger:
    """The second bucket. Positions are read once: this process alone moves them."""

    def __init__(self, server: Server, bucket: str) -> None:
        self._server = server
        self._bucket = bucket
        self.positions = self._stored_positions()

    def _texts(self, span: Span, *conditions: str) -> pa.Table | None:
        return tables(self._server.query(flux.texts(self._bucket, span, conditions))).get(flux.TEXTS)

    # ---- series and positions

    def catalog(self) -> dict[int, SeriesInfo]:
        """Return every series by id."""
        found = self._texts(_EVER, 'r._measurement == "series" and r._field == "info"')
        if found is None:
            return {}
        infos = [msgspec.json.decode(text, type=SeriesInfo) for text in found["_value"].to_pylist()]
        return dict(sorted(zip(times(found).tolist(), infos, strict=True)))

    def add(self, series: Iterable[tuple[int, SeriesInfo]]) -> None:
        """Write series that are new."""
        self._write(lines.series(series))

    def _stored_positions(self) -> dict[str, Position]:
        found = tables(self._server.query(flux.positions(self._bucket))).get(flux.WHOLE)
        names = [] if found is None else [_read(text) for text in found["journal"].to_pylist()]
        stand = [] if found is None else found["_value"].to_pylist()
        return {name: Position(name, number) for name, number in zip(names, stand, strict=True)}

    def advance(self, upto: Position | None) -> None:
        """Write a position, unless its journal is there already or further."""
        if upto is None:
            return
        stands = self.positions.get(upto.journal)
        if stands is None or stands < upto:
            self._write([lines.position(upto)])
            self.positions = self.positions | {upto.journal: upto}

    # ---- values

    def put(self, values: Sequence[Value]) -> int:
        """Write values as new revisions where they are another number than the newest."""
        newest = {_key(row): row for row in self._rows(*_around(values))}
        fresh: list[Row] = []
        for row in map(value_row, values):
            known = newest.get(_key(row))
            if known is None or known[:_KNOWN_US] != row[:_KNOWN_US]:
                newest[_key(row)] = (*row[:-1], known[-1] + 1 if known else 1)
                fresh.append(newest[_key(row)])
        self._write(lines.values(fresh))
        return len(fresh)

    def values(self, select: ValueSelector, span: Span, as_of_us: int | None) -> pa.Table:
        """Return the newest revision of each value, or the newest of those known by a time."""
        known = (row for row in self._rows(select, span) if as_of_us is None or row[_KNOWN_US] <= as_of_us)
        return _table([list(same)[-1] for _, same in groupby(known, _key)])

    def extent(self) -> Span | None:
        """Return the shortest span that holds the start of every value."""
        ends = [
            tables(self._server.query(flux.starts(self._bucket, _EVER, each))).get(flux.TEXTS)
            for each in ("|> first()", "|> last()")
        ]
        first, last = (np.empty(0, np.int64) if found is None else times(found) for found in ends)
        return Span(int(first.min()), int(last.max()) + 1) if len(first) and len(last) else None

    def revisions(self, select: ValueSelector, span: Span) -> pa.Table:
        """Return every revision, oldest first."""
        return _table(self._rows(select, span))

    def _rows(self, select: ValueSelector, span: Span) -> list[Row]:
        tags = {"indicator": select.indicators, "zone": select.zones, "window": select.windows}
        wanted = [
            flux.any_of(name, map(lines.spelt, sorted(texts))) for name, texts in tags.items() if texts is not None
        ]
        if span.start_us >= span.stop_us or "false" in wanted:
            return []
        found = self._texts(span, 'r._measurement == "value" and r._field == "row"', *wanted)
        return sorted(map(lines.decode_row, [] if found is None else found["_value"].to_pylist()), key=_order)

    def _write(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self._server.write(self._bucket, body)


def _read(name: str) -> str:
    """Return what `lines.spelt` made a tag of."""
    return "" if name == "%" else unquote(name)


def _around(values: Sequence[Value]) -> tuple[ValueSelector, Span]:
    """Return what picks the stored revisions of values, and not many others."""
    starts = [value.start_us for value in values]
    zones = frozenset(value.zone for value in values)
    select = ValueSelector(
        indicators=frozenset(value.indicator for value in values),
        windows=frozenset(value.window for value in values),
        zones=zones if len(zones) <= 100 else None,
    )
    return select, Span(min(starts), max(starts) + 1)


def _table(rows: Sequence[Row]) -> pa.Table:
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(VALUES)
    return pa.table([array(data, field.type) for data, field in zip(columns, VALUES, strict=True)], schema=VALUES)
