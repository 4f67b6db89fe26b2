"""The HTTP API: what it answers, in which shape, and how it says no."""

from __future__ import annotations

import asyncio
import io
import math
import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import Engine, insert

from dashboards.api import contract
from dashboards.api.contract_commands import Command
from dashboards.api.contract_ledger import LedgerRow
from dashboards.api.guard import CSP
from dashboards.api.server import make_server
from dashboards.settings import DashboardsSettings
from dashboards.times import iso
from devices.errors import ConfigError, Reason
from devices.reading import Position
from qala.state import commands, ledger
from qala.state.registry import Candidate, DeviceStatus, put_status, record_candidates
from qala.state.rejected import RejectedLog, RejectedRow
from qala.store import open_store
from tests.api_city import HOUR, MINUTE, NOW, SECOND, City, make_episode, make_value
from tests.wait import until

START, STOP = iso(NOW - 24 * HOUR), iso(NOW)


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    city = City(tmp_path)
    yield city
    city.close()


@pytest.fixture
def full_city(city: City) -> City:
    """A city with something in every list."""
    return filled(city)


def filled(city: City) -> City:
    city.read("city/air-1:pm2_5", [NOW - 3 * MINUTE, NOW - 2 * MINUTE, NOW - MINUTE], [10.0, math.nan, 12.5])
    city.read("city/loop-1:vehicle_count.lane1", [NOW - 10 * MINUTE], [7.0])
    city.read("grid/meter-1:energy_import", [NOW - HOUR, NOW - 20 * MINUTE], [100.0, 104.0])
    city.put(
        make_value("pm2_5_mean", "district-a", "1h", NOW - 2 * HOUR, 21.0, detail={"stations": 1}),
        make_value("pm2_5_mean", "district-b", "1h", NOW - 2 * HOUR, None, n_good=3),
        make_value("pm2_5_mean", "district-a", "1h", NOW - 3 * HOUR, 19.0),
    )
    city.raise_alert(make_episode("ep-1"), make_episode("ep-2", state="ended", start_us=NOW - 9 * HOUR))
    put_status(city.state, [DeviceStatus("city/air-1", True, "1.2", 60, NOW - HOUR)])
    record_candidates(city.state, [Candidate("city/new", NOW - HOUR, NOW, 5)], Position("journal", 9))
    reject(city.state, RejectedRow("journal", 3, 0, Reason.BAD_JSON, "?", "", "city/air-1", "t", NOW, b"{"))
    with city.state.begin() as connection:
        connection.execute(insert(commands.COMMAND), msgspec.structs.asdict(COMMAND))
        ledger.add(connection, [ledger.Entry("city/air-1", NOW - HOUR, ledger.Counts(messages=1))])
    city.settings.page.mkdir()
    return city


def reject(state: Engine, *rows: RejectedRow) -> None:
    with state.begin() as connection:
        log = RejectedLog(state, 1_000, 1_000)
        log.record(connection, Position("journal", 0), Position("journal", 1_000), rows)


# ---- the contract

COMMAND = commands.CommandRow(
    "0000000000000001", "city/air-1", b'{"reboot":true}', "dana", NOW, NOW + HOUR, None, NOW, NOW, 0, None, None
)

ANSWERS = [
    pytest.param("/health", contract.Health, id="health"),
    pytest.param(
        f"/indicators/pm2_5_mean/revisions?zone=district-a&window=1h&start={iso(NOW - 2 * HOUR)}",
        contract.Page[contract.Value],
        id="revisions of a value",
    ),
    pytest.param("/summary", contract.Summary, id="summary"),
    pytest.param("/zones", contract.Page[contract.Zone], id="zones"),
    pytest.param("/geo/zones.geojson", contract.FeatureCollection, id="zones on the map"),
    pytest.param("/geo/devices.geojson", contract.FeatureCollection, id="devices on the map"),
    pytest.param("/devices", contract.Page[contract.Device], id="devices"),
    pytest.param("/devices/city/air-1", contract.DeviceDetail, id="a device"),
    pytest.param("/series", contract.Page[contract.Series], id="series"),
    pytest.param("/readings?device=city/air-1", contract.Page[contract.Reading], id="readings"),
    pytest.param("/overview?device=city/air-1", contract.Overview, id="overview"),
    pytest.param("/indicators", contract.Page[contract.Indicator], id="indicators"),
    pytest.param("/indicators/pm2_5_mean/values", contract.Page[contract.Value], id="values"),
    pytest.param("/indicators/pm2_5_mean/latest?window=1h", contract.Page[contract.Value], id="latest values"),
    pytest.param("/alerts?state=all", contract.Page[contract.Alert], id="alerts"),
    pytest.param("/alerts/ep-1", contract.AlertDetail, id="an alert"),
    pytest.param("/rules", contract.Page[contract.Rule], id="rules"),
    pytest.param("/rejected", contract.Page[contract.Rejected], id="rejected"),
    pytest.param("/rejected/summary", contract.Page[contract.RejectedCount], id="rejected, counted"),
    pytest.param("/ledger", contract.Page[LedgerRow], id="ledger"),
    pytest.param("/candidates", contract.Page[contract.Candidate], id="candidates"),
    pytest.param("/commands", contract.Page[Command], id="commands"),
    pytest.param("/devices/city/air-1/commands", contract.Page[Command], id="commands of a device"),
    pytest.param(f"/commands/{COMMAND.id}", Command, id="a command"),
]


@pytest.mark.parametrize(("path", "model"), ANSWERS)
def test_an_answer_has_exactly_the_shape_of_the_contract(full_city: City, path: str, model: type[BaseModel]) -> None:
    response = full_city.get(path)
    assert response.status_code == 200, response.text
    answer = model.model_validate_json(response.content)
    items = getattr(answer, "items", None)
    assert items is None or items, "nothing in the list that the test could look at"


@pytest.mark.parametrize(("path", "model"), ANSWERS)
def test_an_answer_is_the_same_on_every_engine(
    full_city: City, tmp_path: Path, path: str, model: type[BaseModel]
) -> None:
    other = filled(City(tmp_path / "other", store=open_store(f"duckdb://{tmp_path}/readings.duckdb")))
    assert other.get(path).json() == full_city.get(path).json()
    other.close()
    other.store.close()


