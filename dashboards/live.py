"""Live events: what changes is encoded once and handed to every open page as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import msgspec

from analytics.alerts import Rule
from analytics.indicator import Indicator
from dashboards.board import Board
from dashboards.health import PartsProvider, judge
from dashboards.items import alert_item, live_readings, value_item
from dashboards.latest import LatestReadings
from dashboards.problem import ProblemError
from dashboards.prometheus import Metric, counter, gauge
from dashboards.settings import DashboardsSettings
from dashboards.times import iso
from devices.reading import Batch
from devices.value import Value
from qala.state.episodes import EpisodeRow
from qala.store.base import Store

__all__ = ["Hub", "event"]

_QUEUE_FRAMES = 2


def event(name: str, data: Any) -> bytes:
    r"""Encode one server-sent event.

    >>> event("tick", {"now": "2026-11-22T09:00:00Z"})
    b'event: tick\ndata: {"now":"2026-11-22T09:00:00Z"}\n\n'
    """
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


async def _always() -> bool:
    return True


class _Client:
    """One open stream: a short queue of frames, of which the oldest goes when it does not keep up."""

    def __init__(self, holds: Callable[[], Awaitable[bool]]) -> None:
        self.holds = holds
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_FRAMES)
        self._missed = False

    def put(self, frame: bytes | None) -> bool:
        """Queue a frame, or the end (None); return whether another had to go for it."""
        full = self._frames.full()
        if full:
            self._frames.get_nowait()
            self._missed = True
        self._frames.put_nowait(frame)
        return full

    async def get(self) -> bytes | None:
        frame = await self._frames.get()
        if frame is not None and self._missed:
            self._missed = False
            return event("resync", {}) + frame
        return frame


class Hub:
    """Takes what other threads publish and sends it to all clients, at most once every `live_flush_s`.

    The `on_*` methods may be called from any thread and never wait for a client. `run` is the loop that sends; a client
    that missed something gets a `resync` event and reads its page again.
    """

    def __init__(
        self,
        *,
        store: Store,
        indicators: Mapping[str, Indicator],
        rules: Mapping[str, Rule],
        settings: DashboardsSettings,
        parts: PartsProvider,
        now_us: Callable[[], int],
        version: str,
    ) -> None:
        self.latest = LatestReadings(store.catalog)
        self.board = Board()
        self.episodes_revision = 0
        self._store = store
        self._indicators = indicators
        self._rules = rules
        self._settings = settings
        self._parts = parts
        self._now_us = now_us
        self._version = version
        self._lock = Lock()
        self._values: dict[tuple[str, str, str, int], Value] = {}
        self._episodes: dict[str, EpisodeRow] = {}
        self._overflowed = False
        self._resync_at = 0.0
        self._clients: set[_Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._closed = False
        self._sent = self._dropped = 0

    def load(self) -> None:
        """Take over the newest readings and values from the store, before anything is published."""
        now_us = self._now_us()
        self.latest.load(self._store, now_us)
        self.board.load(self._store, self._indicators, now_us)

    # ---- published by other threads

    def on_applied(self, batch: Batch) -> None:
        """Take readings that the projector has stored."""
        self.latest.apply(batch)

    def on_values(self, values: Sequence[Value]) -> None:
        """Take values that the scheduler has stored."""
        self.board.put(values)
        with self._lock:
            for value in values:
                self._values[(value.indicator, value.zone, value.window, value.start_us)] = value
            self._bound(self._values)

    def on_episodes(self, episodes: Sequence[EpisodeRow]) -> None:
        """Take episodes that were written or acknowledged."""
        with self._lock:
            self.episodes_revision += 1
            self._episodes.update((episode.id, episode) for episode in episodes)
            self._bound(self._episodes)

    def _bound(self, pending: dict[Any, Any]) -> None:
        """Forget what is too much for one event: pages that read themselves again are told less and know more."""
        if len(pending) > self._settings.live_items_max or not self._clients:
            self._overflowed = bool(self._clients)  # who comes later reads everything anyway
            pending.clear()

    # ---- the loop that sends

    async def run(self) -> None:
        """Send until `close`."""
        self._loop = loop = asyncio.get_running_loop()
        tick_at = loop.time()
        while not self._closed:
            frame = b"".join(self._changes())
            if loop.time() >= tick_at:
                frame += await self._tick()
                tick_at += self._settings.live_tick_s
            self._send(frame)
            await self._dismiss()
            await self._pause()
        for client in self._clients:
            client.put(None)

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), self._settings.live_flush_s)
        except TimeoutError:
            return

    def _changes(self) -> Iterable[bytes]:
        # Who opens a page later reads everything anyway.
        newest = self.latest.take_changed(self._settings.live_items_max) if self._clients else self.latest.forget()
        with self._lock:
            values, self._values = self._values, {}
            episodes, self._episodes = self._episodes, {}
        if not self._clients:
            return
        if self._may_resync():
            yield event("resync", {})
        if newest:
            yield event("readings", {"items": live_readings(newest)})
        if values:
            now_us = self._now_us()
            yield event("values", {"items": [value_item(value, now_us) for value in values.values()]})
        if episodes:
            items = [alert_item(row, self._rules, self._indicators) for row in episodes.values()]
            yield event("alerts", {"items": items})

    def _may_resync(self) -> bool:
        """Tell whether pages missed something and were not asked to read again just before; while much happens, they wait."""
        now = asyncio.get_running_loop().time()
        if not self._overflowed or now < self._resync_at:
            return False
        self._overflowed, self._resync_at = False, now + self._settings.live_resync_s
        return True

    async def _tick(self) -> bytes:
        if not self._clients:
            return b""
        parts = await asyncio.to_thread(self._parts)
        health = judge(parts, behind_s=self._settings.behind_s)
        projector = parts.get("projector", {})
        return event(
            "tick",
            {
                "now": iso(self._now_us()),
                "lag_s": projector.get("lag_s"),
                "lag_messages": projector.get("lag_messages"),
                "status": health.status,
                "reasons": health.reasons,
            },
        )

    def _send(self, frame: bytes) -> None:
        if frame:
            self._dropped += sum(client.put(frame) for client in self._clients)
            self._sent += len(self._clients)

    async def _dismiss(self) -> None:
        """End the streams of those who may not see them any more."""
        for client in tuple(self._clients):
            if not await client.holds():
                self._clients.discard(client)
                client.put(None)

    # ---- clients

    def subscribe(self, holds: Callable[[], Awaitable[bool]] = _always) -> AsyncIterator[bytes]:
        """Open a stream of frames for as long as it `holds`, in the loop's thread.

        Raises ProblemError (503) where there are too many or no more.
        """
        if self._closed or len(self._clients) >= self._settings.live_clients_max:
            hint = "close a page, or raise the setting dashboards.live_clients_max"
            raise ProblemError(503, "too_many_streams", f"{len(self._clients)} live streams are open", hint=hint)
        client = _Client(holds)
        self._clients.add(client)
        return self._frames(client)

    async def _frames(self, client: _Client) -> AsyncIterator[bytes]:
        try:
            yield b"retry: 2000\n" + event("hello", {"now": iso(self._now_us()), "version": self._version})
            while (frame := await client.get()) is not None:
                yield frame
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """End all streams soon, from any thread."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def metrics(self) -> list[Metric]:
        """Count streams and frames."""
        return [
            gauge("qala_live_clients", "Live streams that are open.", len(self._clients)),
            counter("qala_live_frames_total", "Frames handed to live streams.", self._sent),
            counter("qala_live_dropped_total", "Frames that a live stream did not take in time.", self._dropped),
        ]
