"""Admission: reports of a batch of messages become readings as columns, or rejections. Pure but for registering series.

Time policy (house): no time of its own = the time of receipt; too far ahead, or too early = rejected; a device declared
`clock: received` gets the time of receipt; everything else is accepted, however old.
"""

from __future__ import annotations

import array
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from devices.device import Registry
from devices.errors import Reason
from devices.quality import point_flags
from devices.quantity import QUANTITIES, Quantity
from devices.reading import Batch, BoolArray, Flag, Float64Array, Int32Array, Int64Array, SeriesInfo, UInt8Array
from ingest.formats.base import Decoded, Rejection, Report
from ingest.message import Message
from ingest.plans import NO_SERIES, Columns, Plans
from ingest.settings import IngestSettings
from qala.state.dirty import BUCKET_US, distinct

__all__ = ["Admission", "Admitted", "Tally"]

_T = TypeVar("_T", bound=np.generic)

_PLANS_MAX = 100_000
_NO_TIME = np.iinfo(np.int64).min
_BY_QUALITY = np.array([Flag.GOOD, Flag.SUSPECT, Flag.FAIL], np.uint8)  # the device's own verdict 0, 1, 2
_REPORTED_GOOD = np.array([Flag.GOOD], np.uint8)


class Tally(msgspec.Struct):
    """What became of the readings of each report, as columns: one row a report, the messages' indices rising.

    `carried` is how many there are, `flagged` how many of those accepted are suspect, failed or missing; those of a report
    that is `late` were received long after what they describe. `devices` are the names by number.
    """

    owner: Int64Array  # index of the message
    device: Int64Array
    devices: Sequence[str]
    carried: Int64Array
    accepted: Int64Array
    flagged: Int64Array
    late: BoolArray


class Admitted(msgspec.Struct):
    """What became of a batch of messages.

    `rejections` name messages by their index in the batch; `unknown` are the devices that are not in the registry, with
    the indices of their messages. `marked` are the (series, bucket) pairs with readings in them.
    """

    batch: Batch
    rejections: list[tuple[int, Rejection]]
    unknown: dict[str, list[int]]
    marked: tuple[Int32Array, Int64Array]
    tally: Tally


class _Rows(msgspec.Struct):
    """Reports as columns: one row a report."""

    reports: Sequence[Report]
    owner: Int64Array  # index of the message
    plan: Int64Array
    received_us: Int64Array
    length: Int64Array  # values of the report
    table: Columns

    def spread(self, column: NDArray[_T]) -> NDArray[_T]:
        """Repeat a column of reports once for each of their values."""
        uniform = len(self.length) and (self.length == self.length[0]).all()
        return np.repeat(column, self.length[0] if uniform else self.length)

    def sum(self, which: BoolArray) -> Int64Array:
        """Count for each report which of its values are meant, bool[values]."""
        if which.all():
            return self.length
        report = self.spread(np.arange(len(self.length)))
        return np.bincount(report[which], minlength=len(self.length))


