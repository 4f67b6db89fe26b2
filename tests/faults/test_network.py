"""The network between devices and the door: cut off, and slow (F14)."""

from __future__ import annotations

import time

from tests.faults.fleet import BACKOFF_MAX_S, Fleet
from tests.faults.sizes import Size, patience_s, tiers
from tests.faults.town import assert_nothing_lost, orders, qala_town, say
from tests.proxy import Proxy
from tests.wait import until

DELAY_S = 0.2


@tiers("F14")
def test_a_network_that_is_cut_and_slow_loses_nothing_and_devices_come_back(size: Size) -> None:
    sent = orders(size.messages)
    back_s: list[float] = []
    with qala_town() as qala:
        with (
            Proxy(("127.0.0.1", qala.mqtt_port), delay_s=DELAY_S) as proxy,
            Fleet(proxy.address, sent, window=50, rate=2_500) as fleet,
        ):
            for turn in range(size.strikes):
                fleet.wait_until_acknowledged((turn + 1) * len(sent) // (size.strikes + 2))
                assert fleet.in_flight
                back_s.append(cut(proxy, fleet, size.fault_s))
            fleet.wait_until_done()
            latencies_s = fleet.latencies_s()
        qala.wait_until_caught_up()
        doubled = assert_nothing_lost(qala, sent)
    say("F14", f"all back after {max(back_s):.1f} s, {doubled} messages twice in the journal, none in the store")
    assert doubled > 0  # PUBACKs were on their way when it was cut
    assert latencies_s[0] >= 2 * DELAY_S
    assert max(back_s) <= patience_s(2 * BACKOFF_MAX_S)


def cut(proxy: Proxy, fleet: Fleet, seconds: float) -> float:
    """Cut the network for so long; return how long it took until every device was back [s]."""
    proxy.cut()
    began = time.monotonic()
    until(lambda: fleet.connected == 0, deadline_s=5)
    until(lambda: time.monotonic() - began >= seconds, deadline_s=seconds + 5)
    assert fleet.connected == 0
    proxy.mend()
    mended = time.monotonic()
    until(fleet.is_all_connected, deadline_s=60)
    return time.monotonic() - mended
