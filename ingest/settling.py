"""Settling: what a message comes to when it is taken once more, and how that moves what the ledger had counted of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

import msgspec
import numpy as np

from ingest.admission import Admitted
from ingest.formats.base import Decoded, Rejection
from ingest.intake import Intake
from ingest.ledger import Naming, negative
from qala.state.ledger import HOUR_US, Counts, Entry
from qala.state.rejected import Account

__all__ = ["Outcomes", "moves", "only", "recovered"]


class Outcomes:
    """What a batch of messages came to, by message and device. `rejections` are by the message's index."""

    def __init__(self, intake: Intake, admitted: Admitted) -> None:
        self.intake = intake
        self.rejections: dict[int, list[Rejection]] = {}
        for index, rejection in admitted.rejections:
            self.rejections.setdefault(index, []).append(rejection)
        self._tally = admitted.tally
        self._known: dict[tuple[int, str], Counts] = {}

    def of(self, index: int, device: str) -> Counts:
        """Count what the message at an index said of a device."""
        key = (index, device)
        if key not in self._known:
            self._known[key] = self._of(index, device)
        return self._known[key]

    def _of(self, index: int, device: str) -> Counts:
        tally, counts = self._tally, Counts()
        start, stop = np.searchsorted(tally.owner, [index, index + 1]).tolist()
        for row in range(start, stop):
            if tally.devices[tally.device[row]] == device:
                accepted = int(tally.accepted[row])
                late = accepted if tally.late[row] else 0
                counts.add(Counts(0, 0, int(tally.carried[row]), accepted, int(tally.flagged[row]), late))
        counts.readings += sum(r.readings for r in self.intake.decoded[index].rejections if r.device == device)
        for rejection in self.rejections.get(index, ()):
            if rejection.device == device:
                counts.add(Counts(rejected={str(rejection.reason): rejection.readings}))
        return counts

    def devices(self, index: int) -> list[str]:
        """Return the devices of which a message says anything that counts."""
        said = self.intake.decoded[index]
        reported = [report.device for report in said.reports]
        return sorted({*reported, *(rejection.device for rejection in self.rejections.get(index, ()))})


def moves(accounts: Sequence[Account], outcomes: Outcomes, naming: Naming) -> tuple[list[Entry], Set[tuple[int, str]]]:
    """Take back what the ledger counted of messages that had something rejected, and count what they come to now.

    Returns with the entries which (index, device) the ledger counts from now on. What a message said of devices without an
    account had nothing rejected, and stays as it was counted; unless none of its accounts has anything in it any more: then
    the message was rejected as a whole, and all that it says is new.
    """
    found: list[Entry] = []
    kept: set[tuple[int, str]] = set()
    places = {number: index for index, number in enumerate(outcomes.intake.numbers.tolist())}
    by_message: dict[int, list[Account]] = {}
    for account in accounts:
        if account.account is not None and account.position in places:
            by_message.setdefault(places[account.position], []).append(account)
    for index, mine in by_message.items():
        before = {account.device: account for account in mine}
        was_whole = not any(outcomes.of(index, device).readings for device in before)
        now = outcomes.devices(index) if was_whole else before
        kept.update((index, device) for device in now)
        found += negative(_counted(account) for account in mine)
        found += [_now(index, device, before.get(device), outcomes, naming) for device in now]
    return found, kept


def _counted(account: Account) -> Entry:
    readings = account.accepted + account.rejected.total()
    counts = Counts(0, 0, readings, account.accepted, account.flagged, account.late)
    return _entry(
        account.account or "", account.received_us, msgspec.structs.replace(counts, rejected=account.rejected)
    )


def _now(index: int, device: str, before: Account | None, outcomes: Outcomes, naming: Naming) -> Entry:
    counts, message = outcomes.of(index, device), outcomes.intake.messages[index]
    recovered = max(counts.accepted - (before.accepted if before else 0), 0)
    name = naming(device, int(outcomes.intake.numbers[index]))
    return _entry(name, message.received_us, msgspec.structs.replace(counts, recovered=recovered))


def _entry(device: str, received_us: int, counts: Counts) -> Entry:
    return Entry(device, received_us // HOUR_US * HOUR_US, counts)


def only(intake: Intake, devices: Set[str]) -> tuple[Intake, list[int]]:
    """Return what messages say of some devices, without what they say of others, and which messages of the batch those are."""
    decoded = [_only(said, devices) for said in intake.decoded]
    where = [index for index, said in enumerate(decoded) if said is not None]
    messages = [intake.messages[index] for index in where]
    return Intake(intake.numbers[where], messages, [said for said in decoded if said is not None]), where


def _only(said: Decoded, devices: Set[str]) -> Decoded | None:
    """Return what a message says of some devices; None where it is nothing."""
    ours = Decoded(
        [report for report in said.reports if report.device in devices],
        [rejection for rejection in said.rejections if rejection.device in devices],
        said.status if said.status and said.status.device in devices else None,
        said.metadata if said.metadata and said.metadata.device in devices else None,
    )
    return ours if ours.reports or ours.rejections or ours.status or ours.metadata else None


def recovered(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Count what was accepted as recovered too, and no messages: those were counted when they came."""
    for entry in entries:
        counts = msgspec.structs.replace(entry.counts, messages=0, duplicates=0, recovered=entry.counts.accepted)
        yield msgspec.structs.replace(entry, counts=counts)
