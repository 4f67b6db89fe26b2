"""InfluxDB line protocol, column by column: readings, series, positions and values as bodies of write requests.

A reading is a point of the measurement that its quantity names, in the series that its tags name. The number of a usable
reading is the field `value`, that of another one is `held` (0 where there is none): the storage then counts, sums and
finds extremes of good numbers by itself. `receipt` is its origin and by how much it was received after its time [us]. Each
field costs the server as much as the number, so what is usual is left out: `flag` where it is good, unless the point may
stand over another one; `revision` where it is 0 (it never falls, so none is left behind).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from devices.errors import QalaError
from devices.reading import Batch, BoolArray, Flag, Position, SeriesInfo
from qala.store.rows import array, column, usable

LINES_MAX = 10_000  # of one request
MISFIT = 256  # added to a flag whose number is not what it promises: 9 with a number, or another without

_STRANGE = {character: f"%{ord(character):02X}" for character in "%\\" + "".join(map(chr, range(32))) + "\x7f"}
_SPELT = str.maketrans(_STRANGE)
_ESCAPED = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})

_json = msgspec.json.Encoder(order="deterministic")


def spelt(name: str) -> str:
    """Return a name as a tag's content: never empty, without what line protocol cannot hold.

    >>> spelt("air 1"), spelt("50%"), spelt("")
    ('air 1', '50%25', '%')
    """
    return name.translate(_SPELT) or "%"


def tag(name: str, content: str) -> str:
    r"""Return a tag as it follows a measurement.

    >>> tag("device", "air 1,a")
    ',device=air\\ 1\\,a'
    """
    return f",{name}={spelt(content).translate(_ESCAPED)}"


def prefix(id_: int, info: SeriesInfo) -> str:
    r"""Return what every line of a series begins with: its quantity and its tags, in the order that suits the server.

    >>> prefix(7, SeriesInfo("road/1", "speed", "lane 1", 300, "km/h"))
    'speed,channel=lane\\ 1,device=road/1,series=7,span_s=300,unit=km/h'
    """
    measurement = spelt(info.quantity).translate(_ESCAPED)
    channel = tag("channel", info.channel) if info.channel else ""
    span = tag("span_s", str(info.span_s)) if info.span_s else ""
    unit = tag("unit", info.unit) if info.unit else ""
    return f"{measurement}{channel}{tag('device', info.device)},series={id_}{span}{unit}"


def prefixes(catalog: Mapping[int, SeriesInfo]) -> pa.Array:
    """Return the prefix of each series at the place of its id; there is none at 0."""
    return array(["", *(prefix(id_, catalog[id_]) for id_ in range(1, len(catalog) + 1))], pa.string())


def in_value(batch: Batch) -> BoolArray:
    """Tell which numbers are the field `value`."""
    found: BoolArray = usable(batch.flag) & ~np.isnan(batch.value)
    return found


def readings(batch: Batch, is_new: BoolArray, prefixes_: pa.Array) -> Iterator[bytes]:
    """Yield readings as bodies of at most LINES_MAX lines; `is_new` tells where no point stands yet.

    Raises QalaError on a number that InfluxDB cannot hold.
    """
    if np.isinf(batch.value).any():
        raise QalaError("InfluxDB holds no infinite numbers", hint="reject them before they come to the store")
    for start in range(0, len(batch), LINES_MAX):
        rows = np.arange(start, min(start + LINES_MAX, len(batch)))
        yield _body(batch.take(rows), is_new[rows], prefixes_)


def _body(batch: Batch, is_new: BoolArray, prefixes_: pa.Array) -> bytes:
    missing = np.isnan(batch.value)
    code = batch.flag.astype(np.int64) + MISFIT * (missing != (batch.flag == Flag.MISSING))
    fields = np.where(in_value(batch), 0, 1).astype(np.int32)
    parts = [
        pc.take(prefixes_, column(batch.series, pa.int32())),
        pc.take(array([" value=", " held="], pa.string()), column(fields, pa.int32())),
        _text(np.where(missing, 0.0, batch.value), pa.float64()),
        pa.scalar(',receipt="'),
        _text(batch.origin, pa.int64()),
        pa.scalar(" "),
        _text(batch.received_us - batch.time_us, pa.int64()),
        pa.scalar('"'),
        _seldom("flag", code, (code != Flag.GOOD) | ~is_new),
        _seldom("revision", batch.revision, batch.revision != 0),
        pa.scalar(" "),
        _text(batch.time_us, pa.int64()),
        pa.scalar("\n"),
    ]
    lines = pc.binary_join_element_wise(*parts, "")
    ends = np.frombuffer(lines.buffers()[1], np.int32)  # of each line's text, which lies without gaps
    return bytes(memoryview(lines.buffers()[2])[: int(ends[len(lines)])])


def _seldom(name: str, data: Any, said: BoolArray) -> pa.Array | pa.Scalar:
    """Return a field of whole numbers that are few and seldom said, as it follows another one."""
    if not said.any():
        return pa.scalar("")
    known, places = np.unique(np.where(said, data, -1), return_inverse=True)
    texts = ["" if number < 0 else f",{name}={number}i" for number in known.tolist()]
    return pc.take(array(texts, pa.string()), column(places.astype(np.int32), pa.int32()))


def _text(data: Any, type_: pa.DataType) -> pa.Array:
    return column(data, type_).cast(pa.string())


def joined(lines: Sequence[str]) -> list[bytes]:
    """Put lines together to bodies."""
    return ["".join(lines[n : n + LINES_MAX]).encode() for n in range(0, len(lines), LINES_MAX)]


def series(added: Iterable[tuple[int, SeriesInfo]]) -> list[bytes]:
    """Return series as bodies: the point at the time of the id says what the series is."""
    return joined([f"series info={_quoted(_json.encode(info).decode())} {id_}\n" for id_, info in added])


def position(upto: Position) -> bytes:
    """Return a position as a body; each journal has one point, which the next position takes the place of."""
    return f"position{tag('journal', upto.journal)} number={upto.number}i 0\n".encode()


def values(rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Return rows of VALUES as bodies: a point for each revision, with its number for people and the row for us."""
    return joined([_value(row) for row in rows])


def _value(row: tuple[Any, ...]) -> str:
    indicator, zone, window, start_us, _, number = row[:6]
    revision = row[-1]
    tags = tag("indicator", indicator) + f",revision={revision}" + tag("window", window) + tag("zone", zone)
    plain = "" if number is None or not np.isfinite(number) else f"value={number!r},"
    return f"value{tags} {plain}row={_quoted(encode_row(row))} {start_us}\n"


def encode_row(row: tuple[Any, ...]) -> str:
    """Return a row of VALUES as JSON; its number as text, which holds every float64 to the last bit."""
    number = row[5]
    return _json.encode((*row[:5], None if number is None else repr(float(number)), *row[6:])).decode()


def decode_row(text: str) -> tuple[Any, ...]:
    """Return what `encode_row` made JSON of."""
    row = msgspec.json.decode(text)
    return (*row[:5], None if row[5] is None else float(row[5]), *row[6:])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
