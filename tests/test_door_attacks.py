"""What attackers and bad clients try at the door, and that it stays open to the others meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devices.errors import UnavailableError
from ingest.brokers.settings import BrokerSettings
from ingest.brokers.subscriber import Subscriber
from ingest.commit import CommitLimits, GroupCommit
from ingest.journal import Journal
from ingest.message import Message
from ingest.mqtt.packets import V5, Limits
from ingest.mqtt.session import Session, Sessions
from ingest.mqtt.turns import Turns
from ingest.mqtt.wills import Wills
from ingest.mqtt.wire import Code, varint
from ingest.tls import server_context
from qala.cli.shell import printable
from tests.disk import Disk
from tests.mqtt_client import RawClient
from tests.pki import Authority
from tests.test_http_ingest import serving
from tests.test_listener import house

# --- connections that say nothing -------------------------------------------------------------------------------------


def test_silent_connections_keep_nobody_from_a_tls_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = server_context(*authority.server())
    with house(tmp_path / "journal", tls=tls, mqtts="127.0.0.1:0", handshakes_max=2) as home:
        address = home.live.addresses["mqtts"]
        silent = [socket.create_connection(address) for _ in range(20)]
        with RawClient(address, tls=authority.trust(), timeout_s=4.0) as honest:
            assert honest.connect("honest")[3] == 0
        for each in silent:
            each.close()


def test_who_said_nothing_goes_first_when_there_are_too_many_and_the_owner_always_gets_in(tmp_path: Path) -> None:
    path = tmp_path / "mqtt.sock"
    with house(tmp_path / "journal", socket_path=path, connections_max=2) as home, home.connected("known") as known:
        with home.client() as silent, home.client() as late, RawClient(path) as owner:
            assert silent.is_closed()
            assert late.connect("late")[3] == 0
            assert owner.connect("owner")[3] == 0
            with home.client() as one_too_many:
                assert one_too_many.is_closed()
        known.publish(1)
        assert known.pubacks(1) == [1]


def test_a_packet_of_more_filters_than_anybody_needs_ends_its_connection(tmp_path: Path) -> None:
    body = b"\0\1\0" + b"\0\1a\0" * 1_001
    with house(tmp_path) as home, home.connected("c", V5) as client:
        client.send(b"\x82" + varint(len(body)) + body)
        assert client.packet() == bytes([0xE0, 1, Code.QUOTA])


# --- turns ------------------------------------------------------------------------------------------------------------


async def became(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is any condition; `run` ends the wait
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(within())


def test_a_network_never_has_all_turns_and_networks_take_them_in_turn() -> None:
    order: list[str] = []

    async def test() -> None:
        turns, go_on = Turns(4, waiting_max=100), asyncio.Event()

        async def ask(origin: str) -> None:
            async with turns.of(origin):
                order.append(origin)
                await go_on.wait()

        asked = [asyncio.create_task(ask(origin)) for origin in [*"aaaaaaaa", "b", "c"]]
        await became(lambda: len(order) == 4)
        assert order == ["a", "a", "a", "b"]
        go_on.set()
        await asyncio.gather(*asked)
        assert order.index("c") < 7
        assert len(order) == 10

    run(test)


def test_where_too_many_wait_the_last_one_of_the_largest_network_goes() -> None:
    async def test() -> None:
        turns, go_on = Turns(1, waiting_max=3), asyncio.Event()

        async def ask(origin: str) -> None:
            async with turns.of(origin):
                await go_on.wait()

        asked = [asyncio.create_task(ask(origin)) for origin in ["a", "a", "a", "b", "c"]]
        await became(asked[2].done)
        assert isinstance(asked[2].exception(), ConnectionAbortedError)
        go_on.set()
        await asyncio.gather(*asked[:2], *asked[3:])

    run(test)


def test_a_turn_that_was_given_up_while_waiting_goes_to_the_next() -> None:
    async def test() -> None:
        turns = Turns(1, waiting_max=3)
        async with turns.of("a"):
            waiting = asyncio.create_task(turns.of("b").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
        async with turns.of("c"):
            pass

    run(test)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_kept_sessions_have_a_bound_in_bytes() -> None:
    sessions = Sessions(bytes_max=500_000)
    for number in range(100):
        session = Session(("", f"c{number}"))
        session.expiry_s = 60
        session.unreleased = {each.to_bytes(2, "big"): True for each in range(100)}
        sessions.keep(session, 0.0)
    assert len(sessions) == 500_000 // session.measure()
    assert sessions.resume(("", "c0"), 1.0, clean=False) is None
    assert sessions.resume(("", "c99"), 1.0, clean=False) is session


def test_wills_that_wait_have_a_bound_in_bytes() -> None:
    async def test() -> None:
        done: list[int] = []
        wills = Wills(asyncio.get_running_loop())
        for number in range(3):
            wills.leave(("", f"c{number}"), lambda number=number: done.append(number), 60, 30 * 1024 * 1024)
        await asyncio.sleep(0)
        assert done == [2]
        wills.drop(("", "c0"))
        wills.carry_out_all()
        assert done == [2, 1]

    run(test)


# --- HTTP -------------------------------------------------------------------------------------------------------------

_HEAD = b"POST /ingest/1/demo/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_body_with_two_lengths_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as live, socket.create_connection(live.address, 10) as client:
        client.sendall(_HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_a_body_of_many_small_chunks_is_taken_whole(tmp_path: Path) -> None:
    body = b'{"v":{"pm1":1}}' + b" " * 2_000
    chunks = b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n"
    with serving(tmp_path) as live, socket.create_connection(live.address, 10) as client:
        client.sendall(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"HTTP/1.1 202")


# --- brokers ----------------------------------------------------------------------------------------------------------


def test_a_password_that_no_packet_holds_does_not_end_the_attempts(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_bytes(b"x" * 70_000)

    async def test() -> None:
        reached = asyncio.Event()

        def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            reached.set()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        settings = BrokerSettings(
            url=f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            topics=["a"],
            username="u",
            password_file=secret,
            reconnect_first_s=0.01,
            reconnect_max_s=0.02,
        )
        commit = GroupCommit(Disk(), CommitLimits())  # type: ignore[arg-type]  # nothing is committed
        broker = Subscriber("b", settings, commit, limits=Limits(), journal="j", memory=tmp_path / "b.json")
        broker.start()
        await became(lambda: broker.error.startswith("cannot connect"))
        secret.write_bytes(b"right")
        reached.clear()
        await reached.wait()
        broker.stop_reading()
        await broker.stop()
        server.close()
        commit.close()

    run(test)


# --- clumsy operators -------------------------------------------------------------------------------------------------


def test_nothing_is_acknowledged_from_a_file_or_folder_that_was_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = Journal.open(folder)
    journal.append([Message("a", b"1", 1)])
    next(folder.glob("*.qj")).unlink()
    with pytest.raises(UnavailableError, match="deleted"):
        journal.append([Message("a", b"2", 1)])
    assert journal.append([Message("a", b"3", 1)]) == 2
    shutil.rmtree(folder)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            journal.append([Message("a", b"4", 1)])
    journal.close()


def test_no_terminal_obeys_what_a_device_says() -> None:
    assert printable("\x1b]0;x\x07\x9b31m\u202e") == r"\x1b]0;x\x07\x9b31m\u202e"