def test_every_address_is_described_with_its_answer_and_its_problems(city: City) -> None:
    spec = city.get("/openapi.json").json()
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert {"4XX", "5XX"} <= operation["responses"].keys(), (method, path)
    described = {path.removeprefix("/api/v1") for path in spec["paths"]}
    asked = {str(param.values[0]).partition("?")[0] for param in ANSWERS}
    asked = {path.replace("city/air-1", "{fleet}/{device}").replace("pm2_5_mean", "{name}") for path in asked}
    asked = {path.replace("ep-1", "{id}").replace(COMMAND.id, "{id}") for path in asked}
    posts = {"/alerts/{id}/acknowledge", "/rejected/replay", "/rules/try"}
    assert described == asked | posts | {
        "/rules/{rule}/runbook",
        "/live",
        "/metrics",
        "/session",
        "/geo/basemap.geojson",
    }


def test_the_reference_page_needs_no_other_host(city: City) -> None:
    response = city.request("GET", "/api/docs")
    assert "/api/v1/readings" in response.text
    assert "://" not in response.text
    assert "style=" not in response.text
    assert "<script" not in response.text
    assert city.request("GET", "/api/docs.css").headers["content-type"].startswith("text/css")


# ---- saying no

BAD = [
    pytest.param("GET", "/nothing", 404, "not_found", id="no such address"),
    pytest.param("DELETE", "/devices", 405, "method_not_allowed", id="a method it has not"),
    pytest.param("GET", "/devices/city/ghost", 404, "not_found", id="an unknown device"),
    pytest.param("GET", "/alerts/ghost", 404, "not_found", id="an unknown alert"),
    pytest.param("GET", "/indicators/ghost/values", 404, "not_found", id="an unknown indicator"),
    pytest.param("GET", "/indicators/aqi/latest?window=5min", 422, "unknown_window", id="a window it has not"),
    pytest.param("GET", "/readings", 422, "no_series", id="readings of nothing"),
    pytest.param("GET", "/readings?series=999", 404, "not_found", id="an unknown series"),
    pytest.param("GET", "/readings?series=one", 422, "invalid_request", id="a series that is no number"),
    pytest.param("GET", "/readings?device=city/air-1&limit=10001", 422, "limit_too_large", id="too many rows"),
    pytest.param("GET", "/readings?device=city/air-1&limit=0", 422, "invalid_request", id="no rows"),
    pytest.param("GET", "/readings?device=city/air-1&limit=ten", 422, "invalid_request", id="ten rows"),
    pytest.param("GET", "/readings?device=city/air-1&start=yesterday", 422, "bad_time", id="a word for a time"),
    pytest.param("GET", "/readings?device=city/air-1&start=2026-11-22T10:00:00", 422, "bad_time", id="no time zone"),
    pytest.param(
        "GET", "/readings?device=city/air-1&start=2026-11-22T10:00:00+05:00", 422, "bad_time", id="a bare plus"
    ),
    pytest.param("GET", "/readings?device=city/air-1&start=1700000000", 422, "bad_time", id="seconds since 1970"),
    pytest.param("GET", "/readings?device=city/air-1&start=2900-01-01", 422, "bad_time", id="a time too far away"),
    pytest.param("GET", "/readings?device=city/air-1&start=-9999999w", 422, "bad_time", id="before the telephone"),
    pytest.param("GET", "/readings?device=city/air-1&start=now&stop=-1h", 422, "bad_range", id="backwards"),
    pytest.param("GET", "/readings?device=city/air-1&start=now&stop=now", 422, "bad_range", id="an empty range"),
    pytest.param("GET", "/readings?device=city/air-1&start=1990-01-01", 422, "bad_range", id="too long a range"),
    pytest.param("GET", "/readings?device=city/air-1&cursor=abc", 422, "bad_cursor", id="no cursor of ours"),
    pytest.param("GET", "/readings?device=city/air-1&cursor=WzFd", 422, "bad_cursor", id="another list's cursor"),
    pytest.param("GET", "/readings?device=city/air-1&cursor=%D2%9B", 422, "bad_cursor", id="a cursor in Kazakh"),
    pytest.param("GET", "/rejected?cursor=abc", 422, "bad_cursor", id="no cursor of the rejected"),
    pytest.param("GET", "/readings?device=city/air-1&format=xml", 422, "invalid_request", id="a format it has not"),
    pytest.param("GET", "/readings?devise=city/air-1", 422, "unknown_parameter", id="a misspelt parameter"),
    pytest.param("GET", "/summary?limit=5", 422, "unknown_parameter", id="a parameter where there is none"),
    pytest.param("GET", "/overview?device=city/air-1&points=5000", 422, "too_many", id="too many points"),
    pytest.param("GET", "/overview?device=city/air-1&points=0", 422, "invalid_request", id="no points"),
    pytest.param("GET", "/devices?state=tired", 422, "invalid_request", id="a state it has not"),
    pytest.param("GET", "/alerts?acknowledged=perhaps", 422, "invalid_request", id="neither yes nor no"),
    pytest.param("GET", "/rejected?reason=spite", 422, "invalid_request", id="a reason it has not"),
    pytest.param("GET", "/indicators/aqi/values?as_of=soon", 422, "bad_time", id="as of a word"),
]


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    contract.Problem.model_validate(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["hint"], "a problem without a hint"
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(("method", "path", "status", "code"), BAD)
def test_a_bad_request_is_answered_with_a_problem_and_a_hint(
    full_city: City, method: str, path: str, status: int, code: str
) -> None:
    headers = {"content-type": "application/json"}
    assert_problem(full_city.request(method, f"/api/v1{path}", headers=headers), status, code)


BAD_BODIES = [
    pytest.param("/alerts/ep-1/acknowledge", {}, 422, "invalid_request", id="nobody acknowledges"),
    pytest.param("/alerts/ep-1/acknowledge", {"actor": ""}, 422, "invalid_request", id="an empty actor"),
    pytest.param("/alerts/ep-1/acknowledge", {"actor": "A", "mood": 1}, 422, "invalid_request", id="an unknown member"),
    pytest.param("/alerts/ep-1/acknowledge", [], 422, "invalid_request", id="a list for an object"),
    pytest.param("/alerts/ghost/acknowledge", {"actor": "A"}, 404, "not_found", id="an unknown alert"),
    pytest.param("/rejected/replay", {"reason": "spite"}, 422, "invalid_request", id="a reason it has not"),
    pytest.param(
        "/devices", {"id": "air-9", "kind": "air_station"}, 422, "invalid_request", id="an id without a fleet"
    ),
    pytest.param("/devices", {"id": "c/+", "kind": "air_station"}, 422, "invalid_request", id="a wildcard in an id"),
    pytest.param(
        "/devices", {"id": "c/ж", "kind": "air_station"}, 422, "invalid_request", id="an id that no topic has"
    ),
    pytest.param("/devices", {"id": "c/\0", "kind": "air_station"}, 422, "invalid_request", id="a control in an id"),
    pytest.param("/devices", {"id": "c/a", "kind": "toaster"}, 422, "unknown_kind", id="an unknown kind"),
    pytest.param(
        "/devices", {"id": "c/a", "kind": "air_station", "zones": ["x"]}, 422, "unknown_zone", id="no such zone"
    ),
    pytest.param("/devices", {"id": "c/a", "kind": "air_station", "lat": 43}, 422, "bad_placement", id="half a place"),
    pytest.param(
        "/devices",
        {"id": "c/a", "kind": "air_station", "lat": 91, "lon": 0},
        422,
        "invalid_request",
        id="off the globe",
    ),
    pytest.param(
        "/devices",
        {"id": "c/a", "kind": "air_station", "zones": ["district-a", "district-b"]},
        422,
        "bad_placement",
        id="in two districts",
    ),
    pytest.param("/devices", {"id": "city/air-1", "kind": "air_station"}, 409, "conflict", id="a device that exists"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), BAD_BODIES)
def test_a_bad_body_is_answered_with_a_problem_and_a_hint(
    full_city: City, path: str, body: Any, status: int, code: str
) -> None:
    assert_problem(full_city.request("POST", f"/api/v1{path}", json=body), status, code)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        pytest.param(b'{"actor":"A"}', {"content-type": "text/plain"}, 415, "not_json", id="what a form can send"),
        pytest.param(b"actor=A", {"content-type": "application/x-www-form-urlencoded"}, 415, "not_json", id="a form"),
        pytest.param(b"{", {"content-type": "application/json"}, 422, "invalid_request", id="broken JSON"),
        pytest.param(b'{"a":"\xff"}', {"content-type": "application/json"}, 400, "bad_request", id="not UTF-8"),
        pytest.param(b" " * 70_000, {"content-type": "application/json"}, 413, "too_large", id="too large a body"),
    ],
)
def test_only_small_json_is_taken(
    full_city: City, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    response = full_city.request("POST", "/api/v1/alerts/ep-1/acknowledge", content=content, headers=headers)
    if code == "bad_request":
        assert response.status_code in {400, 422}
        assert response.headers["content-type"] == "application/problem+json"
        return
    assert_problem(response, status, code)


def test_an_unexpected_error_is_a_problem_that_tells_nothing_of_the_inside(city: City) -> None:
    city.parts["projector"]["lag_s"] = "secret"
    response = city.get("/health")
    assert "secret" not in response.text
    assert_problem(response, 500, "internal")


def test_a_store_that_is_closed_is_unavailable(full_city: City) -> None:
    full_city.store.close()
    assert_problem(full_city.get("/readings?device=city/air-1"), 503, "unavailable")


def test_a_media_type_that_cannot_be_made_is_not_acceptable(full_city: City) -> None:
    response = full_city.get("/readings?device=city/air-1", headers={"accept": "application/xml"})
    assert_problem(response, 406, "not_acceptable")


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "10.0.0.7:8080", "0.0.0.0:8080", "127.0.0.1.evil.example:8080", ""]
)
def test_a_name_that_is_not_this_machine_is_refused(city: City, host: str) -> None:
    assert_problem(city.get("/health", headers={"host": host}), 421, "foreign_host")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST"])
