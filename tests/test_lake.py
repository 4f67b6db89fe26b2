"""The lake: what an export writes, what readers see of it, and what late readings change."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import ConfigError, CorruptError, UnavailableError, VersionError
from devices.reading import Batch, Flag, SeriesInfo
from qala.store import lake_export
from qala.store.base import READINGS, Selector, Span, Store
from qala.store.lake import DAY_US, Lake, day_number
from qala.store.lake_export import Exporter, closed_days, days_of, export_day
from qala.store.lake_files import LakeFiles
from qala.store.memory import MemoryStore

DAY = day_number("2026-01-10")
START_US = DAY * DAY_US
HOUR_US = 3_600_000_000
PM, NO2, SPEED = (
    SeriesInfo("air/a1", "pm2_5", "", 0, "ug/m3"),
    SeriesInfo("air/a2", "no2", "", 0, "ug/m3"),
    SeriesInfo("road/d1", "speed", "lane2", 300, "km/h"),
)
ALL, EVERYTHING = Selector(), Span(-(2**60), 2**60)


def told(store: Store, rows: Iterable[tuple[SeriesInfo, int, float]], *, origin: int = 1, revision: int = 0) -> Store:
    """Append (series, time, value) under one origin; NaN is a missing reading."""
    infos, times, values = zip(*rows, strict=True)
    value = np.array(values, np.float64)
    store.append(
        Batch(
            series=store.register(infos),
            time_us=np.array(times, np.int64),
            value=value,
            flag=np.where(np.isnan(value), Flag.MISSING, Flag.GOOD).astype(np.uint8),
            revision=np.full(len(value), revision, np.int32),
            origin=np.full(len(value), origin, np.int64),
            received_us=np.array(times, np.int64) + 5,
        ),
        None,
    )
    return store


def three_days() -> list[tuple[SeriesInfo, int, float]]:
    """Hourly readings of three series over three days, one of them missing."""
    hours = range(72)
    readings = [(series, START_US + h * HOUR_US, h + n / 8) for n, series in enumerate((SPEED, PM, NO2)) for h in hours]
    readings[30] = (SPEED, START_US + 30 * HOUR_US, float("nan"))
    return readings


def export(store: Store, lake: Lake, first: int = DAY, last: int = DAY + 9) -> list[bool]:
    """Export the days that have readings, and tell of each whether it was written."""
    return [export_day(store, lake, day).written for day in days_of(store, first, last)]


def described(source: Store | Lake, select: Selector = ALL, span: Span = EVERYTHING) -> list[tuple[object, ...]]:
    """Read, and say of each reading whose it is; NaN becomes None, so that it equals itself."""
    catalog = source.catalog()
    rows = [row for batch in source.read(select, span) for row in batch.to_pylist()]
    for row in rows:
        row["value"] = None if np.isnan(row["value"]) else row["value"]
    return sorted((msgspec.structs.astuple(catalog[row.pop("series")]), *row.values()) for row in rows)


@pytest.fixture(params=["folder", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    if request.param == "folder":
        yield Lake(str(tmp_path / "lake"))
        return
    name = uuid.uuid4().hex
    yield Lake(f"memory://{name}")
    fsspec.filesystem("memory").store.clear()


def test_what_is_read_of_the_lake_is_what_the_store_has(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    assert export(store, lake) == [True] * 3
    assert lake.days() == [DAY, DAY + 1, DAY + 2]
    assert described(lake) == described(store)


def test_readings_come_by_series_and_time_over_all_days(lake: Lake) -> None:
    export(told(MemoryStore(), three_days()), lake)
    table = pa.Table.from_batches(lake.read(Selector(), EVERYTHING), READINGS)
    keys = list(zip(table["series"].to_pylist(), table["time_us"].to_pylist(), strict=True))
    assert len(keys) == 216
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("select", "span"),
    [
        pytest.param(Selector(quantities=frozenset({"no2"})), EVERYTHING, id="a quantity"),
        pytest.param(Selector(devices=frozenset({"road/d1", "air/a1"})), EVERYTHING, id="devices"),
        pytest.param(Selector(channels=frozenset({"lane2"})), EVERYTHING, id="a channel"),
        pytest.param(Selector(), Span(START_US + HOUR_US, START_US + 25 * HOUR_US), id="over midnight"),
        pytest.param(Selector(), Span(START_US, START_US + 1), id="one moment"),
        pytest.param(Selector(), Span(START_US - 9, START_US), id="before the first"),
        pytest.param(Selector(devices=frozenset()), EVERYTHING, id="none"),
    ],
)
def test_a_selection_picks_what_it_picks_of_a_store(lake: Lake, select: Selector, span: Span) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    assert described(lake, select, span) == described(store, select, span)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([PM, NO2, SPEED]),
            st.integers(START_US, START_US + 3 * DAY_US - 1),
            st.floats(width=64, allow_infinity=False),
        ),
        min_size=1,
        max_size=60,
    ),
    edges=st.tuples(st.integers(0, 3 * DAY_US), st.integers(0, 3 * DAY_US)),
)
def test_any_readings_come_back(rows: list[tuple[SeriesInfo, int, float]], edges: tuple[int, int]) -> None:
    store, lake = told(MemoryStore(), rows), Lake(f"memory://{uuid.uuid4().hex}")
    export(store, lake)
    span = Span(START_US + min(edges), START_US + max(edges))
    assert described(lake, span=span) == described(store, span=span)


def test_a_limit_ends_a_read(lake: Lake) -> None:
    export(told(MemoryStore(), three_days()), lake)
    assert sum(batch.num_rows for batch in lake.read(Selector(), EVERYTHING, limit=100)) == 100


def test_exporting_again_writes_nothing(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    before = [lake.manifest(day) for day in lake.days()]
    assert export(store, lake) == [False] * 3
    assert [lake.manifest(day) for day in lake.days()] == before


@pytest.mark.parametrize(
    ("rows", "revision"),
    [
        pytest.param([(PM, START_US + DAY_US + 7, 1.0)], 0, id="a late reading"),
        pytest.param([(PM, START_US + DAY_US, 99.0)], 1, id="a correction"),
        pytest.param([(PM, START_US + DAY_US, 24.125)], 1, id="the same number under a higher revision"),
        pytest.param([(PM, START_US + DAY_US, float("nan"))], 1, id="a correction to nothing"),
    ],
)
def test_a_day_that_changed_is_exported_again_and_its_old_parts_go(
    lake: Lake, rows: list[tuple[SeriesInfo, int, float]], revision: int
) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    told(store, rows, origin=2, revision=revision)
    assert export(store, lake) == [False, True, False]
    assert described(lake) == described(store)
    assert sorted(lake.files.names("day=2026-01-11")) == ["manifest.json", "part-2-0000.parquet"]


def test_readings_that_were_retracted_leave_the_lake(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    [ids] = [store.register([PM])]
    store.retract(ids, np.array([START_US]), np.array([1]))
    assert export_day(store, lake, DAY).rows == 71
    assert described(lake) == described(store)


def test_a_part_is_read_by_any_tool_and_says_who_the_series_are(tmp_path: Path) -> None:
    store = told(MemoryStore(), three_days())
    export(store, Lake(str(tmp_path / "lake")))
    dataset = ds.dataset(tmp_path / "lake", partitioning="hive", exclude_invalid_files=True)
    rows = dataset.to_table(filter=(ds.field("quantity") == "speed") & (ds.field("day") == "2026-01-12")).to_pylist()
    assert len(rows) == 24
    assert {(row["device"], row["channel"], row["span_s"], row["unit"]) for row in rows} == {
        ("road/d1", "lane2", 300, "km/h")
    }


def test_a_part_is_small_sorted_and_what_its_manifest_says(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    export(told(MemoryStore(), three_days()), lake)
    manifest = lake.manifest(DAY)
    assert manifest is not None
    [part] = manifest.parts
    data = (tmp_path / "lake" / "day=2026-01-10" / part.name).read_bytes()
    assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    metadata = pq.ParquetFile(tmp_path / "lake" / "day=2026-01-10" / part.name).metadata
    assert {metadata.row_group(0).column(n).compression for n in range(metadata.num_columns)} == {"ZSTD"}


def test_large_days_have_several_parts_and_row_groups(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_export, "PART_ROWS", 30)
    monkeypatch.setattr(lake_export, "GROUP_ROWS", 8)
    monkeypatch.setattr(lake_export, "SERIES_AT_ONCE", 2)
    store = told(MemoryStore(), three_days())
    export(store, lake)
    manifest = lake.manifest(DAY)
    assert manifest is not None
    assert [part.rows for part in manifest.parts] == [30, 30, 12]
    with lake.files.open(f"day=2026-01-10/{manifest.parts[0].name}") as file:
        assert pq.ParquetFile(file).num_row_groups == 4
    assert described(lake) == described(store)


def test_the_cut_of_a_day_is_no_change_of_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    monkeypatch.setattr(lake_export, "GROUP_ROWS", 8)
    monkeypatch.setattr(lake_export, "SERIES_AT_ONCE", 1)
    assert export(store, lake) == [False] * 3


def test_large_reads_come_in_pieces(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    monkeypatch.setattr("qala.store.lake.ROWS_MAX", 80)
    assert len(list(lake.read(Selector(), EVERYTHING))) == 3
    assert described(lake) == described(store)


def test_a_rebuilt_store_finds_its_series_in_the_lake(lake: Lake) -> None:
    first = told(MemoryStore(), three_days())
    export(first, lake)
    catalog = dict(lake.catalog())
    rebuilt = MemoryStore()
    rebuilt.register([NO2, PM, SPEED])  # in another order, so under other ids
    told(rebuilt, three_days())
    assert export(rebuilt, lake) == [False] * 3
    assert lake.catalog() == catalog


def test_a_new_series_gets_an_id_behind_the_others(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    before = dict(lake.catalog())
    told(store, [(SeriesInfo("air/a3", "pm10"), START_US + 4 * DAY_US, 1.0)])
    export(store, lake)
    assert lake.catalog() == before | {4: SeriesInfo("air/a3", "pm10")}
    assert described(lake) == described(store)


class TornError(Exception):
    """The exporter was killed."""


@pytest.mark.parametrize("after", range(4))
def test_an_export_that_is_killed_leaves_the_day_as_it_was(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    before = described(lake)
    told(store, [(PM, START_US + 7, 1.0)])
    monkeypatch.setattr(lake_export, "PART_ROWS", 30)
    steps = iter(range(after))

    def dying(step: Callable[..., object]) -> Callable[..., object]:
        def do(*given: object, **named: object) -> object:
            if next(steps, None) is None:
                raise TornError
            return step(*given, **named)

        return do

    for name in ("create", "replace"):
        monkeypatch.setattr(lake.files, name, dying(getattr(lake.files, name)))
    with pytest.raises(TornError):
        export(store, lake)
    monkeypatch.undo()
    assert described(Lake(lake.url)) == before
    assert export(store, Lake(lake.url)) == [True, False, False]
    assert described(Lake(lake.url)) == described(store)
    assert len(lake.files.names("day=2026-01-10")) == 2


def test_a_reader_that_met_an_old_manifest_reads_the_new_parts(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store = told(MemoryStore(), three_days())
    export(store, lake)
    old = lake.manifest(DAY)
    told(store, [(PM, START_US + 7, 1.0)])
    export(store, lake)
    seen = iter([lake.manifest(DAY), old])
    monkeypatch.setattr(lake, "manifest", lambda day: next(seen, None) or Lake(lake.url).manifest(day))
    span = Span(START_US, START_US + DAY_US)
    assert described(lake, span=span) == described(store, span=span)


def flip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda part: part.write_bytes(part.read_bytes()[:-9]), id="cut"),
        pytest.param(lambda part: part.unlink(), id="gone"),
        pytest.param(flip, id="a flipped bit"),
    ],
)
def test_a_damaged_part_is_found_and_written_again(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    export(store, lake)
    assert [lake.verify(day) for day in lake.days()] == [[], [], []]
    harm(tmp_path / "lake" / "day=2026-01-10" / "part-1-0000.parquet")
    assert lake.verify(DAY) == ["part-1-0000.parquet is not what its manifest says"]
    assert export_day(store, lake, DAY, verify=True).written
    assert lake.verify(DAY) == []
    assert described(lake) == described(store)


def test_a_flipped_bit_in_a_page_is_an_error_and_no_other_number(tmp_path: Path) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    export(store, lake)
    part = tmp_path / "lake" / "day=2026-01-10" / "part-1-0000.parquet"
    group, whole = pq.ParquetFile(part).metadata.row_group(0), part.read_bytes()
    columns = [group.column(n) for n in range(group.num_columns)]
    for column in columns:
        last = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        part.write_bytes(whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])
        if column.path_in_schema in READINGS.names:  # the others are for tools that read a part alone
            with pytest.raises(CorruptError, match="damaged"):
                described(lake)


def test_a_day_that_lost_its_manifest_is_no_day_without_readings(tmp_path: Path) -> None:
    lake = Lake(f"{tmp_path}/lake")
    steps(Exporter(told(MemoryStore(), three_days()), lake), START_US + 5 * DAY_US)
    ((first, last),) = lake.complete()
    (tmp_path / "lake" / "day=2026-01-11" / "manifest.json").unlink()
    assert lake.covered() == ((first, last),)
    assert lake.complete() == ((first, DAY + 1), (DAY + 2, last))


def test_a_day_that_lost_its_manifest_is_found(tmp_path: Path) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    export(store, lake)
    (tmp_path / "lake" / "day=2026-01-10" / "manifest.json").unlink()
    assert DAY in lake.begun()
    assert lake.verify(DAY) == ["it has no manifest"]
    assert export(store, lake) == [True, False, False]


def test_a_part_that_cannot_be_read_is_an_error_with_the_way_back(tmp_path: Path) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    export(store, lake)
    part = tmp_path / "lake" / "day=2026-01-10" / "part-1-0000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(CorruptError, match="damaged") as raised:
        described(lake)
    assert "export" in raised.value.hint
    assert export(store, lake) == [True, False, False]
    assert described(lake) == described(store)


class Cut(io.BytesIO):
    """A remote file whose connection is lost."""

    def read(self, *_: object) -> bytes:
        raise ConnectionResetError(errno.ECONNRESET, "connection reset")


def test_a_lake_that_cannot_be_reached_amid_a_part_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    export(told(MemoryStore(), three_days()), lake)
    monkeypatch.setattr(LakeFiles, "open", lambda _files, _name: nullcontext(Cut(b"PAR1" * 100)))
    with pytest.raises(UnavailableError, match="reset"):
        lake.catalog()


def test_a_lake_of_a_newer_qala_is_not_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    export(told(MemoryStore(), three_days()), lake)
    (tmp_path / "lake" / "day=2026-01-10" / "manifest.json").write_bytes(
        msgspec.json.encode({"version": 2, "day": "2026-01-10", "generation": 1, "rows": 0, "digest": "", "parts": []})
    )
    with pytest.raises(VersionError):
        described(lake)


def test_a_lake_must_be_at_a_place_that_is_known() -> None:
    with pytest.raises(ConfigError, match="no lake can be at") as raised:
        Lake("sea://bottom")
    assert "s3fs" in raised.value.hint


# ---- the exporter beside a server


def steps(exporter: Exporter, now_us: int) -> int:
    """Step until nothing waits; return how often."""
    done = 1
    while exporter.step(now_us):
        done += 1
    return done


def test_days_are_exported_as_they_close(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    exporter = Exporter(store, lake)
    steps(exporter, START_US + 2 * DAY_US + HOUR_US - 1)
    assert (lake.days(), lake.covered()) == ([DAY], ((0, DAY + 1),))
    steps(exporter, START_US + 3 * DAY_US + HOUR_US)
    assert (lake.days(), lake.covered()) == ([DAY, DAY + 1, DAY + 2], ((0, DAY + 3),))


def test_a_step_exports_one_day(lake: Lake) -> None:
    exporter = Exporter(told(MemoryStore(), three_days()), lake)
    now_us = START_US + 9 * DAY_US
    assert [exporter.step(now_us) for _ in range(3)] == [True, True, False]
    assert (exporter.upkeep().done, exporter.upkeep().total, exporter.upkeep().unit) == (3, 3, "days")


def test_late_readings_export_their_day_again(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    exporter, now_us = Exporter(store, lake), START_US + 9 * DAY_US
    steps(exporter, now_us)
    told(store, [(PM, START_US + DAY_US + 7, 1.0)])
    exporter.touch(np.array([START_US + DAY_US + 7, START_US + 20 * DAY_US]))
    assert steps(exporter, now_us) == 1
    assert described(lake) == described(store)
    assert exporter.upkeep().total - exporter.upkeep().done == 1  # the day that is not over yet


def test_late_readings_of_a_former_process_are_found_by_the_next(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    steps(Exporter(store, lake), START_US + 9 * DAY_US)
    told(store, [(PM, START_US + DAY_US + 7, 1.0)])
    steps(Exporter(store, lake), START_US + 9 * DAY_US)
    assert described(lake) == described(store)


def test_days_that_retention_thins_stay_whole_in_the_lake(lake: Lake) -> None:
    store = told(MemoryStore(), three_days())
    before = described(store)
    now_us = START_US + 4 * DAY_US
    exporter = Exporter(store, lake, keep_days=3.5)
    steps(Exporter(store, lake), now_us)
    store.delete_before(now_us - int(3.5 * DAY_US))
    exporter.touch(np.array([START_US, START_US + DAY_US]))
    steps(exporter, now_us)
    assert described(lake) == before


def test_an_exporter_that_fails_says_why_and_goes_on(tmp_path: Path) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    exporter = Exporter(store, lake)
    (tmp_path / "lake").write_text("in the way")
    with pytest.raises(Exception, match="lake"):
        exporter.step(START_US + 9 * DAY_US)
    assert exporter.upkeep().error
    (tmp_path / "lake").unlink()
    steps(exporter, START_US + 9 * DAY_US)
    assert (len(lake.days()), exporter.upkeep().error) == (3, "")


def test_the_days_of_a_store_are_found(lake: Lake) -> None:
    store = told(MemoryStore(), [(PM, START_US, 1.0), (PM, START_US + 400 * DAY_US, 1.0)])
    assert list(days_of(store, 0, DAY + 1000)) == [DAY, DAY + 400]
    assert list(days_of(store, DAY + 1, DAY + 400)) == []
    assert list(days_of(MemoryStore(), 0, DAY)) == []
    assert closed_days(START_US + HOUR_US) == DAY


def test_the_lake_does_not_import_pandas(tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
from devices.reading import Batch, SeriesInfo
from qala.store import open_store
from qala.store.base import Selector, Span
from qala.store.lake import Lake
from qala.store.lake_export import export_day
store, lake = open_store("duckdb://{tmp_path}/readings.duckdb"), Lake("{tmp_path}/lake")
batch = Batch.empty()
many = [np.ones(9, column.dtype) for column in (batch.value, batch.flag, batch.revision, batch.origin, batch.received_us)]
store.append(Batch(np.repeat(store.register([SeriesInfo("a", "pm2_5")]), 9), np.arange(9) * 10**10, *many), None)
print(export_day(store, lake, 0).rows + export_day(store, lake, 1).rows)
print(sum(rows.num_rows for rows in lake.read(Selector(), Span(0, 10**12))), "pandas" in sys.modules)
store.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["9", "9", "False"], done.stderr


def test_what_is_written_is_durable_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, lake = told(MemoryStore(), three_days()), Lake(str(tmp_path / "lake"))
    synced: list[str] = []
    real = os.fsync

    def noting(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)
        real(file)

    monkeypatch.setattr(os, "fsync", noting)
    export_day(store, lake, DAY)
    assert synced[-3:] == ["part-1-0000.parquet", "manifest.json.part", "day=2026-01-10"]
