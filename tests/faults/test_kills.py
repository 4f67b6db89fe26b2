"""Processes killed without a word, and asked to end (F1, F2, F3, F6), and that these kills would find a door that lies."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.faults.fleet import Fleet
from tests.faults.sizes import Size, patience_s, tiers
from tests.faults.town import assert_nothing_lost, journalled, orders, qala_town, say
from tests.processes import Qala
from tests.wait import until

SERVING_AGAIN_S = 5.0
EXIT_S = 5.0


def strike(fleet: Fleet, times: int, blow: Callable[[], None]) -> list[int]:
    """Strike at random moments while the fleet publishes; return how many messages were unacknowledged each time."""
    total = len(fleet.orders)
    in_flight = []
    for moment in sorted(random.sample(range(total // 50, total - total // 10), times)):
        fleet.wait_until_acknowledged(moment)
        in_flight.append(fleet.in_flight)
        blow()
    fleet.wait_until_done()
    return in_flight


@tiers("F1")
def test_killing_the_door_loses_no_acknowledged_message_and_doubles_none(size: Size) -> None:
    sent = orders(size.messages)
    with qala_town() as qala:
        with Fleet(("127.0.0.1", qala.mqtt_port), sent) as fleet:
            in_flight = strike(fleet, size.strikes, qala.kill_door)
        qala.wait_until_caught_up()
        doubled = assert_nothing_lost(qala, sent)
    assert sum(count > 0 for count in in_flight) >= size.strikes // 2
    say("F1", f"{size.strikes} kills, {len(sent)} messages, {doubled} twice in the journal, none in the store")


def test_the_kills_find_out_a_door_that_acknowledges_before_the_sync() -> None:
    sent = orders(10_000)
    with qala_town() as qala:
        qala.stop()
        qala.door_command = [sys.executable, "-m", "tests.mutant_door", "door"]
        qala.start_door()
        qala.start_serve()
        until(qala.is_up, deadline_s=60)
        with Fleet(("127.0.0.1", qala.mqtt_port), sent) as fleet:
            strike(fleet, 5, qala.kill_door)
        qala.stop()
        assert len({message.payload for message in journalled(qala.folder)}) < len(sent)


@tiers("F2")
def test_killing_the_server_leaves_the_store_as_if_nothing_had_happened(size: Size) -> None:
    sent = orders(size.messages)
    with qala_town() as qala:
        with Fleet(("127.0.0.1", qala.mqtt_port), sent, rate=2_000) as fleet:

            def kill_once_it_stores() -> None:
                until(qala.is_up, deadline_s=60)
                qala.kill_serve()

            strike(fleet, size.strikes, kill_once_it_stores)
        until(qala.is_up, deadline_s=60)
        qala.wait_until_caught_up()
        assert assert_nothing_lost(qala, sent) == 0


@tiers("F3")
def test_killing_everything_at_once_loses_nothing_and_it_serves_again_within_5_s(size: Size) -> None:
    sent = orders(size.messages)
    took_s: list[float] = []
    with qala_town() as qala:
        with Fleet(("127.0.0.1", qala.mqtt_port), sent) as fleet:
            strike(fleet, size.strikes, lambda: took_s.append(kill_all(qala)))
        qala.wait_until_caught_up()
        assert_nothing_lost(qala, sent)
    say("F3", f"serving again after {max(took_s):.1f} s at most")
    assert max(took_s) <= patience_s(SERVING_AGAIN_S)


def kill_all(qala: Qala) -> float:
    """Kill both processes, then start both; return how long it took until both answered [s]."""
    for process in (qala.door, qala.serve):
        assert process is not None
        process.kill()
    for process in (qala.door, qala.serve):
        assert process is not None
        process.wait()
    began = time.monotonic()
    qala.start_door()
    qala.start_serve()
    until(qala.is_up, deadline_s=60)
    return time.monotonic() - began


@tiers("F6")
@pytest.mark.parametrize("name", ["door", "serve"])
def test_asked_to_end_a_process_ends_in_time_with_nothing_lost_or_doubled(size: Size, name: str) -> None:
    sent = orders(size.messages)
    took_s: list[float] = []
    with qala_town() as qala:
        start = {"door": qala.start_door, "serve": qala.start_serve}[name]

        def ask() -> None:
            until(qala.is_up, deadline_s=60)
            took_s.append(ended(getattr(qala, name)))
            start()

        with Fleet(("127.0.0.1", qala.mqtt_port), sent) as fleet:
            strike(fleet, size.strikes, ask)
        until(qala.is_up, deadline_s=60)
        qala.wait_until_caught_up()
        assert assert_nothing_lost(qala, sent) == 0
    say("F6", f"the {name} ended within {max(took_s):.1f} s")
    assert max(took_s) <= patience_s(EXIT_S)


def ended(process: subprocess.Popen[bytes]) -> float:
    """Ask a process to end, and return how long it took [s]. It must end well."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    return time.monotonic() - began
