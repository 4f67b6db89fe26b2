"""Plans: how the values of a device's message become readings, worked out once for each list of keys.

A plan is a run of *slots*, one for each key: the series, the factor and offset to its unit, the bounds of its gross range.
Slots of all plans lie in common columns, so that a whole batch is admitted by a few array operations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from devices.device import Clock, Device, Registry
from devices.errors import Reason
from devices.quantity import Quantity, UnitError, bounds_of, conversion, parse_key
from devices.reading import BoolArray, Float64Array, Int32Array, Int64Array, SeriesInfo
from ingest.formats.base import Rejection, Report

__all__ = ["NO_SERIES", "Columns", "Plans"]

NO_SERIES = -1
"""Series of a slot whose key is not accepted."""

_SERIES_MAX = 1000  # of one device
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9_:-]{1,32}){0,3}")
_ANY = (-math.inf, math.inf)

PlanKey = tuple[str, tuple[str, ...], int] | tuple[str, tuple[str, ...], int, tuple[tuple[str, str], ...]]


class _Slot(msgspec.Struct):
    key: str
    series: SeriesInfo | None = None
    factor: float = 1.0
    offset: float = 0.0
    fail: tuple[float, float] = _ANY
    suspect: tuple[float, float] = _ANY
    codes: Mapping[str, int] = {}


class _Plan(msgspec.Struct):
    device: int
    known: bool  # the device is in the registry
    received_clock: bool
    span_us: int
    start: int  # first slot
    length: int
    rejections: tuple[Rejection, ...]


class Columns(msgspec.Struct):
    """Plans and slots as arrays; those of plans are indexed by plan, the rest by slot."""

    device: Int64Array  # number of the device in `Plans.devices`
    known: BoolArray
    received_clock: BoolArray
    refuses: BoolArray  # a plan that rejects something of each of its messages
    span_us: Int64Array
    start: Int64Array
    length: Int64Array
    good: Int64Array  # slots that have a series
    series: Int32Array
    factor: Float64Array
    offset: Float64Array
    bounds: Float64Array  # float64[slots, 4]: fail low, fail high, suspect low, suspect high

    def and_then(self, more: Columns) -> Columns:
        """Return these plans and slots followed by more."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(more), strict=True)
        return Columns(*(np.concatenate(pair) for pair in pairs))