def test_a_name_of_this_machine_is_answered(city: City, host: str) -> None:
    assert city.get("/health", headers={"host": host}).status_code == 200


def test_a_unix_socket_needs_no_name(city: City, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        server = make_server(city.app, city.hub)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        until(lambda: server.started)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "s"))) as client:
            assert client.get("http://qala/api/v1/health").status_code == 200
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("path", ["/api/v1/zones", "/api/v1/nothing", "/", "/metrics", "/api/docs"])
def test_every_answer_carries_the_security_headers(city: City, path: str) -> None:
    headers = city.request("GET", path).headers
    assert headers["content-security-policy"] == CSP
    assert "frame-ancestors 'none'" in CSP
    assert "unsafe" not in CSP
    assert headers["x-content-type-options"] == "nosniff"


# ---- readings


def test_a_reading_stands_beside_its_unit_and_flag_and_a_missing_one_is_null(full_city: City) -> None:
    items = full_city.items("/readings", device="city/air-1")
    assert [(item["value"], item["flag"], item["unit"]) for item in items] == [
        (10.0, 1, "ug/m3"),
        (None, 9, "ug/m3"),
        (12.5, 1, "ug/m3"),
    ]
    assert items[0]["time"] == iso(NOW - 3 * MINUTE)
    assert items[0]["received"] == iso(NOW - 3 * MINUTE + SECOND)


def test_a_range_holds_its_start_and_not_its_stop(full_city: City) -> None:
    items = full_city.items("/readings", device="city/air-1", start=iso(NOW - 3 * MINUTE), stop=iso(NOW - MINUTE))
    assert [item["time"] for item in items] == [iso(NOW - 3 * MINUTE), iso(NOW - 2 * MINUTE)]


@pytest.mark.parametrize(
    ("start", "found"),
    [
        pytest.param("-3m", 3, id="three minutes ago"),
        pytest.param("-2min", 2, id="two minutes ago"),
        pytest.param("-90s", 1, id="ninety seconds ago"),
        pytest.param("-30s", 0, id="too late"),
        pytest.param("2026-11-22T16:58:00+05:00", 2, id="in the city's own time"),
        pytest.param("2026-11-22", 3, id="midnight in UTC"),
    ],
)
def test_a_range_may_be_relative_or_in_any_time_zone(full_city: City, start: str, found: int) -> None:
    assert len(full_city.items("/readings", device="city/air-1", start=start)) == found


def test_series_can_be_named_by_id_by_device_and_by_quantity(full_city: City) -> None:
    ids = {item["device"]: item["id"] for item in full_city.items("/series")}
    by_id = full_city.items("/readings", series=f"{ids['grid/meter-1']},{ids['city/loop-1']}")
    assert {item["device"] for item in by_id} == {"grid/meter-1", "city/loop-1"}
    assert {item["quantity"] for item in full_city.items("/readings", quantity="pm2_5")} == {"pm2_5"}
    assert full_city.items("/readings", device="city/loop-1", quantity="pm2_5") == []


