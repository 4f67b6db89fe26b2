"""A batch of messages on its way: read, decoded, and what it says of devices themselves."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from devices.device import Registry
from devices.errors import QalaError, Reason
from devices.quantity import QUANTITIES, parse_key
from devices.reading import Batch, Int32Array, Int64Array, Position
from ingest.admission import Admission, Admitted
from ingest.aside import set_aside
from ingest.formats import Decoder
from ingest.formats.base import Decoded, Metadata, Rejection, Status
from ingest.message import Message
from ingest.reader import Frame
from qala.state.registry import Candidate, DeviceMetadata, DeviceStatus
from qala.state.rejected import RejectedRow

if TYPE_CHECKING:
    from ingest.ledger import Counted

__all__ = ["Announcements", "Intake", "Portion", "admit", "announcements", "candidate", "join", "merge", "take"]


class Intake(msgspec.Struct):
    """Messages of the journal with their numbers, int64[n] rising, and what each of them says.

    `aside` are those among them that are not a device's own.
    """

    numbers: Int64Array
    messages: list[Message]
    decoded: list[Decoded]
    aside: list[Message] = []

    def part(self, start: int, stop: int) -> Intake:
        """Return the messages `[start, stop)`."""
        return Intake(self.numbers[start:stop], self.messages[start:stop], self.decoded[start:stop])


class Announcements(msgspec.Struct):
    """What devices say of themselves, and which of them nobody declared, with the indices of their messages."""

    statuses: list[DeviceStatus]
    metadata: list[DeviceMetadata]
    unknown: dict[str, list[int]]

    def and_unknown(self, admitted: Admitted) -> dict[str, list[int]]:
        """Return all undeclared devices, those that only sent readings among them."""
        mine, theirs = self.unknown, admitted.unknown
        return {
            device: [*theirs.get(device, ()), *mine.get(device, ())] for device in sorted(mine.keys() | theirs.keys())
        }


class Portion(msgspec.Struct):
    """What some messages came to, up to a position. `marked` are (series, bucket) pairs, `rejected` are reasons."""

    upto: Position
    messages: int
    received_us: int  # of the last message
    batch: Batch
    marked: tuple[Int32Array, Int64Array]
    rejected: Counter[str]
    rows: Sequence[RejectedRow] = ()
    counted: Sequence[Counted] = ()
    probes: list[int] = []  # when they were sent [UTC us]


def merge(portions: Sequence[Portion]) -> Portion:
    """Make one of portions that follow one another."""
    if len(portions) == 1:
        return portions[0]
    columns = zip(*(msgspec.structs.astuple(portion.batch) for portion in portions), strict=True)
    series, bucket = zip(*(portion.marked for portion in portions), strict=True)
    return Portion(
        upto=portions[-1].upto,
        messages=sum(portion.messages for portion in portions),
        received_us=portions[-1].received_us,
        batch=Batch(*(np.concatenate(column) for column in columns)),
        marked=(np.concatenate(series), np.concatenate(bucket)),
        rejected=sum((portion.rejected for portion in portions), Counter()),
        rows=[row for portion in portions for row in portion.rows],
        counted=[counted for portion in portions for counted in portion.counted],
        probes=[sent_us for portion in portions for sent_us in portion.probes],
    )


def join(frames: Sequence[Frame]) -> tuple[Int64Array, list[Message]]:
    """Join frames to columns: numbers, int64[n], and messages."""
    numbers = np.concatenate([np.arange(f.first, f.first + len(f.messages)) for f in frames] or [np.empty(0, np.int64)])
    return numbers, [message for frame in frames for message in frame.messages]


def take(numbers: Int64Array, messages: list[Message], decoder: Decoder) -> Intake:
    """Decode messages, and put right those that are not a device's own."""
    with _uncollected():
        decoded = decoder.decode_all(messages)
    return Intake(numbers, messages, decoded, set_aside(messages, decoded))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking, a hundred times a batch, at thousands of new objects that hold no cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def announcements(intake: Intake, registry: Registry, declared: Mapping[str, Mapping[str, str]]) -> Announcements:
    """Return what devices say of themselves; for undeclared ones, note a rejection in the intake.

    `declared` are the units by device and quantity that were said before. The first declaration of a unit stays, and a
    quantity of the catalogue has the one unit that it has: what contradicts is rejected, so that readings mean the same
    whenever they are decoded.
    """
    said = Announcements([], [], {})
    units = dict(declared)
    for index, (message, decoded) in enumerate(zip(intake.messages, intake.decoded, strict=True)):
        if decoded.status is not None:
            if _is_known(decoded.status.device, intake, index, registry, said):
                said.statuses.append(_status(decoded.status, message))
        elif decoded.metadata is not None and _is_known(decoded.metadata.device, intake, index, registry, said):
            metadata = _metadata(decoded.metadata, message)
            known = units.get(metadata.device, {})
            wrong = [_contradiction(metadata, name, known) for name in metadata.units]
            _note(intake, index, [rejection for rejection in wrong if rejection is not None])
            units[metadata.device] = {**_new_units(metadata.units), **known}
            said.metadata.append(msgspec.structs.replace(metadata, units=units[metadata.device]))
    return said


