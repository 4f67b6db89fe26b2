"""The journal's housekeeping: what is kept no longer goes, and who runs out of room hears of it before."""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path

from ingest.journal import Journal, Keep
from ingest.published import read_published
from ingest.report import DoorReport, read_report
from ingest.settings import IngestSettings

__all__ = ["Housekeeping"]

_log = logging.getLogger(__name__)

_ROUNDS = 4  # how long a server that has not said yet what the ledger counted may need to read it once more
_DAY_US = 24 * 3600 * 1_000_000


class Housekeeping:
    """Called every few seconds, in the thread that writes the journal.

    `low` tells whether room runs out, `lost` how many messages a journal had that was here before and is gone.
    """

    def __init__(self, journal: Journal, settings: IngestSettings, data: Path) -> None:
        self.low = False
        self.lost = _lost_before(read_report(data), journal)
        self._journal = journal
        self._settings = settings
        self._applied = data / "journal" / "applied"
        self._counted = data / "journal" / "counted"
        self._doubted = False
        self._passed: deque[int] = deque(maxlen=_ROUNDS)

    def __call__(self) -> None:
        """Delete what is kept no longer and was applied some rounds ago, then look at the disk."""
        upto = self._upto()
        self._passed.append(upto)
        freed = self._journal.prune(self._keep(), min(self._passed)) if len(self._passed) == _ROUNDS else 0
        if freed:
            _log.info("deleted %d bytes of the oldest of the journal", freed)
        low = self._journal.is_low(2 * self._settings.keep_free_bytes, upto)
        if low and not self.low:
            _log.warning(
                "the disk has little room left, and what the journal may delete does not help: "
                "when it is full, nothing is acknowledged any more"
            )
        self.low = low

    def _keep(self) -> Keep:
        settings = self._settings
        days = settings.journal_keep_days
        since_us = time.time_ns() // 1000 - int(days * _DAY_US) if days else 0
        return Keep(settings.keep_free_bytes, settings.journal_max, since_us)

    def _upto(self) -> int:
        """Return the number up to which the store has everything and the ledger counted it; 0 where that is not known.

        After a crash the projector takes once more what was not counted, however long nothing runs meanwhile.
        """
        upto, counted = read_published(self._applied) or 0, read_published(self._counted)
        upto = upto if counted is None else min(upto, counted)
        if 0 <= upto <= self._journal.last:
            self._doubted = False
            return upto
        if not self._doubted:
            _log.error("%s says %d, which no message has: nothing is deleted until it is right", self._applied, upto)
        self._doubted = True
        return 0


def _lost_before(report: DoorReport | None, journal: Journal) -> int:
    """Tell how many messages the journal had that the last door wrote, where this is another one; else 0."""
    if report is None or not report.last or report.journal in {"", journal.id}:
        return 0
    _log.error(
        "the journal that was here, %s with %d messages, is gone: a new one, %s, begins. "
        "What the store had not applied is lost; put the folder back, or keep a copy of the store",
        report.journal,
        report.last,
        journal.id,
    )
    return report.last
