"""Tokens with a server of its own process: the command line with it and without, HTTPS beside it, and a log without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.pki import Authority
from tests.processes import Qala
from tests.running import free_port
from tests.test_cli import qala
from tests.wait import until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose path is short: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="qala-") as made:
        yield Path(made)


class Server(Qala):
    """The serving process alone, asking for tokens, over TLS only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority(folder)
        self.port = free_port()
        pair = self.authority.server()
        self.environment |= {
            "QALA_DASHBOARDS__HTTP": "",
            "QALA_DASHBOARDS__HTTPS": f"127.0.0.1:{self.port}",
            "QALA_DASHBOARDS__CERTIFICATE": str(pair.certificate),
            "QALA_DASHBOARDS__PRIVATE_KEY": str(pair.private_key),
            "QALA_DASHBOARDS__AUTHENTICATE": "true",
        }
        self.url = f"https://127.0.0.1:{self.port}"

    def start_door(self) -> None:
        """Leave the door out: nothing here sends."""

    def is_up(self) -> bool:
        try:
            return bool(self.ask("health").json().keys() == {"status"})
        except httpx.TransportError:
            return False

    def ask(self, path: str, token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{self.url}/api/v1/{path}", headers=headers, verify=self.authority.trust(), timeout=5)


def token(folder: Path, *words: str) -> str:
    done = qala("token", *words, "--data", str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_token_is_issued_used_and_revoked_while_the_server_runs(folder: Path) -> None:
    with Server(folder) as server:
        reader = token(folder, "issue", "prometheus", "--scope", "read")
        operator = token(folder, "issue", "control room", "--scope", "operate", "--expires-days", "30")
        assert [server.ask("zones", one).status_code for one in ("", reader, operator)] == [401, 200, 200]
        answer = httpx.get(
            f"{server.url}/metrics", headers={"authorization": f"Bearer {reader}"}, verify=server.authority.trust()
        )
        assert "qala_live_clients" in answer.text

        token(folder, "revoke", operator.partition(".")[0])
        until(lambda: server.ask("zones", operator).status_code == 401, deadline_s=5)
        listed = json.loads(token(folder, "list", "--json"))
        assert [(one["name"], one["scope"], one["state"]) for one in listed] == [
            ("prometheus", "read", "valid"),
            ("control room", "operate", "revoked"),
        ]
        assert listed[0]["last_used"] is not None
        assert qala("devices", "ls", "--data", str(folder)).returncode == 0
        headers = {"authorization": f"Bearer {reader}"}
        with httpx.stream("GET", f"{server.url}/api/v1/live", headers=headers, verify=server.authority.trust()) as live:
            lines = live.iter_lines()
            assert next(lines).startswith("retry")
            server.stop()
            assert list(lines)[-1] == ""
        assert server.serve is not None
        assert server.serve.returncode == 0
    log = (folder / "log").read_text()
    assert "a token or session that does not hold was shown from 127.0.0.1" in log
    assert [one for one in (reader, operator) if one.partition(".")[2] in log] == []


def test_tokens_are_issued_and_revoked_where_no_server_runs(folder: Path) -> None:
    id_ = token(folder, "issue", "panel", "--scope", "read").partition(".")[0]
    [row] = json.loads(token(folder, "revoke", id_, "--json"))
    assert (row["id"], row["state"]) == (id_, "revoked")
    done = qala("token", "revoke", "nothing", "--data", str(folder))
    assert (done.returncode, "hint: list them with: qala token list" in done.stderr) == (1, True)


def test_https_without_a_certificate_is_refused_with_a_hint(folder: Path) -> None:
    (folder / "qala.toml").write_text('[dashboards]\nhttps = "0.0.0.0:8443"\n')
    command = [sys.executable, "-m", "qala", "check", "--config", str(folder / "qala.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "dashboards.https needs a certificate" in done.stderr) == (2, True)
