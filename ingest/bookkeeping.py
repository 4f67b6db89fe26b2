"""What the projector writes down of messages beside their readings: rejected rows, candidates, and the ledger.

What of a batch was rejected is written down before the store takes the batch; what it comes to is counted once the store has
it. What is taken once more is settled in one transaction after the store has it: its rejected rows, and what the ledger had
counted of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine

from devices.device import Registry
from devices.reading import BoolArray, Position
from ingest.admission import Admitted
from ingest.intake import Intake, Portion, candidate, join
from ingest.ledger import Counted, Duplicates, Sums, count, negative
from ingest.published import Published
from ingest.reader import JournalReader
from ingest.rejected import rejected_rows
from ingest.settings import IngestSettings
from ingest.settling import Outcomes, moves, recovered
from qala.state import ledger
from qala.state import registry as inventory
from qala.state import rejected as state
from qala.state.ledger import Entry
from qala.state.rejected import RejectedLog, RejectedRow

__all__ = ["Again", "Bookkeeping", "Written"]

_POST_MESSAGES = 200_000  # so many at most are counted anew after a crash
_POST_S = 10.0
_PRUNE_S = 86_400.0
_DAY_US = 86_400_000_000
_WARM = 5_000  # messages read at once


class Written(msgspec.Struct):
    """What is to be written down of a portion of messages."""

    rows: Sequence[RejectedRow] = ()
    counted: Sequence[Counted] = ()


class Again(msgspec.Struct):
    """Messages that are taken once more, what they come to, and which of them are duplicates."""

    intake: Intake
    admitted: Admitted
    duplicate: BoolArray


class Bookkeeping:
    """Keeps the rejected rows, the devices that are awaited, and the ledger. For the projector's thread.

    `registry` is the one that messages are admitted by. `save` puts on disk what else is made of messages that are counted:
    those that are not are taken once more after a crash, and make it again. So the journal must keep them: `published` is the
    file that tells the door up to which message it need not.
    """

    def __init__(
        self,
        engine: Engine,
        settings: IngestSettings,
        reader: JournalReader,
        *,
        save: Callable[[], None],
        published: Path,
    ) -> None:
        self.registry = Registry()
        self.counted = 0  # up to which message the ledger has counted them: of those nothing is counted again
        self.stored = 0  # up to which message the store had them at the beginning
        self._engine = engine
        self._settings = settings
        self._reader = reader
        self._save = save
        self._published = Published(published)
        self._rejected = RejectedLog(engine, settings.rejected_max, settings.rejected_per_device_max)
        self._awaited: dict[str, Position] = dict(state.awaited_devices(engine))
        self._duplicates = Duplicates()
        self._sums = Sums()
        self._posted_s = time.monotonic()
        self._pruned_s = 0.0

    def begin(self, applied: Position) -> Position:
        """Look at what is written down, and return from where to take messages: none may be left out of the ledger.

        A ledger that begins beside a store that has messages already counts those that come from now on.
        """
        self._awaited = dict(state.awaited_devices(self._engine))
        self._duplicates, self._sums = Duplicates(), Sums()
        found, self.stored = ledger.counted(self._engine, applied.journal), applied.number
        self.counted = applied.number if found is None else found
        with self._engine.begin() as connection:
            self._rejected.count(connection)
            if found is None:
                ledger.post(connection, (), applied)
        begin = min(applied, Position(applied.journal, self.counted))
        self._published.set(begin.number)
        return begin

    def naming(self, device: str, number: int) -> str:
        """Return the device that a message's readings of a device are counted under: one nobody awaited yet has no name."""
        if device in self.registry.devices:
            return device
        awaited = self._awaited.get(device)
        return device if awaited is not None and number >= awaited.number else ""

    # ---- a batch

    def prepare(self, intake: Intake, admitted: Admitted, journal: str) -> Written:
        """Count a portion of messages that are new, and make its rejected rows."""
        duplicate = self.duplicates(self._duplicates, intake)
        counted = count(intake, admitted, duplicate, self.naming)
        rows = self._rows(journal, intake, admitted, duplicate) if admitted.rejections else []
        return Written(rows, [counted])

    def note_unknown(self, intake: Intake, unknown: Mapping[str, Sequence[int]], upto: Position) -> None:
        """Note undeclared devices as candidates, and from where to replay each once it is admitted."""
        if not unknown or self._settings.enrol != "enrol":
            return
        new = {d: int(intake.numbers[min(at)]) for d, at in unknown.items() if d not in self._awaited}
        if new:
            state.await_devices(self._engine, upto.journal, new)
            self._awaited = dict(state.awaited_devices(self._engine))
        seen = [candidate(d, intake, at) for d, at in unknown.items() if d in self._awaited]
        if seen:
            inventory.record_candidates(self._engine, seen, upto)

    def _rows(self, journal: str, intake: Intake, admitted: Admitted, duplicate: BoolArray) -> list[RejectedRow]:
        def account(index: int, device: str) -> str | None:
            return None if duplicate[index] else self.naming(device, int(intake.numbers[index]))

        return rejected_rows(journal, Outcomes(intake, admitted), account)

    def write(self, after: Position, batch: Portion, *, repeats: bool) -> None:
        """Write down what of a batch was rejected that the store is about to take; `repeats`: perhaps not for the first time."""
        if batch.rows or repeats:
            with self._engine.begin() as connection:
                self._rejected.record(connection, after, batch.upto, batch.rows)

    def add(self, batch: Portion) -> None:
        """Count a batch that the store has taken, and post what was counted once in a while."""
        for counted in batch.counted:
            self._sums.add(counted)
        self.counted = batch.upto.number
        if self._sums.messages >= _POST_MESSAGES or time.monotonic() - self._posted_s >= _POST_S:
            self._post(batch.upto)

    def rest(self, applied: Position, now_us: int) -> None:
        """Post what was counted while nothing waits, and once a day forget old hours."""
        if self._sums.messages:
            self._post(applied)
        self._published.set(applied.number)
        if not self._pruned_s or time.monotonic() - self._pruned_s > _PRUNE_S:
            ledger.forget(self._engine, now_us - int(self._settings.ledger_keep_days * _DAY_US))
            self._pruned_s = time.monotonic()

    def _post(self, upto: Position) -> None:
        with self._posting(upto):
            pass

    @contextlib.contextmanager
    def _posting(self, applied: Position) -> Iterator[Connection]:
        """Begin a transaction that moves what is counted of messages up to `applied`: so all of them must be posted in it."""
        if self._sums.messages:
            self._save()
        with self._engine.begin() as connection:
            if self._sums.messages:
                ledger.post(connection, self._sums.entries(), applied)
            yield connection
        self._sums, self._posted_s = Sums(), time.monotonic()
        self._published.set(applied.number)

    def duplicates(self, duplicates: Duplicates, intake: Intake) -> BoolArray:
        """Tell the duplicates of messages; where other ones came just before, look at those first."""
        first = int(intake.numbers[0])
        if duplicates.upto < first - 1 - duplicates.window or duplicates.upto >= first:
            duplicates.forget(max(first - 1 - duplicates.window, 0))
        while duplicates.upto < first - 1:
            limit = min(_WARM, first - 1 - duplicates.upto)
            numbers, messages = join(self._reader.read(duplicates.upto, limit=limit))
            before = numbers < first
            if not before.any():
                break
            duplicates.remember(numbers[before], messages[: int(before.sum())])
        return duplicates.find(intake.numbers, intake.messages, intake.decoded)

    # ---- once more

    def rejected(self, applied: Position, reason: str | None, device: str | None) -> list[int]:
        """Return the numbers of the messages that the store has, and of which something was rejected."""
        journal, upto = applied.journal, applied.number
        return state.positions(self._engine, journal, reason=reason, device=device, upto=upto)

    def settle(self, intake: Intake, admitted: Admitted, applied: Position) -> None:
        """Write down what messages that were counted before come to now."""
        outcomes = Outcomes(intake, admitted)
        with self._posting(applied) as connection:
            accounts = self._rejected.take_out(connection, applied.journal, intake.numbers.tolist())
            entries, kept = moves(accounts, outcomes, self.naming)
            ledger.add(connection, entries)

            def account(index: int, device: str) -> str | None:
                return self.naming(device, int(intake.numbers[index])) if (index, device) in kept else None

            self._rejected.put(connection, rejected_rows(applied.journal, outcomes, account))

    def admissible(self) -> tuple[frozenset[str], int]:
        """Return the awaited devices that the registry has by now, and from which message on they are to be replayed."""
        found = frozenset(self._awaited.keys() & self.registry.devices.keys())
        return found, min((self._awaited[device].number for device in found), default=0)

    def settle_admitted(self, before: Sequence[Entry], again: Again, devices: Set[str], applied: Position) -> None:
        """Write down what newly admitted devices had sent; `before` is how it was counted while they were unknown."""
        rows = self._rows(applied.journal, again.intake, again.admitted, again.duplicate)
        entries = recovered(count(again.intake, again.admitted, again.duplicate, self.naming).entries())
        with self._posting(applied) as connection:
            self._rejected.take_out(connection, applied.journal, again.intake.numbers.tolist(), of=devices)
            ledger.add(connection, [*negative(before), *entries])
            self._rejected.put(connection, rows)
            state.advance_awaited(connection, devices, int(again.intake.numbers[-1]))

    def forget_awaited(self, devices: Set[str]) -> None:
        """Forget devices that were admitted and replayed."""
        state.forget_awaited(self._engine, devices)
        for device in devices:
            self._awaited.pop(device, None)
