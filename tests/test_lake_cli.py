"""Lake and backfill from the command line: over the files where nothing runs, and through the running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow.parquet as pq
import pytest

from analytics.backfill import compute, decode, plan
from analytics.indicators import indicators
from devices.device import Registry
from devices.value import Value
from qala.process import holder
from qala.state import open_state
from qala.state.registry import import_registry
from qala.store import open_store
from qala.store.base import Selector, Span, ValueSelector
from qala.store.lake import DAY_US, Lake
from tests import month
from tests.processes import Qala
from tests.test_backfill import by_key
from tests.wait import until

DAYS = 2
SPAN = Span(month.START_US, month.START_US + DAYS * DAY_US)
WHEN = ("--since", "2026-01-01", "--until", "2026-01-03")


class Site:
    """A data folder with two days of readings, and what may be typed about it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.lake = folder / "data", folder / "lake"
        self.registry: Registry = month.registry(2, 2, 2, days=DAYS)
        self.data.mkdir()
        engine = open_state(f"sqlite:///{self.data}/state.sqlite")
        zones, devices, placements = self.registry.zones, self.registry.devices, self.registry.placements
        import_registry(engine, devices.values(), zones.values(), placements, 0)
        engine.dispose()
        store = open_store(self.url)
        month.fill(store, self.registry, DAYS)
        store.close()

    @property
    def url(self) -> str:
        return f"duckdb://{self.data}/readings.duckdb"

    def type(self, *words: str, fails: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
        done = subprocess.run(
            [sys.executable, "-m", "qala", *words, "--data", str(self.data)],
            env=environment | {"QALA_STORE__LAKE": str(self.lake)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == fails, done.stderr
        return done

    def rows(self, *words: str) -> Any:
        return json.loads(self.type(*words, "--json").stdout)

    def expected(self) -> list[Value]:
        """Compute what a backfill must come to, in this process."""
        tasks = plan(self.registry, indicators(), "Asia/Almaty", SPAN, Lake(str(self.lake)), readings_max=10**6)
        return [value for task in tasks for value in decode(compute(msgspec.json.encode(task))).values]

    def stored(self) -> list[Value]:
        store = open_store(self.url)
        try:
            return month.values(store, SPAN)
        finally:
            store.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_days_are_exported_listed_and_verified_where_nothing_runs(site: Site) -> None:
    assert [(row["day"], row["written"]) for row in site.rows("lake", "export")] == [
        ("2026-01-01", True),
        ("2026-01-02", True),
    ]
    assert [row["written"] for row in site.rows("lake", "export", "--since", "2026-01-02")] == [False]
    listed = site.rows("lake", "ls")
    assert [(row["day"], row["parts"], row["generation"]) for row in listed] == [
        ("2026-01-01", 1, 1),
        ("2026-01-02", 1, 1),
    ]
    store = open_store(site.url)
    assert sum(row["rows"] for row in listed) == sum(b.num_rows for b in store.read(Selector(), Span(0, 2**60)))
    store.close()
    part = site.lake / "day=2026-01-02" / "part-1-0000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    done = site.type("lake", "verify", "--json", fails=1)
    assert [row["ok"] for row in json.loads(done.stdout)] == [True, False]


def test_a_backfill_goes_into_the_store_once(site: Site) -> None:
    site.type("lake", "export")
    [first] = site.rows("analytics", "backfill", *WHEN, "--workers", "1")
    assert first["written"] == first["values"] > 1_000
    assert by_key(site.stored()) == by_key(site.expected())
    [again] = site.rows("analytics", "backfill", *WHEN, "--workers", "1", "--indicator", "traffic_flow")
    assert (again["written"], again["outdated"]) == (0, 0)
    assert 0 < again["same"] < first["values"]


def test_a_backfill_goes_into_a_file_and_leaves_the_store_alone(site: Site, tmp_path: Path) -> None:
    site.type("lake", "export")
    [row] = site.rows("analytics", "backfill", *WHEN, "--workers", "1", "--output", str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out" / "values.parquet").to_pylist()
    assert len(rows) == row["values"]
    assert sorted((r["indicator"], r["zone"], r["window"], r["start_us"], r["value"]) for r in rows) == sorted(
        (v.indicator, v.zone, v.window, v.start_us, v.value) for v in site.expected()
    )
    assert site.stored() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ("analytics", "backfill", *WHEN, "--indicator", "happiness"), "no indicator is called", id="indicator"
        ),
        pytest.param(("analytics", "backfill", "--since", "soon", "--until", "now"), "is not a time", id="time"),
        pytest.param(("lake", "ls", "--lake", "sea://bottom"), "no lake can be at", id="lake"),
    ],
)
def test_what_cannot_be_meant_is_said_with_a_hint(site: Site, words: tuple[str, ...], message: str) -> None:
    done = site.type(*words, fails=2)
    assert message in done.stderr
    assert "hint:" in done.stderr


@pytest.fixture
def serving(site: Site) -> Iterator[Qala]:
    qala = Qala(site.data)
    qala.environment["QALA_STORE__LAKE"] = str(site.lake)
    qala.start_serve()
    try:
        until(lambda: holder(site.data / "serve.lock") and (site.data / "qala.sock").exists(), deadline_s=60)
        yield qala
    finally:
        qala.__exit__(None, None, None)


def test_a_running_server_exports_and_takes_the_values(site: Site, serving: Qala) -> None:
    assert [row["written"] for row in site.rows("lake", "export")] == [True, True]
    [row] = site.rows("analytics", "backfill", *WHEN, "--workers", "1")
    assert row["written"] == row["values"] > 1_000
    for path, body in (
        ("store/values", {"values": []}),
        ("store/lake", {"since": "2026-01-01", "until": "2026-01-02"}),
    ):
        answer = httpx.post(f"{serving.url}/api/v1/{path}", json=body)
        assert answer.status_code == 403  # over the socket alone
    serving.stop()
    assert by_key(site.stored()) == by_key(site.expected())


def test_what_is_put_in_by_the_owner_must_be_values(site: Site) -> None:
    from qala.client import connect
    from qala.config import load_config

    with connect(load_config(flags={"data": site.data})) as client, pytest.raises(Exception, match="revision"):
        client.post("/store/values", {"values": [{"revision": "many"}]})
    store = open_store(site.url)
    assert store.values(ValueSelector(), SPAN).num_rows == 0
    store.close()
