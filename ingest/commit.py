"""Group commit: messages of many connections share one journal frame and one sync, and are acknowledged after it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Protocol

import msgspec

from ingest.histogram import MESSAGES, Histogram
from ingest.message import Message, Source
from ingest.segments import Row
from ingest.settings import IngestSettings

__all__ = ["ROW_BYTES", "CommitLimits", "Durable", "Feeder", "Group", "GroupCommit", "Member", "Sink"]

_log = logging.getLogger(__name__)

_ENOUGH = 256  # a group of this many messages is worth a sync of its own, whatever the wait
_ENOUGH_BYTES = 256 * 1024  # and one of so many bytes, too
_SETTLE_S = 0.001  # answers to one round of PUBACKs come within this; what comes later came by itself
_QUIET_MIN_S = 0.002
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 1.0
_source = itemgetter(5)  # of a row
_NAMES = {int(source): source.name.lower() for source in Source}
ROW_BYTES = 256  # what a row costs in memory beside its bytes


class Sink(Protocol):
    """What makes a group durable: the journal."""

    def append(self, messages: Sequence[Message | Row]) -> int: ...


class Member(Protocol):
    """Somebody who waits for acknowledgements."""

    def acknowledge(self, ids: list[bytes]) -> None:
        """Learn that these packets are durable now, in the order in which they came."""


class Feeder(Protocol):
    """Whoever adds messages to the open group: a listener, a subscriber."""

    def hold(self) -> None:
        """Add nothing more, as far as that can be helped, until `go_on`: too much is queued."""

    def go_on(self) -> None:
        """Go on adding."""


class Durable(msgspec.Struct):
    """What was made durable since the start. `bytes` are those that carried the messages, `sources` counts these by source.

    `seconds` is how long commits took [s], with all that had to be tried again; `sizes` how many messages shared one.
    """

    messages: int = 0
    bytes: int = 0
    commits: int = 0
    sources: dict[str, int] = {}
    seconds: Histogram = msgspec.field(default_factory=Histogram)
    sizes: Histogram = msgspec.field(default_factory=lambda: Histogram(MESSAGES))


class CommitLimits(msgspec.Struct, frozen=True):
    """How long a group waits for more [s], how large it gets, and how much may queue up [bytes]."""

    wait_s: float = 0.02
    group_max: int = 20_000
    group_bytes_max: int = 8 * 1024 * 1024
    queue_max: int = 64 * 1024 * 1024

    @classmethod
    def of(cls, settings: IngestSettings) -> CommitLimits:
        """Take the limits from the settings."""
        return cls(settings.group_wait_ms / 1000, settings.group_max, settings.group_bytes_max, settings.queue_max)


class Group:
    """Messages that will share one frame, and who is told when it is durable. `bytes` is about what they hold in memory.

    `first` is the number of the first message once it is durable, 0 before.
    """

    __slots__ = ("bytes", "first", "members", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.members: list[tuple[Member, list[bytes]]] = []
        self.bytes = 0
        self.first = 0


class GroupCommit:
    """Collect rows in `open`, the group that is still growing, and commit groups one after another in a thread.

    A group is committed at once while commits are rare. While they follow each other within `wait_s`, a small group
    waits for more until the wait is over or nothing came for a while. That while grows when it turns out that waiting
    brings messages, and shrinks when all who send are waiting for their PUBACK. A failing commit is tried again until
    it succeeds; nobody is told anything meanwhile. Lives in one event loop.
    """

    def __init__(
        self,
        sink: Sink,
        limits: CommitLimits,
        *,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.open = Group()
        self.feeders: list[Feeder] = []
        self.durable = Durable()
        self.full = False  # too much is queued: nothing more should be added
        self.trouble = ""  # why the last commit failed; empty when it did not
        self._sink = sink
        self._limits = limits
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._closed: deque[Group] = deque()
        self._queued = 0  # bytes of all groups but the open one
        self._busy = False
        self._under_way: Group | None = None
        self._last_start = float("-inf")
        self._timer: asyncio.Handle | None = None
        self._quiet_s = _QUIET_MIN_S
        self._waiting = False  # the timer lets the open group wait for more
        self._arrived = 0.0  # when the open group last grew while it waited
        self._worth_it = False  # something came by itself meanwhile
        self._idle = asyncio.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="commit", daemon=True).start()

    def touch(self) -> None:
        """Take note that `open` has grown."""
        group, limits = self.open, self._limits
        if len(group.rows) >= limits.group_max or group.bytes >= limits.group_bytes_max:
            self._close_group()
        if self._queued + self.open.bytes > limits.queue_max and not self.full:
            self.full = True
            for feeder in self.feeders:
                feeder.hold()
        if self._busy:
            return
        if self._timer is None:
            self._idle.clear()
            self._arm()
        elif self._waiting:
            self._grown()

    @property
    def queued(self) -> tuple[int, int]:
        """How much is taken and not durable yet: messages, and bytes in memory."""
        groups = [self.open, *self._closed, *([self._under_way] if self._under_way else [])]
        return sum(len(group.rows) for group in groups), self._queued + self.open.bytes

    def run(self, job: Callable[[], None]) -> None:
        """Run a job in the thread that commits, between two commits. Its errors are logged."""
        self._jobs.put(job)

    async def drain(self) -> None:
        """Wait until everything taken so far is durable and acknowledged."""
        if not self._busy and self._timer is not None:
            self._start_soon()
        await self._idle.wait()

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._jobs.put(None)

    def _close_group(self) -> None:
        if self.open.rows:
            self._closed.append(self.open)
            self._queued += self.open.bytes
            self.open = Group()

    def _arm(self) -> None:
        now = self._loop.time()
        if now - self._last_start >= self._limits.wait_s or self._is_enough() or self._closed:
            self._start_soon()
        else:
            self._waiting, self._worth_it, self._arrived = True, False, now
            self._timer = self._loop.call_later(self._quiet_s, self._look)

    def _grown(self) -> None:
        now = self._loop.time()
        self._worth_it |= now - self._arrived > _SETTLE_S
        self._arrived = now
        if self._is_enough():
            self._start_soon()

    def _is_enough(self) -> bool:
        return len(self.open.rows) >= _ENOUGH or self.open.bytes >= _ENOUGH_BYTES

    def _look(self) -> None:
        """Commit when the group has waited long enough, or nothing came for a while."""
        now = self._loop.time()
        left_s = min(self._arrived + self._quiet_s, self._last_start + self._limits.wait_s) - now
        if left_s > _SETTLE_S / 2:
            self._timer = self._loop.call_later(left_s, self._look)
            return
        grown_s = self._quiet_s * 3 if self._worth_it else self._quiet_s * 0.75
        self._quiet_s = max(min(grown_s, self._limits.wait_s), _QUIET_MIN_S)
        self._start()

    def _start_soon(self) -> None:
        """Start after the connections that are readable right now were read."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting = False
        self._timer = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._timer = None
        self._waiting = False
        if not self._closed:
            self._close_group()
        self._busy = True
        self._last_start = self._loop.time()
        self._under_way = self._closed.popleft()
        self._submit(self._under_way, _RETRY_FIRST_S)

    def _submit(self, group: Group, retry_s: float) -> None:
        self._jobs.put(lambda: self._append(group, retry_s))

    def _append(self, group: Group, retry_s: float) -> None:
        error: Exception | None = None
        try:
            group.first = self._sink.append(group.rows)
        except Exception as caught:  # noqa: BLE001 - whatever it is, these messages are not durable
            error = caught
        try:
            self._loop.call_soon_threadsafe(self._done, group, error, retry_s)
        except RuntimeError:  # the loop has ended: nobody is left to be told
            _log.warning("a commit ended after the door had closed")

    def _done(self, group: Group, error: Exception | None, retry_s: float) -> None:
        if error is not None:
            self._fail(group, error, retry_s)
            return
        if self.trouble:
            _log.warning("the journal takes messages again")
            self.trouble = ""
        self._queued -= group.bytes
        self._under_way = None
        for member, ids in group.members:
            member.acknowledge(ids)
        self._count(group)
        self._on_commit()
        if self.full and self._queued + self.open.bytes <= self._limits.queue_max // 2:
            self.full = False
            for feeder in self.feeders:
                feeder.go_on()
        self._busy = False
        if self._closed or self.open.rows:
            self._arm()
        else:
            self._idle.set()

    def _count(self, group: Group) -> None:
        durable, messages = self.durable, len(group.rows)
        durable.commits += 1
        durable.messages += messages
        durable.bytes += group.bytes - messages * ROW_BYTES
        for source, count in Counter(map(_source, group.rows)).items():
            name = _NAMES[source]
            durable.sources[name] = durable.sources.get(name, 0) + count
        durable.sizes.observe(messages)
        durable.seconds.observe(self._loop.time() - self._last_start)

    def _fail(self, group: Group, error: Exception, retry_s: float) -> None:
        if str(error) != self.trouble:
            self.trouble = str(error)
            _log.error("nothing is acknowledged: %s", error)
        self._loop.call_later(retry_s, self._submit, group, min(retry_s * 2, _RETRY_MAX_S))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the next commits must go on
                _log.exception("a job of the journal failed")
