"""HTTP ingest: an answer of 202 means on disk, and whatever is not taken is told why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bucket import Buckets
from ingest.commit import CommitLimits, GroupCommit
from ingest.gate import NOBODY, OpenGate, Principal, RefusedError
from ingest.http import connection as http_connection
from ingest.http.keys import Keys, Once, remembered
from ingest.http.messages import BATCH_BYTES_MAX, BATCH_LINES_MAX, LineError, ProblemError, lines_of
from ingest.http.server import HttpIngest
from ingest.journal import Journal, JournalReader
from ingest.keyring import key_file, make_key
from ingest.message import Message, MessageType, Source
from ingest.report import read_report
from ingest.settings import IngestSettings
from ingest.tls import server_context
from qala.state import credentials, open_state
from tests.disk import Disk
from tests.pki import Authority
from tests.test_door import door_command
from tests.wait import until

JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
DAY_US = 24 * 3600 * 1_000_000


class Known:
    """A gate that knows a few tokens."""

    def __init__(self, **tokens: Principal) -> None:
        self.tokens = tokens

    def authenticate(
        self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
    ) -> Principal:
        found = self.tokens.get((password or b"").decode())
        if found is None:
            raise RefusedError("no such credential")
        return found

    def still_holds(self, principal: Principal) -> bool:
        return principal in self.tokens.values()


def device(name: str) -> Principal:
    return Principal(name, "c", (f"qala/1/{name}/+",))


class Live:
    """HTTP ingest over a journal of its own, in a thread."""

    def __init__(self, folder: Path, disk: Disk, **chosen: Any) -> None:
        self.folder = folder
        self.disk = disk
        self.settings = IngestSettings(**chosen)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, job: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self.loop).result(20)

    async def start(self, gate: Any) -> None:
        self.journal = Journal.open(self.folder, files=self.disk)
        self.commit = GroupCommit(self.journal, CommitLimits.of(self.settings))
        keys = remembered(self.folder, time.time_ns() // 1000)
        self.ingest = HttpIngest(self.settings, self.commit, gate, keys=keys, buckets=Buckets(self.settings))
        self.address = await self.ingest.start("127.0.0.1:0")

    async def stop(self) -> None:
        await self.ingest.stop(within_s=2.0)
        self.commit.close()

    def client(self, token: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url="http://{}:{}".format(*self.address), headers=headers, timeout=20)

    def journalled(self, kind: MessageType = MessageType.PUBLISH) -> list[Message]:
        reader = JournalReader(self.folder)
        frames = reader.read(0, limit=10**6)
        reader.close()
        return [message for frame in frames for message in frame.messages if message.type == kind]


@contextlib.contextmanager
def serving(folder: Path, gate: Any = None, disk: Disk | None = None, **chosen: Any) -> Iterator[Live]:
    live = Live(folder, disk or Disk(), **chosen)
    try:
        live.run(live.start(gate or OpenGate()))
        try:
            yield live
        finally:
            live.disk.heal()
            if live.disk.gate is not None:
                live.disk.gate.set()
            live.run(live.stop())
            live.journal.close()
    finally:
        live.loop.call_soon_threadsafe(live.loop.stop)
        live.thread.join(10)
        live.loop.close()


def batch_of(*lines: Any) -> bytes:
    return b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["detail"]
    assert told["hint"]
    return (answer.status_code, told["status"], told["code"]) == (status, status, code)


# --- one message -----------------------------------------------------------------------------------------------------


def test_a_message_is_in_the_journal_before_it_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as live, live.client() as client:
        body = b'{"v": {"temperature": 21.5}}'
        answer = client.post("/ingest/1/demo/d1", content=body, headers=JSON)
        assert (answer.status_code, answer.json()) == (
            202,
            {"taken": 1, "first": 1, "last": 1, "refused": 0, "lines": []},
        )
        [found] = live.journalled()
        assert (found.topic, found.payload, found.source) == ("qala/1/demo/d1/t", body, Source.HTTP)
        assert found.properties == {"content_type": "application/json"}
        assert abs(found.received_us - time.time_ns() // 1000) < 60_000_000


def test_nothing_is_answered_before_the_sync_has_ended(tmp_path: Path) -> None:
    disk = Disk()
    with serving(tmp_path, disk=disk) as live, live.client() as client, ThreadPoolExecutor() as pool:
        disk.gate = threading.Event()
        waiting = pool.submit(client.post, "/ingest/1/demo/d1", content=b"{}", headers=JSON)
        until(lambda: disk.syncs)
        assert not waiting.done()
        assert live.journalled() == []
        disk.gate.set()
        assert waiting.result(10).status_code == 202
        assert len(live.journalled()) == 1


@pytest.mark.parametrize(
    ("target", "topic"),
    [
        pytest.param("/ingest/1/demo/d1", "qala/1/demo/d1/t", id="telemetry"),
        pytest.param("/ingest/1/demo/d1?leaf=s", "qala/1/demo/d1/s", id="status"),
        pytest.param("/ingest/1/demo/d1?leaf=m", "qala/1/demo/d1/m", id="metadata"),
        pytest.param("/ingest/1/demo/%D0%B4%201", "qala/1/demo/д 1/t", id="a name in UTF-8"),
    ],
)
def test_the_address_is_the_topic(tmp_path: Path, target: str, topic: str) -> None:
    with serving(tmp_path) as live, live.client() as client:
        assert client.post(target, content=b"\xa0", headers={"content-type": "application/cbor"}).status_code == 202
        [found] = live.journalled()
        assert (found.topic, found.properties) == (topic, {"content_type": "application/cbor"})


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "status", "code"),
    [
        pytest.param("POST", "/ingest/1/demo", JSON, b"{}", 404, "not_found", id="too few levels"),
        pytest.param("POST", "/ingest/1/a/b/c", JSON, b"{}", 404, "not_found", id="too many levels"),
        pytest.param("POST", "/elsewhere", JSON, b"{}", 404, "not_found", id="another address"),
        pytest.param("POST", "/ingest/1/demo/a%2Fb", JSON, b"{}", 400, "bad_topic", id="a slash in a name"),
        pytest.param("POST", "/ingest/1/demo/%23", JSON, b"{}", 400, "bad_topic", id="a wildcard"),
        pytest.param("POST", "/ingest/1/demo/%00", JSON, b"{}", 400, "bad_topic", id="NUL"),
        pytest.param("POST", "/ingest/1/demo/%ff", JSON, b"{}", 400, "bad_utf8", id="not UTF-8"),
        pytest.param("POST", f"/ingest/1/demo/{'x' * 300}", JSON, b"{}", 400, "bad_topic", id="too long"),
        pytest.param("POST", "/ingest/1/demo/d?leaf=x", JSON, b"{}", 400, "bad_topic", id="no such leaf"),
        pytest.param("POST", "/ingest/1/demo/d?qos=1", JSON, b"{}", 400, "bad_query", id="no such parameter"),
        pytest.param("POST", "/ingest/1/demo/d", JSON, b"", 400, "empty", id="no body"),
        pytest.param("POST", "/ingest/1/demo/d", {}, b"{}", 415, "media_type", id="no content type"),
        pytest.param("POST", "/ingest/1/demo/d", NDJSON, b"{}", 415, "media_type", id="another content type"),
        pytest.param(
            "POST", "/ingest/1/demo/d", JSON | {"content-encoding": "gzip"}, b"{}", 415, "encoding", id="encoded"
        ),
        pytest.param("POST", "/ingest/1/demo/d", JSON, b"x" * 65537, 413, "too_large", id="too large"),
        pytest.param("PUT", "/ingest/1/demo/d", JSON, b"{}", 405, "method", id="another method"),
        pytest.param("GET", "/ingest/1/batch", {}, b"", 405, "method", id="a batch is not read"),
        pytest.param(
            "POST", "/ingest/1/demo/d", JSON | {"idempotency-key": "x" * 129}, b"{}", 400, "bad_shape", id="long key"
        ),
    ],
)
def test_a_request_that_is_not_taken_is_told_why_and_how_to_do_better(
    tmp_path: Path, method: str, target: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    with serving(tmp_path) as live, live.client() as client:
        assert is_problem(client.request(method, target, content=body, headers=headers), status, code)
        assert live.journalled() == []
        assert live.ingest.counters.refused == 1


def test_a_body_without_a_length_is_cut_at_the_limit(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 1000

    with serving(tmp_path) as live, live.client() as client:
        assert is_problem(client.post("/ingest/1/demo/d", content=endless(), headers=JSON), 413, "too_large")
        assert client.post("/ingest/1/demo/d", content=iter([b"{", b"}"]), headers=JSON).status_code == 202
        assert [message.payload for message in live.journalled()] == [b"{}"]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_taken_line_by_line_and_the_bad_ones_do_not_spoil_the_others(tmp_path: Path) -> None:
    with serving(tmp_path) as live, live.client() as client:
        body = batch_of(
            {"topic": "qala/1/demo/d1/t", "payload": {"v": {"temperature": 1.50}}},
            b"{not json",
            {"fleet": "demo", "device": "d2", "payload": "raw text"},
            b"",
            {"payload": {}},
            {"topic": "other/things", "payload_base64": "AP8=", "content_type": "application/cbor"},
            {"topic": "a/#", "payload": {}},
        )
        answer = client.post("/ingest/1/batch", content=body, headers=NDJSON)
        told = answer.json()
        assert (answer.status_code, told["taken"], told["first"], told["last"]) == (202, 3, 1, 3)
        assert [(line["line"], line["code"]) for line in told["lines"]] == [
            (2, "bad_json"),
            (5, "bad_shape"),
            (7, "bad_topic"),
        ]
        assert all(line["detail"] and line["hint"] for line in told["lines"])
        assert [(message.topic, message.payload, message.properties) for message in live.journalled()] == [
            ("qala/1/demo/d1/t", b'{"v": {"temperature": 1.5}}', {"content_type": "application/json"}),
            ("qala/1/demo/d2/t", b"raw text", None),
            ("other/things", b"\0\xff", {"content_type": "application/cbor"}),
        ]


def test_lines_that_were_not_taken_are_recorded_for_people_to_see(tmp_path: Path) -> None:
    with serving(tmp_path, refused_per_minute=2) as live, live.client() as client:
        body = batch_of(*[b"no"] * 3, {"topic": "t", "payload": 1})
        assert client.post("/ingest/1/batch", content=body, headers=NDJSON).json()["refused"] == 3
        refused = until(lambda: live.journalled(MessageType.REFUSED))
        assert [(message.properties or {})["reason"] for message in refused] == ["bad_json"] * 2
        assert (refused[1].properties or {})["detail"].startswith("line 2: ")


def test_a_batch_without_one_good_line_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as live, live.client() as client:
        answer = client.post("/ingest/1/batch", content=b"1\n2\n", headers=NDJSON)
        assert is_problem(answer, 400, "no_message")
        assert [line["line"] for line in answer.json()["lines"]] == [1, 2]
        assert live.journalled() == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\n" * (BATCH_LINES_MAX + 1), id="lines"),
        pytest.param(b"x" * (BATCH_BYTES_MAX + 1), id="bytes"),
    ],
)
def test_a_batch_has_limits(tmp_path: Path, body: bytes) -> None:
    with serving(tmp_path) as live, live.client() as client:
        assert is_problem(client.post("/ingest/1/batch", content=body, headers=NDJSON), 413, "too_large")


def test_a_full_batch_lies_side_by_side_in_the_journal(tmp_path: Path) -> None:
    lines = [{"fleet": "demo", "device": f"d{number}", "payload": {"n": number}} for number in range(BATCH_LINES_MAX)]
    with serving(tmp_path, group_max=100) as live, live.client() as client:
        told = client.post("/ingest/1/batch", content=batch_of(*lines), headers=NDJSON).json()
        assert (told["taken"], told["last"] - told["first"]) == (BATCH_LINES_MAX, BATCH_LINES_MAX - 1)
        assert [message.topic for message in live.journalled()] == [
            f"qala/1/demo/d{n}/t" for n in range(BATCH_LINES_MAX)
        ]


@settings(max_examples=200, deadline=None)
@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))))
def test_whatever_a_batch_holds_each_line_is_a_message_or_a_reason(body: bytes) -> None:
    found = list(lines_of(body, NOBODY, root="qala", topic_max=256, payload_max=65536))
    assert len(found) == sum(1 for line in body.split(b"\n") if line.strip())
    assert all(not isinstance(line, LineError) or (line.detail and line.hint) for _, line in found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"topic": "t", "payload": ' + b"[" * 5000, "bad_json", id="deep"),
        pytest.param(b'{"topic": "\\ud800", "payload": 1}', "bad_json", id="lone surrogate in the topic"),
        pytest.param(b'{"topic": "t", "payload": "\xff"}', "bad_utf8", id="not UTF-8"),
        pytest.param(b'{"topic": "t", "payload_base64": "?"}', "bad_shape", id="not base64"),
        pytest.param(b'{"topic": "t", "payload": 1, "payload_base64": ""}', "bad_shape", id="two payloads"),
        pytest.param(b'{"topic": "t"}', "bad_shape", id="no payload"),
        pytest.param(b'{"topic": 5, "payload": 1}', "bad_shape", id="a number as topic"),
        pytest.param(b'{"topic": "$SYS/x", "payload": 1}', "bad_topic", id="a topic of the system"),
        pytest.param(b'{"fleet": "a", "device": "b/c", "payload": 1}', "bad_topic", id="two levels in a name"),
        pytest.param(b'{"topic": "t", "payload": "' + b"x" * 70000 + b'"}', "too_large", id="too large"),
    ],
)
def test_a_bad_line_has_its_reason(line: bytes, reason: str) -> None:
    [(number, found)] = lines_of(line, NOBODY, root="qala", topic_max=256, payload_max=65536)
    assert isinstance(found, LineError), found
    assert (number, found.reason) == (1, reason)


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_credential_is_asked_for_and_speaks_for_its_own_topics_only(tmp_path: Path) -> None:
    gate = Known(good=device("demo/d1"))
    with serving(tmp_path, gate) as live:
        with live.client() as client:
            answer = client.post("/ingest/1/demo/d1", content=b"{}", headers=JSON)
            assert is_problem(answer, 401, "credential")
            assert answer.headers["www-authenticate"] == "Bearer"
        with live.client("wrong") as client:
            assert is_problem(client.post("/ingest/1/demo/d1", content=b"{}", headers=JSON), 401, "credential")
        with live.client("good") as client:
            assert client.post("/ingest/1/demo/d1", content=b"{}", headers=JSON).status_code == 202
            assert is_problem(client.post("/ingest/1/demo/d2", content=b"{}", headers=JSON), 403, "topic_mismatch")
            body = batch_of({"topic": "qala/1/demo/d2/t", "payload": 1}, {"topic": "qala/1/demo/d1/t", "payload": 2})
            told = client.post("/ingest/1/batch", content=body, headers=NDJSON).json()
            assert [(line["line"], line["code"]) for line in told["lines"]] == [(1, "topic_mismatch")]
        assert {(message.topic, message.principal) for message in live.journalled()} == {
            ("qala/1/demo/d1/t", "demo/d1")
        }


def test_a_revoked_credential_is_turned_away_on_an_open_connection(tmp_path: Path) -> None:
    gate = Known(good=device("demo/d1"))
    with serving(tmp_path, gate) as live, live.client("good") as client:
        assert client.post("/ingest/1/demo/d1", content=b"{}", headers=JSON).status_code == 202
        gate.tokens.clear()
        assert is_problem(client.post("/ingest/1/demo/d1", content=b"{}", headers=JSON), 401, "credential")


def test_who_sends_too_fast_is_told_when_to_come_again(tmp_path: Path) -> None:
    gate = Known(a=device("demo/a"), b=device("demo/b"))
    with serving(tmp_path, gate, rate=0.5, burst=3) as live, live.client("a") as client:
        for _ in range(3):
            assert client.post("/ingest/1/demo/a", content=b"{}", headers=JSON).status_code == 202
        answer = client.post("/ingest/1/demo/a", content=b"{}", headers=JSON)
        assert is_problem(answer, 429, "too_fast")
        assert 1 <= int(answer.headers["retry-after"]) <= 3
        assert live.ingest.counters.limited == 1
        with live.client("b") as calm:
            assert calm.post("/ingest/1/demo/b", content=b"{}", headers=JSON).status_code == 202


# --- idempotency -----------------------------------------------------------------------------------------------------


def test_the_same_key_is_journalled_once_and_answered_the_same(tmp_path: Path) -> None:
    headers = NDJSON | {"idempotency-key": str(uuid.uuid4())}
    body = batch_of({"topic": "a", "payload": 1}, b"?", {"topic": "b", "payload": 2})
    with serving(tmp_path) as live, live.client() as client:
        client.post("/ingest/1/demo/d", content=b"{}", headers=JSON)
        first = client.post("/ingest/1/batch", content=body, headers=headers)
        again = client.post("/ingest/1/batch", content=body, headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(live.journalled()) == 3
    with serving(tmp_path) as restarted, restarted.client() as client:
        again = client.post("/ingest/1/batch", content=body, headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        assert len(restarted.journalled()) == 3


def test_the_same_key_with_another_body_is_refused(tmp_path: Path) -> None:
    headers = JSON | {"idempotency-key": "k"}
    with serving(tmp_path) as live, live.client() as client:
        assert client.post("/ingest/1/demo/d", content=b"1", headers=headers).status_code == 202
        for target, body in (("/ingest/1/demo/d", b"2"), ("/ingest/1/demo/e", b"1"), ("/ingest/1/demo/d?leaf=s", b"1")):
            assert is_problem(client.post(target, content=body, headers=headers), 422, "idempotency_key")
        assert len(live.journalled()) == 1


def test_a_key_is_its_principals_own(tmp_path: Path) -> None:
    headers = NDJSON | {"idempotency-key": "k"}
    gate = Known(a=Principal("gate-a"), b=Principal("gate-b"))
    with serving(tmp_path, gate) as live:
        for token in ("a", "b", "a", "b"):
            with live.client(token) as client:
                body = batch_of({"topic": "t", "payload": token})
                assert client.post("/ingest/1/batch", content=body, headers=headers).status_code == 202
        assert [message.principal for message in live.journalled()] == ["gate-a", "gate-b"]


def test_a_request_that_is_repeated_while_it_waits_for_its_sync_is_taken_once(tmp_path: Path) -> None:
    disk, headers = Disk(), JSON | {"idempotency-key": "k"}
    with serving(tmp_path, disk=disk) as live, live.client() as client, ThreadPoolExecutor() as pool:
        disk.gate = threading.Event()
        waiting = [pool.submit(client.post, "/ingest/1/demo/d", content=b"{}", headers=headers) for _ in range(3)]
        until(lambda: live.ingest.counters.requests == 3 and live.ingest.counters.repeated == 2)
        disk.gate.set()
        assert {answer.result(10).text for answer in waiting} == {waiting[0].result().text}
        assert len(live.journalled()) == 1


def test_keys_are_forgotten_after_a_day_and_when_there_are_too_many() -> None:
    keys = Keys(keys_max=3)
    for number in range(5):
        keys.put("", str(number), Once("d", 1, number))
    assert [keys.get("", str(number), "d", 5) is not None for number in range(5)] == [False, False, True, True, True]
    assert keys.get("", "4", "d", 4 + DAY_US) is None
    assert len(keys) == 0
    keys.put("", "k", Once("d", 1, 0))
    with pytest.raises(ProblemError):
        keys.get("", "k", "another", 1)


# --- a journal that takes nothing -------------------------------------------------------------------------------------


def test_while_the_disk_is_full_nothing_is_taken_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    disk = Disk()
    with serving(tmp_path, disk=disk) as live, live.client() as client, ThreadPoolExecutor() as pool:
        assert client.get("/ingest/1/ready").json() == {"status": "ok"}
        disk.room = 0
        waiting = pool.submit(client.post, "/ingest/1/demo/d", content=b"1", headers=JSON)
        until(lambda: live.commit.trouble)
        answer = client.post("/ingest/1/demo/d", content=b"2", headers=JSON)
        assert is_problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert is_problem(client.get("/ingest/1/ready"), 503, "unavailable")
        assert not waiting.done()
        disk.heal()
        assert waiting.result(10).status_code == 202
        assert client.get("/ingest/1/ready").status_code == 200
        assert [message.payload for message in live.journalled()] == [b"1"]


def test_while_too_much_waits_nothing_more_is_taken(tmp_path: Path) -> None:
    disk = Disk()
    with (
        serving(tmp_path, disk=disk, queue_max=1 << 20) as live,
        live.client() as client,
        ThreadPoolExecutor(30) as pool,
    ):
        disk.gate = threading.Event()
        waiting = [pool.submit(client.post, "/ingest/1/demo/d", content=b"x" * 65000, headers=JSON) for _ in range(30)]
        until(lambda: live.commit.full)
        assert is_problem(client.post("/ingest/1/demo/d", content=b"2", headers=JSON), 503, "unavailable")
        disk.gate.set()
        statuses = {answer.result(20).status_code for answer in waiting}
        assert 202 in statuses
        assert statuses <= {202, 503}
        taken = sum(answer.result().status_code == 202 for answer in waiting)
        assert len(live.journalled()) == taken


# --- clients that misbehave -------------------------------------------------------------------------------------------


def raw(live: Live) -> socket.socket:
    return socket.create_connection(live.address, timeout=10)


def rest_of(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"POST /ingest/1/demo/d HTTP/1.1\r\nHos", b"408", id="half a head"),
    ],
)
def test_a_head_that_does_not_come_in_time_ends_the_connection(tmp_path: Path, sent: bytes, status: bytes) -> None:
    with serving(tmp_path, connect_timeout_s=0.2) as live, raw(live) as client:
        client.sendall(sent)
        assert status in rest_of(client)
        until(lambda: live.ingest.connections == 0)


def test_a_body_that_drips_ends_the_connection_and_its_bytes_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "_REQUEST_S", 0.3)
    head = b"POST /ingest/1/demo/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with serving(tmp_path) as live, raw(live) as client:
        client.sendall(head)
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.02):
                    client.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert client.recv(65536).startswith(b"HTTP/1.1 408")
        ended.set()
        dripping.join()
        until(lambda: live.ingest._buffered == 0)
        assert live.journalled() == []


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01 hello\r\n\r\n", id="TLS on the plain port"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"POST /ingest/1/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", id="a length below zero"),
        pytest.param(
            b"POST /ingest/1/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(
            b"POST /ingest/1/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\n\r\nzz\r\n",
            id="a chunk without a size",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, id="an endless head"),
    ],
)
def test_what_is_no_http_is_answered_with_a_problem_and_closed(tmp_path: Path, sent: bytes) -> None:
    with serving(tmp_path) as live:
        with raw(live) as client:
            client.sendall(sent)
            answer = rest_of(client)
        assert answer.startswith(b"HTTP/1.1 4")
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer.lower()
        with live.client() as good:
            assert good.post("/ingest/1/demo/d", content=b"{}", headers=JSON).status_code == 202
        assert len(live.journalled()) == 1


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(min_size=1, max_size=300), cut=st.integers(0, 120))
def test_mutated_requests_never_take_the_door_down(http_door: Live, junk: bytes, cut: int) -> None:
    good = b"POST /ingest/1/demo/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with raw(http_door) as client:
        client.sendall(good[:cut] + junk + good[cut + 1 :])
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            rest_of(client)
    with http_door.client() as control:
        assert control.get("/ingest/1/ready").status_code == 200


@pytest.fixture(scope="module")
def http_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("journal")) as live:
        yield live


@pytest.mark.parametrize("method", ["HEAD", "CONNECT", "OPTIONS", "DELETE", "QALA"])
def test_a_method_that_is_not_meant_is_answered_whatever_it_is(tmp_path: Path, method: str) -> None:
    with serving(tmp_path) as live, raw(live) as client:
        client.sendall(f"{method} /ingest/1/ready HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = rest_of(client)
        assert answer.startswith(b"HTTP/1.1 405")
        assert (b"problem" in answer.partition(b"\r\n\r\n")[2]) == (method != "HEAD")


def test_two_requests_in_one_write_are_both_answered(tmp_path: Path) -> None:
    one = b"POST /ingest/1/demo/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n"
    with serving(tmp_path) as live, raw(live) as client:
        client.sendall(one + b"1" + one + b"2")
        client.shutdown(socket.SHUT_WR)
        assert rest_of(client).count(b"HTTP/1.1 202") == 2
        assert [message.payload for message in live.journalled()] == [b"1", b"2"]


def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on_or_not(tmp_path: Path) -> None:
    head = b"POST /ingest/1/demo/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with serving(tmp_path) as live:
        with raw(live) as client:
            client.sendall(head + b"Content-Length: 2\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 100")
            client.sendall(b"{}")
            assert client.recv(1000).startswith(b"HTTP/1.1 202")
        with raw(live) as client:
            client.sendall(head + b"Content-Length: 99999999\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_connections_over_the_limit_are_turned_away(tmp_path: Path) -> None:
    with serving(tmp_path, connections_max=1) as live, live.client() as client:
        assert client.get("/ingest/1/ready").status_code == 200
        with raw(live) as other, contextlib.suppress(ConnectionResetError):
            assert rest_of(other) == b""
        assert live.ingest.counters.turned_away == 1
        assert client.get("/ingest/1/ready").status_code == 200


def test_stopping_answers_what_was_taken_and_takes_no_more(tmp_path: Path) -> None:
    disk = Disk()
    with serving(tmp_path, disk=disk) as live, live.client() as client, ThreadPoolExecutor() as pool:
        idle = raw(live)
        disk.gate = threading.Event()
        waiting = pool.submit(client.post, "/ingest/1/demo/d", content=b"{}", headers=JSON)
        until(lambda: disk.syncs)
        stopped = asyncio.run_coroutine_threadsafe(live.ingest.stop(), live.loop)
        assert rest_of(idle) == b""
        disk.gate.set()
        answer = waiting.result(10)
        assert (answer.status_code, answer.headers["connection"]) == (202, "close")
        stopped.result(10)
        with pytest.raises(OSError, match="refused"):
            raw(live)
        idle.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_over_tls_a_client_may_show_a_certificate_instead_of_a_token(tmp_path: Path) -> None:
    class Certified(OpenGate):
        def authenticate(
            self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
        ) -> Principal:
            if not certificate:
                raise RefusedError("no certificate")
            [[(_, name)]] = certificate["subject"]
            return device(name)

    authority = Authority(tmp_path)
    server = authority.server()
    context = server_context(server.certificate, server.private_key, authority.file)
    with serving(tmp_path / "journal", Certified()) as live:
        host, port = live.run(live.ingest.start("127.0.0.1:0", context))
        url = f"https://{host}:{port}/ingest/1/air/a1"
        with httpx.Client(verify=authority.trust(authority.client("air/a1"))) as client:
            assert client.post(url, content=b"{}", headers=JSON).status_code == 202
            assert is_problem(client.post(url + "x", content=b"{}", headers=JSON), 403, "topic_mismatch")
        with httpx.Client(verify=authority.trust()) as client:
            assert is_problem(client.post(url, content=b"{}", headers=JSON), 401, "credential")
            assert is_problem(client.post(url, content=b"x" * 70000, headers=JSON), 401, "credential")
        assert [message.principal for message in live.journalled()] == ["air/a1"]


# --- the door as a process -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def door(data: Path, **chosen: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a door with HTTP ingest; gives its process and its URL."""
    with (data / "door.log").open("ab") as log:
        process = subprocess.Popen(door_command(data, http="127.0.0.1:0", **chosen), stderr=log)

    def reported() -> str:
        assert process.poll() is None, (data / "door.log").read_text()
        report = read_report(data)
        return report.http_addresses[0] if report and report.pid == process.pid and report.http_addresses else ""

    try:
        yield process, f"http://{until(reported, deadline_s=30)}/ingest/1"
    finally:
        process.kill()
        process.wait()


