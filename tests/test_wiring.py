"""The serving process: what it says of a thread that fails, and a change of the registry while it starts."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import pytest

from qala.config import load_config
from qala.process import holder
from qala.threads import Worker
from qala.wiring import build
from tests.mqtt_client import RawClient
from tests.processes import Qala, native
from tests.wait import until


def test_a_thread_that_fails_is_not_well_and_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    stop, goes_on, begun = threading.Event(), threading.Event(), []

    def fail_once(_stop: threading.Event) -> None:
        begun.append(1)
        if len(begun) == 1:
            goes_on.wait(10)
            raise RuntimeError("out of order")
        stop.wait(10)

    thread = Worker("scheduler", fail_once, stop)
    thread.start()
    try:
        assert thread.is_well()
        goes_on.set()
        until(lambda: len(begun) == 2)
        assert thread.is_alive()
        assert not thread.is_well()
        assert "out of order" in caplog.text
    finally:
        stop.set()
        thread.join(10)


def test_a_registry_that_changes_while_the_server_starts_does_not_end_it(tmp_path: Path) -> None:
    qala = Qala(tmp_path)
    qala.start_serve()
    assert qala.serve is not None
    until(lambda: holder(tmp_path / "serve.lock"), deadline_s=60, every_s=0.001)
    qala.serve.send_signal(signal.SIGHUP)
    try:
        qala.start_door()
        until(qala.is_up, deadline_s=60)
        assert qala.serve.poll() is None
    finally:
        qala.__exit__(None, None, None)


def test_health_tells_of_an_outbox_that_does_not_run_and_of_a_store_that_does_not_answer(tmp_path: Path) -> None:
    app = build(load_config(flags={"data": tmp_path}))
    try:
        assert app.parts()["outbox"]["up"] is False
        store = app.parts()["store"]
        assert (store["engine"], store["up"], store["error"], store["upkeep_error"]) == ("duckdb", True, None, None)
        app.start()
        assert app.parts()["outbox"]["up"] is True
    finally:
        app.close()
    found = app.parts()
    assert (found["store"]["up"], found["store"]["error"]) == (False, "the store is closed")


def test_a_journal_that_is_gone_while_the_store_remembers_it_is_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Qala(tmp_path) as qala, RawClient(("127.0.0.1", qala.mqtt_port)) as client:
        client.connect()
        client.publish(1, 2, topic="qala/1/air/a1/t", payload=native({"pm2_5": 1.0}))
        assert client.pubacks(2) == [1, 2]
        qala.wait_until_caught_up()
        assert "journal_lost" not in {reason["code"] for reason in qala.get("health")["reasons"]}
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "door.json").unlink()
    app = build(load_config(flags={"data": tmp_path}))
    try:
        assert app.parts()["store"]["journal_lost"] == 2
        assert "a journal is gone" in caplog.text
    finally:
        app.close()