def test_a_spike_is_suspect_on_whichever_page_it_stands(city: City) -> None:
    times = [NOW - HOUR + minute * MINUTE for minute in range(12)]
    temperatures = [20.0, 20.1, 30.0, 20.2, 20.3, 20.1, 30.0, 20.2, 20.4, 20.1, 20.2, 30.0]
    for number in range(3):
        city.read(f"city/air-{number}:temperature", times, temperatures)
        city.read(f"city/air-{number}:temperature", [times[-1] + MINUTE], [20.0])  # seen by nobody but the check
    stop = iso(times[-1] + 1)
    whole = [item["flag"] for item in city.items("/readings", quantity="temperature", stop=stop)]
    assert whole == [1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 1, 3] * 3
    for limit in range(1, 15):
        walked = [item["flag"] for item in city.walk("/readings", quantity="temperature", stop=stop, limit=limit)]
        assert walked == whole
    later = iso(times[2])
    assert [item["flag"] for item in city.items("/readings", series="1", start=later, stop=iso(times[3]))] == [3]


def test_pages_hold_every_reading_exactly_once(city: City) -> None:
    fleets = (f"fleet-{number}" for number in count())  # each example has one of its own

    @given(
        layout=st.lists(st.lists(st.integers(0, 500), unique=True, max_size=12), min_size=1, max_size=4),
        limit=st.integers(1, 9),
    )
    @settings(max_examples=25, deadline=None)
    def walk(layout: list[list[int]], limit: int) -> None:
        fleet, expected = next(fleets), []
        for number, minutes in enumerate(layout):
            times = [NOW - HOUR * 10 + minute * MINUTE for minute in sorted(minutes)]
            series = city.read(f"{fleet}/{number}:pm2_5", times, [1.0] * len(times))
            expected += [(series, iso(time)) for time in times]
        ids = ",".join(str(city.read(f"{fleet}/{number}:pm2_5", [], [])) for number in range(len(layout)))
        walked = [(item["series"], item["time"]) for item in city.walk("/readings", series=ids, limit=limit)]
        assert walked == expected

    walk()


def test_pages_stay_on_the_range_of_the_first_while_the_clock_goes_on(city: City) -> None:
    for number in (1, 2):
        times = [NOW - HOUR + minute * MINUTE for minute in range(60)]
        city.read(f"city/air-{number}:pm2_5", times, [1.0] * 60)
    walked = []
    for item in city.walk("/readings", quantity="pm2_5", start="-1h", limit=7):
        walked.append((item["series"], item["time"]))
        assert city.time_us is not None
        city.time_us += MINUTE
    assert len(walked) == len(set(walked)) == 120


def test_the_link_header_leads_to_the_next_page(full_city: City) -> None:
    first = full_city.get("/readings?device=city/air-1&limit=2")
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    second = full_city.request("GET", link[1 : link.index(">")])
    assert [item["value"] for item in second.json()["items"]] == [12.5]
    assert second.json()["next"] is None
    assert "link" not in second.headers


TABLES = [
    pytest.param("/readings?device=city/air-1", id="readings"),
    pytest.param("/indicators/pm2_5_mean/values", id="values"),
]


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize("how", ["format", "accept"])
def test_csv_says_the_same_as_json(full_city: City, path: str, how: str) -> None:
    items = full_city.get(path).json()["items"]
    response = _as(full_city, path, how, "csv", "text/csv")
    assert response.headers["content-type"].startswith("text/csv")
    strings = {name: pa.string() for name in items[0] if isinstance(items[0][name], str | dict)}
    table = pa.csv.read_csv(
        io.BytesIO(response.content),
        convert_options=pa.csv.ConvertOptions(column_types=strings, strings_can_be_null=False),
    )
    assert table.column_names == list(items[0])
    assert [_plain(row) for row in table.to_pylist()] == [_plain(item) for item in items]


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize("how", ["format", "accept"])
def test_arrow_says_the_same_as_json(full_city: City, path: str, how: str) -> None:
    items = full_city.get(path).json()["items"]
    response = _as(full_city, path, how, "arrow", "application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(response.content).read_all()
    assert table.column_names == list(items[0])
    assert [_plain(row) for row in table.to_pylist()] == [_plain(item) for item in items]
    assert response.headers["vary"].startswith("Accept")


def _as(city: City, path: str, how: str, form: str, media: str) -> httpx.Response:
    if how == "accept":
        return city.get(path, headers={"accept": f"text/html;q=0.2, {media}"})
    return city.get(f"{path}{'&' if '?' in path else '?'}format={form}")


def _plain(row: dict[str, Any]) -> dict[str, str]:
    """Write cells as one kind of text, whatever carried them."""
    texts = {}
    for name, cell in row.items():
        if isinstance(cell, datetime):
            cell = iso(int(cell.timestamp() * 1e6))  # noqa: PLW2901
        number = isinstance(cell, int | float) and not isinstance(cell, bool)
        texts[name] = repr(float(cell)) if number else str(cell).replace("'", '"').replace(": ", ":")
    return texts


# ---- overviews


def test_an_overview_counts_every_reading_once_and_is_null_where_there_is_none(city: City) -> None:
    times = [NOW - HOUR, NOW - HOUR + MINUTE, NOW - 30 * MINUTE]
    city.read("city/air-1:pm2_5", times, [10.0, 20.0, math.nan])
    answer = city.get(f"/overview?device=city/air-1&start={iso(NOW - HOUR)}&points=6").json()
    (series,) = answer["series"]
    assert len(answer["edges"]) == len(series["count"]) + 1 == 7
    assert series["count"] == [2, 0, 0, 1, 0, 0]
    assert series["good"] == [2, 0, 0, 0, 0, 0]
    assert series["mean"] == [15.0, None, None, None, None, None]
    assert (series["min"][0], series["max"][0], series["unit"]) == (10.0, 20.0, "ug/m3")


def test_an_overview_tells_how_many_readings_the_context_checks_leave(city: City) -> None:
    """A minute apart; the second stands out from its neighbours, of which one is before and one after its bucket."""
    times = [NOW - 20 * MINUTE - MINUTE, NOW - 20 * MINUTE, NOW - 19 * MINUTE]
    city.read("city/air-1:pm2_5", times, [10.0, 400.0, 11.0])
    (series,) = city.get(f"/overview?device=city/air-1&start={iso(NOW - HOUR)}&points=60").json()["series"]
    spike = series["count"].index(1) + 1
    assert (series["good"][spike - 1 : spike + 2], series["sound"][spike - 1 : spike + 2]) == ([1, 1, 1], [1, 0, 1])


def test_an_overview_is_never_finer_than_the_devices_interval(city: City) -> None:
    city.read("grid/meter-1:active_power", [NOW - HOUR], [1.0])
    edges = city.get(f"/overview?device=grid/meter-1&start={iso(NOW - HOUR)}&points=300").json()["edges"]
    assert edges == [iso(NOW - HOUR + quarter * 15 * MINUTE) for quarter in range(5)]


def test_a_counter_is_never_averaged(full_city: City) -> None:
    (series,) = full_city.get("/overview?device=grid/meter-1&points=3").json()["series"]
    assert series["aggregation"] == "counter"
    assert set(series["mean"]) == {None}
    assert 104.0 in series["last"]


@pytest.mark.parametrize("quantity", ["noise", "wind_direction"])
def test_levels_and_directions_have_no_arithmetic_mean(city: City, quantity: str) -> None:
    city.read(f"city/air-1:{quantity}", [NOW - 2 * MINUTE, NOW - MINUTE], [60.0, 70.0])
    (series,) = city.get(f"/overview?device=city/air-1&quantity={quantity}&start=-1h&points=1").json()["series"]
    assert set(series["mean"]) == {None}
    assert 70.0 in series["last"]


def test_the_columns_of_an_overview_add_up(city: City) -> None:
    fleets = (f"fleet-{number}" for number in count())  # each example has one of its own

    @given(
        seconds=st.lists(st.integers(0, 86_399), unique=True, max_size=60),
        points=st.integers(1, 50),
    )
    @settings(max_examples=20, deadline=None)
    def add(seconds: list[int], points: int) -> None:
        fleet = next(fleets)
        times = [NOW - 86_400 * SECOND + second * SECOND for second in seconds]
        city.read(f"{fleet}/y:pm2_5", times, [1.0] * len(seconds))
        (series,) = city.get(f"/overview?device={fleet}/y&points={points}").json()["series"]
        assert sum(series["count"]) == len(seconds)
        assert len(series["count"]) <= points + 2

    add()


# ---- devices and zones


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        pytest.param(180, "live", id="three intervals"),
        pytest.param(181, "late", id="more than three"),
        pytest.param(600, "late", id="ten intervals"),
        pytest.param(601, "silent", id="more than ten"),
    ],
)
def test_a_device_is_judged_by_its_last_reading_and_its_interval(city: City, age_s: int, state: str) -> None:
    city.read("city/air-1:pm2_5", [NOW - age_s * SECOND], [1.0])
    assert [item["id"] for item in city.items("/devices", state=state)] == ["city/air-1"]
    assert [item["id"] for item in city.items("/devices", state="never", kind="air_station")] == ["city/air-2"]


