"""Odd strings wherever a string may stand: they come back as they were, or are refused with a typed error; never a 5xx."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from devices.errors import ConfigError, Reason
from devices.files import parse_devices
from tests.bad_input.strings import NAUGHTY
from tests.mqtt_client import RawClient
from tests.running import Running, running
from tests.wait import until

STRINGS = list(chain.from_iterable(NAUGHTY.values()))
TOPIC_MAX = 256
PAYLOAD_KEPT = 2_048


@pytest.fixture(scope="module")
def qala() -> Iterator[Running]:
    with running() as started:
        yield started.ready()


@pytest.fixture(scope="module")
def api(qala: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{qala.http}/api/v1", timeout=20) as client:
        yield client


def utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def rejected(api: httpx.Client, reason: Reason | None = None) -> list[dict[str, Any]]:
    """Return every rejected row."""
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 500} | ({"reason": reason.value} if reason else {})
    while True:
        page = api.get("/rejected", params=query).raise_for_status().json()
        items += page["items"]
        if page["next"] is None:
            return items
        query["cursor"] = page["next"]


def is_typed(answer: httpx.Response) -> bool:
    """Tell whether an answer is good, or a problem with its code and a hint."""
    if answer.is_success:
        return True
    problem = answer.json()
    return answer.status_code < 500 and bool(problem["code"]) and bool(problem["hint"])


def test_the_corpus_is_large_enough_and_names_nothing_twice() -> None:
    assert len(STRINGS) >= 100
    assert [text for text, times in Counter(STRINGS).items() if times > 1] == []


def test_as_a_topic_level_it_comes_back_or_its_connection_is_closed(qala: Running, api: httpx.Client) -> None:
    taken, closed = [], []
    with RawClient(("127.0.0.1", qala.mqtt)) as control:
        control.connect("control")
        for number, text in enumerate(STRINGS, 1):
            topic = f"qala/1/air/{text}/t"
            (taken if _is_acknowledged(qala, topic, number) else closed).append(topic)
        control.publish(1, topic="qala/1/air/control/t")
        assert control.pubacks(1) == [1]
    assert closed == [topic for topic in map("qala/1/air/{}/t".format, STRINGS) if not _is_allowed(topic)]
    _wait_until_applied(qala)
    shown = {row["topic"]: row["reason"] for row in rejected(api)}
    assert set(map(_visible, taken)) - set(shown) == set()
    assert {shown[_visible(topic)] for topic in taken} <= {Reason.BAD_TOPIC, Reason.UNKNOWN_DEVICE}


def _wait_until_applied(qala: Running) -> None:
    last = int.from_bytes((qala.data / "journal" / "synced").read_bytes()[:8], "little")
    until(lambda: qala.get("/api/v1/health")["parts"]["projector"]["applied"] >= last, deadline_s=30)


def _is_acknowledged(qala: Running, topic: str, number: int) -> bool:
    """Publish on a topic, right or wrong; tell whether it was acknowledged rather than the connection closed."""
    name = topic.encode("utf-8", "surrogatepass")
    body = len(name).to_bytes(2, "big") + name + number.to_bytes(2, "big") + b'{"v":{"pm2_5":1}}'
    with RawClient(("127.0.0.1", qala.mqtt)) as client:
        client.connect(f"naughty-{number}")
        client.send(b"\x32" + _length(len(body)) + body)
        return client.packet() == b"\x40\x02" + number.to_bytes(2, "big")


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


def _is_allowed(topic: str) -> bool:
    """Tell whether MQTT and our limit allow a topic name to publish on."""
    name = utf8(topic)
    return name is not None and len(name) <= TOPIC_MAX and not set(topic) & set("#+\0")


def _visible(topic: str) -> str:
    """Write what cannot be seen as people can read it."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in topic)


