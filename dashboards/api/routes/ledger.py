"""The ledger: what was received of each device in each hour, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby, islice

import msgspec
import pyarrow as pa
from fastapi import APIRouter, Request, Response

from dashboards.api.context import ApiContext, Context
from dashboards.api.contract import Page
from dashboards.api.contract_ledger import LedgerRow
from dashboards.api.paging import CursorQuery, LimitQuery, decode_cursor, encode_cursor
from dashboards.api.render import FormatQuery, negotiate, render, table_limit
from dashboards.missing import Expected, expected, missing_of
from dashboards.times import parse_span
from devices.errors import NotFoundError
from qala.state.ledger import COLUMNS, HOUR_US, By, Counts, Entry, entries
from qala.state.registry import statuses
from qala.store.base import Span

router = APIRouter(tags=["ledger"])

_DAY_US = 24 * HOUR_US
_LENGTH_US = {By.ALL: HOUR_US, By.HOUR: HOUR_US, By.DAY: _DAY_US}


class _After(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The range that the first page resolved, and the last row given."""

    start_us: int
    stop_us: int
    hour_us: int
    device: str


@router.get("/ledger", response_model=Page[LedgerRow])
def list_ledger(
    context: Context,
    request: Request,
    device: str | None = None,
    zone: str | None = None,
    start: str = "-24h",
    stop: str = "now",
    by: By = By.ALL,
    limit: LimitQuery = None,
    cursor: CursorQuery = None,
    format: FormatQuery = None,  # noqa: A002
) -> Response:
    """Count messages and readings by device and hour of receipt, or summed up by hour, day or device.

    A device of the registry, and a finished hour of it, has a row also where nothing came: that is what is missing.
    The range is taken in whole hours (in whole days with `by=day`), the one that `stop` lies in among them.
    What was received a few seconds ago may not be in it yet.
    """
    form = negotiate(request, format)
    rows = table_limit(context.settings, limit, form)
    after = decode_cursor(cursor, _After) if cursor else None
    span = Span(after.start_us, after.stop_us) if after else _whole(context, start, stop, by)
    chosen = _chosen(context, device, zone)
    key = (after.hour_us, after.device) if after else None
    counted = entries(context.state, span.start_us, span.stop_us, by=by, devices=chosen, after=key, limit=rows + 1)
    awaited = _awaited(context, chosen)
    silence = _silence(awaited, _finished(context, span), by)
    found = _with_silence(counted, (one for one in silence if key is None or one > key), rows + 1)
    page = found[:rows]
    more = None
    if len(found) > rows:
        more = encode_cursor(_After(span.start_us, span.stop_us, page[-1].hour_us, page[-1].device))
    return render(request, _table(page, by, _missing(context, page, span, by, awaited)), form, more, raw={"rejected"})


