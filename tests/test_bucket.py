"""Token buckets: nobody sends faster than they may, and nothing that they may send is kept from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bucket import Bucket, Buckets
from ingest.gate import NOBODY, OWNER, Principal
from ingest.settings import IngestSettings

STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 60)), max_size=60)


@given(st.floats(0.1, 1000), st.integers(1, 200), STEPS)
def test_never_more_than_burst_and_rate_allow_is_taken(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    bucket, now_s, taken = Bucket(rate, burst, 0.0), 0.0, 0
    for pause_s, wanted in steps:
        now_s += pause_s
        some = min(bucket.room(now_s), wanted)
        bucket.take(some)
        taken += some
        assert taken <= burst + rate * now_s + 1e-6


@given(st.floats(0.1, 1000), st.integers(1, 200), st.floats(1, 60))
def test_who_always_waits_as_told_gets_the_whole_rate(rate: float, burst: int, for_s: float) -> None:
    bucket, now_s, taken = Bucket(rate, burst, 0.0), 0.0, 0
    while now_s < for_s and taken < 5000:
        room = bucket.room(now_s)
        bucket.take(room)
        taken += room
        now_s += bucket.wait_s(now_s) + 1e-9
    assert taken >= min(burst + rate * (now_s - 0.05) - 2 - min(rate * 0.05, burst), 5000)


def test_what_was_taken_beyond_the_room_is_paid_later() -> None:
    bucket = Bucket(rate=10.0, burst=5, now_s=0.0)
    bucket.take(25)
    assert bucket.wait_s(0.0) == pytest.approx(2.1)
    assert bucket.room(1.9) == 0
    assert bucket.room(2.15) == 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(rate=10.0, burst=5, now_s=100.0)
    bucket.take(5)
    assert bucket.room(50.0) == 0
    assert bucket.room(100.15) == 1


DEVICE, GATEWAY = Principal("demo/d1", "a", ()), Principal("gw", "b", ())


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        pytest.param(DEVICE, (50.0, 500), id="device"),
        pytest.param(GATEWAY, (5_000.0, 50_000), id="gateway"),
        pytest.param(NOBODY, None, id="nobody in particular"),
        pytest.param(OWNER, None, id="owner"),
    ],
)
def test_each_kind_of_principal_has_its_rate(principal: Principal, expected: tuple[float, int] | None) -> None:
    bucket = Buckets(IngestSettings()).of(principal, 0.0)
    assert (None if bucket is None else (bucket.rate, bucket.burst)) == expected


def test_a_principal_has_one_bucket_and_only_full_ones_are_forgotten() -> None:
    buckets = Buckets(IngestSettings(rate=1.0, burst=10), most=3)
    used = buckets.of(DEVICE, 0.0)
    assert used is not None
    used.take(10)
    for number in range(50):
        assert buckets.of(Principal(f"demo/x{number}"), 0.5) is not None
    assert buckets.of(DEVICE, 0.5) is used
    assert buckets.of(GATEWAY, 0.5) is not used


def test_the_buckets_are_bounded_even_where_none_is_full() -> None:
    buckets = Buckets(IngestSettings(), most=2)
    for number in range(20):
        bucket = buckets.of(Principal(f"demo/x{number}"), 0.0)
        assert bucket is not None
        bucket.take(500)
    assert len(buckets) <= 2
