"""Live events, over real sockets: what a page is told, and what happens to a page that does not listen."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from dashboards.live import Hub, event
from dashboards.settings import DashboardsSettings
from dashboards.times import iso
from tests.api_city import HOUR, INDICATORS, MINUTE, NOW, RULES, City, make_episode, make_value
from tests.wait import until

Event = tuple[str, Any]


@contextmanager
def quick_city(folder: Path, **settings: Any) -> Iterator[tuple[City, str]]:
    """Serve a city that flushes and ticks often, so that tests do not wait."""
    quick = {"live_flush_s": 0.02, "live_tick_s": 0.05, "page": folder / "page"}
    city = City(folder, settings=DashboardsSettings(**{**quick, **settings}))
    with city.served() as address:
        yield city, address
    city.close()


@contextmanager
def listening(address: str) -> Iterator[Iterator[Event]]:
    """Open the stream and give its events; the first has been seen, so the stream is open."""
    with httpx.stream("GET", f"{address}/api/v1/live", timeout=10) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        events = parse(response.iter_lines())
        assert next(events)[0] == "hello"
        yield events


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Read server-sent events as a browser does: fields by line, an empty line ends one."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, text = line.partition(": ")
            fields[name] = text
        elif "data" in fields:
            yield fields["event"], json.loads(fields["data"])
            fields = {}


def await_event(events: Iterator[Event], name: str) -> Any:
    """Return the data of the next event of a name; the stream ends where it never comes, and the test fails."""
    for _, (found, data) in zip(range(500), events, strict=False):
        if found == name:
            return data
    raise AssertionError(f"no {name} came")


def test_a_page_is_greeted_and_then_hears_how_things_are_going(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (city, address):
        city.parts["projector"] = {"lag_s": 45.0, "lag_messages": 9}
        with httpx.stream("GET", f"{address}/api/v1/live", timeout=10) as response:
            events = parse(response.iter_lines())
            assert next(events) == ("hello", {"now": iso(NOW), "version": "0.1.0"})
            tick = await_event(events, "tick")
    assert (tick["now"], tick["lag_s"], tick["lag_messages"], tick["status"]) == (iso(NOW), 45.0, 9, "degraded")
    [reason] = tick["reasons"]
    assert (reason["code"], reason["params"]) == ("projector_behind", {"part": "projector", "lag_s": 45.0})
    assert "lag_messages" in reason["hint"]


def test_readings_are_the_newest_of_each_series_grouped_by_device_and_time(tmp_path: Path) -> None:
    with quick_city(tmp_path, live_flush_s=0.3) as (city, address), listening(address) as events:
        city.read("city/air-1:pm2_5", [NOW - MINUTE, NOW], [10.0, 11.0])
        city.read("city/air-1:pm10", [NOW], [float("nan")])
        city.read("city/loop-1:vehicle_count.lane1", [NOW - MINUTE], [7.0], flag=3)
        items = await_event(events, "readings")["items"]
    assert items == [
        {"device": "city/air-1", "time": iso(NOW), "values": {"pm2_5": [11.0, 1], "pm10": [None, 9]}},
        {"device": "city/loop-1", "time": iso(NOW - MINUTE), "values": {"vehicle_count.lane1": [7.0, 3]}},
    ]


def test_values_and_alerts_are_the_items_that_the_api_lists(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (city, address), listening(address) as events:
        city.put(make_value("pm2_5_mean", "district-a", "1h", NOW - HOUR, 40.0))
        assert await_event(events, "values")["items"] == city.items("/indicators/pm2_5_mean/latest", window="1h")
        city.raise_alert(make_episode("ep-1"))
        assert await_event(events, "alerts")["items"] == city.items("/alerts")


def test_an_acknowledgement_is_seen_on_every_other_page(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (city, address):
        city.raise_alert(make_episode("ep-1"))
        with listening(address) as one, listening(address) as other:
            answer = httpx.post(f"{address}/api/v1/alerts/ep-1/acknowledge", json={"actor": "Aigerim"})
            assert await_event(one, "alerts")["items"] == await_event(other, "alerts")["items"] == [answer.json()]


def test_what_is_published_from_many_threads_all_arrives(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (city, address), listening(address) as events:

        def publish(number: int) -> None:
            for n in range(20):
                city.put(make_value("aqi", f"zone-{number}", "1d", NOW - (n + 1) * HOUR, float(n)))

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        seen: set[tuple[str, str]] = set()
        while len(seen) < 80:
            seen |= {(item["zone"], item["start"]) for item in await_event(events, "values")["items"]}
        for thread in threads:
            thread.join()


def test_too_much_for_one_event_asks_the_pages_to_read_again(tmp_path: Path) -> None:
    with quick_city(tmp_path, live_items_max=10) as (city, address), listening(address) as events:
        city.put(*(make_value("aqi", f"zone-{n}", "1d", NOW - HOUR, 1.0) for n in range(11)))
        assert await_event(events, "resync") == {}


def test_pages_are_not_asked_to_read_again_all_the_time(tmp_path: Path) -> None:
    many = [make_value("aqi", f"zone-{n}", "1d", NOW - HOUR, 1.0) for n in range(11)]
    with quick_city(tmp_path, live_items_max=10, live_resync_s=0.5) as (city, address), listening(address) as events:
        city.put(*many)
        await_event(events, "resync")
        first = time.monotonic()
        city.put(*many)
        await_event(events, "resync")
        assert time.monotonic() - first > 0.3


def test_more_readings_than_fit_come_with_the_next_events(tmp_path: Path) -> None:
    with quick_city(tmp_path, live_items_max=5) as (city, address), listening(address) as events:
        for n in range(12):
            city.read(f"city/air-{n}:pm2_5", [NOW], [1.0])
        seen: set[str] = set()
        while len(seen) < 12:
            items = await_event(events, "readings")["items"]
            assert len(items) <= 5
            seen |= {item["device"] for item in items}


def test_one_stream_too_many_is_refused_with_a_hint(tmp_path: Path) -> None:
    with quick_city(tmp_path, live_clients_max=1) as (_, address), listening(address):
        response = httpx.get(f"{address}/api/v1/live")
        assert (response.status_code, response.json()["code"]) == (503, "too_many_streams")


def test_a_page_that_vanishes_is_forgotten(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (city, address):
        with ExitStack() as pages:
            for _ in range(5):
                pages.enter_context(listening(address))
            assert clients(city.hub) == 5
        until(lambda: clients(city.hub) == 0)


def clients(hub: Hub) -> float:
    return next(metric for metric in hub.metrics() if metric.name == "qala_live_clients").samples[0].value


def test_the_streams_end_promptly_when_the_server_stops(tmp_path: Path) -> None:
    with ExitStack() as running:
        _, address = running.enter_context(quick_city(tmp_path, live_flush_s=30.0, live_tick_s=30.0))
        with httpx.stream("GET", f"{address}/api/v1/live", timeout=10) as response:
            lines = response.iter_lines()
            next(lines)
            told = time.monotonic()
            running.close()
            assert time.monotonic() - told < 3, "the server waited for its streams"
            assert list(lines)[-1] == "", "the stream ended after a whole event"


def test_a_stream_is_never_compressed_and_a_large_list_is(tmp_path: Path) -> None:
    with quick_city(tmp_path) as (_, address):
        with httpx.stream("GET", f"{address}/api/v1/live") as response:
            assert "content-encoding" not in response.headers
        assert httpx.get(f"{address}/api/v1/indicators").headers["content-encoding"] == "gzip"


# ---- the hub alone, where the network would blur what is tested


def all_sent(hub: Hub, frames: int) -> bool:
    sent = next(metric for metric in hub.metrics() if metric.name == "qala_live_frames_total")
    return sent.samples[0].value == frames


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def make_hub(city: City, **settings: Any) -> Hub:
    return Hub(
        store=city.store,
        indicators=INDICATORS,
        rules=RULES,
        settings=DashboardsSettings(live_flush_s=0.01, live_tick_s=3_600, **settings),
        parts=dict,
        now_us=lambda: NOW,
        version="0.1.0",
    )


def test_a_page_that_does_not_keep_up_loses_the_oldest_and_is_told_to_read_again(tmp_path: Path) -> None:
    city = City(tmp_path)

    async def scenario() -> list[bytes]:
        hub = make_hub(city)
        slow = hub.subscribe()
        await anext(slow)
        sending = asyncio.create_task(hub.run())
        for number in range(5):
            hub.on_episodes([make_episode(f"ep-{number}")])
            await eventually(partial(all_sent, hub, number + 1))
        frames = [await anext(slow), await anext(slow)]
        hub.close()
        await sending
        assert [frame async for frame in slow] == []
        return frames

    first, second = asyncio.run(scenario())
    city.close()
    assert first.startswith(event("resync", {}))
    assert b"ep-3" in first
    assert b"ep-4" in second
    assert b"resync" not in second


def test_all_pages_are_given_the_same_bytes(tmp_path: Path) -> None:
    city = City(tmp_path)

    async def scenario() -> list[bytes]:
        hub = make_hub(city)
        streams = [hub.subscribe() for _ in range(3)]
        for stream in streams:
            await anext(stream)
        sending = asyncio.create_task(hub.run())
        hub.on_episodes([make_episode("ep-1")])
        frames = [await anext(stream) for stream in streams]
        hub.close()
        await sending
        return frames

    frames = asyncio.run(scenario())
    city.close()
    assert b"ep-1" in frames[0]
    assert all(frame is frames[0] for frame in frames), "encoded once, not once a client"


def test_a_closed_hub_takes_no_more_streams(tmp_path: Path) -> None:
    city = City(tmp_path)
    city.hub.close()
    assert city.get("/live").json()["code"] == "too_many_streams"
    city.close()


def test_what_happened_while_nobody_looked_is_not_sent_later(tmp_path: Path) -> None:
    city = City(tmp_path)

    async def scenario() -> bytes:
        hub = city.hub = make_hub(city)
        city.read("city/air-1:pm2_5", [NOW], [1.0])
        hub.on_episodes([make_episode("before")])
        sending = asyncio.create_task(hub.run())
        await eventually(lambda: not hub.latest.take_changed(1))
        late = hub.subscribe()
        await anext(late)
        hub.on_episodes([make_episode("after")])
        frame = await anext(late)
        hub.close()
        await sending
        return frame

    frame = asyncio.run(scenario())
    city.close()
    assert b"after" in frame
    assert b"before" not in frame
    assert b"readings" not in frame