def _whole(context: ApiContext, start: str, stop: str, by: By) -> Span:
    """Return the range in whole hours or days. Raises ProblemError (422) as `parse_span` does."""
    span = parse_span(start, stop, context.now_us(), days_max=context.settings.range_max_days)
    step_us = _DAY_US if by is By.DAY else HOUR_US
    return Span(span.start_us // step_us * step_us, -(-span.stop_us // step_us) * step_us)


def _chosen(context: ApiContext, device: str | None, zone: str | None) -> frozenset[str] | None:
    """Return the devices that are meant, None for all. Raises NotFoundError where the zone does not exist."""
    if zone is None:
        return None if device is None else frozenset({device})
    registry = context.registry()
    if zone not in registry.zones:
        raise NotFoundError(f"there is no zone {zone!r}", hint="list the zones at /api/v1/zones")
    now_us = context.now_us()
    placed = ((id_, registry.placement(id_, now_us)) for id_ in registry.devices)
    return frozenset(id_ for id_, at in placed if at and zone in at.zones and device in {None, id_})


def _awaited(context: ApiContext, chosen: frozenset[str] | None) -> list[Expected]:
    """Return the chosen devices that readings are expected of, by id."""
    said = {id_: status.interval_s for id_, status in statuses(context.state).items()}
    devices = expected(context.registry(), context.kinds, said)
    return sorted((one for one in devices if chosen is None or one.device in chosen), key=lambda one: one.device)


def _finished(context: ApiContext, span: Span) -> Span:
    """Return the part of a range in which readings may be missing: finished hours that the store reaches back to."""
    extent = context.store.extent()
    start_us = max(span.start_us, extent.start_us // HOUR_US * HOUR_US) if extent else span.stop_us
    return Span(start_us, max(start_us, min(span.stop_us, context.now_us() // HOUR_US * HOUR_US)))


def _silence(awaited: Sequence[Expected], span: Span, by: By) -> Iterator[tuple[int, str]]:
    """Yield the keys of rows that there are whether anything came or not, rising."""
    if by is By.DEVICE:
        yield from ((0, one.device) for one in awaited if one.since_us < span.stop_us and span.start_us < one.until_us)
        return
    step_us = _LENGTH_US[by]
    for time_us in range(span.start_us // step_us * step_us, span.stop_us, step_us):
        there = (one.device for one in awaited if one.since_us <= time_us and time_us + step_us <= one.until_us)
        if by is By.ALL:
            yield from ((time_us, device) for device in there)
        elif next(there, None) is not None:
            yield time_us, ""


def _with_silence(counted: Sequence[Entry], silence: Iterable[tuple[int, str]], limit: int) -> list[Entry]:
    """Return the first entries, of both, in their order; where nothing was counted, all counts are 0."""
    entry = {(one.hour_us, one.device): one for one in counted}
    keys = (key for key, _ in groupby(merge(entry, silence)))
    return [entry.get(key) or Entry(key[1], key[0], Counts()) for key in islice(keys, limit)]


def _missing(
    context: ApiContext, page: Sequence[Entry], span: Span, by: By, awaited: Sequence[Expected]
) -> Mapping[tuple[int, str], int]:
    """Count the missing readings of each row of a page; nothing where that would take too long."""
    if not page:
        return {}
    if by is not By.DEVICE:
        span = Span(page[0].hour_us, page[-1].hour_us + _LENGTH_US[by])
    of = {entry.device for entry in page} if by in {By.ALL, By.DEVICE} else None
    devices = [one for one in awaited if of is None or one.device in of]
    found = missing_of(context.store, devices, span.start_us, span.stop_us, context.now_us())
    sums: dict[tuple[int, str], int] = {}
    for (device, hour_us), slots in (found or {}).items():
        key = _key(device, hour_us, by)
        sums[key] = sums.get(key, 0) + slots
    return sums


def _key(device: str, hour_us: int, by: By) -> tuple[int, str]:
    if by is By.DEVICE:
        return 0, device
    if by is By.DAY:
        return hour_us // _DAY_US * _DAY_US, ""
    return hour_us, device if by is By.ALL else ""


def _table(page: Sequence[Entry], by: By, missing: Mapping[tuple[int, str], int]) -> pa.Table:
    one_device, timed = by in {By.ALL, By.DEVICE}, by is not By.DEVICE
    counts = {name: pa.array([getattr(entry.counts, name) for entry in page], pa.int64()) for name in COLUMNS}
    rejected = [msgspec.json.encode(entry.counts.rejected, order="sorted").decode() for entry in page]
    return pa.table(
        {
            "device": pa.array([entry.device if one_device else None for entry in page], pa.string()),
            "start": pa.array([entry.hour_us if timed else None for entry in page], pa.timestamp("us", "UTC")),
            **counts,
            "rejected": pa.array(rejected, pa.string()),
            "missing": pa.array([missing.get((entry.hour_us, entry.device)) for entry in page], pa.int64()),
        }
    )
