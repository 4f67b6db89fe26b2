"""What the ledger counts of a batch of messages, by device and hour of receipt. Pure; `qala.state.ledger` keeps it.

Every message counts once, under the device that it speaks of; one of several devices under the sender that its topic names.
Every reading counts under its device. A rejection counts as many readings as it stands for, at least one where nobody can
tell. A duplicate counts as a message and a duplicate, and none of its readings does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from devices.errors import Reason
from devices.reading import BoolArray, Int64Array
from ingest.admission import Admitted, Tally
from ingest.aside import is_aside
from ingest.formats.base import Decoded, Rejection
from ingest.intake import Intake
from ingest.message import Message
from qala.state.ledger import COLUMNS, HOUR_US, Counts, Entry

__all__ = ["WINDOW", "Counted", "Duplicates", "Naming", "Sums", "as_unknown", "count", "negative"]

WINDOW = 65_536
"""A message is a duplicate of one among so many before it."""

_FEW = 256
_LONG_AGO = -(2**62)
_YOUNG = 4096
_WIDTH = 6

Naming = Callable[[str, int], str]
"""Gives the device that is counted under for a device and a message's number: itself, or "" where it is not known."""


class _Newest:
    """The number of the last message of each hash."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)  # in order
        self._numbers = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, keys: Int64Array) -> Int64Array:
        """Return the numbers of hashes, long ago where there is none."""
        at, known = self._find(keys)
        found = np.full(len(keys), _LONG_AGO)
        found[known] = self._numbers[at[known]]
        return found

    def put(self, keys: Int64Array, numbers: Int64Array) -> None:
        """Take in hashes, in order and each once, with later numbers."""
        at, known = self._find(keys)
        self._numbers[at[known]] = numbers[known]
        self._keys = np.insert(self._keys, at[~known], keys[~known])
        self._numbers = np.insert(self._numbers, at[~known], numbers[~known])

    def move(self, other: _Newest, after: int) -> None:
        """Take in another's, and forget the numbers up to one."""
        self.put(other._keys, other._numbers)
        stays = self._numbers > after
        self._keys, self._numbers = self._keys[stays], self._numbers[stays]

    def _find(self, keys: Int64Array) -> tuple[Int64Array, BoolArray]:
        at = np.searchsorted(self._keys, keys)
        known = at < len(self)
        known[known] = self._keys[at[known]] == keys[known]
        return at, known