def test_a_device_is_found_by_kind_domain_and_zone(city: City) -> None:
    assert [item["id"] for item in city.items("/devices", kind="traffic_detector")] == ["city/loop-1"]
    assert [item["id"] for item in city.items("/devices", domain="air")] == ["city/air-1", "city/air-2"]
    assert [item["id"] for item in city.items("/devices", zone="district-a")] == ["city/air-1", "city/loop-1"]
    assert [item["id"] for item in city.walk("/devices", limit=1)] == sorted(city.registry.devices)


def test_the_states_survive_a_restart(city: City) -> None:
    city.read("city/air-1:pm2_5", [NOW - MINUTE, NOW - 2 * MINUTE], [2.0, 1.0])
    city.read("city/air-2:pm2_5", [NOW - 30 * 24 * HOUR], [3.0])
    city.put(make_value("aqi", "district-a", "1d", NOW - 36 * HOUR, 50.0))
    before = [city.items("/devices"), city.get("/devices/city/air-1").json()["latest"]]
    before.append([{**item, "revision": 1} for item in city.items("/indicators/aqi/latest")])
    city.start()
    after = [city.items("/devices"), city.get("/devices/city/air-1").json()["latest"]]
    assert [*after, city.items("/indicators/aqi/latest")] == before
    assert before[0][0]["last_time"] == iso(NOW - MINUTE)
    assert before[0][1]["state"] == "silent"


def test_an_older_or_outranked_reading_is_not_the_latest(city: City) -> None:
    city.read("city/air-1:pm2_5", [NOW - MINUTE], [5.0])
    city.read("city/air-1:pm2_5", [NOW - 2 * MINUTE], [4.0])
    latest = city.get("/devices/city/air-1").json()["latest"]
    assert [(one["value"], one["time"]) for one in latest] == [(5.0, iso(NOW - MINUTE))]
    city.read("city/air-1:pm2_5", [NOW - MINUTE], [6.0])
    assert city.get("/devices/city/air-1").json()["latest"][0]["value"] == 6.0


def test_a_device_in_detail_says_where_it_stood_and_what_it_says_of_itself(full_city: City) -> None:
    detail = full_city.get("/devices/city/air-1").json()
    assert detail["placements"] == [
        {"zones": ["district-a"], "lat": 43.25, "lon": 76.95, "since": None, "until": None},
    ]
    assert detail["status"] == {"online": True, "firmware": "1.2", "interval_s": 60, "time": iso(NOW - HOUR)}
    assert full_city.get("/devices/city/air-2").json()["status"] is None


def test_an_admitted_device_is_there_at_once(city: City) -> None:
    body = {"id": "city/air-3", "kind": "air_station", "zones": ["district-b"], "lat": 43.3, "lon": 76.8}
    response = city.request("POST", "/api/v1/devices", json=body)
    assert response.status_code == 201, response.text
    answer = contract.Admitted.model_validate_json(response.content)
    assert (answer.device.id, answer.device.zones, answer.replayed) == ("city/air-3", ["district-b"], 1)
    assert city.request("GET", response.headers["location"]).json()["state"] == "never"


