"""The InfluxDB store on a real server: conformance, what it refuses, what it loses, and what it never tells."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from influxdb_client.service.write_service import WriteService
from pydantic import SecretStr

from devices.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    QalaError,
    UnavailableError,
    UnsupportedError,
)
from devices.reading import Batch, Position, SeriesInfo
from qala.store import StoreSettings, influx_http, influx_windows, open_store
from qala.store import influx_lines as lines
from qala.store.base import Aggregate, Appended, Selector, Span, Store, ValueSelector
from qala.store.conformance import (
    ALWAYS,
    DAY,
    EVERY,
    MINUTE,
    T0,
    Opening,
    StoreConformance,
    a_value,
    air,
    batch,
    everything,
    rows,
    with_series,
)
from qala.store.influx_http import RefusedError, Server, parse_address
from qala.store.rows import readings_table
from tests.servers import Influx, started_influx

DAY_S = 86_400
SECRET = "not-for-anybodys-eyes"


class TestInfluxDB(StoreConformance):
    histories = 6

    @pytest.fixture(autouse=True)
    def _on(self, influx: Influx) -> None:
        self.influx = influx

    @contextmanager
    def place(self) -> Iterator[Opening]:
        url = self.influx.url(self.influx.bucket())
        yield lambda: opened(self.influx, url)


def opened(influx: Influx, url: str, *, token: str = "", **settings: Any) -> Store:
    return open_store(url, StoreSettings(token=SecretStr(token or influx.token), **settings))


def shown(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code and all that it says."""
    done = subprocess.run([sys.executable, "-m", "qala", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def bucket(influx: Influx) -> str:
    return influx.bucket()


@pytest.fixture
def store(influx: Influx, bucket: str) -> Iterator[Store]:
    with closing(opened(influx, influx.url(bucket))) as store:
        yield store


def written_by_others(influx: Influx, bucket: str, line: str) -> None:
    influx.call("POST", "write", params={"org": influx.org, "bucket": bucket, "precision": "us"}, content=line.encode())


def fields(influx: Influx, bucket: str) -> list[str]:
    """Return which number fields the points of a bucket have, as any other client sees them."""
    flux = (
        f'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "value" or r._field == "held")'
    )
    answer = influx.text("query", flux)
    return sorted(line.split(",")[7] for line in answer.splitlines() if line.startswith(",_result"))


# ---- what it holds


def test_a_reading_that_turns_unusable_leaves_no_good_number_behind(influx: Influx, bucket: str, store: Store) -> None:
    with_series(store)
    store.append(batch(*((1, T0 + n, 1.0 + n, 1, 0, 1) for n in range(4)), (2, T0, 5.0, 4, 0, 1)), None)
    assert fields(influx, bucket) == ["held"] + 4 * ["value"]
    turned = batch((1, T0 + 1, 2.0, 4, 1, 2), (1, T0 + 2, math.nan, 9, 1, 2), (2, T0, 5.0, 1, 1, 2))
    assert store.append(turned, None) == Appended(0, 3, 0)
    assert fields(influx, bucket) == ["held", "held", "value", "value", "value"]
    wanted = frozenset({Aggregate.COUNT, Aggregate.GOOD, Aggregate.SUM, Aggregate.LAST})
    found = store.overview(EVERY, np.array([T0, T0 + 10], np.int64), wanted).to_pylist()
    assert [tuple(row.values())[2:] for row in found] == [(4, 2, 5.0, 4.0), (1, 1, 5.0, 5.0)]


def as_before(given: Batch, catalog: Mapping[int, SeriesInfo]) -> str:
    """Write readings as lines of before there was a `receipt`."""
    known = lines.prefixes(catalog).to_pylist()
    held = ~lines.in_value(given)
    return "\n".join(
        f"{known[series]} {'held' if away else 'value'}={0.0 if math.isnan(value) else value},flag={flag}i,origin={origin}i,"
        f"received_us={received_us}i{f',revision={revision}i' if revision else ''} {time_us}"
        for (series, time_us, value, flag, revision, origin, received_us), away in zip(
            zip(*(getattr(given, name).tolist() for name in given.__struct_fields__), strict=True), held, strict=True
        )
    )


def test_a_bucket_of_before_reads_as_it_did_and_takes_what_comes(influx: Influx, bucket: str, store: Store) -> None:
    with_series(store, 3)
    old = batch(
        *((s, T0 + n * MINUTE, float(s + n), 4 if n == 5 else 1, n % 2, 10 + n) for s in (1, 2) for n in range(6)),
        (3, T0, math.nan, 9, 0, 10),
    )
    written_by_others(influx, bucket, as_before(old, store.catalog()))
    with closing(opened(influx, influx.url(bucket))) as again:
        assert str(rows(again.read(EVERY, ALWAYS))) == str(rows([readings_table(old)]))  # one is NaN
        assert again.append(old, None) == Appended(0, 0, len(old))
        changed = batch(
            (1, T0, 7.0, 1, 2, 20), (1, T0 + 5 * MINUTE, 8.0, 1, 1, 20), (2, T0 + 5 * MINUTE, 9.0, 4, 1, 20),
            (2, T0 + 6 * MINUTE, 5.0, 1, 0, 21), (3, T0, 6.0, 2, 0, 20),
        )  # fmt: skip
        assert again.append(changed, None) == Appended(1, 4, 0)
        wanted = {
            (r["series"], r["time_us"]): r for r in (*rows([readings_table(old)]), *rows([readings_table(changed)]))
        }
        assert rows(again.read(EVERY, ALWAYS)) == [wanted[key] for key in sorted(wanted)]
        last = {series: wanted[max(key for key in wanted if key[0] == series)] for series in (1, 2, 3)}
        found = again.latest(EVERY, at_us=T0 + 10 * MINUTE, lookback_s=3_600).to_pylist()
        assert {row["series"]: row for row in found} == last
        counted = frozenset({Aggregate.COUNT, Aggregate.GOOD})
        table = again.overview(EVERY, np.array([T0, T0 + 10 * MINUTE], np.int64), counted)
        assert [tuple(row.values())[2:] for row in table.to_pylist()] == [(6, 6), (7, 6), (1, 1)]


@pytest.mark.parametrize(("flag", "points"), [(1, 2), (2, 3)])
def test_a_reading_costs_two_fields_where_nothing_is_unusual(
    influx: Influx, bucket: str, store: Store, flag: int, points: int
) -> None:
    with_series(store)
    store.append(batch((1, T0, 1.0, flag)), None)
    answer = influx.text("query", f'from(bucket: "{bucket}") |> range(start: 0)')
    assert sum(line.startswith(",_result") for line in answer.splitlines()) == points


@pytest.mark.parametrize("near", [True, False])
def test_what_is_written_is_packed_for_a_server_elsewhere_alone(
    influx: Influx, bucket: str, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    monkeypatch.setattr(influx_http, "_NEAR", frozenset({"127.0.0.1", "localhost"} if near else ()))
    encodings: list[str] = []
    whole = WriteService.post_write

    def watched(self: WriteService, *args: Any, **given: Any) -> Any:
        encodings.append(given["content_encoding"])
        return whole(self, *args, **given)

    monkeypatch.setattr(WriteService, "post_write", watched)
    with closing(opened(influx, influx.url(bucket))) as store:
        with_series(store)
        store.append(batch((1, T0, 1.0)), None)
        assert everything(store) == [(1, T0, 1.0)]
    assert set(encodings) == {"identity" if near else "gzip"}


def test_a_flag_that_turns_good_leaves_no_other_one_behind(store: Store) -> None:
    with_series(store)
    for flag, origin in ((2, 1), (1, 2)):
        store.append(batch((1, T0, 1.0, flag, 0, origin)), None)
    assert [row["flag"] for row in rows(store.read(EVERY, ALWAYS))] == [1]


def test_the_latest_reading_is_found_among_usable_and_held_ones(store: Store) -> None:
    with_series(store)
    store.append(batch(*((s, T0 + n, float(n), 4 if n % 2 == s % 2 else 1) for s in (1, 2) for n in range(4))), None)
    found = store.latest(EVERY, at_us=T0 + 10, lookback_s=60).to_pylist()
    assert [(row["series"], row["time_us"], row["flag"]) for row in found] == [(1, T0 + 3, 4), (2, T0 + 3, 1)]


def test_a_batch_of_which_the_position_was_never_written_is_taken_again(influx: Influx, bucket: str) -> None:
    taken = batch((1, T0, 1.0), (1, T0 + 1, math.nan, 9), (2, T0, 2.0, 4))
    with closing(opened(influx, influx.url(bucket))) as store:
        with_series(store)
        store.append(taken, None)
    with closing(opened(influx, influx.url(bucket))) as store:
        assert store.applied("j") is None
        assert store.append(taken, Position("j", 1)) == Appended(0, 0, 3)
        assert len(everything(store)) == 3


def test_edges_as_charts_have_them_are_answered_by_the_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx_windows, "RAW_MAX", 0)
    with_series(store)
    store.append(batch(*((1, T0 + n * MINUTE, float(n)) for n in range(60))), None)
    edges = T0 + np.array([1, 5, 10, 15, 20, 58], np.int64) * MINUTE
    table = store.overview(EVERY, edges, frozenset({Aggregate.COUNT, Aggregate.MEAN, Aggregate.FIRST}))
    assert [tuple(row.values())[2:] for row in table.to_pylist()] == [
        (4, 2.5, 1.0), (5, 7.0, 5.0), (5, 12.0, 10.0), (5, 17.0, 15.0), (38, 38.5, 20.0)
    ]  # fmt: skip
    with pytest.raises(UnsupportedError, match="fewer series"):
        store.overview(EVERY, edges, frozenset({Aggregate.P95}))


def test_a_series_of_more_readings_than_one_request_brings_is_read_in_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qala.store.influx_points.ROWS_AT_ONCE", 100)
    with_series(store, 3)
    given = batch(*((s, T0 + n * MINUTE, float(n)) for s, count in ((1, 500), (2, 60), (3, 60)) for n in range(count)))
    store.append(given, None)
    assert everything(store) == list(
        zip(given.series.tolist(), given.time_us.tolist(), given.value.tolist(), strict=True)
    )
    inner = Span(T0 + 5 * MINUTE, T0 + 400 * MINUTE)
    found = [row["time_us"] for row in rows(store.read(Selector(series=frozenset({1})), inner, bracket=True))]
    assert found == [T0 + n * MINUTE for n in range(4, 401)]


def test_many_zones_are_picked_by_name_whatever_they_are_called(store: Store) -> None:
    strange = [
        f"{sign}{n}" for sign in ("a.b|", "улица/", "(x) ", '"q"', "50%", "back\\", "new\nline") for n in range(4)
    ]
    store.put_values([a_value(float(n), zone=zone) for n, zone in enumerate([*strange, "aXb|1", "plain"])])
    found = store.values(ValueSelector(zones=frozenset(strange)), ALWAYS)
    assert found["zone"].to_pylist() == sorted(strange)


# ---- what it refuses


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        pytest.param(f"influxdb://city:{SECRET}@127.0.0.1:8086/o/b", "QALA_STORE__TOKEN", id="a password"),
        pytest.param(f"influxdb://127.0.0.1:8086/o/b?token={SECRET}", "QALA_STORE__TOKEN", id="a token"),
        pytest.param("influxdb://127.0.0.1:8086/o", "HOST:PORT/ORG/BUCKET", id="no bucket"),
        pytest.param("influxdb:///o/b", "HOST:PORT/ORG/BUCKET", id="no host"),
        pytest.param("influxdb://127.0.0.1:big/o/b", "HOST:PORT/ORG/BUCKET", id="no port"),
        pytest.param("influxdb://127.0.0.1/o/b?tls=perhaps", "HOST:PORT/ORG/BUCKET", id="neither true nor false"),
    ],
)
def test_a_url_that_is_not_right_is_refused_without_repeating_it(url: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_address(url)
    assert hint in raised.value.hint
    assert SECRET not in str(raised.value)


def test_a_url_names_server_organisation_and_bucket() -> None:
    assert parse_address("influxdb://db.city:9999/my%20org/air?tls=true").url == "https://db.city:9999"
    address = parse_address("influxdb://[::1]/my%20org/air")
    assert (address.url, address.org, address.bucket) == ("http://[::1]:8086", "my org", "air")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda url: url + "x", "no such bucket", id="no such bucket"),
        pytest.param(lambda url: url.replace("/city/", "/town/"), "town", id="no such organisation"),
    ],
)
def test_a_bucket_that_does_not_exist_is_told(
    influx: Influx, bucket: str, change: Callable[[str], str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(influx, change(influx.url(bucket)))


def test_a_wrong_token_is_told_with_what_it_must_be_allowed(influx: Influx, bucket: str) -> None:
    with pytest.raises(ConfigError) as raised:
        opened(influx, influx.url(bucket), token=SECRET)
    assert "read and write" in raised.value.hint
    assert SECRET not in str(raised.value)


def test_no_token_is_told_with_where_to_put_it(influx: Influx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUX_TOKEN", raising=False)
    with pytest.raises(ConfigError) as raised:
        open_store(influx.url("any"))
    assert {"QALA_STORE__TOKEN", "INFLUX_TOKEN"} <= set(raised.value.hint.replace(",", "").split())


def test_the_token_may_lie_in_a_file_or_in_the_clients_own_variable(
    influx: Influx, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{influx.token}\n")
    open_store(influx.url(bucket), StoreSettings(token_file=file)).close()
    monkeypatch.setenv("INFLUX_TOKEN", influx.token)
    open_store(influx.url(bucket)).close()


def test_a_token_that_may_make_no_bucket_is_told_which_one_to_make(influx: Influx, bucket: str) -> None:
    token = influx.limited_token(bucket)
    with pytest.raises(ConfigError, match=f"{bucket}_qala"):
        opened(influx, influx.url(bucket), token=token)
    beside = influx.bucket(name=f"{bucket}_qala")
    with closing(opened(influx, influx.url(bucket), token=influx.limited_token(bucket, beside))) as store:
        with_series(store)
        store.append(batch((1, T0, 1.0)), Position("j", 1))
        assert everything(store) == [(1, T0, 1.0)]


def test_lines_that_the_server_does_not_take_are_named_and_the_position_stays(
    influx: Influx, bucket: str, store: Store
) -> None:
    with_series(store, 40)
    store.register([air("air/41", "no2")])
    written_by_others(influx, bucket, f"no2,device=x value=1i {T0}")  # whole numbers for ever, from now on
    given = batch(*((s, T0 + 1, float(s)) for s in range(1, 42)))
    with pytest.raises(RefusedError) as raised:
        store.append(given, Position("j", 1))
    assert "no2,device=air/41" in raised.value.message
    assert "already exists as type integer" in raised.value.message
    assert "air/40" not in raised.value.message
    assert store.applied("j") is None
    influx.call(
        "POST",
        "delete",
        params={"org": influx.org, "bucket": bucket},
        json={"start": "1970-01-01T00:00:00Z", "stop": "2100-01-01T00:00:00Z", "predicate": '_measurement="no2"'},
    )
    assert store.append(given, Position("j", 1)) == Appended(1, 0, 40)
    assert len(everything(store)) == 41


def test_a_write_that_is_only_too_large_is_taken_in_smaller_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Server.write

    def behind_a_proxy(self: Server, name: str, body: bytes) -> None:
        if body.count(b"\n") > 10:
            raise RefusedError("413: too large", hint="")
        whole(self, name, body)

    with_series(store, 40)
    given = batch(*((s, T0, float(s)) for s in range(1, 41)))
    monkeypatch.setattr(Server, "write", behind_a_proxy)
    assert store.append(given, Position("j", 1)) == Appended(40, 0, 0)
    assert store.applied("j") == Position("j", 1)
    assert len(everything(store)) == 40


def test_points_of_somebody_else_are_told(influx: Influx, bucket: str, store: Store) -> None:
    with_series(store)
    written_by_others(influx, bucket, f"pm2_5,device=x value=1 {T0}")
    with pytest.raises(ConflictError, match="bucket of its own"):
        everything(store)


def test_readings_without_their_series_are_told(influx: Influx, bucket: str) -> None:
    with closing(opened(influx, influx.url(bucket))) as store:
        with_series(store)
        store.append(batch((1, T0, 1.0)), None)
    influx.drop(f"{bucket}_qala")
    with pytest.raises(CorruptError, match="filled again from the journal"):
        opened(influx, influx.url(bucket))


# ---- how long it keeps


def now_us() -> int:
    return time.time_ns() // 1000


def keeps_s(influx: Influx, bucket: str) -> int:
    [found] = influx.call("GET", "buckets", params={"name": bucket})["buckets"]
    return sum(rule["everySeconds"] for rule in found["retentionRules"])


def test_readings_older_than_the_bucket_keeps_are_left_out_and_told(influx: Influx) -> None:
    with closing(opened(influx, influx.url(influx.bucket(keep_s=2 * DAY_S)))) as store:
        with_series(store)
        now = now_us()
        given = batch((1, now, 1.0), (1, now - DAY, 2.0), (1, now - 3 * DAY, 3.0), (2, now - 2 * DAY, 4.0))
        assert store.append(given, Position("j", 1)) == Appended(2, 0, 0)
        [upkeep] = store.upkeep()
        assert (upkeep.name, upkeep.done) == ("retention", 2)
        assert "2 readings" in upkeep.error
        assert len(everything(store)) == 2
        assert store.applied("j") == Position("j", 1)


def test_a_retention_that_was_shortened_meanwhile_is_learned_from_the_refusal(
    influx: Influx, bucket: str, store: Store
) -> None:
    with_series(store)
    [found] = influx.call("GET", "buckets", params={"name": bucket})["buckets"]
    rules = [{"type": "expire", "everySeconds": DAY_S, "shardGroupDurationSeconds": 3600}]
    influx.call("PATCH", f"buckets/{found['id']}", json={"retentionRules": rules})
    now = now_us()
    given = batch((1, now, 1.0), *((1, now - n * DAY, float(n)) for n in range(2, 5)))
    assert store.append(given, Position("j", 1)) == Appended(1, 0, 0)
    assert store.upkeep()[0].done == 3
    assert store.append(given, Position("j", 2)) == Appended(0, 0, 1)


def test_the_bucket_keeps_what_the_settings_keep_longest_and_a_day_more(influx: Influx, bucket: str) -> None:
    opened(influx, influx.url(bucket), keep_days={"pm2_5": 30}).close()
    assert keeps_s(influx, bucket) == 0  # the others are kept for ever
    opened(influx, influx.url(bucket), keep_days={"pm2_5": 3, "default": 2}).close()
    assert keeps_s(influx, bucket) == 4 * DAY_S
    assert keeps_s(influx, f"{bucket}_qala") == 0
    opened(influx, influx.url(bucket)).close()
    assert keeps_s(influx, bucket) == 4 * DAY_S


def test_a_retention_that_the_server_does_not_take_is_told(influx: Influx, bucket: str) -> None:
    too_long = {"keep_days": {"default": 1e9}}  # more than the settings allow
    settings = StoreSettings(token=SecretStr(influx.token)).model_copy(update=too_long)
    with closing(open_store(influx.url(bucket), settings)) as store:
        [upkeep] = store.upkeep()
        assert "retention could not be set" in upkeep.error
        assert not store.tend(T0)
    assert keeps_s(influx, bucket) == 0


# ---- when it is gone


def test_a_server_that_was_killed_is_unavailable_and_takes_the_same_batch_when_it_is_back() -> None:
    with started_influx() as influx, closing(opened(influx, influx.url(influx.bucket()))) as store:
        with_series(store)
        store.append(batch((1, T0, 1.0)), Position("j", 1))
        influx.kill()
        waiting = batch((1, T0 + 1, 2.0), (2, T0, 3.0, 4))
        for call in (
            lambda: store.append(waiting, Position("j", 2)),
            lambda: everything(store),
            lambda: store.applied("j"),
            lambda: store.latest(EVERY, at_us=T0, lookback_s=1),
        ):
            with pytest.raises(UnavailableError, match="does not answer"):
                call()
        with pytest.raises(UnavailableError):
            opened(influx, influx.url("first"))
        influx.start()
        assert store.applied("j") == Position("j", 1)
        assert store.append(waiting, Position("j", 2)) == Appended(2, 0, 0)
        assert everything(store) == [(1, T0, 1.0), (1, T0 + 1, 2.0), (2, T0, 3.0)]


# ---- what it never tells


def test_the_token_is_nowhere_to_be_read(
    influx: Influx, bucket: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with closing(opened(influx, influx.url(bucket))) as store:
        for logger in ("", "urllib3", "influxdb_client"):  # once the client has made them silent
            caplog.set_level(logging.DEBUG, logger=logger)
        with_series(store)
        store.append(batch((1, T0, 1.0)), None)
        everything(store)
        seen += [repr(store), repr(vars(store)), repr(StoreSettings(token=SecretStr(influx.token)))]
        with pytest.raises(QalaError) as raised:
            store.append(batch((1, T0, math.inf)), None)
        seen.append(repr(raised.value))
    monkeypatch.setenv("QALA_STORE__TOKEN", influx.token)
    monkeypatch.setenv("QALA_STORE__URL", influx.url(bucket))
    for words in (["config"], ["config", "--json"]):
        code, said = shown(*words)
        assert code == 0
        assert influx.org in said
        seen.append(said)
    assert "/api/v2/query" in caplog.text
    assert influx.token not in caplog.text + "".join(seen)


@pytest.mark.parametrize("what", [f"influxdb://city:{SECRET}@h:1/o/b", f"influxdb://h/o/b?token={SECRET}"])
def test_a_secret_in_the_url_is_refused_before_anything_prints_it(what: str) -> None:
    code, said = shown("config", "--store", what)
    assert code != 0
    assert "QALA_STORE__TOKEN" in said
    assert SECRET not in said


def test_closing_ends_what_waits_between_two_tries() -> None:
    with started_influx() as influx:
        store = opened(influx, influx.url("first"))
        influx.kill()
        store.close()
        with pytest.raises(UnavailableError, match="closed"):
            list(store.read(EVERY, ALWAYS))