@pytest.mark.parametrize("place", ["value", "key", "unit", "time"])
def test_in_a_payload_it_comes_back_or_only_its_own_message_is_refused(
    qala: Running, api: httpx.Client, place: str
) -> None:
    documents = [
        {
            "value": {"v": {"pm2_5": text}},
            "key": {"v": {text: 1}},
            "unit": {"v": {"x_own": 1}, "u": {"x_own": text}},
            "time": {"t": text, "v": {"pm2_5": 1}},
        }[place]
        for text in STRINGS
    ]
    device = f"air/payload-{place}"
    assert api.post("/devices", json={"id": device, "kind": "air_station"}).status_code == 201
    payloads = [json.dumps({**document, "n": n}).encode() for n, document in enumerate(documents)]
    with RawClient(("127.0.0.1", qala.mqtt)) as client:
        client.connect(f"payloads-{place}")
        for number, payload in enumerate(payloads, 1):
            client.publish(number, topic=f"qala/1/{device}/t", payload=payload)
        assert client.pubacks(len(payloads)) == list(range(1, len(payloads) + 1))
    _wait_until_applied(qala)
    shown = [row for row in rejected(api) if row["device"] == device]
    assert shown
    kept = {payload[:PAYLOAD_KEPT].decode() for payload in payloads}
    assert {row["payload"] for row in shown} <= kept
    assert {row["payload_encoding"] for row in shown} == {"utf-8"}


def test_as_a_device_of_the_registry_it_comes_back_or_is_refused(api: httpx.Client) -> None:
    admitted = set()
    for text in STRINGS:
        for id_ in (text, f"naughty/{text}"):
            answer = api.post(
                "/devices",
                content=json.dumps({"id": id_, "kind": "air_station"}).encode(),
                headers={"content-type": "application/json"},
            )
            assert is_typed(answer), (id_, answer.text)
            if answer.status_code == 201:
                assert answer.json()["device"]["id"] == id_
                admitted.add(id_)
    assert {item["id"] for item in api.get("/devices", params={"limit": 1000}).json()["items"]} >= admitted


@pytest.mark.parametrize("column", range(3))
def test_in_a_file_of_devices_it_is_taken_or_refused_with_a_hint(column: int) -> None:
    for text in STRINGS:
        cells = ["air/a1", "air_station", "name"]
        cells[column] = '"' + text.replace('"', '""') + '"'
        with suppress(ConfigError):
            parse_devices("id,kind,name\n" + ",".join(cells) + "\n", "csv")


PARAMETERS = [
    "/devices?kind={}", "/devices?zone={}", "/devices?state={}", "/devices?cursor={}", "/devices?limit={}", "/devices?{}=1",
    "/readings?device={}", "/readings?series={}", "/readings?device=air/a1&start={}", "/readings?device=air/a1&cursor={}",
    "/overview?device={}", "/series?device={}", "/rejected?device={}", "/rejected?reason={}", "/rejected?cursor={}",
    "/indicators/{}/values", "/indicators/aqi/values?zone={}", "/indicators/aqi/values?as_of={}", "/alerts?rule={}", "/alerts/{}",
    "/zones?kind={}", "/rules/{}/runbook", "/devices/air/{}", "/devices/{}/a1",
    "/devices/air/{}/commands", "/commands?device={}", "/nothing-{}",
]  # fmt: skip


@pytest.mark.parametrize("path", PARAMETERS)
def test_as_a_parameter_of_the_api_it_is_answered_with_what_was_asked_or_a_typed_problem(
    api: httpx.Client, path: str
) -> None:
    for text in STRINGS:
        written = quote(text.encode("utf-8", "surrogatepass"), safe="")
        answer = api.get(path.replace("{}", written))
        assert answer.status_code < 500, (text, answer.text)


BODIES: list[Any] = [
    pytest.param("/rejected/replay", lambda text: {"device": text}, id="replay of a device"),
    pytest.param("/rejected/replay", lambda text: {"reason": text}, id="replay for a reason"),
    pytest.param("/rejected/replay", lambda text: {text: "x"}, id="replay by what"),
    pytest.param("/devices", lambda text: {"id": "air/x", "kind": text}, id="kind of a device"),
    pytest.param("/devices", lambda text: {"id": "air/x", "kind": "air_station", "zones": [text]}, id="its zones"),
    pytest.param("/rules/try", lambda text: {"rule": text}, id="a rule"),
    pytest.param("/alerts/x/acknowledge", lambda text: {"actor": text, "comment": text}, id="who acknowledges"),
    pytest.param("/devices/air/payload-value/commands", lambda text: {"command": text}, id="a command"),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_in_a_body_it_is_answered_with_what_was_asked_or_a_typed_problem(
    api: httpx.Client, path: str, body: Any
) -> None:
    for text in STRINGS[:: 4 if path == "/rejected/replay" else 1]:  # a replay waits for the projector
        answer = api.post(path, content=json.dumps(body(text)).encode(), headers={"content-type": "application/json"})
        assert is_typed(answer), (text, answer.status_code, answer.text)