def test_zones_are_features_that_a_map_can_draw(city: City) -> None:
    collection = city.get("/geo/zones.geojson?kind=road").json()
    (feature,) = collection["features"]
    assert feature["id"] == feature["properties"]["id"] == "road-1"
    assert feature["properties"]["free_flow_kmh"] == 60.0
    assert [zone["id"] for zone in city.items("/zones", kind="district")] == ["district-a", "district-b"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        pytest.param("/zones", "id", id="zones"),
        pytest.param("/devices", "id", id="devices"),
        pytest.param("/candidates", "device", id="candidates"),
    ],
)
def test_a_short_list_is_walked_page_by_page(full_city: City, path: str, key: str) -> None:
    seen = [Candidate(f"city/late-{n}", NOW, NOW, 1) for n in range(4)]
    record_candidates(full_city.state, seen, Position("journal", 10))
    whole = [item[key] for item in full_city.items(path)]
    assert len(whole) >= 3
    assert whole == sorted(whole)
    for limit in (1, 2, len(whole)):
        assert [item[key] for item in full_city.walk(path, limit=limit)] == whole
    first = full_city.get(path, params={"limit": 2})
    assert [item[key] for item in first.json()["items"]] == whole[:2]
    assert 'rel="next"' in first.headers["link"]


def test_rules_are_a_list_with_pages_too(city: City) -> None:
    assert [rule["id"] for rule in city.walk("/rules", limit=1)] == ["pm2_5_high"]
    assert_problem(city.get("/rules?cursor=abc"), 422, "bad_cursor")
    assert_problem(city.get("/rules?limit=10001"), 422, "limit_too_large")


def test_only_devices_with_a_place_are_on_the_map(city: City) -> None:
    features = city.get("/geo/devices.geojson").json()["features"]
    assert [feature["id"] for feature in features] == ["city/air-1", "city/air-2", "city/loop-1"]
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [76.95, 43.25]}
    assert features[0]["properties"]["state"] == "never"


def test_a_map_that_did_not_change_is_not_sent_again(city: City) -> None:
    first = city.get("/geo/zones.geojson")
    again = city.get("/geo/zones.geojson", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = city.get("/geo/zones.geojson?kind=road", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_the_base_map_is_the_file_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "map.geojson"
    city = City(tmp_path, settings=DashboardsSettings(basemap=file))
    assert_problem(city.get("/geo/basemap.geojson"), 404, "not_found")
    file.write_text('{"type":"FeatureCollection","features":[]}')
    assert city.get("/geo/basemap.geojson").json() == {"type": "FeatureCollection", "features": []}
    city.close()


# ---- values


def test_a_value_says_how_sure_it_is_and_how_it_was_made(full_city: City) -> None:
    first, second, third = full_city.items("/indicators/pm2_5_mean/values")
    assert [item["start"] for item in (first, second, third)] == [iso(NOW - hours * HOUR) for hours in (3, 2, 2)]
    assert (second["zone"], second["value"], second["coverage"], second["status"]) == ("district-a", 21.0, 1.0, "ok")
    assert (third["zone"], third["value"], third["coverage"], third["status"]) == (
        "district-b",
        None,
        0.25,
        "incomplete",
    )
    assert (second["detail"], second["method"], second["unit"]) == ({"stations": 1}, "method-of-pm2_5_mean", "ug/m3")
    assert (first["provisional"], second["provisional"]) == (False, False)


def test_a_value_is_provisional_until_its_grace_has_passed(city: City) -> None:
    city.put(make_value("pm2_5_mean", "district-a", "1h", NOW - HOUR, 20.0, final_us=NOW + 1))
    assert city.items("/indicators/pm2_5_mean/values")[0]["provisional"]
    city.time_us = NOW + 1
    assert not city.items("/indicators/pm2_5_mean/values")[0]["provisional"]
    assert not city.items("/indicators/pm2_5_mean/latest", window="1h")[0]["provisional"]


def test_the_revisions_of_a_value_tell_how_it_became_what_it_is(city: City) -> None:
    for number in (21.0, 21.0, 24.0):
        city.put(make_value("pm2_5_mean", "district-a", "1h", NOW - 2 * HOUR, number))
    items = city.items("/indicators/pm2_5_mean/revisions", zone="district-a", window="1h", start=iso(NOW - 2 * HOUR))
    assert [(item["revision"], item["value"]) for item in items] == [(1, 21.0), (2, 24.0)]


def test_as_of_reads_what_was_known_then(city: City) -> None:
    start = NOW - 3 * HOUR
    city.put(make_value("pm2_5_mean", "district-a", "1h", start, 20.0, known_us=NOW - 2 * HOUR))
    city.put(make_value("pm2_5_mean", "district-a", "1h", start, 25.0, known_us=NOW - HOUR))

    def known(as_of: str | None) -> list[tuple[float, int]]:
        query = {} if as_of is None else {"as_of": as_of}
        return [(item["value"], item["revision"]) for item in city.items("/indicators/pm2_5_mean/values", **query)]

    assert known(None) == known(iso(NOW - HOUR)) == [(25.0, 2)]
    assert known("-90min") == [(20.0, 1)]
    assert known("-5h") == []


def test_pages_hold_every_value_exactly_once(city: City) -> None:
    days = count(NOW - 24 * HOUR, -24 * HOUR)  # each example has one of its own

    @given(
        places=st.sets(
            st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["15min", "1h"]), st.integers(0, 95)),
        ),
        limit=st.integers(1, 7),
    )
    @settings(max_examples=25, deadline=None)
    def walk(places: set[tuple[str, str, int]], limit: int) -> None:
        day = next(days)
        city.put(*(make_value("pm2_5_mean", z, w, day + n * 15 * MINUTE, 1.0) for z, w, n in places))
        span = {"start": iso(day), "stop": iso(day + 24 * HOUR)}
        items = city.walk("/indicators/pm2_5_mean/values", **span, limit=limit)
        walked = [(item["start"], item["zone"], item["window"]) for item in items]
        assert walked == sorted((iso(day + n * 15 * MINUTE), z, w) for z, w, n in places)

    walk()


def test_latest_is_the_newest_value_of_each_zone(full_city: City) -> None:
    items = full_city.items("/indicators/pm2_5_mean/latest", window="1h")
    assert [(item["zone"], item["value"]) for item in items] == [("district-a", 21.0), ("district-b", None)]
    listed = full_city.items("/indicators/pm2_5_mean/values", window="1h")
    assert [{**item, "revision": 1} for item in items] == listed[1:], "both ways give the same item"


# ---- the summary


