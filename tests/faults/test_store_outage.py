"""The store gone under load: the journal takes everything, and the store has it all once it is back (F7)."""

from __future__ import annotations

import time
from itertools import chain

from qala.store import StoreSettings, open_store
from qala.store.base import Selector, Span
from tests.faults.fleet import Fleet
from tests.faults.sizes import Size, slowness, tiers
from tests.faults.town import Row, assert_ledger_adds_up, assert_stored, orders, qala_town, rss_bytes, say
from tests.processes import Qala
from tests.servers import Influx, started_influx
from tests.wait import until

RATE = 2_000  # messages a second
WARM_S, NORMAL_S, AFTER_S = 3.0, 5.0, 5.0
NOISE_S = 0.1  # a p99 below this is the machine's, not the outage's
GROWTH_MAX = 50 * 1024 * 1024


def stored(influx: Influx, bucket: str) -> list[Row]:
    """Read what InfluxDB holds."""
    store = open_store(influx.url(bucket), StoreSettings.model_validate({"token": influx.token}))
    try:
        catalog = store.catalog()
        rows = chain.from_iterable(batch.to_pylist() for batch in store.read(Selector(), Span(0, 2**62)))
        return [
            (series.device, series.quantity, row["time_us"], row["value"].hex(), row["flag"])
            for row in rows
            if not (series := catalog[row["series"]]).device.startswith("qala/")
        ]
    finally:
        store.close()


def let_pass(seconds: float) -> tuple[float, float]:
    """Let time pass under load; return when it began and ended [s, monotonic]."""
    began = time.monotonic()
    until(lambda: time.monotonic() - began >= seconds, deadline_s=seconds + 5, every_s=0.05)
    return began, time.monotonic()


def memory(qala: Qala) -> dict[str, int]:
    assert qala.door is not None
    assert qala.serve is not None
    return {"door": rss_bytes(qala.door.pid), "serve": rss_bytes(qala.serve.pid)}


@tiers("F7")
def test_an_outage_of_the_store_slows_no_puback_loses_nothing_and_is_made_up_for(size: Size) -> None:
    sent = orders(int(RATE * (WARM_S + NORMAL_S + size.fault_s + AFTER_S)))
    with started_influx() as influx:
        bucket = influx.bucket()
        with qala_town(QALA_STORE__URL=influx.url(bucket), QALA_STORE__TOKEN=influx.token) as qala:
            with Fleet(("127.0.0.1", qala.mqtt_port), sent, rate=RATE) as fleet:
                fleet.wait_until_acknowledged(int(RATE * WARM_S))
                normal = let_pass(NORMAL_S)
                before = memory(qala)
                influx.kill()
                outage = strike_meanwhile(qala, size)
                grown = {name: now - before[name] for name, now in memory(qala).items()}
                began, applied = time.monotonic(), qala.get("health")["parts"]["projector"]["applied"]
                influx.start()
                fleet.wait_until_done()
                slow = {name: fleet.calm_p99_s(*phase) for name, phase in (("normal", normal), ("outage", outage))}
            qala.wait_until_caught_up(deadline_s=240)
            per_s = (qala.journalled() - applied) / (time.monotonic() - began)
            assert_ledger_adds_up(qala, sent)
        assert_stored(stored(influx, bucket), sent)
    say("F7", f"p99 PUBACK {slow}, grown {grown}, made up for at {per_s:.0f}/s of {RATE}/s coming in")
    assert slow["outage"] <= max(2 * slow["normal"], NOISE_S) * slowness()
    assert max(grown.values()) <= GROWTH_MAX
    assert per_s >= 2 * RATE / slowness()


def strike_meanwhile(qala: Qala, size: Size) -> tuple[float, float]:
    """Let the outage last, and kill the serving process so often meanwhile; return when it began and ended."""
    pause_s = size.fault_s / (size.strikes + 1)
    began, _ = let_pass(pause_s)
    for _ in range(size.strikes):
        qala.kill_serve()
        let_pass(pause_s)
    return began, time.monotonic()
