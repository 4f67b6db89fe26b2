"""Logs: one line an event, as text or JSON, and never a secret in them."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from qala.config import load_config
from qala.logs import Redactor, known_secrets, setup, speak
from tests.pki import Authority
from tests.processes import Qala
from tests.running import free_port
from tests.wait import until

SECRET = "x7Jk-Qp_" * 5 + "abc"  # as many letters as ours have
TOKEN = f"abcd2345.{SECRET}"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs, from `setup` on; everything is put back."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


# ---- secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param(f"the token {TOKEN} is unknown", "the token abcd2345.[secret] is unknown", id="a token of ours"),
        pytest.param(f"b'{TOKEN}'", "b'abcd2345.[secret]'", id="as bytes"),
        pytest.param("Authorization: Bearer abc.def", "Authorization: Bearer [secret]", id="a header"),
        pytest.param(
            "{'authorization': 'Basic cWFsYQ=='}", "{'authorization': 'Basic [secret]'}", id="of a dictionary"
        ),
        pytest.param("(b'Authorization', b'Token t0p')", "(b'Authorization', b'Token [secret]')", id="of a list"),
        pytest.param("sent Bearer aaaabbbbcccc to it", "sent Bearer [secret] to it", id="without its name"),
        pytest.param("POST http://city:pa55@host/x", "POST http://city:[secret]@host/x", id="a password in a URL"),
        pytest.param("http://h/?a=1&access_token=zz&b=2", "http://h/?a=1&access_token=[secret]&b=2", id="in a query"),
        pytest.param("__Host-qala=0123456789abcdef01", "__Host-qala=[secret]", id="a cookie"),
        pytest.param("-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----.", "[secret].", id="a private key"),
        pytest.param("listening on 127.0.0.1:1883 as a.b", "listening on 127.0.0.1:1883 as a.b", id="innocent words"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert Redactor().clean(text) == left


@given(st.text(min_size=6).filter(lambda text: text not in "[secret]"), st.text(), st.text())
def test_a_known_secret_is_taken_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    cleaned = Redactor([secret]).clean(f"{before}{secret}{after}")
    assert secret not in cleaned.replace("[secret]", "\0")


def test_the_configuration_tells_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("token-in-a-file\n")
    monkeypatch.setenv("QALA_STORE__TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("QALA_ANALYTICS__WEBHOOK", "http://city:p%40ssword@127.0.0.1:9/alerts")
    found = known_secrets(load_config(flags={"data": tmp_path}))
    assert set(found) == {"token-in-a-file", "p%40ssword", "p@ssword"}


# ---- lines


def test_an_event_is_an_object_with_its_fields(log: io.StringIO) -> None:
    setup("json", "info", secrets=["hunter22"], stream=log)
    logging.getLogger("ingest.door").warning("%d waiting", 3, extra={"device": "a/b", "password": "hunter22", "n": 1})
    logging.getLogger("ingest.door").debug("too small to tell")
    [line] = log.getvalue().splitlines()
    event = json.loads(line)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event.pop("time"))
    assert event == {
        "level": "warning",
        "logger": "ingest.door",
        "message": "3 waiting",
        "fields": {"device": "a/b", "password": "[secret]", "n": 1},
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_its_event_and_has_no_secret(log: io.StringIO, form: str) -> None:
    setup(form, "info", stream=log)
    try:
        int(f"refused {TOKEN}")
    except ValueError:
        logging.getLogger("x").exception("failed with %s", TOKEN)
    assert SECRET not in log.getvalue()
    assert log.getvalue().count("abcd2345.[secret]") == 2
    assert "Traceback" in log.getvalue()
    assert form == "text" or len(log.getvalue().splitlines()) == 1


def test_what_nothing_catches_is_an_event_too(log: io.StringIO) -> None:
    setup("json", "info", stream=log)

    def fail() -> None:
        raise RuntimeError(TOKEN)

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    event = json.loads(log.getvalue())
    assert (event["level"], event["message"]) == ("critical", "worker ended by RuntimeError")
    assert SECRET not in event["exception"]


def test_words_to_people_are_events_where_programs_read(log: io.StringIO) -> None:
    setup("json", "info", stream=log)
    assert speak(f"starting with {TOKEN}")
    assert json.loads(log.getvalue())["message"] == "starting with abcd2345.[secret]"


# ---- whole processes


def test_no_log_has_a_secret_that_was_used() -> None:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder:
        data, pair = Path(folder) / "data", Authority(Path(folder)).server()
        devices = Path(folder) / "devices.csv"
        devices.write_text("id,kind\nyard/a1,air_station\n")
        qala = Qala(data, devices=devices)
        tls_port, http_port = free_port(), free_port()
        webhook, store_token = "webhook-passw0rd", "a-token-of-the-store"
        qala.environment |= {
            "QALA_LOG__FORMAT": "json",
            "QALA_LOG__LEVEL": "debug",
            "QALA_INGEST__AUTHENTICATE": "true",
            "QALA_INGEST__MQTTS": f"127.0.0.1:{tls_port}",
            "QALA_INGEST__HTTP": f"127.0.0.1:{http_port}",
            "QALA_INGEST__CERTIFICATE": str(pair.certificate),
            "QALA_INGEST__PRIVATE_KEY": str(pair.private_key),
            "QALA_DASHBOARDS__AUTHENTICATE": "true",
            "QALA_ANALYTICS__WEBHOOK": f"http://city:{webhook}@127.0.0.1:9/alerts",
            "QALA_STORE__TOKEN": store_token,
        }
        with qala:
            device_token = told(qala, "devices", "credential", "issue", "yard/a1")
            api_token = told(qala, "token", "issue", "tests", "--scope", "operate")
            wrong = device_token[:-1] + ("A" if device_token[-1] != "A" else "B")
            for password in (device_token, wrong, TOKEN):
                show(qala, "yard/a1", password)
                headers = {"Authorization": f"Bearer {password}"}
                httpx.post(f"http://127.0.0.1:{http_port}/ingest/1/yard/a1", content=b"{}", headers=headers)
            for token in (api_token, api_token[:-1] + "_", TOKEN):
                httpx.get(f"{qala.url}/api/v1/devices?token={token}", headers={"Authorization": f"Bearer {token}"})
            key = pair.private_key.read_text()
            pair.certificate.write_text(key)  # what a slip of the hand would do
            until(lambda: "certificate" in (data / "log").read_text())
        written = (data / "log").read_text()
    assert len([json.loads(line) for line in written.splitlines() if line.startswith("{")]) > 5
    used = [device_token, wrong, api_token, TOKEN, webhook, store_token]
    secrets = {secret.partition(".")[2] or secret for secret in used} | {
        line for line in key.splitlines() if "-----" not in line
    }
    assert [secret for secret in secrets if secret in written] == []


def test_a_store_that_cannot_be_reached_is_told_of_without_its_token() -> None:
    with tempfile.TemporaryDirectory(prefix="qala-") as folder:
        qala = Qala(Path(folder) / "data")
        qala.environment |= {
            "QALA_LOG__FORMAT": "json",
            "QALA_LOG__LEVEL": "debug",
            "QALA_STORE__URL": f"influxdb://127.0.0.1:{free_port()}/city/readings",
            "QALA_STORE__TOKEN": SECRET,
        }
        log = qala.folder / "log"
        qala.start_serve()
        try:
            until(lambda: "trying again" in log.read_text(), deadline_s=60)
        finally:
            qala.__exit__(None, None, None)
        events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"warning"} <= {event["level"] for event in events}
    assert SECRET not in str(events)


def told(qala: Qala, *command: str) -> str:
    """Run a command of the shell and return the token that it tells."""
    words = [sys.executable, "-m", "qala", *command, "--data", str(qala.folder), "--json"]
    done = subprocess.run(words, env=qala.environment, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"[a-z2-7]{8}\.[A-Za-z0-9_-]{43}", done.stdout)
    assert found, (done.stdout, done.stderr)
    return found[0]


def show(qala: Qala, name: str, password: str) -> None:
    """Connect as a device with a password, right or wrong, and leave."""
    answered = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id="tests")
    client.username_pw_set(name, password)
    client.on_connect = lambda *_: answered.set()
    client.connect("127.0.0.1", qala.mqtt_port)
    client.loop_start()
    assert answered.wait(10)
    client.disconnect()
    client.loop_stop()
