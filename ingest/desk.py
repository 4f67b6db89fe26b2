"""The desk hands commands out: what the state says is to be delivered, to devices that are listening right now.

The state is read and never written. What goes out, and what a device answers, is told to the journal, and from there the
projector tells the state. Until that has happened the desk remembers what was answered, so that it is not handed out twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine

from ingest.mqtt.downlink import Ear
from ingest.mqtt.listener import Listener
from ingest.nudge import Nudges
from qala.state.commands import OpenCommand, awaited, devices_awaited

__all__ = ["Desk"]

_log = logging.getLogger(__name__)

_LOOK_S = 1.0  # a nudge may be lost, and a command may be written by somebody who sends none
_DEVICES_AT_ONCE = 20  # so many, that the payloads in memory stay few: 16 of 64 KiB each
_REST_S = 0.02  # between two looks, whatever happens


class Desk:
    """Looks for commands at a nudge, when a device begins to listen, and once a second. Lives in one event loop.

    The state is read in a thread of its own.
    """

    def __init__(self, state: Engine, listener: Listener, *, socket: Path) -> None:
        self._state = state
        self._listener = listener
        self._path = socket
        self._thread = ThreadPoolExecutor(1, "desk")
        self._look_now = asyncio.Event()
        self._out: dict[str, tuple[str, Ear]] = {}  # command -> its device, and through which ear it went out
        self._answered: dict[str, str] = {}  # command -> its device; the state may not know of it yet
        self._trouble = ""
        listener.on_heard = self._heard
        listener.on_answered = self._answered_by

    async def run(self) -> None:
        """Hand out commands until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            with Nudges(self._path) as nudges:
                loop.add_reader(nudges.fileno(), self._nudged, nudges)
                try:
                    await self._hand_out_for_ever()
                finally:
                    loop.remove_reader(nudges.fileno())
        finally:
            self._thread.shutdown(wait=False)

    async def _hand_out_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._look_now.wait()
                    await asyncio.sleep(_REST_S)
            self._look_now.clear()
            if self._listener.hearing():
                await self.hand_out(time.time_ns() // 1000)

    async def hand_out(self, now_us: int) -> None:
        """Look once, and send what is to be delivered."""
        ears = self._listener.ears
        self._out = {command: out for command, out in self._out.items() if ears.still(*out)}
        but = frozenset(self._out) | frozenset(self._answered)
        loop = asyncio.get_running_loop()
        try:
            devices = await loop.run_in_executor(self._thread, devices_awaited, self._state, now_us)
            self._answered = {command: device for command, device in self._answered.items() if device in devices}
            take = partial(awaited, self._state, now_us=now_us, but=but)
            wanted = iter(sorted(devices & self._listener.hearing().keys()))
            while some := list(islice(wanted, _DEVICES_AT_ONCE)):
                self._send(await loop.run_in_executor(self._thread, take, some))
        except Exception as error:  # noqa: BLE001 - whatever it is, commands wait and messages go on
            self._fail(error)
        else:
            self._trouble = ""

    def _send(self, found: Sequence[OpenCommand]) -> None:
        """Send commands in their order; where one cannot go out now, none of its device's that come later does."""
        full: set[str] = set()
        hearing = self._listener.hearing()
        for command in found:
            ear = hearing.get(command.device)
            left_s = command.expires_us / 1e6 - time.time()
            if ear is None or command.device in full or left_s <= 0:
                continue
            if command.id in self._out or command.id in self._answered:
                continue
            self._out[command.id] = command.device, ear  # before it goes out: with QoS 0 it is answered at once
            if not ear.command(command.id, command.payload, left_s):
                del self._out[command.id]
                full.add(command.device)

    def _heard(self, _device: str) -> None:
        self._look_now.set()

    def _answered_by(self, device: str, command: str) -> None:
        self._out.pop(command, None)
        self._answered[command] = device
        self._look_now.set()

    def _nudged(self, nudges: Nudges) -> None:
        nudges.drain()
        self._look_now.set()

    def _fail(self, error: Exception) -> None:
        if type(error).__name__ != self._trouble:
            self._trouble = type(error).__name__
            _log.warning("commands cannot be read from the state, and wait: %s", error)