def test_the_summary_shows_the_city_and_its_worst_zone(full_city: City) -> None:
    summary = full_city.get("/summary").json()
    assert [one["domain"] for one in summary["domains"]] == ["traffic", "air", "energy"]
    air = summary["domains"][1]
    tile = next(tile for tile in air["tiles"] if tile["indicator"] == "pm2_5_mean")
    assert (tile["value"], tile["zones"], tile["worst"]) == (21.0, 1, {"zone": "district-a", "value": 21.0})
    assert (tile["start"], tile["window"], tile["unit"]) == (iso(NOW - 2 * HOUR), "1h", "ug/m3")
    assert tile["coverage"] == 15 / 24
    assert tile["spark"] == [19.0, 21.0]
    assert air["devices"] == {"live": 1, "late": 0, "silent": 0, "never": 1}
    assert summary["alerts"] == {"firing": 1, "unacknowledged": 1}
    empty = next(tile for tile in air["tiles"] if tile["indicator"] == "aqi")
    assert (empty["value"], empty["status"], empty["spark"]) == (None, "none", [])


@pytest.mark.parametrize(
    ("indicator", "window", "city_value", "worst"),
    [
        pytest.param("nowcast_aqi", "1h", 30.0, 30.0, id="an index is as bad as its worst zone"),
        pytest.param("interval_energy", "1h", 60.0, 30.0, id="energies add up"),
        pytest.param("space_mean_speed", "15min", 20.0, 10.0, id="the slowest road is the worst"),
        pytest.param("congestion_level", "15min", 20.0, 30.0, id="the fullest road is the worst"),
    ],
)
def test_zones_become_one_number_as_their_indicator_allows(
    city: City, indicator: str, window: str, city_value: float, worst: float
) -> None:
    city.put(*(make_value(indicator, f"zone-{v}", window, NOW - HOUR, float(v)) for v in (10, 20, 30)))
    tiles = [tile for domain in city.get("/summary").json()["domains"] for tile in domain["tiles"]]
    tile = next(tile for tile in tiles if tile["indicator"] == indicator)
    assert (tile["value"], tile["worst"]["value"]) == (city_value, worst)


def test_a_window_without_values_leaves_a_gap_in_the_spark(city: City) -> None:
    city.put(*(make_value("nowcast_aqi", "district-a", "1h", NOW - n * HOUR, float(n)) for n in (1, 2, 5)))
    tile = city.get("/summary").json()["domains"][1]["tiles"][1]
    assert tile["spark"] == [5.0, None, None, 2.0, 1.0]


def test_the_summary_follows_what_happens(full_city: City) -> None:
    assert full_city.get("/summary").json()["alerts"]["unacknowledged"] == 1
    full_city.request("POST", "/api/v1/alerts/ep-1/acknowledge", json={"actor": "Aigerim"})
    assert full_city.get("/summary").json()["alerts"] == {"firing": 1, "unacknowledged": 0}
    full_city.put(make_value("pm2_5_mean", "district-a", "1h", NOW - HOUR, 33.0))
    tiles = full_city.get("/summary").json()["domains"][1]["tiles"]
    assert next(tile["value"] for tile in tiles if tile["indicator"] == "pm2_5_mean") == 33.0


# ---- alerts, rules, rejected, health


def test_alerts_are_listed_newest_first_and_by_what_they_are(city: City) -> None:
    city.raise_alert(
        make_episode("a", start_us=NOW - 3 * HOUR),
        make_episode("b", start_us=NOW - 2 * HOUR, zone="district-b", kind="no_data", value=None, threshold=None),
        make_episode("c", start_us=NOW - HOUR, state="ended"),
        make_episode("d", start_us=NOW - HOUR, state="withdrawn"),
    )

    def ids(**query: Any) -> list[str]:
        return [item["id"] for item in city.items("/alerts", **query)]

    assert ids() == ids(state="firing") == ["b", "a"]
    assert (
        ids(state="all") == [item["id"] for item in city.walk("/alerts", state="all", limit=1)] == ["d", "c", "b", "a"]
    )
    assert (ids(state="ended"), ids(zone="district-b"), ids(rule="other")) == (["c"], ["b"], [])
    city.request("POST", "/api/v1/alerts/a/acknowledge", json={"actor": "Aigerim"})
    assert (ids(acknowledged=True), ids(acknowledged=False)) == (["a"], ["b"])


def test_an_alert_says_what_its_rule_says(full_city: City) -> None:
    alert = full_city.get("/alerts/ep-1").json()
    assert (alert["title"], alert["owner"], alert["unit"]) == ("PM2.5 is high", "air", "ug/m3")
    assert (alert["value"], alert["threshold"], alert["end"], alert["acknowledged"]) == (61.5, 35.5, None, None)


def test_an_acknowledgement_names_who_and_what_and_holds(full_city: City) -> None:
    path, body = "/api/v1/alerts/ep-1/acknowledge", {"actor": " Aigerim ", "comment": "Қазір барамын"}
    answer = full_city.request("POST", path, json=body)
    assert answer.json()["acknowledged"] == {"actor": "Aigerim", "comment": "Қазір барамын", "time": iso(NOW)}
    full_city.time_us = NOW + HOUR
    assert full_city.request("POST", path, json=body).json() == answer.json(), "saying it twice changes nothing"
    problem = assert_problem(full_city.request("POST", path, json={"actor": "Boris"}), 409, "conflict")
    assert "Aigerim" in problem["detail"]


def test_a_rule_says_its_condition_in_words(city: City) -> None:
    (rule,) = city.items("/rules")
    assert (rule["condition"], rule["for_s"], rule["zone_kind"]) == ("pm2_5_mean > 35.5 ug/m3", 3_600, "district")


RULE = """
id = "dust"
title = "Dust"
indicator = "pm2_5_mean"
window = "1h"
above = 20.0
for = "1h"
severity = "info"
owner = "me"
runbook = ""
max_age = "1h"
no_data = { after = "6h" }

[[tests]]
name = "one hour is enough"
values = "10 30 10"
expect = [{ start = "1h", end = "2h" }]
"""


def test_a_rule_can_be_tried_on_the_past_before_it_is_switched_on(full_city: City) -> None:
    answer = full_city.request("POST", "/api/v1/rules/try", json={"toml": RULE, "start": START, "stop": STOP})
    tried = answer.json()
    assert tried["failures"] == []
    assert [(e["zone"], e["start"], e["end"], e["worst"]) for e in tried["episodes"]] == [
        ("district-a", iso(NOW - 2 * HOUR), None, 21.0)
    ]
    assert [rule["id"] for rule in full_city.items("/rules")] == ["pm2_5_high"], "nothing was switched on"


