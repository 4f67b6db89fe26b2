"""The bench of the subscriber sends the same to all three, and each of them gets everything."""

from __future__ import annotations

import msgspec
import pytest

from qala.bench.broker import SHAPE, bench_broker
from tests.mosquitto import need_mosquitto


@pytest.mark.timeout(120)
def test_each_subscriber_gets_everything_and_its_cost_is_told() -> None:
    need_mosquitto()
    said: list[str] = []
    found = bench_broker(msgspec.structs.replace(SHAPE, messages=4000), said.append)
    assert [seen.name for seen in found] == ["only counts", "qala", "paho"]
    assert {seen.messages for seen in found} == {4000}
    assert all(seen.seconds > 0 and seen.cpu_us > 0 for seen in found)
    assert [bool(seen.stored_s) for seen in found] == [False, True, False]
    assert len(said) == 3
