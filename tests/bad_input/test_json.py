"""Every JSON text is taken or refused as RFC 8259 says, by both ways of decoding, wherever in the document it stands."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain

import pytest

from devices.errors import Reason
from ingest.formats.base import Decoded
from ingest.formats.native import Native
from ingest.message import Message
from tests.bad_input.json_texts import GOOD, LEFT_OPEN, NUMBERS, REFUSE, TAKE, WHOLE_GOOD, WHOLE_WRONG, WRONG

TOPIC = "qala/1/air/a1/t"
NO_JSON = {Reason.BAD_JSON, Reason.BAD_UTF8}
PLACES = {
    "value": b'{"t":1767225600000,"v":{"pm2_5":%b}}',
    "member": b'{"t":1767225600000,"v":{"pm2_5":1},"note":%b}',
    "time": b'{"t":%b,"v":{"pm2_5":1}}',
}


def ways(payload: bytes) -> Iterator[Decoded]:
    """Decode a payload as the first of its topic, and after one of the same keys, which takes the quick way."""
    for before in ([], [b'{"t":1767225600000,"v":{"pm2_5":1}}']):
        native = Native()
        for known in before:
            native.decode(Message(TOPIC, known, 0))
        yield native.decode(Message(TOPIC, payload, 0))


def verdicts(payload: bytes) -> set[str]:
    return {REFUSE if {one.reason for one in found.rejections} & NO_JSON else TAKE for found in ways(payload)}


def cases(texts: dict[str, list[bytes]]) -> list[object]:
    return [
        pytest.param(text, id=f"{name} {number}") for name, group in texts.items() for number, text in enumerate(group)
    ]


def test_the_corpus_is_large_enough_and_names_nothing_twice() -> None:
    texts = [
        *chain(*GOOD.values(), *WRONG.values()),
        *(text for text, _ in NUMBERS),
        *(text for _, text, _ in LEFT_OPEN),
    ]
    assert len(texts) + len(WHOLE_GOOD) + len(WHOLE_WRONG) >= 150
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", cases(GOOD))
def test_what_is_json_is_taken(text: bytes, place: str) -> None:
    assert verdicts(PLACES[place] % text) == {TAKE}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", cases(WRONG))
def test_what_is_no_json_is_refused(text: bytes, place: str) -> None:
    assert verdicts(PLACES[place] % text) == {REFUSE}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("text", "verdict"), [pytest.param(text, verdict, id=name) for name, text, verdict in LEFT_OPEN]
)
def test_what_is_left_open_is_always_decided_alike(text: bytes, verdict: str, place: str) -> None:
    assert verdicts(PLACES[place] % text) == {verdict}


@pytest.mark.parametrize(
    ("text", "value"), [pytest.param(text, value, id=text[:24].decode()) for text, value in NUMBERS]
)
def test_a_number_is_read_to_its_last_bit(text: bytes, value: float) -> None:
    for found in ways(PLACES["value"] % text):
        assert found.rejections in ([], ())
        [report] = found.reports
        assert [struct.pack("d", one) for one in report.values] == [struct.pack("d", value)]


@pytest.mark.parametrize("text", [b"1e400", b"-1e400", b"9" * 310, b"9" * 5_000, b"-" + b"9" * 5_000], ids=range(5))
def test_a_number_that_no_float64_holds_is_not_finite(text: bytes) -> None:
    for found in ways(PLACES["value"] % text):
        assert [one.reason for one in found.rejections] == [Reason.NOT_FINITE]
        assert not found.reports


@pytest.mark.parametrize("payload", WHOLE_GOOD)
def test_a_whole_document_is_taken(payload: bytes) -> None:
    for found in ways(payload):
        assert found.rejections in ([], ())
        [report] = found.reports
        assert (report.keys, list(report.values)) == (("pm2_5",), [1.0])


@pytest.mark.parametrize("payload", WHOLE_WRONG)
def test_a_whole_document_that_is_none_is_refused(payload: bytes) -> None:
    for found in ways(payload):
        assert len(found.rejections) == 1
        assert found.rejections[0].reason in {*NO_JSON, Reason.BAD_CBOR}
        assert not found.reports


@pytest.mark.parametrize(("depth", "reason"), [(64, Reason.BAD_SHAPE), (65, Reason.BAD_JSON)])
@pytest.mark.parametrize("innermost", [b"", b"1"])
def test_documents_nest_to_64_levels(depth: int, innermost: bytes, reason: Reason) -> None:
    for found in ways(b"[" * depth + innermost + b"]" * depth):
        assert [one.reason for one in found.rejections] == [reason]
