"""Taking messages once more that the store has by its position: after a restore, those that were not computed by then."""

from __future__ import annotations

import logging
import threading

from ingest.projector import Projector
from qala.state.rewound import Rewound, rewound, set_rewound

__all__ = ["take_again"]

_CHUNK = 5_000
_LOG = logging.getLogger(__name__)


def take_again(projector: Projector, stop: threading.Event) -> bool:
    """Take what the state asks for all the way again, on the projector's thread; tell whether that is done.

    Every write is the same the second time, so that it may be cut short anywhere. Readings are marked, so that whatever was
    made of them, or was not yet, is computed.
    """
    journal = projector.journal
    left = rewound(projector.engine, journal)
    if left.after < left.upto:
        _LOG.warning("messages %d to %d are taken once more", left.after + 1, left.upto)
    while left.after < left.upto and not stop.is_set():
        last = min(left.after + _CHUNK, left.upto)
        projector.project_again(range(left.after + 1, last + 1))
        left = Rewound(last, left.upto)
        set_rewound(projector.engine, journal, left)
    return left.after >= left.upto
