"""What processes have used of the CPU, told by the kernel; and a Qala of the bench's own to look at."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from devices.errors import UnavailableError
from qala.process import answers

__all__ = ["Cpu", "Started", "cpu_of", "cpu_of_machine_s", "end", "free_port", "start_qala"]

_READY_S = 60.0
_STOP_S = 30.0
_LOOK_S = 0.02
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Cpu(msgspec.Struct):
    """CPU time, user and system [s]: of each command, and of each thread as "<command>: <name>"."""

    commands: dict[str, float]
    threads: dict[str, float]

    @property
    def whole_s(self) -> float:
        return sum(self.commands.values())

    def since(self, before: Cpu) -> Cpu:
        """Return what was used since."""
        return Cpu(_less(self.commands, before.commands), _less(self.threads, before.threads))


def _less(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}


def cpu_of(commands: Mapping[str, int]) -> Cpu:
    """Ask what commands have used, by their process ids; children that ended count to their parents."""
    threads: dict[str, float] = {}
    for command, pid in commands.items():
        for task in sorted((_PROC / str(pid) / "task").iterdir()):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended meanwhile
                used_s = int((task / "schedstat").read_text().split()[0]) / 1e9
                name = "main" if task.name == str(pid) else (task / "comm").read_text().strip()
                name = f"{command}: {name}"
                threads[name] = threads.get(name, 0.0) + used_s
    return Cpu({command: _used_s(pid) for command, pid in commands.items()}, threads)


def cpu_of_machine_s() -> float:
    """Return what all processors together have worked since the machine started [s]."""
    user, nice, system, _idle, _wait, *interrupts = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) * _TICK_S


def _used_s(pid: int) -> float:
    """Return user and system time of a process and of its children that have ended [s]."""
    fields = _stat(pid)
    return sum(int(fields[index]) for index in range(11, 15)) * _TICK_S


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, ..."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


class Started(msgspec.Struct):
    """A Qala that runs. `commands` are the process ids of `run`, `door` and `serve`."""

    data: Path
    http: tuple[str, int]
    mqtt: tuple[str, int]
    commands: dict[str, int]


@contextmanager
def start_qala(
    folder: Path, *, devices: str, zones: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Run `qala run` over an empty folder on free ports, with a devices file of this text, until the end of the block.

    `settings` are QALA_* variables.

    Raises UnavailableError where it does not start, or does not end when asked to.
    """
    data, http, mqtt = folder / "data", ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    (folder / "devices.csv").write_text(devices)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
    environment |= {"QALA_DEVICES_FILE": str(folder / "devices.csv"), "QALA_ZONES_FILE": str(zones), **(settings or {})}
    flags = ["--data", str(data), "--http", f"127.0.0.1:{http[1]}", "--mqtt", f"127.0.0.1:{mqtt[1]}"]
    with (folder / "log").open("wb") as log:
        parent = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "qala", "run", *flags], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            _wait_until_ready(parent, data, http, mqtt, folder / "log")
            yield Started(data, http, mqtt, {"run": parent.pid} | _children(parent.pid))
        finally:
            _stop(parent)


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes], within_s: float) -> None:
    """Ask a process to end, and make it where it does not."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(
    parent: subprocess.Popen[bytes], data: Path, http: tuple[str, int], mqtt: tuple[str, int], log: Path
) -> None:
    deadline = time.monotonic() + _READY_S
    while not (answers(mqtt) and answers(http) and answers(data / "qala.sock")):
        if parent.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError("qala run did not start", hint=log.read_text()[-2000:])
        time.sleep(_LOOK_S)


def _children(parent: int) -> dict[str, int]:
    """Return the process ids of a parent's children by their command."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if int(_stat(int(folder.name))[1]) == parent and "qala" in words:
                found[words[words.index("qala") + 1]] = int(folder.name)
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return found


def _stop(parent: subprocess.Popen[bytes]) -> None:
    if parent.poll() is None:
        parent.send_signal(signal.SIGTERM)
    try:
        parent.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        parent.kill()
        raise UnavailableError("qala run did not end when it was asked to", hint="run qala doctor") from None
