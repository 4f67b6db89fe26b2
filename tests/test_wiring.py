"""The wiring: what the serving process says of its threads when one of them fails."""

from __future__ import annotations

import threading

import pytest

from qala.wiring import _Thread
from tests.wait import until


def test_a_thread_that_fails_is_not_well_and_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    stop, goes_on, begun = threading.Event(), threading.Event(), []

    def fail_once(_stop: threading.Event) -> None:
        begun.append(1)
        if len(begun) == 1:
            goes_on.wait(10)
            raise RuntimeError("out of order")
        stop.wait(10)

    thread = _Thread("scheduler", fail_once, stop)
    thread.start()
    try:
        assert thread.is_well()
        goes_on.set()
        until(lambda: len(begun) == 2)
        assert thread.is_alive()
        assert not thread.is_well()
        assert "out of order" in caplog.text
    finally:
        stop.set()
        thread.join(10)
