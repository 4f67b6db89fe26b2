"""Three independent MQTT clients behind one face: paho-mqtt, the programs of mosquitto, and gmqtt. Each says what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gmqtt
import paho.mqtt.client as paho
import pytest
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.wait import until

__all__ = ["PEERS", "Login", "Peer", "Said"]

PATIENCE_S = 15.0


class Login(NamedTuple):
    """Where a client goes, how, and as whom. `version` is 4 for MQTT 3.1.1, 5 for MQTT 5; `ca` is a file for TLS."""

    port: int
    version: int
    ca: Path | None
    username: str
    password: str
    client: str


class Said(NamedTuple):
    """What a client learnt: whether it got what it asked for, and the reason code where the version and the client tell."""

    ok: bool
    code: int | None = None


class Peer(Protocol):
    """A client in whose own words the door is asked."""

    def connect(self, login: Login) -> Said:
        """Connect, and leave again."""

    def publish(self, login: Login, topic: str, payload: bytes, qos: int) -> Said:
        """Publish one message, and wait until it was acknowledged or refused."""

    def subscribe(self, login: Login, topic: str) -> Said:
        """Subscribe, and hear the answer."""

    def hear(self, login: Login, topic: str, then: Callable[[], None]) -> bytes:
        """Subscribe, do something, and return the payload of the first message that comes."""


class Paho:
    """paho-mqtt."""

    def connect(self, login: Login) -> Said:
        with self._connected(login) as (_, seen):
            return Said(seen["connected"] == 0, seen["connected"])

    def publish(self, login: Login, topic: str, payload: bytes, qos: int) -> Said:
        with self._connected(login) as (client, seen):
            info = client.publish(topic, payload, qos)
            if qos == 0:
                info.wait_for_publish(PATIENCE_S)
                with contextlib.suppress(AssertionError):
                    until(lambda: "ended" in seen, deadline_s=0.5)
                return Said("ended" not in seen, seen.get("ended"))
            until(lambda: "published" in seen or "ended" in seen, deadline_s=PATIENCE_S)
            code = seen.get("published")
            return Said(code is not None and code < 0x80, code)

    def subscribe(self, login: Login, topic: str) -> Said:
        with self._connected(login) as (client, seen):
            client.subscribe(topic, 1)
            [code] = until(lambda: seen.get("subscribed"), deadline_s=PATIENCE_S)
            return Said(code < 0x80, code)

    def hear(self, login: Login, topic: str, then: Callable[[], None]) -> bytes:
        with self._connected(login) as (client, seen):
            client.subscribe(topic, 1)
            until(lambda: seen.get("subscribed"), deadline_s=PATIENCE_S)
            then()
            return until(lambda: seen.get("heard"), deadline_s=PATIENCE_S)

    @contextlib.contextmanager
    def _connected(self, login: Login) -> Any:
        client = paho.Client(CallbackAPIVersion.VERSION2, login.client, protocol=MQTTProtocolVersion(login.version))
        seen: dict[str, Any] = {}
        client.username_pw_set(login.username, login.password)
        if login.ca is not None:
            client.tls_set(str(login.ca))
        client.on_connect = lambda _c, _d, _f, code, _p: seen.setdefault("connected", code.value)
        client.on_publish = lambda _c, _d, _i, code, _p: seen.setdefault("published", code.value)
        client.on_disconnect = lambda _c, _d, _f, code, _p: seen.setdefault("ended", code.value)
        client.on_subscribe = lambda _c, _d, _i, codes, _p: seen.setdefault("subscribed", [one.value for one in codes])
        client.on_message = lambda _c, _d, message: seen.setdefault("heard", message.payload)
        client.connect("127.0.0.1", login.port)
        client.loop_start()
        try:
            until(lambda: "connected" in seen, deadline_s=PATIENCE_S)
            yield client, seen
        finally:
            client.disconnect()
            client.loop_stop()


class Mosquitto:
    """mosquitto_pub and mosquitto_sub."""

    def connect(self, login: Login) -> Said:
        done = self._run("mosquitto_pub", login, "-t", f"qala/1/{login.username}/t", "-m", '{"v":{}}', "-q", "1")
        return Said(done.returncode == 0, done.returncode)

    def publish(self, login: Login, topic: str, payload: bytes, qos: int) -> Said:
        # a second one of its own behind it shows how the door took the first, which the program does not tell with QoS 0
        lines = ("-t", topic, "-q", str(qos), "-s")
        done = self._run("mosquitto_pub", login, *lines, given=payload)
        return Said(done.returncode == 0 and not done.stderr, None)

    def subscribe(self, login: Login, topic: str) -> Said:
        done = self._run("mosquitto_sub", login, "-t", topic, "-q", "1", "-E")
        return Said(done.returncode == 0 and b"denied" not in done.stderr, None)

    def hear(self, login: Login, topic: str, then: Callable[[], None]) -> bytes:
        command = [*self._command("mosquitto_sub", login), "-t", topic, "-q", "1", "-C", "1", "-N", "-d"]
        with subprocess.Popen(
            ["stdbuf", "-oL", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ
        ) as process:
            heard: list[bytes] = []
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(b"Subscribed"):
                    then()
                elif not line.startswith((b"Client", b"Connection")):
                    heard.append(line)
            assert process.wait(PATIENCE_S) == 0
        return b"".join(heard).partition(b"Client")[0]

    def _run(self, program: str, login: Login, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*self._command(program, login), *words]
        return subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE_S, check=False)

    def _command(self, program: str, login: Login) -> list[str]:
        found = shutil.which(program)
        if found is None:
            missing = f"{program} is missing: install mosquitto-clients"
            pytest.fail(missing) if os.environ.get("QALA_REQUIRE_SERVERS") == "1" else pytest.skip(missing)
        where = ["-h", "127.0.0.1", "-p", str(login.port), "-V", "5" if login.version == 5 else "311"]
        who = ["-i", login.client, "-u", login.username, "-P", login.password]
        return [found, *where, *who, *(["--cafile", str(login.ca)] if login.ca else [])]


class Gmqtt:
    """gmqtt."""

    def connect(self, login: Login) -> Said:
        async def ask(client: gmqtt.Client, seen: dict[str, Any]) -> Said:
            return Said(True, 0)

        return self._within(login, ask)

    def publish(self, login: Login, topic: str, payload: bytes, qos: int) -> Said:
        async def ask(client: gmqtt.Client, seen: dict[str, Any]) -> Said:
            client.publish(topic, payload, qos=qos)
            for _ in range(50 if qos == 0 else int(PATIENCE_S / 0.01)):
                if "ended" in seen or (qos and client._persistent_storage.is_empty):
                    break
                await asyncio.sleep(0.01)
            return Said("ended" not in seen, None)

        return self._within(login, ask)

    def subscribe(self, login: Login, topic: str) -> Said:
        async def ask(client: gmqtt.Client, seen: dict[str, Any]) -> Said:
            client.subscribe(topic, qos=1)
            await asyncio.wait_for(seen["answered"].wait(), PATIENCE_S)
            [code] = seen["subscribed"]
            return Said(code < 0x80, code)

        return self._within(login, ask)

    def hear(self, login: Login, topic: str, then: Callable[[], None]) -> bytes:
        async def ask(client: gmqtt.Client, seen: dict[str, Any]) -> bytes:
            client.subscribe(topic, qos=1)
            await asyncio.wait_for(seen["answered"].wait(), PATIENCE_S)
            await asyncio.to_thread(then)
            await asyncio.wait_for(seen["got"].wait(), PATIENCE_S)
            return bytes(seen["heard"])

        return self._within(login, ask)

    def _within(self, login: Login, ask: Callable[[gmqtt.Client, dict[str, Any]], Any]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(self._session(login, ask))))
        thread.start()
        thread.join(3 * PATIENCE_S)
        [said] = found
        return said

    async def _session(self, login: Login, ask: Callable[[gmqtt.Client, dict[str, Any]], Any]) -> Any:
        client = gmqtt.Client(login.client)
        client.set_config({"reconnect_retries": -1})  # it comes back by itself otherwise, even after a refusal
        client.set_auth_credentials(login.username, login.password)
        seen: dict[str, Any] = {"answered": asyncio.Event(), "got": asyncio.Event()}

        def subscribed(_client: object, _id: int, codes: Any, _properties: object) -> None:
            seen["subscribed"] = list(codes)
            seen["answered"].set()

        async def heard(_client: object, _topic: str, payload: bytes, _qos: int, _properties: object) -> int:
            seen["heard"] = payload
            seen["got"].set()
            return 0

        client.on_subscribe = subscribed
        client.on_message = heard
        client.on_disconnect = lambda _client, packet, exc=None: seen.setdefault("ended", packet)
        tls = ssl.create_default_context(cafile=str(login.ca)) if login.ca else False
        version = MQTTv50 if login.version == 5 else MQTTv311
        try:
            await client.connect("127.0.0.1", login.port, ssl=tls, version=version)
            return await ask(client, seen)
        except gmqtt.mqtt.handler.MQTTConnectError as error:
            return Said(False, error._code)
        finally:
            with contextlib.suppress(Exception):
                await client.disconnect()
            client._connection._transport.abort()  # it leaves this to the garbage collector
            await asyncio.sleep(0.01)


PEERS: dict[str, Peer] = {"paho": Paho(), "mosquitto": Mosquitto(), "gmqtt": Gmqtt()}
