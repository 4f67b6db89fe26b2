"""Notices to the log, one line each."""

from __future__ import annotations

import logging

from analytics.notify import Notice

__all__ = ["LogChannel"]

logger = logging.getLogger("qala.alerts")
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


class LogChannel:
    """Write each notice to the log, at the level of its severity."""

    name = "log"

    def send(self, notice: Notice) -> None:
        logger.log(
            LEVELS[notice["severity"]],
            "%s %s in %s: %s since %s until %s (value %s %s, key %s)",
            notice["severity"],
            notice["kind"],
            notice["zone"],
            notice["title"],
            notice["start"],
            notice["end"] or "now",
            notice["value"],
            notice["unit"],
            notice["key"],
        )