def test_a_devices_token_opens_the_door_for_itself_until_it_is_revoked(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    now_us = time.time_ns() // 1000
    issued = credentials.issue(state, make_key(key_file(tmp_path)), credentials.Issue("air/a1"), now_us)
    with door(tmp_path, authenticate=True) as (_, url):
        headers = JSON | {"authorization": f"Bearer {issued.token}"}

        def post(device: str) -> int:
            return httpx.post(f"{url}/air/{device}", content=b"{}", headers=headers, timeout=10).status_code

        assert httpx.post(f"{url}/air/a1", content=b"{}", headers=JSON, timeout=10).status_code == 401
        assert (post("a1"), post("a2")) == (202, 403)
        credentials.revoke(state, "air/a1", time.time_ns() // 1000)
        until(lambda: post("a1") == 401, deadline_s=5)
    assert issued.token.partition(".")[2] not in (tmp_path / "door.log").read_text()
    state.dispose()


def test_killed_at_any_moment_a_request_that_is_repeated_with_its_key_is_journalled_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    answered: dict[str, tuple[int, int]] = {}
    serial = 0
    for _ in range(4):
        with door(tmp_path) as (process, url), httpx.Client(timeout=10) as client:
            threading.Timer(chance.uniform(0.1, 0.5), process.kill).start()
            with contextlib.suppress(httpx.HTTPError):
                while True:
                    key = f"key-{serial}"
                    answer = client.post(
                        f"{url}/air/a1", content=str(serial).encode(), headers=JSON | {"idempotency-key": key}
                    )
                    assert answer.status_code == 202
                    answered[key] = (serial, answer.json()["first"])
                    serial += 1
            process.wait()  # the request that was cut short is sent again to the next door
    reader = JournalReader(tmp_path / "journal")
    found = [
        (frame.first + n, int(m.payload)) for frame in reader.read(0, limit=10**6) for n, m in enumerate(frame.messages)
    ]
    reader.close()
    assert len(answered) > 20
    numbers = [number for _, number in found]
    assert len({number for _, number in found}) == len(numbers)
    assert {(first, number) for number, first in answered.values()} <= set(found)


def test_sigterm_answers_the_requests_that_were_taken_within_five_seconds(tmp_path: Path) -> None:
    with door(tmp_path) as (process, url), ThreadPoolExecutor(8) as pool:
        stop = threading.Event()

        def post() -> list[int]:
            first: list[int] = []
            with httpx.Client(timeout=10) as client, contextlib.suppress(httpx.HTTPError):
                while not stop.is_set():
                    answer = client.post(f"{url}/air/a1", content=b"1", headers=JSON)
                    if answer.status_code != 202:
                        break
                    first.append(answer.json()["first"])
            return first

        posting = [pool.submit(post) for _ in range(8)]
        until(lambda: (report := read_report(tmp_path)) is not None and report.http.taken > 100)
        began = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
        stop.set()
        numbers = [number for each in posting for number in each.result(10)]
    reader = JournalReader(tmp_path / "journal")
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(1, reader.synced() + 1))
    assert reader.synced() - len(numbers) <= 8  # at most what each had under way
    reader.close()