class Admission:
    """Admits messages by one registry and one state of what devices declare themselves; a change of either makes a new one.

    `register` gives the ids of series; `declared` are the units in the devices' metadata, by device and quantity.
    """

    def __init__(
        self,
        registry: Registry,
        register: Callable[[Sequence[SeriesInfo]], Int32Array],
        settings: IngestSettings,
        *,
        declared: Mapping[str, Mapping[str, str]] | None = None,
        quantities: Mapping[str, Quantity] = QUANTITIES,
    ) -> None:
        self._make_plans = partial(Plans, registry, quantities, declared or {}, register)
        self._plans = self._make_plans()
        self._future_us = settings.future_max_s * 1_000_000
        self._late_us = settings.late_after_s * 1_000_000
        earliest = dt.datetime.combine(settings.earliest, dt.time(), dt.UTC)
        self._earliest_us = int(earliest.timestamp()) * 1_000_000

    def admit(self, numbers: Int64Array, messages: Sequence[Message], decoded: Sequence[Decoded]) -> Admitted:
        """Turn what messages say into readings. `numbers` are their numbers in the journal, int64[n].

        Raises UnavailableError where series cannot be registered.
        """
        rows = self._rows(messages, decoded)
        rejections = [(index, rejection) for index, item in enumerate(decoded) for rejection in item.rejections]
        rejections += self._refused(rows)
        time_us = self._times(rows)
        timely = self._timely(rows, time_us, rejections)
        batch, keep = self._readings(rows, time_us, timely, numbers, rejections)
        tally = self._tally(rows, time_us, batch, keep)
        return Admitted(batch, rejections, self._unknown(rows), _marked(rows, time_us, timely), tally)

    def _rows(self, messages: Sequence[Message], decoded: Sequence[Decoded]) -> _Rows:
        reports = [report for item in decoded for report in item.reports]
        if len(self._plans) > _PLANS_MAX:
            self._plans = self._make_plans()
        counts = np.fromiter([len(item.reports) for item in decoded], np.int64, len(decoded))
        owner = np.repeat(np.arange(len(decoded)), counts)
        received_us = np.fromiter([message.received_us for message in messages], np.int64, len(messages))
        plan = self._plans.of(reports)
        table = self._plans.columns()
        return _Rows(reports, owner, plan, received_us[owner], table.length[plan], table)

    def _refused(self, rows: _Rows) -> list[tuple[int, Rejection]]:
        """Return what plans reject of their messages: unknown devices, quantities and units."""
        found = np.flatnonzero(rows.table.refuses[rows.plan]).tolist()
        return [(int(rows.owner[i]), item) for i in found for item in self._plans.rejections(int(rows.plan[i]))]

    def _unknown(self, rows: _Rows) -> dict[str, list[int]]:
        unknown: dict[str, list[int]] = {}
        for index in np.flatnonzero(~rows.table.known[rows.plan]).tolist():
            unknown.setdefault(rows.reports[index].device, []).append(int(rows.owner[index]))
        return unknown

    def _times(self, rows: _Rows) -> Int64Array:
        """Return the start of what each report describes [UTC us], by whose clock it is told."""
        given = [report.time_us for report in rows.reports]
        span_us = rows.table.span_us[rows.plan]
        try:
            time_us = np.fromiter(given, np.int64, len(given))
        except TypeError:
            time_us = np.fromiter([_NO_TIME if time is None else time for time in given], np.int64, len(given))
            time_us = np.where(time_us == _NO_TIME, rows.received_us - span_us, time_us)
        by_receipt = rows.table.received_clock[rows.plan]
        return _moved_to_receipt(rows, time_us, span_us, by_receipt) if by_receipt.any() else time_us

    def _timely(self, rows: _Rows, time_us: Int64Array, rejections: list[tuple[int, Rejection]]) -> BoolArray:
        """Return which reports have an acceptable time, and reject the others."""
        known = rows.table.known[rows.plan]
        future = time_us + rows.table.span_us[rows.plan] > rows.received_us + self._future_us
        past = time_us < self._earliest_us
        for reason, which in ((Reason.FUTURE_TIME, future), (Reason.PAST_TIME, past)):
            for index in np.flatnonzero(which & known).tolist():
                detail, readings = _iso(int(time_us[index])), int(rows.table.good[rows.plan[index]])
                rejection = Rejection(reason, detail, "", rows.reports[index].device, readings)
                rejections.append((int(rows.owner[index]), rejection))
        return known & ~future & ~past

    def _readings(
        self,
        rows: _Rows,
        time_us: Int64Array,
        timely: BoolArray,
        numbers: Int64Array,
        rejections: list[tuple[int, Rejection]],
    ) -> tuple[Batch, BoolArray]:
        """Return the readings, and which of all values they are."""
        table = rows.table
        first = np.cumsum(rows.length) - rows.length
        slot = rows.spread(table.start[rows.plan] - first)
        slot += np.arange(len(slot))
        series = table.series[slot]
        keep = (series != NO_SERIES) & rows.spread(timely)
        value = self._values(rows, slot, keep, rejections)
        fail_low, fail_high, low, high = table.bounds[slot].T
        revision = np.fromiter([report.revision for report in rows.reports], np.int32, len(rows.reports))
        batch = Batch(
            series=series,
            time_us=rows.spread(time_us),
            value=value,
            flag=point_flags(value, _reported(rows), fail_low, fail_high, low, high),
            revision=rows.spread(revision),
            origin=rows.spread(numbers[rows.owner]),
            received_us=rows.spread(rows.received_us),
        )
        return batch if keep.all() else batch.take(keep), keep

    def _tally(self, rows: _Rows, time_us: Int64Array, batch: Batch, keep: BoolArray) -> Tally:
        stop_us = time_us + rows.table.span_us[rows.plan]
        bad = np.zeros(len(keep), np.bool_)
        bad[keep] = batch.flag >= Flag.SUSPECT
        return Tally(
            owner=rows.owner,
            device=rows.table.device[rows.plan],
            devices=self._plans.devices,
            carried=rows.length,
            accepted=rows.sum(keep),
            flagged=rows.sum(bad),
            late=rows.received_us - stop_us > self._late_us,
        )

    def _values(
        self, rows: _Rows, slot: Int64Array, keep: BoolArray, rejections: list[tuple[int, Rejection]]
    ) -> Float64Array:
        """Return all values in their series' units; clear `keep` and reject where one is none."""
        flat: list[Any] = list(chain.from_iterable([report.values for report in rows.reports]))
        try:
            value = np.frombuffer(array.array("d", flat))
        except TypeError:  # a missing reading or a state among them
            flat = [raw if type(raw) is float else self._scalar(raw, int(slot[at])) for at, raw in enumerate(flat)]
            bad = [at for at, raw in enumerate(flat) if isinstance(raw, str)]
            self._reject(rows, bad, slot, keep, rejections, Reason.BAD_VALUE, "a text that is no declared state")
            value = np.array([np.nan if raw is None or isinstance(raw, str) else raw for raw in flat], np.float64)
        return self._converted(rows, value, slot, keep, rejections)

    def _scalar(self, raw: float | str | None, slot: int) -> float | str | None:
        """Return a state's code, and anything else as it is."""
        code = self._plans.code(slot, raw) if isinstance(raw, str) else None
        return raw if code is None else float(code)

    def _converted(
        self,
        rows: _Rows,
        value: Float64Array,
        slot: Int64Array,
        keep: BoolArray,
        rejections: list[tuple[int, Rejection]],
    ) -> Float64Array:
        factor, offset = rows.table.factor, rows.table.offset
        if not ((factor != 1.0) | (offset != 0.0)).any():
            return value
        shift = offset[slot]
        with np.errstate(over="ignore"):
            scaled = value * factor[slot]
            scaled = np.where(shift != 0.0, np.round(scaled + shift, 12), scaled)
        overflown = np.flatnonzero(np.isinf(scaled)).tolist()
        self._reject(rows, overflown, slot, keep, rejections, Reason.NOT_FINITE, "no finite float64 in its unit")
        return scaled

    def _reject(
        self,
        rows: _Rows,
        bad: Sequence[int],
        slot: Int64Array,
        keep: BoolArray,
        rejections: list[tuple[int, Rejection]],
        reason: Reason,
        detail: str,
    ) -> None:
        """Reject single values that would otherwise have been kept."""
        if not bad:
            return
        report = np.repeat(np.arange(len(rows.length)), rows.length)
        for at in bad:
            if keep[at]:
                index = report[at]
                rejection = Rejection(reason, detail, self._plans.key(int(slot[at])), rows.reports[index].device)
                rejections.append((int(rows.owner[index]), rejection))
        keep[list(bad)] = False