class Plans:
    """Plans for one registry and one state of the devices' own declarations of units.

    `register` gives the ids of series, making those that are new. `declared` are units by device and quantity.
    """

    def __init__(
        self,
        registry: Registry,
        quantities: Mapping[str, Quantity],
        declared: Mapping[str, Mapping[str, str]],
        register: Callable[[Sequence[SeriesInfo]], Int32Array],
    ) -> None:
        self._registry = registry
        self._quantities = quantities
        self._declared = declared
        self._register = register
        self.devices: list[str] = []
        self._device_numbers: dict[str, int] = {}
        self._numbers: dict[PlanKey, int] = {}
        self._plans: list[_Plan] = []
        self._slots: list[_Slot] = []
        self._columns = _columns([], [], [])
        self._series: set[SeriesInfo] = set()
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._plans)

    def of(self, reports: Sequence[Report]) -> Int64Array:
        """Return the plan of each report, int64[reports]."""
        get = self._numbers.get
        found = [get((r.device, r.keys, r.span_s) if r.units is None else _plan_key(r), -1) for r in reports]
        numbers = np.fromiter(found, np.int64, len(found))
        for index in np.flatnonzero(numbers < 0).tolist():
            numbers[index] = self._number(reports[index])
        return numbers

    def columns(self) -> Columns:
        """Return all plans as arrays. New series are registered here, all at once."""
        plans, slots = self._plans[len(self._columns.start) :], self._slots[len(self._columns.series) :]
        if plans:
            new = [slot.series for slot in slots if slot.series is not None]
            ids = iter(self._register(new).tolist() if new else ())
            series = [NO_SERIES if slot.series is None else next(ids) for slot in slots]
            self._columns = self._columns.and_then(_columns(plans, slots, series))
        return self._columns

    def rejections(self, plan: int) -> tuple[Rejection, ...]:
        """Return what a plan rejects of each of its messages."""
        return self._plans[plan].rejections

    def key(self, slot: int) -> str:
        """Return the native key of a slot."""
        return self._slots[slot].key

    def code(self, slot: int, state: str) -> float | None:
        """Return the code that a quantity declares for a state; None where it declares none."""
        return self._slots[slot].codes.get(state)

    def _number(self, report: Report) -> int:
        """Return a report's plan, making it where it is new."""
        key = _plan_key(report)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._plans)
            self._plans.append(self._plan(report))
        return number

    def _plan(self, report: Report) -> _Plan:
        device = self._registry.devices.get(report.device)
        slots: list[_Slot] = []
        rejections: list[Rejection] = []
        if device is None:
            slots = [_Slot(key) for key in report.keys]
            detail = "not in the registry"
            rejections = [Rejection(Reason.UNKNOWN_DEVICE, detail, "", report.device, len(report.keys))]
        else:
            for key in report.keys:
                slot = self._slot(device, key, report)
                rejections += [slot] if isinstance(slot, Rejection) else []
                slots.append(_Slot(key) if isinstance(slot, Rejection) else slot)
        self._slots += slots
        return _Plan(
            device=self._device(report.device),
            known=device is not None,
            received_clock=device is not None and device.clock is Clock.RECEIVED,
            span_us=report.span_s * 1_000_000,
            start=len(self._slots) - len(slots),
            length=len(slots),
            rejections=tuple(rejections),
        )

    def _device(self, device: str) -> int:
        number = self._device_numbers.setdefault(device, len(self.devices))
        if number == len(self.devices):
            self.devices.append(device)
        return number

    def _slot(self, device: Device, key: str, report: Report) -> _Slot | Rejection:
        name, channel = parse_key(key)
        quantity = self._quantities.get(name)
        sent = self._unit(report, key, name)
        if not _KEY.fullmatch(key) or (quantity is None and sent is None):
            return Rejection(Reason.UNKNOWN_QUANTITY, "no such quantity, and no unit was declared", key, device.id)
        try:
            factor, offset = _conversion(sent, quantity)
        except UnitError as error:
            return Rejection(Reason.BAD_UNIT, error.message, key, device.id)
        unit = quantity.unit if quantity else sent or ""
        series = SeriesInfo(device.id, name, channel, report.span_s, unit)
        slot = _Slot(key, series, factor, offset)
        if not self._may_have(series):
            return Rejection(Reason.UNKNOWN_QUANTITY, f"the device has {_SERIES_MAX} series already", key, device.id)
        bounds = bounds_of(quantity, span_s=report.span_s, rated_kw=device.rated_kw) if quantity else None
        if bounds is not None:
            slot.fail, slot.suspect = bounds.fail, bounds.suspect
        if quantity is not None:
            slot.codes = quantity.codes
        return slot

    def _may_have(self, series: SeriesInfo) -> bool:
        """Tell whether a device may have one more series, if this is one more, and count it."""
        if series in self._series:
            return True
        if self._count[series.device] >= _SERIES_MAX:
            return False
        self._series.add(series)
        self._count[series.device] += 1
        return True

    def _unit(self, report: Report, key: str, name: str) -> str | None:
        """Return the unit that the message, or else the device's metadata, declares for a key."""
        units, declared = report.units or {}, self._declared.get(report.device, {})
        return units.get(key) or units.get(name) or declared.get(key) or declared.get(name)


def _columns(plans: Sequence[_Plan], slots: Sequence[_Slot], series: Sequence[int]) -> Columns:
    good = [sum(slot.series is not None for slot in slots[i : i + n]) for i, n in _runs(plans)]
    return Columns(
        device=np.array([plan.device for plan in plans], np.int64),
        known=np.array([plan.known for plan in plans], np.bool_),
        received_clock=np.array([plan.received_clock for plan in plans], np.bool_),
        refuses=np.array([bool(plan.rejections) for plan in plans], np.bool_),
        span_us=np.array([plan.span_us for plan in plans], np.int64),
        start=np.array([plan.start for plan in plans], np.int64),
        length=np.array([plan.length for plan in plans], np.int64),
        good=np.array(good, np.int64),
        series=np.array(series, np.int32),
        factor=np.array([slot.factor for slot in slots], np.float64),
        offset=np.array([slot.offset for slot in slots], np.float64),
        bounds=np.array([(*slot.fail, *slot.suspect) for slot in slots], np.float64).reshape(len(slots), 4),
    )


def _runs(plans: Sequence[_Plan]) -> list[tuple[int, int]]:
    """Return where the slots of each plan begin among theirs, and how many there are."""
    base = plans[0].start if plans else 0
    return [(plan.start - base, plan.length) for plan in plans]


def _plan_key(report: Report) -> PlanKey:
    if report.units is None:
        return report.device, report.keys, report.span_s
    return report.device, report.keys, report.span_s, tuple(sorted(report.units.items()))


def _conversion(sent: str | None, quantity: Quantity | None) -> tuple[float, float]:
    """Return (factor, offset) to the quantity's unit; a quantity outside the catalogue keeps the unit as it was sent.

    Raises UnitError where the unit is no text, or measures something else.
    """
    if sent == "?":
        raise UnitError("the declared unit is no text", hint="declare the unit as a short text, such as m3/h")
    if sent is None or quantity is None or sent == quantity.unit:
        return 1.0, 0.0
    return conversion(sent, quantity.unit)