def _new_units(units: Mapping[str, str]) -> dict[str, str]:
    return {name: unit for name, unit in units.items() if parse_key(name)[0] not in QUANTITIES}


def _contradiction(metadata: DeviceMetadata, name: str, known: Mapping[str, str]) -> Rejection | None:
    quantity = QUANTITIES.get(parse_key(name)[0])
    before = quantity.unit if quantity else known.get(name, metadata.units[name])
    if metadata.units[name] == before:
        return None
    detail = f"its unit is {before}; a message may say another for itself in `u`"
    return Rejection(Reason.BAD_UNIT, detail, name, metadata.device)


def _note(intake: Intake, index: int, rejections: Sequence[Rejection]) -> None:
    decoded = intake.decoded[index]
    if rejections:
        intake.decoded[index] = msgspec.structs.replace(decoded, rejections=[*decoded.rejections, *rejections])


def _is_known(device: str, intake: Intake, index: int, registry: Registry, said: Announcements) -> bool:
    if device in registry.devices:
        return True
    _note(intake, index, [Rejection(Reason.UNKNOWN_DEVICE, "not in the registry", device=device)])
    said.unknown.setdefault(device, []).append(index)
    return False


def candidate(device: str, intake: Intake, at: Sequence[int]) -> Candidate:
    """Sum up the messages (by index) of an undeclared device."""
    received = [intake.messages[index].received_us for index in at]
    return Candidate(device, min(received), max(received), len(set(at)))


def _status(status: Status, message: Message) -> DeviceStatus:
    return DeviceStatus(status.device, status.online, status.firmware, status.interval_s, message.received_us)


def _metadata(said: Metadata, message: Message) -> DeviceMetadata:
    counters = tuple(sorted(said.counters))
    return DeviceMetadata(
        said.device, said.model, said.lat, said.lon, said.time_zone, said.units, counters, message.received_us
    )


def admit(admission: Admission, intake: Intake) -> Admitted:
    """Admit a batch. A message that admission itself fails on is rejected alone, so that it cannot stop the others."""
    try:
        return _admit(admission, intake)
    except QalaError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the culprit is looked for and every other message goes on
        for index, error in _culprits(admission, intake, 0, len(intake.messages)):
            detail = f"it could not be admitted: {type(error).__name__}"
            intake.decoded[index] = Decoded(rejections=(Rejection(Reason.BAD_SHAPE, detail),))
        return _admit(admission, intake)


def _admit(admission: Admission, intake: Intake) -> Admitted:
    return admission.admit(intake.numbers, intake.messages, intake.decoded)


def _culprits(admission: Admission, intake: Intake, start: int, stop: int) -> list[tuple[int, Exception]]:
    """Find the messages of a range that cannot be admitted, by halves."""
    try:
        _admit(admission, intake.part(start, stop))
    except QalaError:
        raise
    except Exception as error:  # noqa: BLE001 - see `admit`
        if stop - start == 1:
            return [(start, error)]
        middle = (start + stop) // 2
        return _culprits(admission, intake, start, middle) + _culprits(admission, intake, middle, stop)
    return []