class Duplicates:
    """Tells messages that have come before, by topic and payload, among the `window` messages before them in the journal.

    `upto` is the number of the last message that was looked at. A message that has neither a time of its own nor the
    duplicate flag is none: a device may say the same twice and mean it.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self.forget(0)

    def find(self, numbers: Int64Array, messages: Sequence[Message], decoded: Sequence[Decoded]) -> BoolArray:
        """Tell which messages are duplicates, and remember them all: bool[n]."""
        found = np.zeros(len(messages), np.bool_)
        for index in self.remember(numbers, messages):
            found[index] = messages[index].duplicate or _has_time(decoded[index])
        return found

    def forget(self, upto: int) -> None:
        """Begin anew behind a message."""
        self.upto = upto
        self._young, self._old = _Newest(), _Newest()  # two, so that a few messages move a few

    def remember(self, numbers: Int64Array, messages: Sequence[Message]) -> list[int]:
        """Remember messages; return the indices of those that are the same as one within the window before them."""
        keys = np.fromiter([hash((message.topic, message.payload)) for message in messages], np.int64, len(messages))
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], numbers[order]
        before = np.maximum(self._young.of(keys), self._old.of(keys))
        again = keys[1:] == keys[:-1]
        before[1:][again] = places[:-1][again]
        is_last = np.append(~again, True)[: len(keys)]
        self._young.put(keys[is_last], places[is_last])
        self.upto = int(numbers[-1]) if len(numbers) else self.upto
        if len(self._young) >= min(_YOUNG, self.window):
            self._old.move(self._young, self.upto - self.window)
            self._young = _Newest()
        repeated: list[int] = np.sort(order[places - before <= self.window]).tolist()
        return repeated


def _has_time(decoded: Decoded) -> bool:
    return any(report.time_us is not None for report in decoded.reports)


class Counted(msgspec.Struct):
    """What a batch comes to: the first columns of `Counts` by (device, hour), int64[keys, 6], and what was rejected.

    One (device, hour) may be there several times.
    """

    keys: list[tuple[str, int]]
    columns: Int64Array
    refused: list[Entry]

    def entries(self) -> Iterator[Entry]:
        """Give all of it as entries."""
        for (device, hour_us), values in zip(self.keys, self.columns.tolist(), strict=True):
            yield Entry(device, hour_us, Counts(*values))
        yield from self.refused


class Sums:
    """What was counted and not posted yet; `messages` is how many those were."""

    def __init__(self) -> None:
        self.messages = 0
        self._places: dict[tuple[str, int], int] = {}
        self._columns = np.zeros((_FEW, _WIDTH), np.int64)
        self._refused: list[Entry] = []

    def add(self, counted: Counted) -> None:
        """Add what a batch comes to."""
        places = [self._places.setdefault(key, len(self._places)) for key in counted.keys]
        while len(self._places) > len(self._columns):
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)])
        np.add.at(self._columns, places, counted.columns)
        self._refused += counted.refused
        self.messages += int(counted.columns[:, 0].sum())

    def entries(self) -> list[Entry]:
        """Give all of it as entries."""
        columns = self._columns[: len(self._places)]
        return [*Counted(list(self._places), columns, self._refused).entries()]


def count(intake: Intake, admitted: Admitted, duplicate: BoolArray, naming: Naming) -> Counted:
    """Count a batch of messages, of which some are duplicates: bool[n]."""
    hours, hour = _hours(intake.messages)
    names, device = _devices(admitted.tally, intake, naming)
    sender = _senders(intake, admitted.tally, device, names, naming)
    tally, owner = admitted.tally, admitted.tally.owner
    fresh = ~duplicate[owner]
    cell = (device * len(hours) + hour[owner])[fresh]
    accepted = tally.accepted[fresh]
    sent = sender >= 0
    message_cell = sender * len(hours) + hour
    columns = (
        (message_cell[sent], None),
        (message_cell[sent & duplicate], None),
        (cell, tally.carried[fresh]),
        (cell, accepted),
        (cell, tally.flagged[fresh]),
        (cell, accepted * tally.late[fresh]),
    )
    cells = len(names) * len(hours)
    sums = np.array([np.bincount(which, weights, cells) for which, weights in columns]).T
    places = np.flatnonzero(sums.any(axis=1))
    keys = [(names[place // len(hours)], hours[place % len(hours)]) for place in places.tolist()]
    return Counted(keys, sums[places].astype(np.int64), list(_refused(intake, admitted.rejections, duplicate, naming)))


def _hours(messages: Sequence[Message]) -> tuple[list[int], Int64Array]:
    """Return the hours of receipt of messages, and which of them is whose: int64[n]."""
    hour = np.fromiter([message.received_us for message in messages], np.int64, len(messages)) // HOUR_US
    if len(hour) and hour[0] == hour[-1] and (hour == hour[0]).all():
        return [int(hour[0]) * HOUR_US], np.zeros(len(hour), np.int64)
    found, index = np.unique(hour, return_inverse=True)
    return (found * HOUR_US).tolist(), index.astype(np.int64)


def _devices(tally: Tally, intake: Intake, naming: Naming) -> tuple[list[str], Int64Array]:
    """Return the names that reports are counted under, and which of them is whose: int64[reports]."""
    last = int(intake.numbers[-1]) if len(intake.numbers) else 0
    seen = np.zeros(len(tally.devices), np.bool_)
    seen[tally.device] = True
    index = np.cumsum(seen) - 1
    return [naming(tally.devices[at], last) for at in np.flatnonzero(seen).tolist()], index[tally.device]


def _senders(intake: Intake, tally: Tally, device: Int64Array, names: list[str], naming: Naming) -> Int64Array:
    """Return which name each message is counted under, int64[n], adding to the names; -1 for those that are not counted."""
    sender = np.full(len(intake.messages), -1, np.int64)
    sender[tally.owner] = device
    several = tally.owner[sender[tally.owner] != device]
    places = {name: index for index, name in enumerate(names)}
    for index in np.flatnonzero(sender < 0).tolist() + sorted(set(several.tolist())):
        message = intake.messages[index]
        sender[index] = -1
        if not is_aside(message):
            name = naming(_sender(message, intake.decoded[index]), int(intake.numbers[index]))
            sender[index] = places.setdefault(name, len(names))
            if sender[index] == len(names):
                names.append(name)
    return sender


def _sender(message: Message, decoded: Decoded) -> str:
    """Return the one device that a message speaks of, or else the one that its topic names."""
    said = {one.device for one in (decoded.status, decoded.metadata, *decoded.rejections, *decoded.reports) if one}
    if len(said) == 1:
        return said.pop()
    levels = message.topic.rsplit("/", 3)
    return f"{levels[1]}/{levels[2]}" if said and len(levels) == 4 else ""


def _refused(
    intake: Intake, rejections: Iterable[tuple[int, Rejection]], duplicate: BoolArray, naming: Naming
) -> Iterator[Entry]:
    """Count what was rejected; what no report carries was carried by the rejection itself."""
    touched: set[int] = set()
    for index, rejection in rejections:
        if not duplicate[index]:
            touched.add(index)
            counts = Counts(rejected={str(rejection.reason): rejection.readings})
            yield _entry(intake, index, rejection.device, counts, naming)
    for index in sorted(touched):
        for rejection in intake.decoded[index].rejections:
            yield _entry(intake, index, rejection.device, Counts(readings=rejection.readings), naming)


def _entry(intake: Intake, index: int, device: str, counts: Counts, naming: Naming) -> Entry:
    hour_us = intake.messages[index].received_us // HOUR_US * HOUR_US
    return Entry(naming(device, int(intake.numbers[index])), hour_us, counts)


# ---- what was counted otherwise before


def as_unknown(intake: Intake, duplicate: BoolArray) -> list[Entry]:
    """Count what devices that were unknown then had carried, as it was counted: rejected, every reading of it."""
    found = []
    for index, (message, said) in enumerate(zip(intake.messages, intake.decoded, strict=True)):
        carried = Counter({report.device: 0 for report in said.reports})
        for report in said.reports:
            carried[report.device] += len(report.keys)
        carried.update(one.device for one in (said.status, said.metadata) if one is not None)
        hour_us = message.received_us // HOUR_US * HOUR_US
        for device, readings in carried.items() if not duplicate[index] else ():
            rejected = {str(Reason.UNKNOWN_DEVICE): readings}
            found.append(Entry(device, hour_us, Counts(readings=readings, rejected=rejected)))
        for rejection in said.rejections if not duplicate[index] else ():
            rejected = {str(rejection.reason): rejection.readings}
            found.append(Entry(rejection.device, hour_us, Counts(readings=rejection.readings, rejected=rejected)))
    return found


def negative(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Take entries back."""
    for entry in entries:
        counts = entry.counts
        columns = {name: -getattr(counts, name) for name in COLUMNS}
        rejected = {reason: -readings for reason, readings in counts.rejected.items()}
        yield Entry(entry.device, entry.hour_us, msgspec.structs.replace(Counts(**columns), rejected=rejected))