def test_a_runbook_that_came_with_its_rule_can_be_read(city: City) -> None:
    answer = city.get("/rules/pm2_5_high/runbook")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("# What to do")
    assert_problem(city.get("/rules/nonsense/runbook"), 404, "not_found")


def test_a_tried_rule_runs_its_own_tests_and_says_what_is_wrong_with_it(city: City) -> None:
    wrong = RULE.replace('end = "2h"', 'end = "3h"')
    tried = city.request("POST", "/api/v1/rules/try", json={"toml": wrong, "start": START, "stop": STOP}).json()
    assert "one hour is enough" in tried["failures"][0]
    broken = city.request("POST", "/api/v1/rules/try", json={"toml": RULE + "nonsense"})
    assert_problem(broken, 422, "bad_rule")


def test_a_rejected_payload_can_be_read_whatever_it_was(city: City) -> None:
    payloads = [b'{"v":', b"\xff\xfe", ("қ" * 1_024).encode()[:-1] + b"x", b"x" + ("қ" * 1_024).encode()[:2_047]]
    rows = [
        RejectedRow("journal", n, 0, Reason.BAD_JSON, "", "", "city/air-1", "t", NOW + n, payload)
        for n, payload in enumerate(payloads, 1)
    ]
    reject(city.state, *rows)
    items = sorted(city.items("/rejected"), key=lambda item: int(item["position"]))
    assert [item["payload_encoding"] for item in items] == ["utf-8", "base64", "base64", "utf-8"]
    assert (items[0]["payload"], items[1]["payload"]) == ('{"v":', "//4=")
    assert [item["payload_cut"] for item in items] == [False, False, True, True]
    assert items[3]["payload"] == "x" + "қ" * 1_023


def test_rejected_are_found_counted_and_walked(city: City) -> None:
    rows = [
        RejectedRow("journal", n, 0, reason, "", "", f"city/air-{n % 2}", "t", NOW + n, b"")
        for n, reason in enumerate([Reason.BAD_JSON, Reason.BAD_TIME, Reason.BAD_JSON, Reason.BAD_JSON])
    ]
    reject(city.state, *rows[1:])
    assert [item["position"] for item in city.walk("/rejected", limit=1)] == [3, 2, 1]
    assert [item["position"] for item in city.items("/rejected", reason="bad_json", device="city/air-1")] == [3]
    counted = [(item["reason"], item["device"], item["count"]) for item in city.items("/rejected/summary")]
    assert sorted(counted) == [
        ("bad_json", "city/air-0", 1),
        ("bad_json", "city/air-1", 1),
        ("bad_time", "city/air-1", 1),
    ]


def test_a_replay_is_asked_of_the_projector(city: City) -> None:
    response = city.request("POST", "/api/v1/rejected/replay", json={"reason": "unknown_device"})
    assert response.json() == {"replayed": 3, "accepted": 2, "still_rejected": 1, "pruned": 0}
    city.request("POST", "/api/v1/rejected/replay", json={"device": "city/air-1"})
    assert city.replayed == [(Reason.UNKNOWN_DEVICE, None), (None, "city/air-1")]


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        pytest.param({}, "ok", None, id="all is well"),
        pytest.param({"projector": {"lag_s": 31.0}}, "degraded", "projector_behind", id="behind"),
        pytest.param({"door": {"up": False}}, "degraded", "door_down", id="no new messages"),
        pytest.param({"outbox": {"up": False}}, "degraded", "outbox_down", id="nobody is told"),
        pytest.param({"store": {"up": False, "error": "closed"}}, "down", "store_down", id="no store"),
        pytest.param({"store": {"upkeep_error": "no room"}}, "degraded", "store_upkeep", id="an upkeep that fails"),
        pytest.param({"projector": {"up": False}}, "down", "projector_down", id="nothing is projected"),
        pytest.param({"door": {"damaged": 3}}, "degraded", "journal_damaged", id="a damaged journal"),
        pytest.param(
            {"door": {"troubles": {"credentials": "no such file"}}},
            "degraded",
            "credentials_stale",
            id="credentials that cannot be read again",
        ),
        pytest.param({"probe": {"late_s": 31.0}}, "degraded", "probe_late", id="a probe that does not arrive"),
        pytest.param({"probe": {"late_s": 2.0}}, "ok", None, id="a probe on its way"),
        pytest.param({"door": {"journal_lost": 3}}, "degraded", "journal_lost", id="a journal that is gone"),
        pytest.param({"door": {"disk_full": True, "disk_free": 0}}, "degraded", "disk_full", id="a full disk"),
        pytest.param({"door": {"disk_low": True, "disk_free": 9}}, "degraded", "disk_low", id="a disk that fills up"),
    ],
)
def test_health_is_judged_from_the_parts(city: City, part: dict[str, Any], status: str, code: str | None) -> None:
    city.parts.update(part)
    health = city.get("/health").json()
    assert health["status"] == status
    assert [reason["code"] for reason in health["reasons"]] == ([code] if code else [])
    assert health["now"] == STOP


# ---- the page


def test_a_page_that_is_not_built_says_how_to_build_it(city: City) -> None:
    response = city.request("GET", "/")
    assert response.status_code == 503
    assert "hatch_build.py" in response.text


def test_the_page_is_served_and_its_hashed_files_are_kept_by_browsers(city: City) -> None:
    (city.settings.page / "assets").mkdir(parents=True)
    (city.settings.page / "index.html").write_text("<!doctype html><title>Qala</title>")
    (city.settings.page / "assets" / "index-1a2b.js").write_text("export {};" * 500)
    index = city.request("GET", "/")
    assert (index.status_code, index.headers["cache-control"]) == (200, "no-cache")
    script = city.request("GET", "/assets/index-1a2b.js", headers={"accept-encoding": "gzip"})
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip"
    assert_problem(city.request("GET", "/assets/gone.js"), 404, "not_found")


def test_nothing_beside_the_page_is_served(city: City, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    city.settings.page.mkdir()
    for path in ("/../secret", "/%2e%2e/secret", "/assets/..%2f..%2fsecret"):
        assert_problem(city.request("GET", path), 404, "not_found")


def test_settings_take_addresses_of_a_host_and_a_port() -> None:
    assert DashboardsSettings(http="[::1]:9000").address == ("::1", 9_000)
    for address in ("example.org", "127.0.0.1", "127.0.0.1:99999", "::1:80"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            DashboardsSettings(http=address)
