"""The rehearsal's way of publishing: the past first, then only what is missing since the last acknowledged time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from devices.rehearsal.city import City
from qala.publisher import Publisher
from qala.rehearse import PAST_S, _begin_us, _catch_up, _Log

HOUR_US = 3_600_000_000


class Recorder(Publisher):
    """A publisher that sends nowhere and acknowledges up to a limit."""

    def __init__(self, acknowledge_max: int | None = None) -> None:
        super().__init__("127.0.0.1", 1, client_id="recorder")
        self.published: list[tuple[str, bytes]] = []
        self._acknowledge_max = acknowledge_max

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self.published.append((topic, payload))
        if self._acknowledge_max is None or self.acknowledged < self._acknowledge_max:
            self.acknowledged += 1


def published_us(path: Path) -> int:
    return int(json.loads(path.read_bytes())["published_us"])


def now_us() -> int:
    return time.time_ns() // 1000


def test_a_first_start_begins_48_hours_ago(tmp_path: Path) -> None:
    assert _begin_us(tmp_path / "rehearsal.json", 10 * PAST_S * 1_000_000) == 9 * PAST_S * 1_000_000


@pytest.mark.parametrize(
    ("text", "begin_us"),
    [
        pytest.param('{"published_us": 999000000000}', 999_000_000_000, id="a short stop is made up for"),
        pytest.param('{"published_us": 5}', 10**12 - PAST_S * 10**6, id="a long one only as far as 48 hours"),
        pytest.param('{"published_us": 2000000000000}', 10**12, id="a clock that went back publishes nothing twice"),
        pytest.param("half a fi", 10**12 - PAST_S * 10**6, id="a damaged note begins anew"),
    ],
)
def test_a_later_start_begins_where_the_last_one_ended(tmp_path: Path, text: str, begin_us: int) -> None:
    path = tmp_path / "rehearsal.json"
    path.write_text(text)
    assert _begin_us(path, 10**12) == begin_us


def test_what_was_acknowledged_is_not_published_again(tmp_path: Path) -> None:
    city, path, start_us = City(devices=12), tmp_path / "rehearsal.json", now_us() - 3 * HOUR_US
    publisher = Recorder()
    log = _Log(path, publisher)
    upto_us = _catch_up(city, log, start_us, lambda _: None)
    log.save()
    assert publisher.published
    assert published_us(path) == upto_us
    assert _begin_us(path, now_us()) == upto_us


def test_what_was_not_acknowledged_is_published_again(tmp_path: Path) -> None:
    city, path, start_us = City(devices=12), tmp_path / "rehearsal.json", now_us() - 3 * HOUR_US
    first_hour = len(list(city.messages(start_us, (start_us // HOUR_US + 1) * HOUR_US, batch_s=3600)))
    log = _Log(path, Recorder(acknowledge_max=first_hour + 1))
    _catch_up(city, log, start_us, lambda _: None)
    log.save()
    assert published_us(path) == (start_us // HOUR_US + 1) * HOUR_US
