"""A door that does what others do: it acknowledges what it has in memory, and writes it a moment later.

Run like `qala door`. The kill test has to tell it from the real one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ingest.commit import Group, GroupCommit
from ingest.journal import Journal
from ingest.message import Message
from ingest.segments import Row
from qala.cli import main

_submit = GroupCommit._submit
_append = Journal.append


def acknowledge_first(self: GroupCommit, group: Group, retry_s: float) -> None:
    for member, ids in group.members:
        member.acknowledge(ids)
    group.members.clear()
    _submit(self, group, retry_s)


def append_later(self: Journal, messages: Sequence[Message | Row]) -> int:
    time.sleep(0.02)
    return _append(self, messages)


if __name__ == "__main__":
    GroupCommit._submit = acknowledge_first  # type: ignore[method-assign]
    Journal.append = append_later  # type: ignore[method-assign,assignment]
    main()
