"""`qala run`: it comes up, restarts what died, takes everything down with it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qala.config import load_config
from qala.run import Child, Supervisor, _until_ready
from tests.running import Running, alive, free_port, running
from tests.wait import until


@pytest.fixture(scope="module")
def qala() -> Iterator[Running]:
    """Run one Qala for all tests that leave it running."""
    with running() as started:
        yield started.ready()


def test_the_door_and_the_server_come_up_and_answer(qala: Running) -> None:
    assert set(qala.children()) == {"door", "serve"}
    until(qala.is_ok)
    assert stat.S_IMODE((qala.data / "qala.sock").stat().st_mode) == 0o600


@pytest.mark.parametrize(("child", "name"), [("door", "the door"), ("serve", "the server")])
def test_a_child_that_is_killed_is_started_again(qala: Running, child: str, name: str) -> None:
    killed = qala.children()[child]
    os.kill(killed, signal.SIGKILL)
    until(lambda: qala.children().get(child, killed) != killed)
    assert qala.says(f"{name} ended (killed by SIGKILL); starting it again")
    until(qala.is_ok, deadline_s=30)


def test_a_data_folder_has_one_owner(qala: Running) -> None:
    second = _run("--data", str(qala.data), "--http", f"127.0.0.1:{free_port()}", "--mqtt", f"127.0.0.1:{free_port()}")
    assert second.returncode == 1
    assert f"in use by process {qala.process.pid}" in second.stderr
    assert "hint:" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_port_in_use_is_named_with_a_hint(qala: Running, tmp_path: Path) -> None:
    second = _run("--data", str(tmp_path / "d"), "--http", f"127.0.0.1:{qala.http}", "--mqtt", "127.0.0.1:0")
    assert second.returncode == 1
    assert f"127.0.0.1:{qala.http} is in use by another program" in second.stderr
    assert "--http" in second.stderr


def test_a_server_that_is_long_in_coming_is_waited_for_and_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qala.run._SAY_S", 0.1)
    child, said = Child("the server", []), list[str]()
    child._command = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor = Supervisor([child], said.append)

    def say(text: str) -> None:
        said.append(text)
        supervisor.stopping = len(said) == 3

    config = load_config(flags={"data": tmp_path, "ingest.mqtt": f"127.0.0.1:{free_port()}"})
    supervisor.start()
    try:
        assert _until_ready(supervisor, config, say, None) == 0
    finally:
        supervisor.stop()
        supervisor._wake.close()
        supervisor._woken.close()
    assert len(said) == 3
    assert all("waiting for the door and the server" in text for text in said)


def test_a_signal_takes_all_down_within_5_seconds() -> None:
    with running() as qala:
        children = qala.ready().children().values()
        began = time.monotonic()
        assert qala.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert not any(alive(pid) for pid in children)
        assert not (qala.data / "qala.sock").exists()


def test_the_children_end_when_the_parent_is_killed() -> None:
    with running() as qala:
        children = list(qala.ready().children().values())
        qala.process.kill()
        qala.process.wait()
        until(lambda: not any(alive(pid) for pid in children), deadline_s=5)


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qala", "run", *flags], capture_output=True, text=True, timeout=60, check=False
    )
