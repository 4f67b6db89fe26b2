"""QoS 2 on its way in: whatever a client repeats, each message is taken once, and released when it is durable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.commit import Group
from ingest.gate import NOBODY, Principal
from ingest.mqtt.packets import V5, Ack, Kind, Publish
from ingest.mqtt.session import Session
from ingest.mqtt.uplink import Uplink
from ingest.mqtt.wire import PacketError

MOST = 4
STEPS = st.lists(st.tuples(st.sampled_from(["publish", "commit", "release"]), st.integers(1, 6)), max_size=60)


class Line:
    """A connection as the uplink sees it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


@given(STEPS)
def test_each_message_of_qos_2_is_taken_once_and_released_when_it_is_durable(steps: list[tuple[str, int]]) -> None:
    session, group, answers = Session(("", "c")), Group(), []
    session.peer = line = Line()
    uplink = Uplink(NOBODY, session, MOST)
    durable: dict[int, bool] = {}  # the model: packet identifier -> whether it was synced
    for what, number in steps:
        if what == "commit":
            for member, ids in group.members:
                member.acknowledge(ids)
            group = Group()
            durable = dict.fromkeys(durable, True)
        elif what == "release" and durable.get(number) is False:
            with pytest.raises(PacketError):
                uplink.release(Ack(Kind.PUBREL, number), V5)
        elif what == "release":
            known = durable.pop(number, None)
            assert uplink.release(Ack(Kind.PUBREL, number), V5)[4:] == (b"" if known else b"\x92")
        elif number not in durable and len(durable) == MOST:
            with pytest.raises(PacketError):
                uplink.receive(_message(number), group, [])
        else:
            answers = []
            assert uplink.receive(_message(number), group, answers) is (number not in durable)
            assert answers == ([b"\x50\x02" + number.to_bytes(2, "big")] if durable.get(number) else [])
            durable.setdefault(number, False)
    assert {int.from_bytes(key, "big"): value for key, value in session.unreleased.items()} == durable
    assert all(data[:2] == b"\x50\x02" and len(data) % 4 == 0 for data in line.written)


def _message(number: int) -> Publish:
    return Publish("t", b"", 2, number)


def test_topics_of_a_principal_are_remembered_within_a_bound() -> None:
    uplink = Uplink(Principal("gw", "a", ("lora/#",)), Session(("gw", "c")), MOST)
    for number in range(10_000):
        assert uplink.may_publish(f"lora/{number}")
    assert 0 < len(uplink.topics) <= 4096
    assert not uplink.may_publish("other")
    assert b"other" not in uplink.topics