def _moved_to_receipt(rows: _Rows, time_us: Int64Array, span_us: Int64Array, which: BoolArray) -> Int64Array:
    """Move the reports of each message and device as one, so that the newest ends at the receipt."""
    newest: dict[tuple[int, str], int] = {}
    moved = time_us.copy()
    found = [(i, (int(rows.owner[i]), rows.reports[i].device)) for i in np.flatnonzero(which).tolist()]
    for index, key in found:
        newest[key] = max(newest.get(key, _NO_TIME), int(time_us[index] + span_us[index]))
    for index, key in found:
        moved[index] = rows.received_us[index] - (newest[key] - int(time_us[index]))
    return moved


def _reported(rows: _Rows) -> UInt8Array:
    """Return the devices' own verdicts as flags: one for all, or uint8[values]."""
    qualities = [report.quality for report in rows.reports]
    if not any(qualities):
        return _REPORTED_GOOD
    each = [
        [q] * len(report.keys) if isinstance(q, int) else q for q, report in zip(qualities, rows.reports, strict=True)
    ]
    return _BY_QUALITY[np.fromiter(chain.from_iterable(each), np.int64)]


def _marked(rows: _Rows, time_us: Int64Array, timely: BoolArray) -> tuple[Int32Array, Int64Array]:
    """Return each (series, bucket) that gets a reading, once a plan."""
    pairs = distinct((rows.plan[timely] << 32) | (time_us[timely] // BUCKET_US))
    plan, bucket = pairs >> 32, pairs & 0xFFFF_FFFF
    length = rows.table.length[plan]
    slot = np.repeat(rows.table.start[plan] - np.cumsum(length) + length, length) + np.arange(length.sum())
    series = rows.table.series[slot]
    kept = series != NO_SERIES
    return series[kept], np.repeat(bucket, length)[kept]


def _iso(time_us: int) -> str:
    try:
        return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)).isoformat()
    except OverflowError:
        return f"{time_us // 1000} ms since 1970"
