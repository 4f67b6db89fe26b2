"""`qala rehearse`: the rehearsal city publishes its last 48 hours as fast as it is taken, then lives on in real time.

How far everything was acknowledged stands in DATA/rehearsal.json, so that the next start publishes only what is missing.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from devices.rehearsal.city import City
from qala.city import rehearsal_city
from qala.config import Config
from qala.publisher import Publisher

__all__ = ["PAST_S", "rehearse"]

PAST_S = 48 * 3600
_BATCH_S = 3600  # history comes as batches of an hour, as from devices that were out of reach
_LIVE_S = 0.5
_SAVE_S = 1.0
_SECOND_US = 1_000_000


class _Progress(msgspec.Struct):
    """What DATA/rehearsal.json says: everything due before `published_us` was acknowledged."""

    published_us: int


class _Log:
    """Remembers up to when everything was acknowledged, in a file that is replaced at most once a second."""

    def __init__(self, path: Path, publisher: Publisher) -> None:
        self._path = path
        self._publisher = publisher
        self._sent = 0
        self._steps: deque[tuple[int, int]] = deque()  # messages sent in all, up to which time
        self._saved = time.monotonic()

    def publish(self, city: City, start_us: int, stop_us: int, *, batch_s: int | None = None) -> None:
        """Publish what is due in a range of time."""
        for message in city.messages(start_us, stop_us, batch_s=batch_s):
            self._publisher.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
            self._sent += 1
        self._steps.append((self._sent, stop_us))
        if time.monotonic() - self._saved >= _SAVE_S:
            self.save()

    def save(self) -> None:
        upto_us = None
        while self._steps and self._steps[0][0] <= self._publisher.acknowledged:
            upto_us = self._steps.popleft()[1]
        if upto_us is not None:
            draft = self._path.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(_Progress(upto_us)))
            draft.replace(self._path)
        self._saved = time.monotonic()


def rehearse(config: Config, publisher: Publisher, *, say: Callable[[str], None]) -> None:
    """Publish what is missing of the last 48 hours, then what happens now, until the process is ended.

    Raises UnavailableError where nobody listens.
    """
    path = config.folder / "rehearsal.json"
    city = rehearsal_city(config.rehearsal, topic_root=config.ingest.topic_root)
    with publisher:
        log = _Log(path, publisher)
        at_us = _catch_up(city, log, _begin_us(path, _now_us()), say)
        while True:
            time.sleep(_LIVE_S)
            now_us = max(at_us, _now_us())
            log.publish(city, at_us, now_us)
            at_us = now_us


def _catch_up(city: City, log: _Log, start_us: int, say: Callable[[str], None]) -> int:
    """Publish the past up to now and return when that was: whole hours in batches, the hour that runs as single messages."""
    hour_us = _BATCH_S * _SECOND_US
    now_us = _now_us()
    whole_us = max(start_us, now_us // hour_us * hour_us)
    edges = [start_us, *range((start_us // hour_us + 1) * hour_us, whole_us + 1, hour_us)]
    say(f"the rehearsal city publishes its last {(now_us - start_us) / 3.6e9:.1f} hours")
    for begin_us, end_us in _shown(list(pairwise(edges))):
        log.publish(city, begin_us, end_us, batch_s=_BATCH_S)
    log.publish(city, edges[-1], now_us)
    say("the rehearsal city lives in real time now")
    return now_us


def _shown(steps: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the steps with a progress bar, where a person looks."""
    if not sys.stderr.isatty():
        yield from steps
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(steps, description="hours published")


def _begin_us(path: Path, now_us: int) -> int:
    """Return from when on messages are missing, at most 48 hours back."""
    try:
        published_us = msgspec.json.decode(path.read_bytes(), type=_Progress).published_us
    except (FileNotFoundError, msgspec.DecodeError):
        published_us = 0
    return min(now_us, max(published_us, now_us - PAST_S * _SECOND_US))


def _now_us() -> int:
    return time.time_ns() // 1000
