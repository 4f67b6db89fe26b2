"""Flux: what is asked of InfluxDB, in the shapes that its storage answers by itself (range, filters, one aggregate)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from devices.reading import Int64Array, SeriesInfo
from qala.store.base import Aggregate, Span
from qala.store.influx_http import bounds
from qala.store.influx_lines import spelt

NUMBERS, WHOLE, TEXTS, RECEIPTS = "numbers", "whole", "texts", "receipts"
"""What the results of a query are called by the type of their values: float64, int64, text, text of readings."""

COUNTED = frozenset({Aggregate.COUNT, Aggregate.GOOD})
_NAMES_MAX = 20  # names that are asked for one by one

_KEEP = '|> keep(columns: ["series", "_field", "_time", "_value"])'
_NUMBER_FIELDS = 'r._field == "value" or r._field == "held"'
_WHOLE_FIELDS = 'r._field == "flag" or r._field == "revision" or r._field == "origin" or r._field == "received_us"'
_USABLE = 'r._field == "value"'
_RECEIPTS = 'r._field == "receipt"'


def quoted(text: str) -> str:
    r"""Return a Flux string.

    >>> quoted('a "b" ${c}')
    '"a \\"b\\" \\${c}"'
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def moment(time_us: int) -> str:
    """Return a time as Flux and the API for deletions spell it.

    >>> moment(1_728_000_000_000_006)
    '2024-10-04T00:00:00.000006Z'
    """
    return f"{np.datetime64(time_us, 'us')}Z"


def which(ids: Sequence[int], catalog: Mapping[int, SeriesInfo]) -> str:
    """Return the filter that picks series: by nothing where all are meant, by quantity where it can, else one by one."""
    if len(ids) == len(catalog):
        return ""
    quantities = {catalog[id_].quantity for id_ in ids}
    if len(quantities) <= _NAMES_MAX and len(ids) == sum(info.quantity in quantities for info in catalog.values()):
        return where(any_of("_measurement", map(spelt, sorted(quantities))))
    if len(ids) == 1:
        return where(f'r._measurement == {quoted(spelt(*quantities))} and r.series == "{ids[0]}"')
    return where(f"r.series =~ /^(?:{'|'.join(map(str, ids))})$/")


def where(condition: str) -> str:
    """Return a filter."""
    return f"|> filter(fn: (r) => {condition})"


def any_of(column: str, texts: Iterable[str]) -> str:
    """Return the condition that a column is one of some texts; of many, as one expression, which the server takes faster."""
    texts = list(texts)
    if not texts:
        return "false"
    if len(texts) <= _NAMES_MAX:
        return " or ".join(f"r.{column} == {quoted(text)}" for text in texts)
    return f"r.{column} =~ /^(?:{'|'.join(_literal(text) for text in texts)})$/"


def _literal(text: str) -> str:
    return re.sub(r"[\\.+*?()|\[\]{}^$/]", r"\\\g<0>", text)


def source(bucket: str, span: Span) -> str:
    """Return where a query begins."""
    inside = bounds(span)
    return f"from(bucket: {quoted(bucket)}) |> range(start: {moment(inside.start_us)}, stop: {moment(inside.stop_us)})"


def rows(bucket: str, span: Span, only: str, *, each: str = "") -> str:
    """Ask for all fields of readings; `each` is done to every field of every series (`|> last()`)."""
    # A source each instead of one that all go on from: only so does the storage filter by itself.
    return "\n".join(
        f"{source(bucket, span)} {only} {where(fields)} {each} {_KEEP} |> yield(name: {quoted(name)})"
        for name, fields in ((NUMBERS, _NUMBER_FIELDS), (RECEIPTS, _RECEIPTS), (WHOLE, _WHOLE_FIELDS))
    )


def counts(bucket: str, span: Span, only: str) -> str:
    """Ask how many usable readings each series has, and how many others, which are to be added up."""
    return _of_numbers(bucket, span, only, "|> count()", '"series", "_value"')


def ends(bucket: str, span: Span, only: str, *, each: str) -> str:
    """Ask for the time of each series' first or last usable reading, and of its first or last other one."""
    return _of_numbers(bucket, span, only, each, '"series", "_time"')


def _of_numbers(bucket: str, span: Span, only: str, each: str, columns: str) -> str:
    keep = f"|> keep(columns: [{columns}])"
    return f"{source(bucket, span)} {only} {where(_NUMBER_FIELDS)} {each} {keep} |> yield(name: {quoted(WHOLE)})"


def windows(bucket: str, only: str, edges_us: Int64Array, names: Iterable[Aggregate]) -> str:
    """Ask for aggregates between even edges, a result each; counts of all come in up to two parts."""
    span, width = Span(int(edges_us[0]), int(edges_us[-1])), int(edges_us[1] - edges_us[0])
    keep = '|> keep(columns: ["series", "_time", "_value"])'
    every = f'every: {width}us, offset: {span.start_us % width}us, timeSrc: "_start", createEmpty: false'
    return "\n".join(
        f"{source(bucket, span)} {only} {where(_NUMBER_FIELDS if name == Aggregate.COUNT else _USABLE)}"
        f" |> aggregateWindow({every}, fn: {_function(name)}) {keep} |> yield(name: {quoted(name)})"
        for name in names
    )


def _function(name: Aggregate) -> str:
    return "count" if name in COUNTED else name.value


def even_runs(edges_us: Int64Array) -> list[Int64Array]:
    """Cut edges to runs of windows of one width, which share their edges.

    >>> [run.tolist() for run in even_runs(np.array([3, 10, 20, 30, 34]))]
    [[3, 10], [10, 20, 30], [30, 34]]
    """
    runs: list[Int64Array] = []
    start = 0
    for _, same in groupby(np.diff(edges_us).tolist()):
        stop = start + len(list(same))
        runs.append(edges_us[start : stop + 1])
        start = stop
    return runs


def texts(bucket: str, span: Span, conditions: Iterable[str]) -> str:
    """Ask for rows of text in the order of their times."""
    keep = '|> keep(columns: ["_time", "_value"])'
    only = " ".join(map(where, conditions))
    return f"{source(bucket, span)} {only} {keep} |> group() |> yield(name: {quoted(TEXTS)})"


def starts(bucket: str, span: Span, each: str) -> str:
    """Ask for the first or last start of the values of each indicator, zone and window."""
    only = where('r._measurement == "value" and r._field == "row"')
    return f'{source(bucket, span)} {only} {each} |> keep(columns: ["_time"]) |> yield(name: {quoted(TEXTS)})'


def positions(bucket: str) -> str:
    """Ask for the position of every journal."""
    keep = '|> keep(columns: ["journal", "_value"])'
    only = where('r._measurement == "position" and r._field == "number"')
    return f"{source(bucket, Span(0, 1))} {only} {keep} |> yield(name: {quoted(WHOLE)})"
